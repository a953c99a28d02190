//! The port suites.

use std::sync::Arc;

use tokio::sync::RwLockReadGuard;
use weir_store_scylla::ScyllaStore;

type Held = RwLockReadGuard<'static, ()>;

async fn store() -> Option<(Arc<ScyllaStore>, Held)> {
    let server = super::server()?;
    let whole = server.whole().await;
    Some((server.store().await, whole))
}

mod records {
    use weir_core::port::Records;

    use super::*;

    async fn open() -> Option<(Arc<dyn Records>, Held)> {
        let (store, held) = store().await?;
        Some((store, held))
    }
    weir_conformance::records_suite!(open);
}

mod telemetry {
    use weir_core::port::TelemetryStore;

    use super::*;

    async fn open() -> Option<(Arc<dyn TelemetryStore>, Held)> {
        let (store, held) = store().await?;
        Some((store, held))
    }
    weir_conformance::telemetry_suite!(open);
}

mod progress {
    use tempfile::TempDir;
    use weir_conformance::progress::Engines;

    use super::*;

    async fn open() -> Option<(Engines, (TempDir, Held))> {
        let (store, held) = store().await?;
        let (engines, dir) = crate::support::engines(store);
        Some((engines, (dir, held)))
    }
    weir_conformance::progress_suite!(open);
}
