//! Who may open a directory, and what is kept in it.

use std::fs;

use weir_core::ErrorKind;

use super::*;

#[tokio::test]
async fn a_second_opener_is_told_which_directory_is_in_use_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let error = open(dir.path()).err().unwrap();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, "DATA_DIR_IN_USE"));
    assert_eq!(
        error.message(),
        format!("data directory {} is in use by another process", dir.path().display())
    );
    drop(store);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_directory_of_another_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()).unwrap(), "k", "v").await.unwrap();
    let ours = fs::read_to_string(dir.path().join("version")).unwrap();
    fs::write(dir.path().join("version"), "weir-store 2\n").unwrap();
    let error = open(dir.path()).err().unwrap();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, "DATA_DIR_VERSION"));
    assert!(error.message().contains("weir-store 2") && !error.message().contains('\n'), "{error}");
    fs::remove_file(dir.path().join("version")).unwrap();
    assert_eq!(open(dir.path()).err().unwrap().reason(), "DATA_DIR_VERSION");
    fs::write(dir.path().join("version"), ours).unwrap();
    assert_eq!(value(&open(dir.path()).unwrap(), b"k").await.unwrap(), "v");
}

#[tokio::test]
async fn a_database_whose_making_was_cut_short_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()).unwrap(), "k", "v").await.unwrap();
    fs::write(dir.path().join("version"), "weir-store 1 creating\n").unwrap();
    fs::remove_file(dir.path().join("db/version")).unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(value(&store, b"k").await, None);
    put(&store, "k", "v").await.unwrap();
    drop(store);
    assert_eq!(value(&open(dir.path()).unwrap(), b"k").await.unwrap(), "v");
}

#[tokio::test]
async fn reopening_keeps_everything_and_gives_no_version_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut versions = vec![];
    for round in 0..4_u64 {
        let store = open(dir.path()).unwrap();
        assert_eq!(numbers(&store).await, (0..round * 10).collect::<Vec<_>>());
        if round > 0 {
            assert_eq!(value(&store, b"kept").await.unwrap(), (round - 1).to_string());
        }
        versions.push(put(&store, "kept", round.to_string()).await.unwrap());
        versions.push(put(&store, "gone", "v").await.unwrap());
        store.commit(TABLE, b"partition", vec![Write::delete("gone")]).await.unwrap();
        store.write(batch((round * 10..round * 10 + 10).map(|n| row(n, 100)))).await.unwrap();
    }
    let count = versions.len();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), count, "{versions:?}");
    assert_eq!(value(&open(dir.path()).unwrap(), b"gone").await, None);
}
