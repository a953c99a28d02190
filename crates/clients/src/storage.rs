//! Stored telemetry in another process.

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::timeout;
use weir_core::{
    Result,
    port::{RuleRow, RuleRows, RuleScan, TelemetryReader},
};
use weir_grpc::internal::storage as convert;
use weir_proto::storage::v1::{
    ScanForRulesResponse, rule_scan_service_client::RuleScanServiceClient as Client,
};

use crate::{Peer, not_an_answer};

/// Storage waits up to 30 s until it has what the log had.
const OPEN_MAX: Duration = Duration::from_secs(40);
/// The next rows are a few reads of the store away.
const PAGE_MAX: Duration = Duration::from_secs(30);
/// A page is 1 MiB and one row; no row is as large as this.
const MESSAGE_MAX: usize = 16 << 20;

/// [`TelemetryReader`] over gRPC.
#[derive(Debug, Clone)]
pub struct StorageClient {
    peer: Peer,
}

impl StorageClient {
    /// Asks `peer`.
    pub fn new(peer: Peer) -> Self {
        Self { peer }
    }
}

#[async_trait]
impl TelemetryReader for StorageClient {
    async fn scan_for_rules(&self, scan: RuleScan) -> Result<RuleRows> {
        let answer = self.peer.call(OPEN_MAX, convert::from_scan(&scan), async |channel, request| {
            Client::new(channel).max_decoding_message_size(MESSAGE_MAX).scan_for_rules(request).await
        });
        let pages = answer.await?;
        let rows = stream::try_unfold((pages, self.peer.clone()), async |(mut pages, peer)| {
            let page = timeout(PAGE_MAX, pages.message()).await.map_err(|_| peer.timed_out())?;
            let page = page.map_err(|status| peer.failed(status).error)?;
            Ok(page.map(|page| (stream::iter(rows_of(page)), (pages, peer))))
        });
        Ok(rows.try_flatten().boxed())
    }
}

fn rows_of(page: ScanForRulesResponse) -> Vec<Result<RuleRow>> {
    page.rows.into_iter().map(|row| convert::to_row(row).map_err(not_an_answer)).collect()
}
