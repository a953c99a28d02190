//! The suites of `Log` and `Signals` on the embedded engine: with the segments of production, and with small ones, where
//! every read and trim crosses files and nothing fits in memory.
#![allow(clippy::unwrap_used)] // in the helpers too, a panic is the report

use std::sync::Arc;

use tempfile::TempDir;
use weir_core::port::{Leases, Log, Signals};
use weir_log_embedded::{Durability, EmbeddedLog, LocalLeases, LocalSignals, Options};

fn open(options: Options) -> (Arc<dyn Log>, TempDir) {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(dir.path(), options).unwrap();
    (Arc::new(log), dir)
}

mod as_it_comes {
    use super::*;

    async fn log() -> (Arc<dyn Log>, TempDir) {
        open(Options::default())
    }

    weir_conformance::log_suite!(log);
    weir_conformance::log_suite!(log: a_reader_whose_partition_lost_nothing_to_a_trim_gets_every_record);
}

mod in_small_segments_without_sync {
    use super::*;

    async fn log() -> (Arc<dyn Log>, TempDir) {
        open(Options { segment_bytes: 64 * 1024, durability: Durability::Process, ..Options::default() })
    }

    weir_conformance::log_suite!(log);
    weir_conformance::log_suite!(log: a_reader_whose_partition_lost_nothing_to_a_trim_gets_every_record);
}

mod signals {
    use super::*;

    async fn signals() -> (Arc<dyn Signals>, ()) {
        (Arc::new(LocalSignals::new()), ())
    }

    weir_conformance::signals_suite!(signals);
}

mod leases {
    use super::*;

    async fn leases() -> (weir_conformance::leases::Processes, ()) {
        (Box::new(|| Box::pin(async { Arc::new(LocalLeases::new()) as Arc<dyn Leases> })), ())
    }

    // The others need a second process, and here there is none.
    weir_conformance::leases_suite!(leases: a_member_is_in_its_own_view_and_it_comes_once);
}
