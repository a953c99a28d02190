//! What works in the background, over a store that fails: it goes on when it can, and says so while it cannot.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use support::{AllDevices, Fixture, device, eventually};
use weir_commands::{Config, Service};
use weir_core::{
    Partition, Result, Stream, Uid,
    command::Order,
    port::{CommandQueue, CommandSender, KeyRange, Records, SendCommand, Session, Stored, Table, Write},
    progress::{Claim, PROGRESS},
};
use weir_runtime::Service as _;

const TIMERS: Table = Table("commands_timers");
const OPEN: Table = Table("commands_open");

/// Records that panic where a table is used, while `panics` is set.
struct Panicking {
    inner: Arc<dyn Records>,
    table: Table,
    panics: AtomicBool,
}

impl Panicking {
    fn check(&self, table: Table) {
        assert!(table.0 != self.table.0 || !self.panics.load(Ordering::SeqCst), "injected");
    }
}

#[async_trait]
impl Records for Panicking {
    async fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        self.check(table);
        self.inner.get(table, partition, key).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        self.check(table);
        self.inner.scan(table, partition, range, limit).await
    }
    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>> {
        self.check(table);
        self.inner.commit(table, partition, writes).await
    }
    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.inner.partitions(table, after, limit).await
    }
}

/// A service whose store can panic in this table, and what it stands on.
async fn start(table: Table) -> (Arc<Service>, Arc<Panicking>, Fixture) {
    let fixture = Fixture::start().await;
    fixture.service.drain().await;
    let records =
        Arc::new(Panicking { inner: Arc::clone(&fixture.records) as _, table, panics: false.into() });
    let service = Service::start(
        Config { partitions: 4, ..Config::default() },
        Arc::clone(&fixture.log),
        Arc::clone(&records) as _,
        Arc::clone(&fixture.signals) as _,
        Arc::new(weir_log_embedded::LocalLeases::new()),
        Arc::new(AllDevices),
        Arc::clone(&fixture.clock) as _,
        &prometheus::Registry::new(),
    )
    .await
    .unwrap();
    (service, records, fixture)
}

async fn send(service: &Service, request_id: &str) -> Uid {
    let send = SendCommand {
        to: device("device-1"),
        name: "open".to_owned(),
        payload: Bytes::from_static(b"{}"),
        ttl: Duration::from_secs(600),
        order: Order::OnDelivery,
        request_id: request_id.to_owned(),
        actor: "token:test".to_owned(),
    };
    service.send(send).await.unwrap().0
}

async fn ready_again(service: &Service) {
    eventually("the service is ready again", async || service.ready().await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_another_claimed_is_claimed_again_and_copied_on() {
    let fixture = Fixture::start().await;
    let to = device("device-1");
    let epoch = fixture.attach(&to).await;
    for round in 0..2 {
        for partition in (0..4).map(Partition) {
            let records = Arc::clone(&fixture.records) as Arc<dyn Records>;
            Claim::take(records, "commands", Stream::Commands, partition).await.unwrap();
        }
        for n in 0..2 {
            let id = fixture.send(&to, &format!("{round}/{n}")).await.unwrap();
            assert_eq!(fixture.next(&to, epoch).await.0, id);
            fixture.service.sent(&to, epoch, id).await.unwrap();
            fixture.service.delivered(&to, epoch, id).await.unwrap();
        }
    }
    ready_again(&fixture.service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_panics_is_not_ready_and_copies_on_when_it_can() {
    let (service, records, _fixture) = start(PROGRESS).await;
    let to = device("device-1");
    let epoch = service.attach(&to, Session(Uid::random())).await.unwrap();
    records.panics.store(true, Ordering::SeqCst);
    let first = send(&service, "1").await;
    let trouble = eventually("the panic is told", async || service.ready().await.err()).await;
    assert!(trouble.contains("panicked"), "{trouble}");
    records.panics.store(false, Ordering::SeqCst);
    ready_again(&service).await;
    let next = async || service.next(&to, epoch).await.unwrap().map(|queued| queued.command.request.id);
    assert_eq!(eventually("the first may leave", next).await, first);
    service.sent(&to, epoch, first).await.unwrap();
    service.delivered(&to, epoch, first).await.unwrap();
    let second = send(&service, "2").await;
    assert_eq!(eventually("the second may leave", next).await, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_panics_is_not_ready_and_ends_commands_when_it_can() {
    let (service, records, fixture) = start(TIMERS).await;
    let to = device("device-1");
    let epoch = service.attach(&to, Session(Uid::random())).await.unwrap();
    let id = send(&service, "1").await;
    let queued = async || service.next(&to, epoch).await.unwrap();
    assert_eq!(eventually("it may leave", queued).await.command.request.id, id);
    records.panics.store(true, Ordering::SeqCst);
    fixture.clock.advance(Duration::from_secs(601));
    let trouble = eventually("the panic is told", async || service.ready().await.err()).await;
    assert!(trouble.contains("panicked"), "{trouble}");
    records.panics.store(false, Ordering::SeqCst);
    ready_again(&service).await;
    eventually("the command is no longer open", async || {
        let tenant = to.tenant.as_str().as_bytes();
        let open = fixture.records.scan(OPEN, tenant, KeyRange::all(), 1).await.unwrap();
        open.is_empty().then_some(())
    })
    .await;
}
