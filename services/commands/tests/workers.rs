//! What works in the background, over a store that fails: it goes on when it can, and says so while it cannot.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use support::{AllDevices, Fixture, device, eventually};
use tokio::sync::watch;
use weir_commands::{Config, Service};
use weir_core::{
    Partition, Result, Stream, Uid,
    command::Order,
    port::{
        CommandQueue, CommandSender, Expect, KeyRange, Records, SendCommand, Session, Stored, Table, Write,
    },
    progress::{Claim, PROGRESS},
};
use weir_runtime::Service as _;

const TIMERS: Table = Table("commands_timers");
const COMMANDS: Table = Table("commands");
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

/// Records that hold back what is inserted into a table, while `held` is set, and count the looks into another one.
struct Holding {
    inner: Arc<dyn Records>,
    held: (Table, watch::Sender<bool>),
    looks: (Table, AtomicU64),
}

#[async_trait]
impl Records for Holding {
    async fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        self.inner.get(table, partition, key).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        let found = self.inner.scan(table, partition, range, limit).await?;
        if table.0 == self.looks.0.0 && !found.is_empty() {
            self.looks.1.fetch_add(1, Ordering::SeqCst);
        }
        Ok(found)
    }
    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>> {
        if table.0 == self.held.0.0 && writes.iter().any(|write| write.expect == Expect::Absent) {
            self.held.1.subscribe().wait_for(|held| !held).await.unwrap();
        }
        self.inner.commit(table, partition, writes).await
    }
    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.inner.partitions(table, after, limit).await
    }
}

/// A service whose store can panic in this table, and what it stands on.
async fn start(table: Table) -> (Arc<Service>, Arc<Panicking>, Fixture) {
    let fixture = Fixture::start().await;
    let records =
        Arc::new(Panicking { inner: Arc::clone(&fixture.records) as _, table, panics: false.into() });
    (start_on(&fixture, Arc::clone(&records) as _).await, records, fixture)
}

/// A service in place of the fixture's, on this store.
async fn start_on(fixture: &Fixture, records: Arc<dyn Records>) -> Arc<Service> {
    fixture.service.drain().await;
    Service::start(
        Config { partitions: 4, ..Config::default() },
        Arc::clone(&fixture.log),
        records,
        Arc::clone(&fixture.signals) as _,
        Arc::new(weir_log_embedded::LocalLeases::new()),
        Arc::new(AllDevices),
        Arc::clone(&fixture.clock) as _,
        &prometheus::Registry::new(),
    )
    .await
    .unwrap()
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

/// What leads to a command is written before it. Its time is over in between, where the store is slow: it must not be taken
/// for the leftover of a crash, for then nobody would ever end it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_time_is_over_while_it_is_copied_expires() {
    let fixture = Fixture::start().await;
    let records = Arc::new(Holding {
        inner: Arc::clone(&fixture.records) as _,
        held: (COMMANDS, watch::Sender::new(false)),
        looks: (TIMERS, AtomicU64::new(0)),
    });
    let service = start_on(&fixture, Arc::clone(&records) as _).await;
    let to = device("device-1");
    let found =
        async |table, place: &[u8]| fixture.records.scan(table, place, KeyRange::all(), 10).await.unwrap();
    let timers = format!("{:05}", Partition::of(to.uid, 4).0);
    let has_timers = async |count| {
        eventually("what leads to it is there", async || {
            (found(TIMERS, timers.as_bytes()).await.len() == count).then_some(())
        })
        .await;
    };
    // One that is there, so that the timers are looked at when its time is over, and one on its way.
    send(&service, "first").await;
    has_timers(1).await;
    ready_again(&service).await;
    records.held.1.send_replace(true);
    send(&service, "late").await;
    has_timers(2).await;
    fixture.clock.advance(Duration::from_secs(700));
    let before = records.looks.1.load(Ordering::SeqCst);
    eventually("their time was seen to be over, and again", async || {
        fixture.clock.advance(Duration::from_secs(1));
        (records.looks.1.load(Ordering::SeqCst) >= before + 3).then_some(())
    })
    .await;
    records.held.1.send_replace(false);
    let place = format!("{}/{}", to.tenant, to.uid);
    eventually("both expire", async || {
        let all = found(COMMANDS, place.as_bytes()).await;
        let is_over =
            |stored: &&Stored| String::from_utf8_lossy(&stored.value).contains("\"state\":\"EXPIRED\"");
        let listed: Vec<_> = all.iter().filter(|stored| stored.key.first() == Some(&b'c')).collect();
        (listed.len() == 2 && listed.iter().all(is_over)).then_some(())
    })
    .await;
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
