//! A request from its admission to its end.

use std::{cell::Cell, collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use weir_core::{Error, ErrorKind, Result, TenantId};
use weir_promql::{Budget, Labels, Outcome, Query};

use super::{catalog::Metadata, request::Listed, source::Stored};
use crate::Service;

/// Looks at the clock are far apart: an evaluation asks after each series, and at each step of some.
const LOOK_EVERY: u32 = 64;

impl Service {
    /// The answer to a query.
    pub(super) async fn promql(
        self: &Arc<Self>,
        tenant: &TenantId,
        query: Query,
        timeout: Duration,
    ) -> Result<Outcome> {
        let until = Instant::now() + timeout;
        let permit = self.promql.wait(tenant, until).await?;
        let budget = Budget::new(self.config.query.promql_samples);
        let source = self.stored(tenant);
        let data = timeout_at(until, query.read(&source, &budget)).await.map_err(|_| late(timeout))??;
        // Ends the computation where nobody waits for it any more.
        let gone = self.closing.child_token();
        let waiting = gone.clone().drop_guard();
        let computing = tokio::task::spawn_blocking(move || {
            let _permit = permit; // it counts for as long as it computes
            let looks = Cell::new(0_u32);
            let check = || {
                looks.set(looks.get().wrapping_add(1));
                if looks.get().is_multiple_of(LOOK_EVERY) { go_on(&gone, until, timeout) } else { Ok(()) }
            };
            query.evaluate(&data, &budget, &check)
        });
        let outcome =
            computing.await.map_err(|source| Error::internal("a query ended early").with_source(source))?;
        drop(waiting);
        outcome
    }

    /// The labels of series.
    pub(super) async fn prometheus_series(
        &self,
        tenant: &TenantId,
        listed: &Listed,
    ) -> Result<BTreeSet<Labels>> {
        self.limited(tenant, async {
            self.stored(tenant).series(listed, &Budget::new(self.config.query.promql_samples)).await
        })
        .await
    }

    /// What profiles say of metrics.
    pub(super) async fn prometheus_metadata(
        &self,
        tenant: &TenantId,
    ) -> Result<std::collections::BTreeMap<String, BTreeSet<Metadata>>> {
        self.limited(tenant, async { self.stored(tenant).metadata().await }).await
    }

    async fn limited<T>(&self, tenant: &TenantId, work: impl Future<Output = Result<T>>) -> Result<T> {
        let timeout = self.config.query.promql_timeout;
        let until = Instant::now() + timeout;
        let _permit = self.promql.wait(tenant, until).await?;
        timeout_at(until, work).await.map_err(|_| late(timeout))?
    }

    fn stored(&self, tenant: &TenantId) -> Stored<'_> {
        Stored { registry: &*self.registry, reader: self.reader("promql"), tenant: tenant.clone() }
    }
}

fn go_on(gone: &CancellationToken, until: Instant, timeout: Duration) -> Result<()> {
    if gone.is_cancelled() {
        return Err(Error::new(ErrorKind::Cancelled, "CANCELLED", "query was canceled in query execution"));
    }
    if Instant::now() >= until { Err(late(timeout)) } else { Ok(()) }
}

fn late(timeout: Duration) -> Error {
    let message = format!("query timed out in query execution: the limit is {timeout:?}");
    Error::new(ErrorKind::DeadlineExceeded, "DEADLINE_EXCEEDED", message).with_limit(format!("{timeout:?}"))
}
