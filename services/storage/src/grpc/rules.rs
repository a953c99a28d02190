//! `RuleScanService`: the call port, for other services.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response};
use weir_core::{
    Result,
    port::{RuleRows, TelemetryReader},
};
use weir_grpc::{
    Answer,
    internal::{open, storage as convert},
    to_status,
};
use weir_proto::storage::v1::{
    ScanForRulesRequest, ScanForRulesResponse, rule_scan_service_server::RuleScanService,
};

use super::{Stream, serve};

/// Rows of one message at most: enough that a message costs nothing beside them.
const ROWS_MAX: usize = 256;
/// Bytes after which a message has no more rows: a window of HTTP/2 or so, and with the largest row still a small message.
const BYTES_MAX: usize = 1 << 20;

/// Answers by the port.
pub(super) struct Rules {
    pub(super) reader: Arc<dyn TelemetryReader>,
    pub(super) closing: CancellationToken,
}

#[tonic::async_trait]
impl RuleScanService for Rules {
    type ScanForRulesStream = Stream<ScanForRulesResponse>;

    /// The call's deadline is for the beginning, which waits for the log; a scan takes as long as its reader reads.
    async fn scan_for_rules(
        &self,
        request: Request<ScanForRulesRequest>,
    ) -> Answer<Self::ScanForRulesStream> {
        let asked = open(request)?;
        let scan = convert::to_scan(&asked).map_err(to_status)?;
        let rows = self.reader.scan_for_rules(scan).await.map_err(to_status)?;
        let pages = futures::stream::try_unfold(rows, next);
        Ok(Response::new(serve(pages.boxed(), &self.closing)))
    }
}

async fn next(mut rows: RuleRows) -> Result<Option<(ScanForRulesResponse, RuleRows)>> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    while page.len() < ROWS_MAX && bytes < BYTES_MAX {
        let Some(row) = rows.try_next().await? else { break };
        let row = convert::from_row(row);
        bytes += row.encoded_len();
        page.push(row);
    }
    Ok((!page.is_empty()).then_some((ScanForRulesResponse { rows: page }, rows)))
}
