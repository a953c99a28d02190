//! Against the real embedded log, wrapped where a test needs it slow or away.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::timeout};
use weir_core::{
    Stream, Timestamp, Uid,
    port::{Bounds, LogIdentity, LogReader},
};
use weir_frame::Frame;

use super::*;
use crate::testing::{self, PATIENCE, message};

/// The real log behind a gate: a publish passes with a permit, fails as told, or loses its answer.
struct Gate {
    log: weir_log_embedded::EmbeddedLog,
    permits: Semaphore,
    refuse: Mutex<Option<Error>>,
    lose_answers: AtomicUsize,
    away: AtomicBool,
    published: Mutex<Vec<(Partition, Uid, usize)>>,
    in_flight: Mutex<HashMap<u16, usize>>,
}

impl Gate {
    fn open(dir: &std::path::Path, permits: usize) -> Arc<Self> {
        Arc::new(Self {
            log: testing::log(dir),
            permits: Semaphore::new(permits),
            refuse: Mutex::default(),
            lose_answers: AtomicUsize::new(0),
            away: AtomicBool::new(false),
            published: Mutex::default(),
            in_flight: Mutex::default(),
        })
    }
}

#[async_trait]
impl Log for Gate {
    async fn publish(&self, stream: Stream, partition: Partition, id: Uid, bytes: Bytes) -> Result<u64> {
        let other = self.in_flight.lock().insert(partition.0, 1);
        assert_eq!(other.unwrap_or(0), 0, "two frames of one partition in flight");
        self.permits.acquire().await.unwrap().forget();
        self.in_flight.lock().insert(partition.0, 0);
        if let Some(error) = self.refuse.lock().clone() {
            return Err(error);
        }
        if self.away.load(Ordering::Acquire) {
            return Err(Error::unavailable("the log is away"));
        }
        self.published.lock().push((partition, id, bytes.len()));
        let sequence = self.log.publish(stream, partition, id, bytes).await?;
        let lose = |left: usize| left.checked_sub(1);
        if self.lose_answers.fetch_update(Ordering::AcqRel, Ordering::Acquire, lose).is_ok() {
            return Err(Error::unavailable("the answer is lost"));
        }
        Ok(sequence)
    }
    async fn read_from(&self, stream: Stream, partition: Partition, from: u64) -> Result<Box<dyn LogReader>> {
        self.log.read_from(stream, partition, from).await
    }
    async fn trim(&self, stream: Stream, through: u64) -> Result<()> {
        self.log.trim(stream, through).await
    }
    async fn sequence_before(&self, stream: Stream, instant: Timestamp) -> Result<u64> {
        self.log.sequence_before(stream, instant).await
    }
    async fn identity(&self, stream: Stream) -> Result<LogIdentity> {
        self.log.identity(stream).await
    }
    async fn bounds(&self, stream: Stream) -> Result<Bounds> {
        self.log.bounds(stream).await
    }
    async fn ids(&self, stream: Stream, sequences: &[u64]) -> Result<Vec<Option<Uid>>> {
        self.log.ids(stream, sequences).await
    }
    async fn writable(&self) -> Result<()> {
        self.log.writable().await
    }
}

const FREE: usize = Semaphore::MAX_PERMITS;

struct Bench {
    _dir: tempfile::TempDir,
    log: Arc<Gate>,
    intake: Arc<Intake>,
}

async fn bench(permits: usize, partitions: u16, config: IntakeConfig) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let log = Gate::open(dir.path(), permits);
    let records = testing::records(dir.path());
    let metrics = Arc::new(Metrics::new(&prometheus::Registry::new(), "process").unwrap());
    let intake = Intake::start(&config, Arc::clone(&log) as _, records, partitions, metrics).await.unwrap();
    Bench { _dir: dir, log, intake: Arc::new(intake) }
}

fn source() -> Source {
    Source::now(Protocol::Mqtt, 100)
}

/// Every reading in the log, by (device, ts), with its position.
async fn read_all(log: &Gate, partitions: u16) -> Vec<(Uid, i64, Position)> {
    let mut found = Vec::new();
    for partition in (0..partitions).map(Partition) {
        let mut reader = log.read_from(Stream::Readings, partition, 1).await.unwrap();
        loop {
            let batch = reader.next(1 << 20, Duration::ZERO).await.unwrap();
            if batch.records.is_empty() {
                break;
            }
            for record in batch.records {
                let frame = Frame::decode(record.bytes).unwrap();
                let mut index = 0;
                for message in frame.messages() {
                    for reading in message.to_message().readings {
                        let position = Position {
                            stream: Stream::Readings,
                            generation: 1,
                            sequence: record.sequence,
                            index,
                            partition,
                        };
                        found.push((message.uid(), reading.ts.as_micros(), position));
                        index += 1;
                    }
                }
            }
        }
    }
    found
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen in {PATIENCE:?}"))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn every_ack_names_the_position_at_which_the_log_has_the_last_reading() {
    let bench = bench(FREE, 4, IntakeConfig::default()).await;
    let mut acks = Vec::new();
    for n in 0..200_u128 {
        let message = message("t1", n % 7, n as i64 * 10, 1 + (n % 3) as usize);
        let last = (message.uid, message.readings.last().unwrap().ts.as_micros());
        acks.push((last, bench.intake.enqueue(message, source()).await.unwrap()));
    }
    let mut expected = BTreeSet::new();
    for ((uid, ts), ack) in acks {
        expected.insert((uid, ts, within("an ack", ack).await.unwrap().position));
    }
    let found: BTreeSet<_> = read_all(&bench.log, 4).await.into_iter().collect();
    assert!(expected.is_subset(&found), "{:?}", expected.difference(&found).next());
}

#[tokio::test]
async fn what_waits_while_a_frame_is_in_flight_leaves_in_the_next_one() {
    let bench = bench(0, 1, IntakeConfig::default()).await;
    let mut acks = vec![bench.intake.enqueue(message("t1", 1, 0, 1), source()).await.unwrap()];
    until("the first frame leaves", || bench.log.in_flight.lock().get(&0) == Some(&1)).await;
    for n in 1..100 {
        acks.push(bench.intake.enqueue(message("t1", 1, n, 1), source()).await.unwrap());
    }
    bench.log.permits.add_permits(2);
    let mut sequences = Vec::new();
    for ack in acks {
        sequences.push(within("an ack", ack).await.unwrap().position.sequence);
    }
    assert_eq!(sequences[0], 1);
    assert!(sequences[1..].iter().all(|sequence| *sequence == 2), "{sequences:?}");
}

#[tokio::test]
async fn a_frame_whose_answer_was_lost_is_published_again_under_the_same_id_and_stored_once() {
    let bench = bench(FREE, 1, IntakeConfig::default()).await;
    bench.log.lose_answers.store(2, Ordering::Release);
    let ack = bench.intake.enqueue(message("t1", 1, 0, 3), source()).await.unwrap();
    let accepted = within("the ack", ack).await.unwrap();
    let published = bench.log.published.lock().clone();
    assert_eq!(published.len(), 3);
    assert!(published.iter().all(|(_, id, _)| *id == published[0].1));
    let found = read_all(&bench.log, 1).await;
    assert_eq!(found.len(), 3, "stored once");
    assert_eq!(found[2].2, accepted.position);
}

#[tokio::test]
async fn a_log_that_stays_away_refuses_after_the_time_and_works_again_when_it_is_back() {
    let config = IntakeConfig { retry_for: Duration::from_millis(200), ..IntakeConfig::default() };
    let bench = bench(FREE, 1, config).await;
    bench.log.away.store(true, Ordering::Release);
    let ack = bench.intake.enqueue(message("t1", 1, 0, 1), source()).await.unwrap();
    let error = within("the refusal", ack).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    bench.log.away.store(false, Ordering::Release);
    let ack = bench.intake.enqueue(message("t1", 1, 1, 1), source()).await.unwrap();
    within("the ack", ack).await.unwrap();
    assert_eq!(read_all(&bench.log, 1).await.len(), 1, "what was refused is not there");
}

#[tokio::test]
async fn a_full_log_refuses_at_once_and_says_when_to_come_back() {
    let bench = bench(FREE, 1, IntakeConfig::default()).await;
    *bench.log.refuse.lock() = Some(Error::new(ErrorKind::ResourceExhausted, "LOG_FULL", "full"));
    let ack = bench.intake.enqueue(message("t1", 1, 0, 1), source()).await.unwrap();
    let error = within("the refusal", ack).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::ResourceExhausted, "LOG_FULL"));
    assert!(error.retry_after().is_some());
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_by_name() {
    let bench = bench(FREE, 1, IntakeConfig::default()).await;
    let mut message = message("t1", 1, 0, 1);
    message.readings[0].values[0].1 = weir_core::Value::String("x".repeat(600 * 1024));
    let error = bench.intake.enqueue(message, source()).await.unwrap_err();
    assert_eq!((error.reason(), error.limit()), ("MESSAGE_TOO_LARGE", Some("524288")));
}

#[tokio::test]
async fn a_tenant_that_fills_its_share_makes_only_its_own_callers_wait() {
    let config = IntakeConfig { window: weir_config::ByteSize::mib(1), ..IntakeConfig::default() };
    let bench = bench(0, 1, config).await;
    let mut greedy = Vec::new();
    loop {
        let message = message("greedy", 1, greedy.len() as i64 * 100, 100);
        match bench.intake.enqueue_within(message, source(), Duration::from_millis(20)).await {
            Ok(ack) => greedy.push(ack),
            Err(error) => {
                assert_eq!((error.kind(), error.reason()), (ErrorKind::ResourceExhausted, "INTAKE_FULL"));
                assert!(error.retry_after().is_some() && error.limit() == Some("1048576"));
                break;
            }
        }
        assert!(bench.intake.bytes() <= 1 << 20, "the window is bounded");
    }
    let modest =
        within("a place for the other", bench.intake.enqueue(message("modest", 2, 0, 1), source())).await;
    // Whoever waits gets in as soon as there is room.
    let waiting = tokio::spawn({
        let intake = Arc::clone(&bench.intake);
        async move { intake.enqueue(message("greedy", 1, 1_000_000, 100), source()).await.unwrap().await }
    });
    bench.log.permits.add_permits(FREE / 2);
    within("the modest ack", modest.unwrap()).await.unwrap();
    within("the waiting ack", waiting).await.unwrap().unwrap();
    for ack in greedy {
        within("a greedy ack", ack).await.unwrap();
    }
    assert_eq!(bench.intake.bytes(), 0);
}

#[tokio::test]
async fn a_frame_is_shared_by_tenants_that_wait() {
    let bench = bench(0, 1, IntakeConfig::default()).await;
    let mut acks = vec![bench.intake.enqueue(message("first", 9, 0, 1), source()).await.unwrap()];
    until("the first frame leaves", || bench.log.in_flight.lock().get(&0) == Some(&1)).await;
    for n in 0..20 {
        acks.push(bench.intake.enqueue(message("big", 1, n * 1_000, 1_000), source()).await.unwrap());
    }
    let small = bench.intake.enqueue(message("small", 2, 0, 1), source()).await.unwrap();
    bench.log.permits.add_permits(FREE / 2);
    let small = within("the small tenant's ack", small).await.unwrap();
    assert_eq!(small.position.sequence, 2, "in the very next frame, though it came last");
    let mut last = 0;
    for ack in acks {
        last = within("an ack", ack).await.unwrap().position.sequence;
    }
    assert!(last > 2, "the big tenant needed more than one frame");
}

#[tokio::test]
async fn a_caller_that_goes_away_while_it_waits_leaves_no_room_taken() {
    let config = IntakeConfig { window: weir_config::ByteSize::mib(1), ..IntakeConfig::default() };
    let bench = bench(0, 1, config).await;
    let mut acks = Vec::new();
    while let Ok(ack) = bench
        .intake
        .enqueue_within(message("t1", 1, acks.len() as i64 * 100, 100), source(), Duration::from_millis(5))
        .await
    {
        acks.push(ack);
    }
    for _ in 0..50 {
        let waiting = bench.intake.enqueue(message("t1", 1, 0, 100), source());
        assert!(timeout(Duration::from_millis(1), waiting).await.is_err());
    }
    bench.log.permits.add_permits(FREE / 2);
    for ack in acks {
        within("an ack", ack).await.unwrap();
    }
    until("an empty window", || bench.intake.bytes() == 0).await;
    let ack = within("room", bench.intake.enqueue(message("t1", 1, 0, 100), source())).await.unwrap();
    within("the ack", ack).await.unwrap();
}

#[tokio::test]
async fn a_drain_answers_all_that_was_taken_and_takes_nothing_more() {
    let bench = bench(FREE, 4, IntakeConfig::default()).await;
    let mut acks = Vec::new();
    for n in 0..100 {
        acks.push(bench.intake.enqueue(message("t1", n, 0, 10), source()).await.unwrap());
    }
    within("the drain", bench.intake.drain()).await;
    for ack in acks {
        within("an ack", ack).await.unwrap();
    }
    let error = bench.intake.enqueue(message("t1", 1, 0, 1), source()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(read_all(&bench.log, 4).await.len(), 1_000);
}
