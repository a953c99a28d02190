//! Damage is refused, with file and offset; a torn tail is cut.

use std::fs;

use weir_core::ErrorKind;
use weir_log_embedded::Options;

use crate::harness::{
    STREAM, bodies, entries, open, open_with, options, publish, read_all, refusal, segments, stopped_after,
};
use tempfile::TempDir;

#[tokio::test]
async fn a_last_record_that_is_torn_at_any_byte_is_cut_and_the_log_goes_on() {
    let dir = stopped_after(&["one", "two", "three"]).await;
    let path = &segments(dir.path())[0];
    let whole = fs::read(path).unwrap();
    let last = *entries(&whole).last().unwrap();
    for len in last.offset..last.end {
        let cut = whole[..len].to_vec();
        let (mut zeros, mut garbage) = (cut.clone(), cut.clone());
        zeros.resize(whole.len(), 0);
        garbage.extend((0..100_u8).map(|n| n ^ 0x5a));
        for torn in [cut, zeros, garbage] {
            fs::write(path, &torn).unwrap();
            let log = open(dir.path());
            let expected = if torn.get(..last.end) == Some(&whole[..last.end]) { 3 } else { 2 };
            assert_eq!(bodies(&log).await, ["one", "two", "three"][..expected], "cut at {len}");
            assert_eq!(publish(&log, b"next").await.unwrap(), expected as u64 + 1);
        }
    }
}

#[tokio::test]
async fn a_flipped_byte_below_what_was_synced_is_refused_with_file_and_offset() {
    let dir = stopped_after(&["one", "two", "three"]).await;
    let path = &segments(dir.path())[0];
    let whole = fs::read(path).unwrap();
    let last = *entries(&whole).last().unwrap();
    for at in 0..last.offset {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(path, &flipped).unwrap();
        let error = refusal(dir.path());
        let damaged = entries(&whole).iter().find(|entry| at < entry.end).unwrap().offset;
        let offset = if at < 64 { 0 } else { damaged };
        assert_eq!((error.kind(), error.reason()), (ErrorKind::DataLoss, "LOG_DAMAGED"), "byte {at}");
        let names = format!("log file {} is damaged at offset {offset}:", path.display());
        assert!(error.message().starts_with(&names), "byte {at}: {error}");
        assert_eq!(fs::read(path).unwrap(), flipped, "what is damaged is left as it is");
    }
}

#[tokio::test]
async fn after_a_clean_stop_the_last_record_is_guarded_too() {
    let dir = stopped_after(&["one", "two", "three"]).await;
    drop(open(dir.path()));
    let path = &segments(dir.path())[0];
    let whole = fs::read(path).unwrap();
    let all = entries(&whole);
    let marker = *all.last().unwrap();
    assert!(marker.is_marker && marker.end == whole.len(), "{all:?}");
    for at in 64..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(path, &flipped).unwrap();
        if at < marker.offset {
            assert_eq!(refusal(dir.path()).reason(), "LOG_DAMAGED", "byte {at}");
        } else {
            assert_eq!(bodies(&open(dir.path())).await, ["one", "two", "three"], "byte {at}");
        }
    }
}

#[tokio::test]
async fn records_of_another_segment_are_no_records() {
    let (mine, other) = (stopped_after(&["one", "two"]).await, stopped_after(&["one", "two"]).await);
    let path = &segments(mine.path())[0];
    let (mut bytes, foreign) = (fs::read(path).unwrap(), fs::read(&segments(other.path())[0]).unwrap());
    let second = entries(&bytes)[1];
    bytes[second.offset..second.end].copy_from_slice(&foreign[second.offset..second.end]);
    fs::write(path, &bytes).unwrap();
    assert_eq!(bodies(&open(mine.path())).await, ["one"]);
}

/// Several segments of one record each.
async fn segmented() -> TempDir {
    let dir = TempDir::new().unwrap();
    let log = open_with(dir.path(), Options { segment_bytes: 0, ..options() }).unwrap();
    for n in 0..4_u8 {
        publish(&log, &[n; 40_000]).await.unwrap();
    }
    drop(log);
    assert_eq!(segments(dir.path()).len(), 4);
    dir
}

#[tokio::test]
async fn damage_in_an_older_segment_is_refused_even_at_its_end() {
    let dir = segmented().await;
    let path = &segments(dir.path())[1];
    let whole = fs::read(path).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in
        [flipped, whole[..whole.len() - 1].to_vec(), whole[..64].to_vec(), [&whole[..], &[0]].concat()]
    {
        fs::write(path, damaged).unwrap();
        let error = refusal(dir.path());
        assert_eq!(error.reason(), "LOG_DAMAGED");
        assert!(error.message().contains(path.to_str().unwrap()), "{error}");
    }
    fs::write(path, whole).unwrap();
    assert_eq!(read_all(&open(dir.path())).await.len(), 4);
}

#[tokio::test]
async fn a_segment_that_is_missing_in_the_midst_is_refused() {
    let dir = segmented().await;
    let paths = segments(dir.path());
    fs::remove_file(&paths[2]).unwrap();
    let error = refusal(dir.path());
    assert!(error.message().contains(paths[1].to_str().unwrap()), "{error}");
    assert!(error.message().contains("ends with sequence 2, and the next segment begins with 4"), "{error}");
}

#[tokio::test]
async fn a_log_that_ends_below_what_was_read_is_refused() {
    let dir = stopped_after(&["one", "two", "three"]).await;
    let path = &segments(dir.path())[0];
    let whole = fs::read(path).unwrap();
    let last = *entries(&whole).last().unwrap();
    fs::write(path, &whole[..last.end - 1]).unwrap();
    let with_floor =
        |floor| open_with(dir.path(), Options { progress_floor: [(STREAM, floor)].into(), ..options() });
    let error = with_floor(3).unwrap_err();
    let names = format!("log file {} is damaged at offset {}:", path.display(), last.offset);
    assert!(error.message().starts_with(&names), "{error}");
    assert_eq!(bodies(&with_floor(2).unwrap()).await, ["one", "two"]);
}

#[tokio::test]
async fn a_new_log_is_not_held_to_what_was_read_from_another() {
    let dir = TempDir::new().unwrap();
    let options = Options { progress_floor: [(STREAM, 1_000)].into(), ..options() };
    let log = open_with(dir.path(), options).unwrap();
    assert_eq!(publish(&log, b"one").await.unwrap(), 1);
}
