//! The suite of [`weir_core::port::TelemetryStore`].
//!
//! Precondition of every function: nothing else writes to the series that it makes (their uids are random), the store may
//! hold anything else. `telemetry_suite!` makes a test of each.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a suite fails by panicking, as a test does"
)]

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use weir_core::{
    Partition, Position, Stream, TenantId, Timestamp, Uid,
    port::{
        BucketId, BucketRow, LatestCell, Row, RowScan, ScanOrder, SeriesKey, TelemetryBatch, TelemetryStore,
        Width,
    },
};

/// Makes a test of every function of the suite. `$open` is an `async fn() -> (Arc<dyn TelemetryStore>, G)`; the guard `G`
/// lives as long as the test.
#[macro_export]
macro_rules! telemetry_suite {
    ($open:path) => {
        $crate::telemetry_suite!(
            $open:
            rows_come_in_order_of_time_then_position_both_ways,
            a_row_written_twice_is_there_once,
            a_scan_is_half_open_and_its_pages_join,
            rows_of_other_series_and_buckets_are_apart,
            a_newest_value_is_replaced_only_by_a_greater_time_or_position,
            the_newest_values_of_a_series_are_one_for_each_metric,
            concurrent_writers_leave_the_greatest_value_as_the_newest,
            buckets_that_overlap_a_range_come_in_order_and_pages,
            a_bucket_written_again_holds_what_was_written_last,
            what_is_written_is_read_before_and_after_a_sync,
        );
    };
    ($open:path: $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some((store, _guard)) = $crate::Opened::opened($open().await) else { return };
                $crate::telemetry::$name(store).await;
            }
        )+
    };
}

/// 2015-02-16T00:00:00Z, the first instant of a bucket of every width.
const T0: i64 = 1_424_044_800_000_000;
const DAY: i64 = Width::Day.micros();

fn series() -> SeriesKey {
    SeriesKey { tenant: TenantId::new("tenant").unwrap(), uid: Uid::random() }
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn position(sequence: u64) -> Position {
    Position { stream: Stream::Readings, generation: 1, sequence, index: 0, partition: Partition(3) }
}

fn row(series: &SeriesKey, width: Width, ts: i64, sequence: u64) -> Row {
    Row {
        series: series.clone(),
        bucket: BucketId::containing(at(ts), width),
        ts: at(ts),
        position: position(sequence),
        body: Bytes::from(format!("{ts} {sequence}")),
    }
}

fn cell(series: &SeriesKey, metric: &str, ts: i64, sequence: u64) -> LatestCell {
    LatestCell {
        series: series.clone(),
        metric: metric.into(),
        ts: at(ts),
        position: position(sequence),
        body: Bytes::from(format!("{metric} {ts} {sequence}")),
    }
}

fn bucket(series: &SeriesKey, start: i64, width: Width) -> BucketRow {
    BucketRow {
        series: series.clone(),
        bucket: BucketId { start: at(start), width },
        bytes: 7,
        seal_generation: 0,
        sealed_through: None,
    }
}

fn everything(order: ScanOrder, limit: usize) -> RowScan {
    RowScan { from: Timestamp::MIN, to: Timestamp::MAX, after: None, order, limit }
}

async fn write_rows(store: &dyn TelemetryStore, rows: &[Row]) {
    store.write(TelemetryBatch { rows: rows.to_vec(), ..TelemetryBatch::default() }).await.unwrap();
}

async fn write_latest(store: &dyn TelemetryStore, latest: Vec<LatestCell>) {
    store.write(TelemetryBatch { latest, ..TelemetryBatch::default() }).await.unwrap();
}

/// Event times before 1970 too, and positions whose parts weigh from generation to partition.
pub async fn rows_come_in_order_of_time_then_position_both_ways(store: Arc<dyn TelemetryStore>) {
    let series = series();
    for base in [T0, -DAY, 0] {
        let mut rows = vec![];
        for ts in [base, base + 1, base + 255, base + 256, base + 65_536] {
            for sequence in [1, 255, 256, u64::from(u32::MAX) + 1] {
                rows.push(row(&series, Width::Day, ts, sequence));
            }
            let mut raised = row(&series, Width::Day, ts, 0);
            raised.position.generation = 2;
            rows.push(raised);
        }
        let shuffled: Vec<Row> =
            rows.iter().skip(1).step_by(2).chain(rows.iter().step_by(2)).rev().cloned().collect();
        write_rows(&*store, &shuffled).await;
        let bucket = rows[0].bucket;
        assert_eq!(store.rows(&series, bucket, everything(ScanOrder::Ascending, 100)).await.unwrap(), rows);
        rows.reverse();
        assert_eq!(store.rows(&series, bucket, everything(ScanOrder::Descending, 100)).await.unwrap(), rows);
    }
}

/// In one batch, in the next, and as part of another: a redelivery is the same bytes again.
pub async fn a_row_written_twice_is_there_once(store: Arc<dyn TelemetryStore>) {
    let series = series();
    let rows = [row(&series, Width::Hour, T0, 1), row(&series, Width::Hour, T0 + 1, 2)];
    write_rows(&*store, &[rows[0].clone(), rows[0].clone()]).await;
    write_rows(&*store, &rows).await;
    write_rows(&*store, &rows).await;
    for order in [ScanOrder::Ascending, ScanOrder::Descending] {
        assert_eq!(store.rows(&series, rows[0].bucket, everything(order, 10)).await.unwrap().len(), 2);
    }
}

/// From is in, to is out; pages by `after` give every row once, also where many have one time.
pub async fn a_scan_is_half_open_and_its_pages_join(store: Arc<dyn TelemetryStore>) {
    let series = series();
    let times = [T0, T0 + 10, T0 + 10, T0 + 10, T0 + 20, T0 + 30, T0 + 31];
    let rows: Vec<Row> =
        (1..).zip(times).map(|(sequence, ts)| row(&series, Width::Day, ts, sequence)).collect();
    write_rows(&*store, &rows).await;
    for order in [ScanOrder::Ascending, ScanOrder::Descending] {
        let mut expected = rows[1..6].to_vec();
        if order == ScanOrder::Descending {
            expected.reverse();
        }
        let whole = RowScan { from: at(T0 + 10), to: at(T0 + 31), after: None, order, limit: 100 };
        assert_eq!(store.rows(&series, rows[0].bucket, whole.clone()).await.unwrap(), expected);
        for limit in 1..7 {
            let mut read: Vec<Row> = vec![];
            loop {
                let after = read.last().map(|row| (row.ts, row.position));
                let page = RowScan { after, limit, ..whole.clone() };
                let page = store.rows(&series, rows[0].bucket, page).await.unwrap();
                assert!(page.len() <= limit);
                if page.is_empty() {
                    break;
                }
                read.extend(page);
            }
            assert_eq!(read, expected, "{limit} a page, {order:?}");
        }
        let nothing = RowScan { from: at(T0 + 11), to: at(T0 + 11), ..whole.clone() };
        assert_eq!(store.rows(&series, rows[0].bucket, nothing).await.unwrap(), []);
        let backwards = RowScan { from: at(T0 + 31), to: at(T0), ..whole };
        assert_eq!(store.rows(&series, rows[0].bucket, backwards).await.unwrap(), []);
    }
}

/// Tenants whose names run into each other, another uid, another width and another start.
pub async fn rows_of_other_series_and_buckets_are_apart(store: Arc<dyn TelemetryStore>) {
    let uid = Uid::random();
    let of = |tenant: &str, uid| SeriesKey { tenant: TenantId::new(tenant).unwrap(), uid };
    let next = Uid::from_u128(uid.as_u128() + 1);
    let places = [
        row(&of("t", uid), Width::Day, T0, 1),
        row(&of("tt", uid), Width::Day, T0, 2),
        row(&of("t", next), Width::Day, T0, 3),
        row(&of("t", uid), Width::Hour, T0, 4),
        row(&of("t", uid), Width::Day, T0 + DAY, 5),
        row(&of("t", uid), Width::Day, T0 - 1, 6),
    ];
    write_rows(&*store, &places).await;
    for place in &places {
        let found =
            store.rows(&place.series, place.bucket, everything(ScanOrder::Ascending, 10)).await.unwrap();
        assert_eq!(found, std::slice::from_ref(place));
    }
}

/// A late value and a redelivery change nothing; a correction, at the same time but accepted later, wins.
pub async fn a_newest_value_is_replaced_only_by_a_greater_time_or_position(store: Arc<dyn TelemetryStore>) {
    let series = series();
    let steps = [
        ((T0, 5), (T0, 5)),
        ((T0, 5), (T0, 5)),
        ((T0, 4), (T0, 5)),
        ((T0 - 1, 9), (T0, 5)),
        ((T0, 6), (T0, 6)),
        ((T0 + 1, 2), (T0 + 1, 2)),
        ((-T0, 99), (T0 + 1, 2)),
    ];
    for ((ts, sequence), (newest_ts, newest)) in steps {
        write_latest(&*store, vec![cell(&series, "m", ts, sequence)]).await;
        let found = store.latest(&series).await.unwrap();
        assert_eq!(found, [cell(&series, "m", newest_ts, newest)], "after ({ts}, {sequence})");
    }
    let other = SeriesKey { uid: Uid::random(), ..series };
    write_latest(&*store, vec![cell(&other, "m", -DAY, 1)]).await;
    write_latest(&*store, vec![cell(&other, "m", -1, 1)]).await;
    assert_eq!(store.latest(&other).await.unwrap(), [cell(&other, "m", -1, 1)]);
}

/// Names that begin alike, and of any alphabet.
pub async fn the_newest_values_of_a_series_are_one_for_each_metric(store: Arc<dyn TelemetryStore>) {
    let series = series();
    assert_eq!(store.latest(&series).await.unwrap(), []);
    let mut cells: Vec<LatestCell> = (1..)
        .zip(["t", "temp", "temp.max", "über", "湿度"])
        .map(|(n, name)| cell(&series, name, T0, n))
        .collect();
    write_latest(&*store, cells[2..].to_vec()).await;
    write_latest(&*store, cells[..2].to_vec()).await;
    let other = SeriesKey { tenant: TenantId::new("tenant2").unwrap(), ..series.clone() };
    write_latest(&*store, vec![cell(&other, "t", T0, 1)]).await;
    let mut found = store.latest(&series).await.unwrap();
    found.sort_by(|a, b| a.metric.cmp(&b.metric));
    cells.sort_by(|a, b| a.metric.cmp(&b.metric));
    assert_eq!(found, cells);
}

/// Also within one group of the engine.
pub async fn concurrent_writers_leave_the_greatest_value_as_the_newest(store: Arc<dyn TelemetryStore>) {
    let series = series();
    let order = (0..64_u64).map(|n| (n * 37) % 64);
    join_all(order.map(|n| {
        let latest = vec![cell(&series, "m", T0 + i64::try_from(n / 4).unwrap(), n)];
        let store = &store;
        async move { write_latest(&**store, latest).await }
    }))
    .await;
    assert_eq!(store.latest(&series).await.unwrap(), [cell(&series, "m", T0 + 15, 63)]);
}

/// Of several widths; an engine may also give some that end up to a day before the range.
pub async fn buckets_that_overlap_a_range_come_in_order_and_pages(store: Arc<dyn TelemetryStore>) {
    let series = series();
    let hour = Width::Hour.micros();
    let rows = [
        bucket(&series, -DAY, Width::Day),
        bucket(&series, T0 - DAY, Width::Day),
        bucket(&series, T0, Width::Day),
        bucket(&series, T0, Width::Hour),
        bucket(&series, T0 + hour, Width::Hour),
        bucket(&series, T0 + hour, Width::Second),
        bucket(&series, T0 + 2 * hour, Width::FiveMinutes),
        bucket(&series, T0 + DAY, Width::Day),
    ];
    let other = bucket(&SeriesKey { uid: Uid::random(), ..series.clone() }, T0, Width::Day);
    let shuffled = rows.iter().rev().chain([&other]).cloned().collect();
    store.write(TelemetryBatch { buckets: shuffled, ..TelemetryBatch::default() }).await.unwrap();

    for (from, to) in [
        (T0, T0 + DAY),
        (T0 + 1, T0 + 2),
        (T0 + hour, T0 + hour + 1),
        (T0 + hour + 5_000_000, T0 + 2 * hour),
        (T0 + 2 * hour, T0 + DAY + 1),
        (T0 + 3 * hour, T0 + DAY),
        (i64::MIN, i64::MAX),
        (T0, T0),
        (T0 + 1, T0),
    ] {
        let expected: Vec<&BucketRow> = rows
            .iter()
            .filter(|row| row.bucket.start < at(to) && row.bucket.end() > at(from) && from < to)
            .collect();
        for limit in [1, 2, 3, 100] {
            let mut read = vec![];
            let mut after = None;
            loop {
                let page = store.buckets(&series, at(from), at(to), after, limit).await.unwrap();
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = Some(last.bucket);
                read.extend(page);
            }
            read.retain(|row| row.bucket.end() > at(from));
            assert_eq!(read.iter().collect::<Vec<_>>(), expected, "[{from}, {to}), {limit} a page");
        }
    }
}

/// More bytes, then a seal.
pub async fn a_bucket_written_again_holds_what_was_written_last(store: Arc<dyn TelemetryStore>) {
    let series = series();
    let mut row = bucket(&series, T0, Width::Hour);
    for (bytes, seal_generation, sealed_through) in
        [(1, 0, None), (4 << 20, 0, None), (9, 2, Some(position(7)))]
    {
        row = BucketRow { bytes, seal_generation, sealed_through, ..row };
        store
            .write(TelemetryBatch { buckets: vec![row.clone()], ..TelemetryBatch::default() })
            .await
            .unwrap();
        assert_eq!(store.buckets(&series, at(T0), at(T0 + 1), None, 10).await.unwrap(), [row.clone()]);
    }
}

/// One batch of everything; an empty one; a sync of nothing.
pub async fn what_is_written_is_read_before_and_after_a_sync(store: Arc<dyn TelemetryStore>) {
    store.sync().await.unwrap();
    store.write(TelemetryBatch::default()).await.unwrap();
    let series = series();
    let batch = TelemetryBatch {
        buckets: vec![bucket(&series, T0, Width::Day)],
        rows: vec![row(&series, Width::Day, T0, 1)],
        latest: vec![cell(&series, "m", T0, 1)],
    };
    store.write(batch.clone()).await.unwrap();
    for _ in 0..2 {
        let id = batch.rows[0].bucket;
        let rows = store.rows(&series, id, everything(ScanOrder::Ascending, 10)).await.unwrap();
        let latest = store.latest(&series).await.unwrap();
        let buckets = store.buckets(&series, at(T0), at(T0 + 1), None, 10).await.unwrap();
        assert_eq!(TelemetryBatch { buckets, rows, latest }, batch);
        store.sync().await.unwrap();
    }
}
