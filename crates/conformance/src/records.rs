//! The suite of [`weir_core::port::Records`].
//!
//! Precondition of every function: nothing else writes to the partitions that it makes (their names are random), the store
//! may hold anything else. `records_suite!` makes a test of each.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a suite fails by panicking, as a test does"
)]

mod model;

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use futures::future::join_all;
use weir_core::{
    ErrorKind, Uid,
    port::{Expect, KeyRange, Op, Records, Stored, Table, Write},
};

pub use model::any_sequence_of_commits_behaves_as_a_map;

/// Makes a test of every function of the suite. `$open` is an `async fn() -> (Arc<dyn Records>, G)`; the guard `G` lives as
/// long as the test.
#[macro_export]
macro_rules! records_suite {
    ($open:path) => {
        $crate::records_suite!(
            $open:
            a_record_is_there_after_its_commit_and_gone_after_its_delete,
            a_commit_is_all_or_nothing,
            an_expectation_that_does_not_hold_is_a_conflict,
            a_version_is_never_given_twice_even_across_a_delete,
            a_check_fences_and_changes_nothing,
            a_scan_gives_keys_in_byte_order_within_its_bounds,
            pages_join_without_gap_or_repeat_in_both_directions,
            tables_partitions_and_keys_that_run_together_are_apart,
            partitions_are_listed_in_byte_order_after_a_given_one,
            what_is_over_a_limit_is_refused_with_the_number,
            what_is_at_a_limit_is_accepted,
            of_many_who_replace_one_version_exactly_one_wins,
            concurrent_read_modify_writes_lose_none,
            any_sequence_of_commits_behaves_as_a_map,
        );
    };
    ($open:path: $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some((records, _guard)) = $crate::Opened::opened($open().await) else { return };
                $crate::records::$name(records).await;
            }
        )+
    };
}

const TABLE: Table = Table("conformance");
const OTHER: Table = Table("conformance_other");

fn partition() -> Bytes {
    Uid::random().to_string().into()
}

async fn keys(records: &dyn Records, partition: &[u8], range: KeyRange, limit: usize) -> Vec<Bytes> {
    let found = records.scan(TABLE, partition, range, limit).await.unwrap();
    found.into_iter().map(|stored| stored.key).collect()
}

async fn put_all(records: &dyn Records, partition: &[u8], keys: &[&[u8]]) {
    let writes = keys.iter().map(|key| Write::put(Bytes::copy_from_slice(key), "v")).collect();
    records.commit(TABLE, partition, writes).await.unwrap();
}

/// Read your own write, an empty value, and a delete of what is not there.
pub async fn a_record_is_there_after_its_commit_and_gone_after_its_delete(records: Arc<dyn Records>) {
    let place = partition();
    assert_eq!(records.get(TABLE, &place, b"k").await.unwrap(), None);
    let writes = vec![Write::put("k", "value"), Write::put("empty", "")];
    let versions = records.commit(TABLE, &place, writes).await.unwrap();
    assert!(versions.iter().all(|version| *version != 0), "{versions:?}");
    let stored = |key: &'static str, value: &'static str, version| Stored {
        key: key.into(),
        value: value.into(),
        version,
    };
    assert_eq!(records.get(TABLE, &place, b"k").await.unwrap(), Some(stored("k", "value", versions[0])));
    assert_eq!(records.get(TABLE, &place, b"empty").await.unwrap(), Some(stored("empty", "", versions[1])));
    let deletes = vec![Write::delete("k"), Write::delete("never there")];
    assert_eq!(records.commit(TABLE, &place, deletes).await.unwrap(), [0, 0]);
    assert_eq!(records.get(TABLE, &place, b"k").await.unwrap(), None);
    assert_eq!(keys(&*records, &place, KeyRange::all(), 10).await, ["empty"]);
    assert_eq!(records.commit(TABLE, &place, vec![]).await.unwrap(), [] as [u64; 0]);
}

/// One expectation that fails takes all the others with it.
pub async fn a_commit_is_all_or_nothing(records: Arc<dyn Records>) {
    let place = partition();
    put_all(&*records, &place, &[b"b", b"d"]).await;
    let writes =
        vec![Write::put("a", "new"), Write::insert("b", "new"), Write::delete("d"), Write::put("c", "new")];
    let error = records.commit(TABLE, &place, writes).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Aborted, "CONFLICT"));
    assert_eq!(keys(&*records, &place, KeyRange::all(), 10).await, ["b", "d"]);
    assert_eq!(records.get(TABLE, &place, b"b").await.unwrap().unwrap().value, "v");
}

/// Absent, another version, the version of a deleted record.
pub async fn an_expectation_that_does_not_hold_is_a_conflict(records: Arc<dyn Records>) {
    let place = partition();
    let first = records.commit(TABLE, &place, vec![Write::insert("k", "1")]).await.unwrap()[0];
    let second = records.commit(TABLE, &place, vec![Write::replace("k", first, "2")]).await.unwrap()[0];
    for stale in [
        Write::insert("k", "x"),
        Write::replace("k", first, "x"),
        Write::replace("missing", second, "x"),
        Write { key: "k".into(), expect: Expect::Version(first), op: Op::Delete },
    ] {
        let shown = format!("{stale:?}");
        let error = records.commit(TABLE, &place, vec![stale]).await.map(|_| shown.clone()).unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Aborted, "CONFLICT"), "{shown}");
    }
    assert_eq!(records.get(TABLE, &place, b"k").await.unwrap().unwrap().version, second);
    let delete = Write { key: "k".into(), expect: Expect::Version(second), op: Op::Delete };
    records.commit(TABLE, &place, vec![delete]).await.unwrap();
    let error = records.commit(TABLE, &place, vec![Write::replace("k", second, "x")]).await.unwrap_err();
    assert_eq!(error.reason(), "CONFLICT");
}

/// The same bytes put again are another write.
pub async fn a_version_is_never_given_twice_even_across_a_delete(records: Arc<dyn Records>) {
    let place = partition();
    let mut seen = HashSet::new();
    for _ in 0..5 {
        for _ in 0..3 {
            let versions = records.commit(TABLE, &place, vec![Write::put("k", "same")]).await.unwrap();
            assert!(seen.insert(versions[0]), "version {} twice", versions[0]);
        }
        records.commit(TABLE, &place, vec![Write::delete("k")]).await.unwrap();
    }
}

/// A check lets its neighbours through only while it holds, and leaves its own record alone.
pub async fn a_check_fences_and_changes_nothing(records: Arc<dyn Records>) {
    let place = partition();
    let epoch = records.commit(TABLE, &place, vec![Write::put("epoch", "1")]).await.unwrap()[0];
    let fenced = |value: &'static str| {
        vec![
            Write::check("epoch", Expect::Version(epoch)),
            Write::check("no", Expect::Absent),
            Write::put("x", value),
        ]
    };
    let versions = records.commit(TABLE, &place, fenced("mine")).await.unwrap();
    assert_eq!(versions[..2], [0, 0]);
    assert_eq!(records.get(TABLE, &place, b"epoch").await.unwrap().unwrap().version, epoch);
    records.commit(TABLE, &place, vec![Write::replace("epoch", epoch, "2")]).await.unwrap();
    let error = records.commit(TABLE, &place, fenced("late")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted);
    assert_eq!(records.get(TABLE, &place, b"x").await.unwrap().unwrap().value, "mine");
    assert_eq!(records.get(TABLE, &place, b"no").await.unwrap(), None);
}

/// From is in, to is out; a key is before every key that it begins.
pub async fn a_scan_gives_keys_in_byte_order_within_its_bounds(records: Arc<dyn Records>) {
    let place = partition();
    put_all(&*records, &place, &[b"\xff", b"b", b"", b"a\0", b"a", b"aa", b"\0"]).await;
    let all: Vec<&[u8]> = vec![b"", b"\0", b"a", b"a\0", b"aa", b"b", b"\xff"];
    assert_eq!(keys(&*records, &place, KeyRange::all(), 10).await, all);
    assert_eq!(keys(&*records, &place, KeyRange::all(), 2).await, all[..2]);
    assert_eq!(keys(&*records, &place, KeyRange::all(), 0).await, [] as [&str; 0]);
    let down: Vec<&[u8]> = all.iter().rev().copied().collect();
    assert_eq!(keys(&*records, &place, KeyRange::all().reversed(), 10).await, down);
    assert_eq!(keys(&*records, &place, KeyRange::all().reversed(), 2).await, down[..2]);
    let range = |from: &'static str, to: &'static str| KeyRange {
        from: from.into(),
        to: Some(to.into()),
        descending: false,
    };
    assert_eq!(keys(&*records, &place, range("a", "b"), 10).await, all[2..5]);
    assert_eq!(keys(&*records, &place, range("a", "b").reversed(), 10).await, down[2..5]);
    for nothing in [range("a", "a"), range("b", "a"), range("b", "a").reversed()] {
        assert_eq!(keys(&*records, &place, nothing, 10).await, [] as [&str; 0]);
    }
    assert_eq!(keys(&*records, &place, KeyRange::prefix(b"a"), 10).await, all[2..5]);
    assert_eq!(keys(&*records, &place, KeyRange::prefix(b"\xff"), 10).await, all[6..]);
}

/// With [`KeyRange::after`] upwards and [`KeyRange::before`] downwards, for every page size.
pub async fn pages_join_without_gap_or_repeat_in_both_directions(records: Arc<dyn Records>) {
    let place = partition();
    put_all(&*records, &place, &[b"other", b"p", b"p\0", b"p\0\0", b"p1", b"p2", b"p\xff", b"q"]).await;
    let mut expected = keys(&*records, &place, KeyRange::prefix(b"p"), 100).await;
    assert_eq!(expected.len(), 6);
    for descending in [false, true] {
        for size in 1..8 {
            let mut range = KeyRange { descending, ..KeyRange::prefix(b"p") };
            let mut read = vec![];
            loop {
                let page = keys(&*records, &place, range.clone(), size).await;
                let Some(last) = page.last().cloned() else { break };
                read.extend(page);
                range = if descending { range.before(&last) } else { range.after(&last) };
            }
            assert_eq!(read, expected, "descending {descending}, {size} a page");
        }
        expected.reverse();
    }
}

/// Names that would be the same if one simply followed the other.
pub async fn tables_partitions_and_keys_that_run_together_are_apart(records: Arc<dyn Records>) {
    let base = partition();
    let name = |suffix: &[u8]| [&base, suffix].concat();
    let places: [(Table, Vec<u8>, &[u8]); 8] = [
        (TABLE, name(b""), b"abc"),
        (TABLE, name(b"a"), b"bc"),
        (TABLE, name(b"ab"), b"c"),
        (TABLE, name(b"abc"), b""),
        (TABLE, name(b"\0"), b"abc"),
        (TABLE, name(b""), b"\0abc"),
        (TABLE, name(b"\0\x01"), b""),
        (OTHER, name(b""), b"abc"),
    ];
    for (index, (table, partition, key)) in places.iter().enumerate() {
        let write = Write::insert(Bytes::copy_from_slice(key), index.to_string());
        records.commit(*table, partition, vec![write]).await.unwrap();
    }
    for (index, (table, partition, key)) in places.iter().enumerate() {
        let found = records.get(*table, partition, key).await.unwrap().unwrap();
        assert_eq!(found.value, index.to_string(), "{table:?} {partition:?} {key:?}");
    }
    assert_eq!(keys(&*records, &name(b""), KeyRange::all(), 10).await, ["\0abc", "abc"]);
    assert_eq!(keys(&*records, &name(b"\0"), KeyRange::all(), 10).await, ["abc"]);
}

/// Each once however many records it has; one whose records are all deleted is not listed.
pub async fn partitions_are_listed_in_byte_order_after_a_given_one(records: Arc<dyn Records>) {
    let base = partition();
    let name = |suffix: &[u8]| Bytes::from([&base, suffix].concat());
    let expected: Vec<Bytes> = [&b"\0"[..], b"\0\xff", b"a", b"a\0", b"aa", b"b", b"\xff"]
        .iter()
        .map(|suffix| name(suffix))
        .collect();
    for partition in expected.iter().rev() {
        put_all(&*records, partition, &[b"1", b"2", b"\xff\xff"]).await;
    }
    put_all(&*records, &name(b"gone"), &[b"1"]).await;
    records.commit(TABLE, &name(b"gone"), vec![Write::delete("1")]).await.unwrap();
    let listed = records.partitions(TABLE, Some(&base), expected.len()).await.unwrap();
    assert_eq!(listed, expected);
    for size in 1..4 {
        let mut after = base.clone();
        let mut read = vec![];
        while read.len() < expected.len() {
            let page = records.partitions(TABLE, Some(&after), size).await.unwrap();
            after = page.last().unwrap().clone();
            read.extend(page);
        }
        assert_eq!(read[..expected.len()], expected, "{size} a page");
    }
    assert_eq!(records.partitions(Table("conformance_unused"), None, 10).await.unwrap(), [] as [&str; 0]);
    let listed = records.partitions(TABLE, None, 100_000).await.unwrap();
    assert!(listed.is_sorted() && expected.iter().all(|partition| listed.contains(partition)));
}

/// 1,000 writes, 1 KiB of key, 1 MiB of values, no key twice.
pub async fn what_is_over_a_limit_is_refused_with_the_number(records: Arc<dyn Records>) {
    let place = partition();
    let many = (0..1_001).map(|index| Write::put(index.to_string(), "")).collect();
    let long = vec![Write::put(vec![b'k'; 1_025], "")];
    let large = (0..2).map(|index| Write::put(index.to_string(), vec![0; (512 << 10) + index])).collect();
    let twice = vec![Write::put("k", "1"), Write::delete("k")];
    for (writes, limit) in
        [(many, Some("1000")), (long, Some("1024")), (large, Some("1048576")), (twice, None)]
    {
        let error = records.commit(TABLE, &place, writes).await.unwrap_err();
        assert_eq!((error.kind(), error.limit()), (ErrorKind::InvalidArgument, limit), "{error}");
    }
    assert_eq!(keys(&*records, &place, KeyRange::all(), 10).await, [] as [&str; 0]);
}

/// Exactly as many as there may be.
pub async fn what_is_at_a_limit_is_accepted(records: Arc<dyn Records>) {
    let place = partition();
    let many: Vec<_> = (0..1_000).map(|index| Write::put(format!("{index:04}"), vec![7; 1 << 10])).collect();
    let versions = records.commit(TABLE, &place, many).await.unwrap();
    assert_eq!(versions.iter().collect::<HashSet<_>>().len(), 1_000);
    assert_eq!(records.scan(TABLE, &place, KeyRange::all(), 2_000).await.unwrap().len(), 1_000);
    let key = Bytes::from(vec![0; 1 << 10]);
    records.commit(TABLE, &place, vec![Write::put(key.clone(), vec![1; 1 << 20])]).await.unwrap();
    assert_eq!(records.get(TABLE, &place, &key).await.unwrap().unwrap().value.len(), 1 << 20);
}

/// Compare-and-set decides, also among commits that are written together.
pub async fn of_many_who_replace_one_version_exactly_one_wins(records: Arc<dyn Records>) {
    let place = partition();
    let mut version = records.commit(TABLE, &place, vec![Write::put("k", "start")]).await.unwrap()[0];
    for _ in 0..5 {
        let attempts = (0..20).map(|index| {
            let write = Write::replace("k", version, format!("attempt {index}"));
            records.commit(TABLE, &place, vec![write])
        });
        let outcomes = join_all(attempts).await;
        let won: Vec<_> = outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_ok()).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        let stored = records.get(TABLE, &place, b"k").await.unwrap().unwrap();
        assert_eq!(stored.value, format!("attempt {}", won[0].0));
        version = stored.version;
        for lost in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(lost.kind(), ErrorKind::Aborted);
        }
    }
}

/// Eight counters that count together, each by read, add and replace.
pub async fn concurrent_read_modify_writes_lose_none(records: Arc<dyn Records>) {
    let place = partition();
    records.commit(TABLE, &place, vec![Write::put("n", "0")]).await.unwrap();
    let count = async || {
        for _ in 0..10 {
            loop {
                let stored = records.get(TABLE, &place, b"n").await.unwrap().unwrap();
                let n: u32 = std::str::from_utf8(&stored.value).unwrap().parse().unwrap();
                let write = Write::replace("n", stored.version, (n + 1).to_string());
                match records.commit(TABLE, &place, vec![write]).await {
                    Ok(_) => break,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Aborted),
                }
            }
        }
    };
    join_all((0..8).map(|_| count())).await;
    assert_eq!(records.get(TABLE, &place, b"n").await.unwrap().unwrap().value, "80");
}
