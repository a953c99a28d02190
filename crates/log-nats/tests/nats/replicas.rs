//! Three replicas: leaders that die, and replicas that lag.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use weir_core::{ErrorKind, Partition, port::Log};
use weir_test_servers::nats;

use crate::world::{self, ONE, STREAM};

const PARTITIONS: u16 = 4;
const EACH: u128 = 300;

async fn leader(server: &nats::Bus, servers: &[String], prefix: &str) -> usize {
    let stream = world::admin(servers).await;
    let mut stream = stream.get_stream(format!("{prefix}_readings")).await.unwrap();
    let leader = stream.info().await.unwrap().cluster.as_ref().unwrap().leader.clone().unwrap();
    server.index_of(&leader).unwrap()
}

/// Waits until somebody else than `former` leads; meanwhile nobody answers.
async fn another_leader(server: &nats::Bus, servers: &[String], prefix: &str, former: usize) {
    let (bus, until) = (world::admin(servers).await, Instant::now() + world::PATIENCE);
    loop {
        assert!(Instant::now() < until, "nobody else is elected");
        let Ok(mut stream) = bus.get_stream(format!("{prefix}_readings")).await else { continue };
        let Ok(info) = stream.info().await else { continue };
        let leader = info.cluster.as_ref().and_then(|cluster| cluster.leader.clone());
        if leader.and_then(|leader| server.index_of(&leader)).is_some_and(|leader| leader != former) {
            return;
        }
    }
}

/// Two of three still acknowledge, on fewer disks than was promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_gone_is_told_until_it_is_back() {
    let Some(server) = world::own(nats::Options { nodes: 3, ..nats::Options::default() }) else { return };
    let servers = server.servers();
    let config = world::config(&servers, 3);
    let log = world::connect(&config).await.log();
    let becomes = async |durable: bool| {
        let until = Instant::now() + world::PATIENCE;
        loop {
            match log.durable().await {
                Ok(()) if durable => return,
                Err(error) if !durable && error.reason() == "BUS_REPLICAS_MISSING" => return,
                told => assert!(Instant::now() < until, "not {durable}: {told:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    becomes(true).await;
    let follower = (leader(&server, &servers, &config.prefix).await + 1) % server.nodes();
    server.kill(follower);
    becomes(false).await;
    world::publish(&*log, Partition(0), 1).await;
    server.start_again(follower).unwrap();
    becomes(true).await;
}

/// Partition `n` gets `n·1000 + 1 …` while the stream's leader is killed twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_while_publishing_and_reading_loses_nothing_acknowledged() {
    let Some(server) = world::own(nats::Options { nodes: 3, ..nats::Options::default() }) else { return };
    let servers = server.servers();
    let config = world::config(&servers, 3);
    let log = world::connect(&config).await.log();
    let publishers = (0..PARTITIONS).map(|partition| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let mut acknowledged = vec![];
            for n in 1..=EACH {
                let id = u128::from(partition) * 1_000 + n;
                acknowledged.push((world::publish(&*log, Partition(partition), id).await, id));
            }
            acknowledged
        })
    });
    let readers = (0..PARTITIONS).map(|partition| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let mut reader = log.read_from(STREAM, Partition(partition), 1).await.unwrap();
            world::read(&mut *reader, usize::try_from(EACH).unwrap()).await
        })
    });
    let (publishers, readers): (Vec<_>, Vec<_>) = (publishers.collect(), readers.collect());
    for _ in 0..2 {
        let leader = leader(&server, &servers, &config.prefix).await;
        server.kill(leader);
        world::publish(&*log, Partition(9), u128::from(u64::MAX) + leader as u128).await; // another one leads
        server.start_again(leader).unwrap();
    }
    let mut sequences = BTreeMap::new();
    for (publisher, reader) in publishers.into_iter().zip(readers) {
        let (acknowledged, found) = (publisher.await.unwrap(), reader.await.unwrap());
        let found: Vec<_> = found.iter().map(|record| (record.sequence, record.id.as_u128())).collect();
        assert_eq!(found, acknowledged);
        sequences.extend(found);
    }
    assert_eq!(sequences.len(), usize::from(PARTITIONS) * usize::try_from(EACH).unwrap());
}

/// Each replica in turn is stopped for a while, so that it lags; a reader that hardly waits is told again and again that
/// there is nothing. Whatever was acknowledged at or below the end that it was told has then come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_read_is_never_false_while_replicas_lag() {
    let Some(server) = world::own(nats::Options { nodes: 3, ..nats::Options::default() }) else { return };
    let config = world::config(&server.servers(), 3);
    // Three connections, to whichever nodes: one that hangs on a node that is stopped does not stop the others.
    let (log, publisher) = (world::connect(&config).await.log(), world::connect(&config).await.log());
    let reader = world::connect(&config).await.log();
    let (done, saw_both) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let publishing = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut acknowledged = vec![];
            while !done.load(Ordering::Relaxed) {
                let id = acknowledged.len() as u128 + 1;
                let partition = if id.is_multiple_of(16) { ONE } else { Partition(2) };
                acknowledged.push((world::publish(&*publisher, partition, id).await, partition));
            }
            acknowledged
        }
    });
    let reading = tokio::spawn({
        let (done, saw_both) = (Arc::clone(&done), Arc::clone(&saw_both));
        async move { read_hardly_waiting(&*reader, &done, &saw_both).await }
    });
    let mut ids = 1_000_000..;
    let until = Instant::now() + world::PATIENCE;
    // All that is stopped may be over before the reader has its consumer: then once more.
    for n in (0..server.nodes())
        .cycle()
        .enumerate()
        .map_while(|(turn, n)| (turn < server.nodes() || !saw_both.load(Ordering::Relaxed)).then_some(n))
    {
        assert!(Instant::now() < until, "the reader has not seen both records and empty reads");
        server.pause(n);
        // Others go on meanwhile, with or without an election.
        for id in ids.by_ref().take(50) {
            world::publish(&*log, Partition(3), id).await;
        }
        server.resume(n);
        server.wait_up().unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let acknowledged = publishing.await.unwrap();
    let (given, empties) = reading.await.unwrap();
    let of_one: Vec<u64> =
        acknowledged.iter().filter(|(_, of)| *of == ONE).map(|(sequence, _)| *sequence).collect();
    assert_eq!(given[..], of_one[..given.len()], "each record of the partition once, in order");
    for (end, before) in empties {
        let missed: Vec<_> = of_one.iter().filter(|sequence| **sequence <= end).skip(before).collect();
        assert!(
            missed.is_empty(),
            "told that nothing is up to {end}, after {before} records; but {missed:?} were"
        );
    }
}

/// The leader is stopped until another one is elected, and comes back while records arrive and readers hardly wait: for a
/// moment there are two that answer. What each reader was told that there is nothing of is looked at afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_read_is_never_false_when_a_former_leader_wakes() {
    let Some(server) = world::own(nats::Options { nodes: 3, ..nats::Options::default() }) else { return };
    let config = world::config(&server.servers(), 3);
    let log = world::connect(&config).await.log();
    let done = Arc::new(AtomicBool::new(false));
    let mut reading = vec![];
    for _ in 0..4 {
        let reader = world::connect(&config).await.log();
        let (done, saw_both) = (Arc::clone(&done), AtomicBool::new(false));
        reading.push(tokio::spawn(async move { read_hardly_waiting(&*reader, &done, &saw_both).await }));
    }
    let publishing = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut acknowledged = vec![];
            while !done.load(Ordering::Relaxed) {
                acknowledged.push(world::publish(&*log, ONE, acknowledged.len() as u128 + 1).await);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            acknowledged
        }
    });
    for _ in 0..3 {
        let first = leader(&server, &server.servers(), &config.prefix).await;
        server.pause(first);
        let others: Vec<String> =
            server.servers().into_iter().enumerate().filter(|(n, _)| *n != first).map(|(_, at)| at).collect();
        another_leader(&server, &others, &config.prefix, first).await;
        server.resume(first);
        server.wait_up().unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let acknowledged = publishing.await.unwrap();
    for reading in reading {
        let (given, empties) = reading.await.unwrap();
        assert_eq!(given[..], acknowledged[..given.len()], "each record once, in order");
        for (end, before) in empties {
            let missed: Vec<_> =
                acknowledged.iter().filter(|sequence| **sequence <= end).skip(before).collect();
            assert!(
                missed.is_empty(),
                "told that nothing is up to {end}, after {before}; but {missed:?} were"
            );
        }
    }
}

/// The sequences that came, and for each empty read its end and how many had come before it; `saw_both` as soon as there
/// is one of each.
async fn read_hardly_waiting(
    log: &dyn Log,
    done: &AtomicBool,
    saw_both: &AtomicBool,
) -> (Vec<u64>, Vec<(u64, usize)>) {
    let (mut given, mut empties) = (vec![], vec![]);
    let mut reader = loop {
        match log.read_from(STREAM, ONE, 1).await {
            Ok(reader) => break reader,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
        }
    };
    while !done.load(Ordering::Relaxed) {
        match reader.next(1 << 20, Duration::from_millis(1)).await {
            Ok(batch) if batch.records.is_empty() => empties.push((batch.end, given.len())),
            Ok(batch) => given.extend(batch.records.iter().map(|record| record.sequence)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
        }
        saw_both.store(!given.is_empty() && !empties.is_empty(), Ordering::Relaxed);
    }
    (given, empties)
}
