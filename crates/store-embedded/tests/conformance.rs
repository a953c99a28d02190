//! The port suites on the embedded stores.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail as tests do"
)]

use std::sync::Arc;

use tempfile::TempDir;
use weir_conformance::progress::Engines;
use weir_core::port::{Log, Records, TelemetryStore};
use weir_log_embedded::EmbeddedLog;
use weir_store_embedded::{EmbeddedStore, Options};

fn open() -> (Arc<EmbeddedStore>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (EmbeddedStore::open(dir.path(), Options::default()).unwrap(), dir)
}

mod records {
    use super::*;

    async fn open() -> (Arc<dyn Records>, TempDir) {
        let (store, dir) = super::open();
        (store, dir)
    }
    weir_conformance::records_suite!(open);
}

mod telemetry {
    use super::*;

    async fn open() -> (Arc<dyn TelemetryStore>, TempDir) {
        let (store, dir) = super::open();
        (store, dir)
    }
    weir_conformance::telemetry_suite!(open);
}

mod progress {
    use super::*;

    async fn open() -> (Engines, TempDir) {
        let (records, dir) = super::open();
        let logs = dir.path().join("logs");
        let made = std::sync::atomic::AtomicU32::new(0);
        let log = move || {
            let number = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let log: Arc<dyn Log> = Arc::new(
                EmbeddedLog::open(&logs.join(number.to_string()), weir_log_embedded::Options::default())
                    .unwrap(),
            );
            Box::pin(std::future::ready(log)) as _
        };
        (Engines { records, log: Box::new(log) }, dir)
    }
    weir_conformance::progress_suite!(open);
}
