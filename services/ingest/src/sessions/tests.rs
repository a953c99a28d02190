use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use weir_core::port::{Member, Stored, Table, Topic, View};
use weir_log_embedded::LocalSignals;

use super::*;
use crate::testing;

/// A clock that a test sets.
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    records: Arc<dyn Records>,
    signals: Arc<LocalSignals>,
    clock: Arc<Hand>,
    sessions: Sessions,
    device: DeviceKey,
}

fn replica(records: &Arc<dyn Records>, signals: &Arc<LocalSignals>, clock: &Arc<Hand>, id: u128) -> Sessions {
    let replicas = Arc::new(Replicas::new(Uid::from_u128(id)));
    Sessions::new(Arc::clone(records), Arc::clone(signals) as _, Arc::clone(clock) as _, replicas, 4)
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let records = testing::records(dir.path());
        let clock = Arc::new(Hand(AtomicI64::new(1_700_000_000_000_000)));
        let device = testing::device("t1", "d1", Uid::from_u128(1)).key();
        let signals = Arc::new(LocalSignals::new());
        let sessions = replica(&records, &signals, &clock, 1);
        Self { _dir: dir, records, signals, clock, sessions, device }
    }

    /// Another replica, over the same store.
    fn replica(&self, id: u128) -> Sessions {
        replica(&self.records, &self.signals, &self.clock, id)
    }

    /// As after a restart: what is stored stays, what is in memory is gone.
    fn restart(&mut self) {
        self.sessions = self.replica(Uid::random().as_u128());
    }

    fn pass(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    fn connect(&self, client_id: &str) -> Connect {
        Connect {
            device: self.device.clone(),
            client_id: client_id.to_owned(),
            protocol: "mqtt/5",
            remote: "127.0.0.1:1".to_owned(),
            clean_start: false,
            expiry: Duration::from_secs(60),
        }
    }

    async fn open(&self, client_id: &str) -> OpenSession {
        self.pass(1);
        self.sessions.open(self.connect(client_id)).await.unwrap()
    }

    /// What the store has of the device.
    async fn stored(&self) -> usize {
        let place = partition(&self.device.tenant, &self.device.device);
        self.records.scan(SESSIONS, &place, KeyRange::all(), 10).await.unwrap().len()
    }

    async fn list(&self) -> Vec<(String, bool)> {
        let sessions = self.sessions.of(&self.device.tenant, &self.device.device).await.unwrap();
        sessions.into_iter().map(|session| (session.client_id, session.connected)).collect()
    }
}

fn filter(filter: &str) -> Subscription {
    Subscription { filter: filter.to_owned(), qos: 1 }
}

#[tokio::test]
async fn a_session_is_resumed_with_its_subscriptions_until_it_expires() {
    let mut bench = Bench::new();
    let session = bench.open("a").await;
    assert!(!session.present);
    bench.sessions.subscribed(&session, vec![filter("v1/#")], true).await.unwrap();
    bench.sessions.close(session, None).await.unwrap();
    bench.restart();
    bench.pass(30);
    let session = bench.open("a").await;
    assert!(session.present);
    assert_eq!(session.subscriptions, [filter("v1/#")]);
    bench.sessions.close(session, None).await.unwrap();
    bench.pass(60);
    assert!(bench.list().await.is_empty());
    let session = bench.open("a").await;
    assert!(!session.present && session.subscriptions.is_empty());
}

#[tokio::test]
async fn a_clean_start_or_an_expiry_of_zero_leaves_nothing() {
    let bench = Bench::new();
    let session = bench.open("a").await;
    bench.sessions.subscribed(&session, vec![filter("x")], true).await.unwrap();
    bench.sessions.close(session, None).await.unwrap();
    let session = bench.sessions.open(Connect { clean_start: true, ..bench.connect("a") }).await.unwrap();
    assert!(!session.present && session.subscriptions.is_empty());
    bench.sessions.close(session, Some(Duration::ZERO)).await.unwrap();
    assert!(bench.list().await.is_empty());
}

#[tokio::test]
async fn the_same_client_takes_its_session_over_and_the_old_connection_changes_nothing_more() {
    let bench = Bench::new();
    let mut old = bench.open("a").await;
    let new = bench.open("a").await;
    assert_eq!(old.ended.try_recv().unwrap(), Ended::TakenOver);
    assert!(new.present && new.id != old.id);
    bench.sessions.subscribed(&old, vec![filter("old")], true).await.unwrap();
    bench.sessions.close(old, Some(Duration::ZERO)).await.unwrap();
    assert_eq!(bench.list().await, [("a".to_owned(), true)]);
    bench.sessions.close(new, None).await.unwrap();
    assert!(bench.open("a").await.subscriptions.is_empty());
}

#[tokio::test]
async fn the_fifth_session_of_a_device_closes_the_oldest() {
    let bench = Bench::new();
    let mut open = Vec::new();
    for client in ["a", "b", "c", "d"] {
        open.push(bench.open(client).await);
    }
    let fifth = bench.open("e").await;
    assert_eq!(open[0].ended.try_recv().unwrap(), Ended::TooMany);
    assert!(open[1..].iter_mut().all(|session| session.ended.try_recv().is_err()));
    let clients: Vec<_> = bench.list().await.into_iter().map(|(client, _)| client).collect();
    assert_eq!(clients, ["b", "c", "d", "e"]);
    drop(fifth);
}

#[tokio::test]
async fn after_a_restart_nothing_is_connected() {
    let mut bench = Bench::new();
    let session = bench.open("a").await;
    assert_eq!(bench.list().await, [("a".to_owned(), true)]);
    std::mem::forget(session); // a kill runs no destructor
    bench.pass(3_600);
    bench.restart();
    assert_eq!(bench.list().await, [("a".to_owned(), false)], "it could not come back while nothing ran");
    bench.pass(61);
    assert!(bench.list().await.is_empty());
    bench.sessions.sweep().await.unwrap();
    assert_eq!(bench.stored().await, 0);
}

#[tokio::test]
async fn a_device_made_anew_under_its_id_inherits_nothing() {
    let mut bench = Bench::new();
    let session = bench.open("a").await;
    bench.sessions.subscribed(&session, vec![filter("x")], true).await.unwrap();
    bench.sessions.close(session, None).await.unwrap();
    bench.device.uid = Uid::from_u128(2);
    assert!(!bench.open("a").await.present);
}

#[tokio::test]
async fn pages_follow_each_other_over_all_shards_without_gap_and_those_of_a_device_are_together() {
    let mut bench = Bench::new();
    let mut open = Vec::new();
    for device in 0..40_u128 {
        bench.device = testing::device("t1", &format!("d{device:02}"), Uid::from_u128(device)).key();
        open.push(bench.open("x").await);
        open.push(bench.open("y").await);
    }
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (page, next) = bench.sessions.list(&bench.device.tenant, after.as_deref(), 3).await.unwrap();
        seen.extend(page.into_iter().map(|session| (session.device.to_string(), session.client_id)));
        pages += 1;
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert!(seen.chunks(2).all(|two| two[0].0 == two[1].0 && two[0].1 == "x" && two[1].1 == "y"), "{seen:?}");
    assert!(!seen.is_sorted(), "they are spread");
    seen.sort();
    let all = (0..40).flat_map(|n| ["x", "y"].map(|client| (format!("d{n:02}"), client.to_owned())));
    assert_eq!((seen, pages), (all.collect(), 80 / 3 + 1));
    let error = bench.sessions.list(&bench.device.tenant, Some(b"\xffd1"), 3).await.unwrap_err();
    assert_eq!(error.reason(), "PAGE_TOKEN_INVALID");
}

fn see(sessions: &Sessions, ids: &[u128], bench: &Bench) {
    let member = |id: &u128| Member { id: Uid::from_u128(*id), name: id.to_string() };
    let view = View { members: ids.iter().map(member).collect() };
    sessions.replicas.see(&view, bench.clock.now());
}

async fn list_at(sessions: &Sessions, bench: &Bench) -> Vec<(String, bool)> {
    let found = sessions.of(&bench.device.tenant, &bench.device.device).await.unwrap();
    found.into_iter().map(|session| (session.client_id, session.connected)).collect()
}

fn connected(client: &str) -> Vec<(String, bool)> {
    vec![(client.to_owned(), true)]
}

#[tokio::test]
async fn a_session_at_one_replica_is_listed_at_the_other_and_offline_once_that_one_is_gone() {
    let bench = Bench::new();
    let other = bench.replica(2);
    see(&bench.sessions, &[1, 2], &bench);
    see(&other, &[1, 2], &bench);
    let session = other.open(bench.connect("a")).await.unwrap();
    assert_eq!(bench.list().await, connected("a"));
    assert_eq!(list_at(&other, &bench).await, connected("a"));
    std::mem::forget(session); // a kill runs no destructor
    see(&bench.sessions, &[1], &bench);
    assert_eq!(bench.list().await, [("a".to_owned(), false)]);
    bench.pass(59);
    assert_eq!(
        bench.list().await,
        [("a".to_owned(), false)],
        "its expiry counts from when it was seen to be gone"
    );
    bench.pass(1);
    assert!(bench.list().await.is_empty());
    bench.sessions.sweep().await.unwrap();
    assert_eq!(bench.stored().await, 0);
}

#[tokio::test]
async fn a_client_that_moved_is_online_and_what_its_dead_replica_left_changes_nothing() {
    let bench = Bench::new();
    let other = bench.replica(2);
    see(&bench.sessions, &[1, 2], &bench);
    let old = other.open(bench.connect("a")).await.unwrap();
    other.subscribed(&old, vec![filter("v1/#")], true).await.unwrap();
    let new = bench.open("a").await;
    assert!(new.present && new.subscriptions == [filter("v1/#")]);
    other.subscribed(&old, vec![filter("old")], true).await.unwrap();
    other.close(old, Some(Duration::ZERO)).await.unwrap();
    see(&bench.sessions, &[1], &bench);
    assert_eq!(bench.list().await, connected("a"));
    bench.sessions.close(new, None).await.unwrap();
    assert_eq!(bench.open("a").await.subscriptions, [filter("v1/#")]);
}

#[tokio::test]
async fn an_open_at_one_replica_ends_the_connection_at_the_other_when_it_hears_of_it() {
    let bench = Bench::new();
    let other = bench.replica(2);
    let mut heard = bench.signals.subscribe(Topic::Sessions).await;
    let mut old = other.open(bench.connect("a")).await.unwrap();
    let new = bench.open("a").await;
    let signal = heard.next().await.unwrap().unwrap();
    assert_eq!(bench.sessions.concerns(&signal), None, "the one that opened it knows");
    let uid = other.concerns(&signal).unwrap();
    other.check_device(uid).await.unwrap();
    assert_eq!(old.ended.try_recv().unwrap(), Ended::TakenOver);
    assert!(bench.sessions.check_device(uid).await.is_ok());
    assert_eq!(bench.list().await, connected("a"), "the newer one stays");
    drop(new);
}

#[tokio::test]
async fn too_many_sessions_over_all_replicas_end_the_oldest_wherever_it_is() {
    let bench = Bench::new();
    let other = bench.replica(2);
    see(&bench.sessions, &[1, 2], &bench);
    let mut oldest = other.open(bench.connect("a")).await.unwrap();
    let mut open = Vec::new();
    for client in ["b", "c", "d", "e"] {
        open.push(bench.open(client).await);
    }
    other.check_device(bench.device.uid).await.unwrap();
    assert_eq!(oldest.ended.try_recv().unwrap(), Ended::TooMany);
    other.close(oldest, None).await.unwrap();
    let clients: Vec<_> = bench.list().await.into_iter().map(|(client, _)| client).collect();
    assert_eq!(clients, ["b", "c", "d", "e"], "what had to go does not come back");
}

#[tokio::test]
async fn where_signals_are_lost_a_replica_finds_out_by_itself_and_keeps_last_seen_current() {
    let bench = Bench::new();
    let (other, end) = (bench.replica(2), CancellationToken::new());
    let mut taken = other.open(bench.connect("a")).await.unwrap();
    let stays = other.open(bench.connect("b")).await.unwrap();
    let new = bench.open("a").await;
    bench.pass(600);
    other.seen(&stays);
    other.hurry();
    let keeping = other.keep(&end);
    let ended = async {
        assert_eq!((&mut taken.ended).await.unwrap(), Ended::TakenOver);
        end.cancel();
    };
    tokio::time::timeout(testing::PATIENCE, async { tokio::join!(keeping, ended) }).await.unwrap();
    let refreshed = bench.sessions.own(stays.entry.owner(), stays.id.0).await.unwrap().unwrap().0;
    assert_eq!(refreshed.last_seen, bench.clock.now());
    drop((new, taken));
}

#[tokio::test]
async fn an_end_that_could_not_be_recorded_is_recorded_later() {
    let bench = Bench::new();
    let (other, end) = (bench.replica(2), CancellationToken::new());
    see(&bench.sessions, &[1, 2], &bench);
    drop(other.open(bench.connect("a")).await.unwrap());
    assert_eq!(bench.list().await, connected("a"), "nobody else can know");
    let told = async {
        while bench.list().await != [("a".to_owned(), false)] {
            tokio::task::yield_now().await;
        }
        end.cancel();
    };
    let both = async { tokio::join!(other.keep(&end), told) };
    tokio::time::timeout(testing::PATIENCE, both).await.unwrap();
}

#[tokio::test]
async fn a_session_of_a_replica_that_is_not_seen_yet_is_not_removed() {
    let bench = Bench::new();
    let newcomer = bench.replica(3);
    let short = Connect { expiry: Duration::ZERO, ..bench.connect("a") };
    let session = newcomer.open(short).await.unwrap();
    bench.pass(1);
    let beside = bench.open("b").await;
    bench.sessions.sweep().await.unwrap();
    assert!(newcomer.own(session.entry.owner(), session.id.0).await.unwrap().is_some());
    see(&bench.sessions, &[1, 3], &bench);
    bench.pass(3_600);
    bench.sessions.sweep().await.unwrap();
    assert_eq!(bench.list().await, [("a".to_owned(), true), ("b".to_owned(), true)]);
    drop(beside);
}

#[tokio::test]
async fn replicas_that_open_the_same_client_at_once_leave_one_session() {
    let bench = Bench::new();
    let other = bench.replica(2);
    for _ in 0..20 {
        let (one, two) =
            tokio::join!(bench.sessions.open(bench.connect("a")), other.open(bench.connect("a")));
        let (mut one, mut two) = (one.unwrap(), two.unwrap());
        bench.sessions.check_device(bench.device.uid).await.unwrap();
        other.check_device(bench.device.uid).await.unwrap();
        let ended = [one.ended.try_recv().is_ok(), two.ended.try_recv().is_ok()];
        assert!(ended[0] != ended[1], "{ended:?}");
        assert_eq!(bench.stored().await, 1);
    }
}

#[tokio::test]
async fn of_sessions_at_several_replicas_the_one_that_subscribed_last_is_next() {
    let bench = Bench::new();
    let other = bench.replica(2);
    see(&bench.sessions, &[1, 2], &bench);
    see(&other, &[1, 2], &bench);
    let first = bench.open("a").await;
    bench.pass(1);
    let second = other.open(bench.connect("b")).await.unwrap();
    let wants = |to: &[Subscription]| !to.is_empty();
    other.subscribed(&second, vec![filter("#")], true).await.unwrap();
    assert!(other.is_next(&bench.device, second.id, wants).await.unwrap());
    bench.pass(1);
    bench.sessions.subscribed(&first, vec![filter("#")], true).await.unwrap();
    assert!(!other.is_next(&bench.device, second.id, wants).await.unwrap());
    assert!(bench.sessions.is_next(&bench.device, first.id, wants).await.unwrap());
    bench.pass(1);
    other.subscribed(&second, vec![filter("#")], false).await.unwrap();
    assert!(
        bench.sessions.is_next(&bench.device, first.id, wants).await.unwrap(),
        "a filter that the other took away does not make it the newest"
    );
    assert!(bench.sessions.has_others(&bench.device, first.id).await.unwrap());
    other.close(second, None).await.unwrap();
    assert!(!bench.sessions.has_others(&bench.device, first.id).await.unwrap());
}

/// Takes a commit without saying so.
struct Silent {
    inner: Arc<dyn Records>,
    /// Nothing is ever said; else that it is not known.
    hangs: bool,
}

#[async_trait::async_trait]
impl Records for Silent {
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
        self.inner.scan(table, partition, range, limit).await
    }
    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>> {
        self.inner.commit(table, partition, writes).await?;
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(Error::unavailable("whether it was taken is not known"))
    }
    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.inner.partitions(table, after, limit).await
    }
}

#[tokio::test]
async fn a_session_that_was_recorded_but_never_opened_does_not_stay_connected() {
    for hangs in [true, false] {
        let bench = Bench::new();
        let silent: Arc<dyn Records> = Arc::new(Silent { inner: Arc::clone(&bench.records), hangs });
        let mut other = replica(&silent, &bench.signals, &bench.clock, 2);
        see(&bench.sessions, &[1, 2], &bench);
        {
            let open = other.open(bench.connect("a"));
            tokio::pin!(open);
            let recorded = async {
                while bench.list().await != connected("a") {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                opened = &mut open => assert!(opened.is_err()),
                () = recorded => {} // it is given up
            }
        }
        assert_eq!(bench.list().await, connected("a"), "nobody else can know");
        other.records = Arc::clone(&bench.records);
        let end = CancellationToken::new();
        let told = async {
            while bench.list().await != [("a".to_owned(), false)] {
                tokio::task::yield_now().await;
            }
            end.cancel();
        };
        let both = async { tokio::join!(other.keep(&end), told) };
        tokio::time::timeout(testing::PATIENCE, both).await.unwrap();
    }
}
