//! What a crash leaves: everything that was answered as durable, and of the rest a prefix.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::*;

/// Set for a child process, which writes into the directory that it names until it is killed.
const CHILD_DIR: &str = "WEIR_TEST_STORE_DIR";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn journal(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir.join("db")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "jnl")).max().unwrap()
}

/// Bytes of the journal that are not its reserve of zeros.
fn journal_end(dir: &Path) -> u64 {
    let bytes = fs::read(journal(dir)).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

#[tokio::test]
async fn a_torn_journal_is_cut_to_a_prefix_that_holds_everything_synced() {
    let home = tempfile::tempdir().unwrap();
    let live = home.path().join("live");
    let store = open(&live).unwrap();
    for number in 0..5 {
        store.write(batch([row(number, 300)])).await.unwrap();
    }
    store.sync().await.unwrap();
    put(&store, "progress", "5").await.unwrap();
    let synced = journal_end(&live);
    for number in 5..10 {
        store.write(batch([row(number, 300)])).await.unwrap();
    }
    let end = journal_end(&live);
    assert!(end > synced + 5 * 300);
    for (index, length) in (synced..=end).step_by(131).chain([end]).enumerate() {
        let torn = home.path().join(format!("torn-{index}"));
        copy(&live, &torn);
        let file = File::options().write(true).open(journal(&torn)).unwrap();
        file.set_len(length).unwrap();
        if index % 2 == 0 {
            file.set_len(64 << 20).unwrap(); // what was reserved but never written reads as zeros
        }
        drop(file);
        let reopened = open(&torn).unwrap();
        let found = numbers(&reopened).await;
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "cut at {length} of {synced}..{end}");
        assert!(found.len() >= 5, "{} rows after a cut at {length} of {synced}..{end}", found.len());
        assert_eq!(value(&reopened, b"progress").await.unwrap(), "5");
        put(&reopened, "after", "cut").await.unwrap();
        drop(reopened);
        assert_eq!(value(&open(&torn).unwrap(), b"after").await.unwrap(), "cut");
        fs::remove_dir_all(&torn).unwrap();
    }
}

#[tokio::test]
async fn pages_that_a_power_cut_left_out_of_the_journal_are_cut_with_what_follows_them() {
    const PAGE: u64 = 4 << 10;
    let home = tempfile::tempdir().unwrap();
    let live = home.path().join("live");
    let store = open(&live).unwrap();
    store.write(batch((0..5).map(|number| row(number, 300)))).await.unwrap();
    put(&store, "progress", "5").await.unwrap();
    let synced = journal_end(&live);
    for number in 5..15 {
        store.write(batch([row(number, 10_000)])).await.unwrap();
    }
    let end = journal_end(&live);
    let mut page = synced.next_multiple_of(PAGE);
    let mut cut = 0;
    while page + PAGE < end {
        let torn = home.path().join(format!("torn-{page}"));
        copy(&live, &torn);
        let file = File::options().write(true).open(journal(&torn)).unwrap();
        file.write_all_at(&[0; PAGE as usize], page).unwrap();
        drop(file);
        let reopened = open(&torn).unwrap();
        let found = numbers(&reopened).await;
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "without the page at {page}");
        assert!((5..15).contains(&found.len()), "{} rows without the page at {page}", found.len());
        assert_eq!(value(&reopened, b"progress").await.unwrap(), "5");
        page += PAGE;
        cut += 1;
    }
    assert!(cut > 3);
}

#[tokio::test]
async fn a_flipped_byte_in_the_journal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for number in 0..5 {
        store.write(batch([row(number, 3_000)])).await.unwrap();
    }
    store.sync().await.unwrap();
    drop(store);
    let path = journal(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[6_000] ^= 1; // within the body of a row
    fs::write(&path, bytes).unwrap();
    let error = open(dir.path()).err().unwrap();
    assert_eq!(error.kind(), weir_core::ErrorKind::DataLoss);
    assert!(error.message().contains(&dir.path().display().to_string()), "{error}");
}

/// Not a test of its own: what the killed process does. Rows first, then the progress over them, as a service does it.
#[tokio::test]
#[ignore = "run by `a_killed_process_keeps_every_answered_commit`"]
async fn child_that_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let store = open(Path::new(&dir)).unwrap();
    let first = value(&store, b"progress")
        .await
        .map_or(0, |stored| std::str::from_utf8(&stored).unwrap().parse::<u64>().unwrap());
    for number in first.. {
        store.write(batch((number * 10..number * 10 + 10).map(|n| row(n, 200)))).await.unwrap();
        put(&store, "progress", (number + 1).to_string()).await.unwrap();
        println!("progress {}", number + 1);
    }
}

#[tokio::test]
async fn a_killed_process_keeps_every_answered_commit() {
    let dir = tempfile::tempdir().unwrap();
    let mut answered = 0;
    for kill in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "crash::child_that_writes_until_it_is_killed"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(std::result::Result::ok);
        let mut progress =
            lines.filter_map(|line| line.split_once("progress ").map(|(_, n)| n.parse::<u64>().unwrap()));
        let enough = answered + 20 + kill;
        answered = progress.by_ref().find(|n| *n >= enough).expect("the child writes until it is killed");
        child.kill().unwrap();
        answered = progress.last().unwrap_or(answered); // what it had answered before the kill came
        child.wait().unwrap();

        let store = open(dir.path()).unwrap();
        let stored = value(&store, b"progress").await.unwrap();
        let stored: u64 = std::str::from_utf8(&stored).unwrap().parse().unwrap();
        assert!(stored >= answered, "answered {answered}, kept {stored}");
        let found = numbers(&store).await;
        assert!(found.len() as u64 >= stored * 10, "{} rows for a progress of {stored}", found.len());
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
        answered = stored;
    }
}
