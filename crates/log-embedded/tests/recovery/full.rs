//! A full log refuses, acknowledges nothing, and goes on when there is room.

use std::{fs, path::Path, process::Command};

use futures::future::join_all;
use tempfile::TempDir;
use weir_core::{ErrorKind, port::Log as _};
use weir_log_embedded::{EmbeddedLog, Options};

use crate::harness::{STREAM, open, open_with, options, publish, read_all};

const BODY: usize = 10_000;

/// Publishes until one is refused, and gives what was acknowledged.
async fn fill(log: &EmbeddedLog, round: u8, len: usize) -> Vec<u64> {
    let mut acked = vec![];
    for n in 0..u16::MAX {
        let mut body = vec![round; len];
        body.extend(n.to_be_bytes());
        match publish(log, &body).await {
            Ok(sequence) => acked.push(sequence),
            Err(error) => {
                assert_eq!(
                    (error.kind(), error.reason()),
                    (ErrorKind::ResourceExhausted, "LOG_FULL"),
                    "{error}"
                );
                assert!(error.retry_after().is_some());
                return acked;
            }
        }
    }
    panic!("the log never fills up");
}

async fn sequences(log: &EmbeddedLog) -> Vec<u64> {
    read_all(log).await.iter().map(|record| record.sequence).collect()
}

#[tokio::test]
async fn at_its_limit_a_log_refuses_and_a_trim_makes_room() {
    let dir = TempDir::new().unwrap();
    let limited = || Options { bytes_max: Some(1_000_000), ..options() };
    let log = open_with(dir.path(), limited()).unwrap();
    let mut acked = fill(&log, 1, BODY).await;
    assert!(acked.len() > 90, "{} records of {BODY} bytes", acked.len());
    let together = join_all((0..4).map(async |n| publish(&log, &vec![n; BODY]).await)).await;
    assert!(together.iter().all(Result::is_err), "{together:?}");
    acked.extend(fill(&log, 1, 0).await); // what is smaller still fits
    assert_eq!(log.writable().await.unwrap_err().limit(), Some("1000000"));
    assert_eq!(sequences(&log).await, acked);
    assert!(log.bounds(STREAM).await.unwrap().bytes <= 1_000_000);

    log.trim(STREAM, acked[acked.len() / 2]).await.unwrap();
    log.writable().await.unwrap();
    let more = fill(&log, 2, BODY).await;
    assert!(more.len() > 20, "{} records after the trim", more.len());
    let left = sequences(&log).await;
    drop(log);
    assert_eq!(sequences(&open_with(dir.path(), limited()).unwrap()).await, left);
}

/// A file system of 2 MiB in memory, unmounted at the end.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let args = ["-t", "tmpfs", "-o", "size=2m", "weir-test"];
        let mounted = Command::new("mount").args(args).arg(dir.path()).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(dir))
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[tokio::test]
async fn on_a_full_disk_a_log_refuses_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        println!("SKIPPED: this user may not mount a small file system");
        return;
    };
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![1; 500_000]).unwrap();
    let dir = disk.path().join("log");
    let log = open(&dir);
    let mut acked = fill(&log, 1, BODY).await;
    assert_eq!(sequences(&log).await, acked);
    assert_eq!(fill(&log, 2, BODY).await, [] as [u64; 0]);

    drop(log); // a restart on the full disk
    let log = open(&dir);
    assert_eq!(sequences(&log).await, acked);

    fs::remove_file(&filler).unwrap();
    log.writable().await.unwrap();
    let more = fill(&log, 3, BODY).await;
    assert!(more.len() > 40, "{} records of {BODY} bytes in 500,000", more.len());
    acked.extend(more);
    assert_eq!(sequences(&log).await, acked);
    drop(log);
    assert_eq!(sequences(&open(&dir)).await, acked);
}

#[tokio::test]
async fn the_reserve_is_left_to_others() {
    let dir = TempDir::new().unwrap();
    let log = open_with(dir.path(), Options { disk_reserve_bytes: u64::MAX, ..options() }).unwrap();
    for error in [publish(&log, b"x").await.unwrap_err(), log.writable().await.unwrap_err()] {
        assert_eq!(error.reason(), "LOG_FULL");
        assert!(error.message().contains(&u64::MAX.to_string()), "{error}");
    }
    assert_eq!(log.bounds(STREAM).await.unwrap().last, 0);
}
