//! What survives a restart, and what keeps a log from being opened.

use std::fs;

use tempfile::TempDir;
use weir_core::{ErrorKind, Timestamp, port::Log as _};
use weir_log_embedded::{Durability, EmbeddedLog, Options};

use crate::harness::{
    PARTITION, STREAM, bodies, copy, id_of, open, open_with, options, publish, read_all, refusal, segments,
};

#[tokio::test]
async fn records_identity_and_numbering_go_on_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let mut identities = vec![];
    for round in 0..3 {
        let log = open(dir.path());
        identities.push(log.identity(STREAM).await.unwrap());
        let expected: Vec<String> = (0..round).map(|n| format!("{n}")).collect();
        assert_eq!(bodies(&log).await, expected);
        assert_eq!(publish(&log, round.to_string().as_bytes()).await.unwrap(), round + 1);
    }
    assert!(identities.iter().all(|identity| *identity == identities[0]));
    assert_ne!(open(TempDir::new().unwrap().path()).identity(STREAM).await.unwrap(), identities[0]);
}

#[tokio::test]
async fn an_id_is_still_known_after_a_restart_and_after_a_crash() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    for n in 1..=5 {
        assert_eq!(publish(&log, n.to_string().as_bytes()).await.unwrap(), n);
    }
    let crashed = copy(dir.path());
    drop(log);
    for dir in [crashed, dir] {
        let log = open(dir.path());
        assert_eq!(publish(&log, b"2").await.unwrap(), 2);
        assert_eq!(publish(&log, b"6").await.unwrap(), 6);
        assert_eq!(log.ids(STREAM, &[2, 6, 7]).await.unwrap(), [Some(id_of(b"2")), Some(id_of(b"6")), None]);
    }
}

#[tokio::test]
async fn what_was_trimmed_stays_away_and_old_segments_are_read_from_their_files() {
    let dir = TempDir::new().unwrap();
    let small = || Options { segment_bytes: 0, ..options() };
    let log = open_with(dir.path(), small()).unwrap();
    for n in 0..20_u8 {
        publish(&log, &[n; 30_000]).await.unwrap();
    }
    let files = segments(dir.path()).len();
    log.trim(STREAM, 9).await.unwrap();
    let bounds = log.bounds(STREAM).await.unwrap();
    drop(log);
    assert!(segments(dir.path()).len() < files);
    let log = open_with(dir.path(), small()).unwrap();
    assert_eq!(log.bounds(STREAM).await.unwrap().first, bounds.first);
    let records = read_all(&log).await;
    let expected: Vec<u8> = (bounds.first as u8 - 1..20).collect();
    assert_eq!(records.iter().map(|record| record.bytes[0]).collect::<Vec<_>>(), expected);
    for record in &records {
        let before = log.sequence_before(STREAM, record.stored_at).await.unwrap();
        assert!(before < record.sequence, "{before} was stored before {}", record.sequence);
    }
    assert_eq!(log.sequence_before(STREAM, Timestamp::MAX).await.unwrap(), 20);
    let error =
        log.read_from(STREAM, PARTITION, 1).await.unwrap().next(1, Default::default()).await.unwrap_err();
    assert_eq!(error.reason(), "TRIMMED_PAST");
}

#[tokio::test]
async fn an_idle_log_marks_its_end_and_gives_back_what_it_wrote_ahead() {
    let dir = TempDir::new().unwrap();
    for durability in [Durability::PowerLoss, Durability::Process] {
        let log = open_with(dir.path(), Options { durability, ..options() }).unwrap();
        publish(&log, format!("{durability:?}").as_bytes()).await.unwrap();
        let path = &segments(dir.path())[0];
        let before = fs::metadata(path).unwrap().len();
        let mut shorter = before;
        for _ in 0..1_000 {
            shorter = fs::metadata(path).unwrap().len();
            if shorter < before {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await; // polls a condition, with a bound
        }
        assert!(shorter < before, "the file never became shorter than {before} bytes");
    }
    assert_eq!(bodies(&open(dir.path())).await, ["PowerLoss", "Process"]);
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let error = EmbeddedLog::open(dir.path(), options()).unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, "DATA_DIR_IN_USE"));
    assert!(error.message().contains(dir.path().to_str().unwrap()), "{error}");
    drop(log);
    drop(open(dir.path()));
}

#[test]
fn a_directory_of_another_version_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    fs::write(dir.path().join("VERSION"), "weir log 7\n").unwrap();
    let error = refusal(dir.path());
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, "LOG_VERSION"));
    assert!(error.message().contains("\"weir log 7\""), "{error}");
}

#[test]
fn what_a_crash_left_half_made_is_removed() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let half = dir.path().join("readings/00000000000000000002.tmp");
    fs::write(&half, "WEIR").unwrap();
    drop(open(dir.path()));
    assert!(!half.exists());
}
