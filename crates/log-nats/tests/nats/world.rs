//! Servers and connections for the tests.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use weir_config::{ByteSize, Durability};
use weir_log_nats::{Bus, Config, Options};
use weir_test_servers::nats;

/// One server of one node that the tests share, each under a prefix of its own.
pub(crate) fn one() -> Option<Vec<String>> {
    static SHARED: OnceLock<Result<nats::Bus, String>> = OnceLock::new();
    if let Some(given) = nats::given() {
        return Some(given);
    }
    shared(SHARED.get_or_init(|| nats::Bus::start(&nats::Options::default())))
}

/// A cluster of three that the tests share.
pub(crate) fn three() -> Option<Vec<String>> {
    static SHARED: OnceLock<Result<nats::Bus, String>> = OnceLock::new();
    shared(SHARED.get_or_init(|| nats::Bus::start(&nats::Options { nodes: 3, ..nats::Options::default() })))
}

fn shared(bus: &Result<nats::Bus, String>) -> Option<Vec<String>> {
    let bus = weir_test_servers::or_skip("nats-server", bus.as_ref().map_err(Clone::clone))?;
    Some(bus.servers())
}

/// A server of the test's own.
pub(crate) fn own(options: nats::Options) -> Option<Arc<nats::Bus>> {
    weir_test_servers::or_skip("nats-server", nats::Bus::start(&options)).map(Arc::new)
}

/// A configuration under a prefix that no other test has.
pub(crate) fn config(servers: &[String], replicas: u8) -> Config {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Config { servers: servers.to_vec(), prefix, replicas, ..Config::default() }
}

pub(crate) fn options() -> Options {
    Options {
        partitions: 16,
        durability: Durability::Process,
        max_bytes: ByteSize::mib(64),
        client: "a test".to_owned(),
    }
}

pub(crate) async fn connect(config: &Config) -> Arc<Bus> {
    Arc::new(Bus::connect(config, options()).await.unwrap())
}
