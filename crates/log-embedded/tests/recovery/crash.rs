//! Crashes: of the process, by killing one; of the machine, by writing only some sectors of what was not synced.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use bytes::Bytes;
use futures::future::join_all;
use proptest::{collection::vec, prelude::*};
use tempfile::TempDir;
use weir_core::{Uid, port::Log as _};

use crate::harness::{PARTITION, STREAM, entries, id_of, open, publish, read_all, segments};

/// The unit that a disk writes whole.
const SECTOR: usize = 512;
const CHILD_DIR: &str = "WEIR_TEST_LOG_DIR";
const ROUNDS: usize = 5;
const ACKS: usize = 200;

#[test]
#[ignore = "the other half of the next test, which runs it as a process of its own"]
#[allow(clippy::print_stdout)] // how it tells what was acknowledged
fn publishes_until_it_is_killed() {
    let dir = std::env::var(CHILD_DIR).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let log = open(dir.as_ref());
        loop {
            let bodies: Vec<String> = (0..8).map(|_| Uid::random().to_string()).collect();
            for acked in join_all(bodies.iter().map(async |body| {
                publish(&log, body.as_bytes()).await.map(|sequence| format!("acked {sequence} {body}"))
            }))
            .await
            {
                println!("{}", acked.unwrap());
            }
        }
    });
}

#[tokio::test]
async fn a_process_that_is_killed_loses_nothing_that_it_acknowledged() {
    let dir = TempDir::new().unwrap();
    let mut acked: Vec<(u64, Bytes)> = vec![];
    for _ in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::publishes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let acks = lines.filter_map(|line| {
            let (_, ack) = line.split_once("acked ")?;
            let (sequence, body) = ack.split_once(' ')?;
            Some((sequence.parse().unwrap(), Bytes::from(body.to_owned())))
        });
        let before = acked.len();
        for ack in acks {
            acked.push(ack);
            if acked.len() == before + ACKS {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acked.len() >= before + ACKS, "the publisher ended by itself");
        let log = open(dir.path());
        let records = read_all(&log).await;
        for (sequence, body) in &acked {
            let found = &records[*sequence as usize - 1];
            assert_eq!((found.sequence, &found.bytes), (*sequence, body));
        }
        assert!(records.len() >= acked.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Of the group that was being written, each sector has or has not reached the disk; all before it has.
    #[test]
    fn a_power_cut_leaves_all_that_was_synced_and_a_prefix_of_the_rest(
        groups in vec(vec(0_usize..3_000, 1..6), 2..6), sectors in vec(any::<bool>(), 64), cut: prop::sample::Index,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            let log = open(dir.path());
            for (n, group) in groups.iter().enumerate() {
                let publishes = group.iter().enumerate().map(|(place, len)| {
                    let body: Bytes = [&[n as u8, place as u8][..], &vec![7; *len]].concat().into();
                    log.publish(STREAM, PARTITION, id_of(&body), body)
                });
                for acked in join_all(publishes).await {
                    acked.unwrap();
                }
            }
            let before = read_all(&log).await;
            drop(log);

            let path = &segments(dir.path())[0];
            let whole = fs::read(path).unwrap();
            let records: Vec<_> = entries(&whole).into_iter().filter(|entry| !entry.is_marker).collect();
            let synced = records[cut.index(records.len())].synced_through;
            let group_end = records.iter().filter(|entry| entry.synced_through == synced).map(|entry| entry.end).max();
            let mut torn = whole[..synced].to_vec();
            torn.resize(group_end.unwrap(), 0);
            for (sector, reached) in (synced / SECTOR..=torn.len() / SECTOR).zip(sectors.iter().cycle()) {
                let range = (sector * SECTOR).max(synced)..((sector + 1) * SECTOR).min(torn.len());
                if *reached && !range.is_empty() {
                    torn[range.clone()].copy_from_slice(&whole[range]);
                }
            }
            fs::write(path, &torn).unwrap();

            let log = open(dir.path());
            let after = read_all(&log).await;
            let acked = records.iter().filter(|entry| entry.end <= synced).count();
            assert!(after.len() >= acked, "{} records of {acked} that were acknowledged", after.len());
            assert_eq!(after, before[..after.len()]);
            assert_eq!(publish(&log, b"next").await.unwrap(), after.len() as u64 + 1);
        });
    }
}
