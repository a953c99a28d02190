//! A disk without room: refused, nothing lost, and taken up again when there is room.

use std::{fs, process::Command, time::Duration};

use tokio::time::{Instant, sleep};
use weir_config::ByteSize;
use weir_core::ErrorKind;

use super::*;

/// A small file system of its own.
struct SmallDisk(tempfile::TempDir, Vec<std::path::PathBuf>);

impl SmallDisk {
    /// None where this process may not mount.
    fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            assert!(std::env::var_os("CI").is_none(), "cannot mount a small tmpfs for the full disk");
            println!("SKIPPED: needs the right to mount a small tmpfs");
        }
        mounted.then_some(Self(dir, vec![]))
    }

    fn store(&self) -> std::path::PathBuf {
        self.0.path().join("store")
    }

    /// Takes all room but `mib`, or all of it where the store takes the rest at the same moment.
    fn fill_but(&mut self, mib: u64) {
        let free = rustix::fs::statvfs(self.0.path()).map(|found| found.f_bavail * found.f_frsize).unwrap();
        let ballast = vec![1; usize::try_from(free.saturating_sub(mib << 20)).unwrap()];
        let file = self.0.path().join(format!("ballast-{}", self.1.len()));
        match fs::write(&file, ballast) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {} // a flush was quicker: it is full
            written => written.unwrap(),
        }
        self.1.push(file);
    }

    fn make_room(&mut self) {
        self.1.drain(..).for_each(|file| fs::remove_file(file).unwrap());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// Writes numbered batches until one is refused; gives the number of the first that was not accepted.
async fn write_until_refused(store: &EmbeddedStore, mut number: u64) -> (u64, weir_core::Error) {
    loop {
        match store.write(batch([row(number, 64 << 10)])).await {
            Ok(()) => number += 1,
            Err(error) => return (number, error),
        }
    }
}

/// Tries again until it is accepted, as an owner does.
async fn write_again(store: &EmbeddedStore, number: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = store.write(batch([row(number, 64 << 10)])).await {
        assert!(Instant::now() < deadline, "there is room, but a write is still refused: {error}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_refused_before_it_is_touched_and_progress_is_still_kept() {
    let Some(mut disk) = SmallDisk::mount(96) else { return };
    let store = open(&disk.store()).unwrap();
    put(&store, "progress", "0").await.unwrap();
    store.writable().unwrap();
    disk.fill_but(6); // between the bound of records, 4 MiB, and that of telemetry, 8 MiB
    let (next, error) = write_until_refused(&store, 0).await;
    assert_eq!((error.kind(), error.reason(), next), (ErrorKind::ResourceExhausted, "STORE_FULL", 0));
    assert!(error.retry_after().is_some() && error.message().contains("8MiB"), "{error}");
    assert_eq!(store.writable().unwrap_err().reason(), "STORE_FULL");
    put(&store, "progress", "1").await.unwrap();
    disk.fill_but(2);
    let error = put(&store, "progress", "2").await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::ResourceExhausted, "STORE_FULL"));
    assert_eq!(value(&store, b"progress").await.unwrap(), "1");
    disk.make_room();
    put(&store, "progress", "3").await.unwrap();
    store.write(batch([row(0, 100)])).await.unwrap();
    store.writable().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_failed_on_a_full_disk_is_opened_anew_when_there_is_room() {
    let Some(mut disk) = SmallDisk::mount(64) else { return };
    // Without the bound on free space, so that the disk itself refuses, in the journal or in a flush.
    let options = Options { free_min: ByteSize(0), memtable: ByteSize::mib(1), ..Options::default() };
    let store = EmbeddedStore::open(disk.store(), options.clone()).unwrap();
    put(&store, "k", "before").await.unwrap();
    disk.fill_but(4);
    let mut next = 0;
    for round in 0..3_u64 {
        let (refused, error) = write_until_refused(&store, next).await;
        assert!(matches!(error.kind(), ErrorKind::ResourceExhausted | ErrorKind::Unavailable), "{error:?}");
        assert_eq!(value(&store, b"k").await.unwrap(), if round == 0 { "before" } else { "after" });
        assert!(numbers(&store).await.starts_with(&(0..refused).collect::<Vec<_>>()));
        disk.make_room();
        write_again(&store, refused).await;
        put(&store, "k", "after").await.unwrap();
        store.sync().await.unwrap();
        assert_eq!(numbers(&store).await, (0..=refused).collect::<Vec<_>>());
        next = refused + 1;
        disk.fill_but(2);
    }
    disk.make_room();
    drop(store);
    let store = EmbeddedStore::open(disk.store(), options).unwrap();
    assert_eq!(numbers(&store).await, (0..next).collect::<Vec<_>>());
    assert_eq!(value(&store, b"k").await.unwrap(), "after");
}
