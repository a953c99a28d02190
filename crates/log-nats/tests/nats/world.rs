//! Servers and connections for the tests.

pub(crate) mod proxy;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use weir_config::{ByteSize, Durability};
use weir_core::{
    Error, ErrorKind, Partition, Stream, Uid,
    port::{Log, LogReader, Record},
};
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

/// JetStream as an operator uses it.
pub(crate) async fn admin(servers: &[String]) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(servers).await.unwrap())
}

pub(crate) const STREAM: Stream = Stream::Readings;
pub(crate) const ONE: Partition = Partition(1);
pub(crate) const TWO: Partition = Partition(2);

/// Longer than anything takes on a slow machine; only a failure waits as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes bodies that are their ids; while the bus is away, the same again.
pub(crate) async fn publish(log: &dyn Log, partition: Partition, id: u128) -> u64 {
    let until = Instant::now() + PATIENCE;
    loop {
        let bytes = Bytes::from(id.to_string());
        match log.publish(STREAM, partition, Uid::from_u128(id), bytes).await {
            Ok(sequence) => return sequence,
            Err(error) => {
                assert!(
                    error.kind().retryable() && Instant::now() < until,
                    "{id} is not published: {error:?}"
                );
            }
        }
    }
}

/// Reads until there are `count` records; while the bus is away, again.
pub(crate) async fn read(reader: &mut dyn LogReader, count: usize) -> Vec<Record> {
    let until = Instant::now() + PATIENCE;
    let mut records = vec![];
    while records.len() < count {
        match reader.next(1 << 20, Duration::from_millis(200)).await {
            Ok(batch) => records.extend(batch.records),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
        }
        assert!(Instant::now() < until, "{} of {count} records came within {PATIENCE:?}", records.len());
    }
    records
}

pub(crate) fn ids(records: &[Record]) -> Vec<u128> {
    records.iter().map(|record| record.id.as_u128()).collect()
}

/// The error that a reader comes to, leaving out that the bus is away for a moment.
pub(crate) async fn fails(reader: &mut dyn LogReader) -> Error {
    let until = Instant::now() + PATIENCE;
    loop {
        match reader.next(1 << 20, Duration::from_millis(200)).await {
            Err(error) if error.kind() != ErrorKind::Unavailable => return error,
            outcome => assert!(Instant::now() < until, "no failure within {PATIENCE:?}, but {outcome:?}"),
        }
    }
}
