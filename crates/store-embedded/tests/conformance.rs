//! The port suites on the embedded stores.

use std::sync::Arc;

use tempfile::TempDir;
use weir_core::port::{Records, TelemetryStore};
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
