use std::sync::atomic::{AtomicI64, Ordering};

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
    clock: Arc<Hand>,
    sessions: Sessions,
    device: DeviceKey,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let records = testing::records(dir.path());
        let clock = Arc::new(Hand(AtomicI64::new(1_700_000_000_000_000)));
        let device = testing::device("t1", "d1", Uid::from_u128(1)).key();
        let sessions = Sessions::new(Arc::clone(&records), Arc::clone(&clock) as _, 4);
        Self { _dir: dir, records, clock, sessions, device }
    }

    /// As after a restart: what is stored stays, what is in memory is gone.
    fn restart(&mut self) {
        self.sessions = Sessions::new(Arc::clone(&self.records), Arc::clone(&self.clock) as _, 4);
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
    bench.sessions.subscribed(&session, vec![filter("v1/#")]).await.unwrap();
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
    bench.sessions.subscribed(&session, vec![filter("x")]).await.unwrap();
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
    bench.sessions.subscribed(&old, vec![filter("old")]).await.unwrap();
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
    let left = bench.records.scan(SESSIONS, b"t1", KeyRange::all(), 10).await.unwrap();
    assert!(left.is_empty());
}

#[tokio::test]
async fn a_device_made_anew_under_its_id_inherits_nothing() {
    let mut bench = Bench::new();
    let session = bench.open("a").await;
    bench.sessions.subscribed(&session, vec![filter("x")]).await.unwrap();
    bench.sessions.close(session, None).await.unwrap();
    bench.device.uid = Uid::from_u128(2);
    assert!(!bench.open("a").await.present);
}

#[tokio::test]
async fn pages_follow_each_other_without_gap() {
    let mut bench = Bench::new();
    let mut open = Vec::new();
    for device in 0..5_u128 {
        bench.device = testing::device("t1", &format!("d{device}"), Uid::from_u128(device)).key();
        open.push(bench.open("x").await);
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = bench.sessions.list(&bench.device.tenant, after.as_deref(), 2).await.unwrap();
        seen.extend(page.into_iter().map(|session| session.device.to_string()));
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ["d0", "d1", "d2", "d3", "d4"]);
}
