//! The suites of the ports.

use std::sync::Arc;

use tempfile::TempDir;
use weir_conformance::{leases::Processes, progress::Engines};
use weir_core::port::{Log, Signals};
use weir_log_nats::Bus;
use weir_store_embedded::EmbeddedStore;

use crate::world;

macro_rules! suites {
    ($servers:path, $replicas:literal) => {
        use super::*;

        async fn bus() -> Option<Arc<Bus>> {
            Some(world::connect(&world::config(&$servers()?, $replicas)).await)
        }

        async fn log() -> Option<(Arc<dyn Log>, Arc<Bus>)> {
            let bus = bus().await?;
            Some((bus.log(), bus))
        }

        async fn signals() -> Option<(Arc<dyn Signals>, Arc<Bus>)> {
            let bus = bus().await?;
            Some((bus.signals(), bus))
        }

        async fn leases() -> Option<(Processes, ())> {
            let config = world::config(&$servers()?, $replicas);
            let start = move || {
                let config = config.clone();
                async move { world::connect(&config).await.leases() }
            };
            Some((Box::new(move || Box::pin(start())), ()))
        }

        async fn progress() -> Option<(Engines, TempDir)> {
            let servers = $servers()?;
            let dir = TempDir::new().unwrap();
            let records = EmbeddedStore::open(dir.path(), weir_store_embedded::Options::default()).unwrap();
            let log = move || {
                let config = world::config(&servers, $replicas);
                Box::pin(async move { world::connect(&config).await.log() }) as _
            };
            Some((Engines { records, log: Box::new(log) }, dir))
        }

        weir_conformance::log_suite!(log);
        weir_conformance::signals_suite!(signals);
        weir_conformance::leases_suite!(leases);
        weir_conformance::progress_suite!(progress);
    };
}

mod on_one_node {
    suites!(world::one, 1);
}

mod on_three_nodes {
    suites!(world::three, 3);
}
