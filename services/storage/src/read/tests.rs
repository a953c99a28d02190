//! The merge against a model that knows nothing of buckets.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use weir_core::{
    Position, Timestamp, Value,
    port::{BucketId, ScanOrder, Width},
};

use super::{Range, Reader, Rows};
use crate::{
    query::{Admission, Devices, Point, PointRequest, Points, Wants},
    testing::{MemoryStore, device, position, reading, series, tenant},
};

const DAY: i64 = Width::Day.micros();
const METRICS: [&str; 3] = ["a", "b", "c"];

/// (ts, which metrics, in which width of bucket it lies)
type Put = (i64, u8, u8);

fn any_puts() -> impl Strategy<Value = Vec<Put>> {
    let dense = (0..40_i64).prop_map(|n| 700 * DAY + n * 300_000);
    let around_midnight = (-3..3_i64).prop_map(|n| 701 * DAY + n);
    let sparse = (0..4_000_i64).prop_map(|n| n * DAY / 2 + 12_345);
    let ts = prop_oneof![4 => dense, 1 => around_midnight, 1 => sparse];
    prop::collection::vec((ts, 1..8_u8, 0..5_u8), 0..250)
}

async fn fill(puts: &[Put]) -> (Arc<MemoryStore>, BTreeMap<(i64, &'static str), (Position, Value)>) {
    let (store, mut model) = (Arc::new(MemoryStore::default()), BTreeMap::new());
    for (sequence, (ts, mask, width)) in (1..).zip(puts) {
        let values: Vec<(&'static str, Value)> = (0..3)
            .filter(|bit| mask & (1 << bit) != 0)
            .map(|bit| (METRICS[bit], Value::Int64(sequence * 10 + bit as i64)))
            .collect();
        let at = position(sequence as u64);
        let reading = reading(*ts, &values);
        store
            .put(
                &series("d"),
                BucketId::containing(reading.ts, Width::ALL[usize::from(*width)]),
                at,
                &reading,
            )
            .await;
        for (metric, value) in values {
            model.insert((*ts, metric), (at, value)); // positions rise, so the last one wins
        }
    }
    (store, model)
}

fn points(
    store: &Arc<MemoryStore>,
    (from, to): (i64, i64),
    order: ScanOrder,
    metrics: &[&str],
    limit: Option<u64>,
    cursor: String,
) -> Points {
    let request = PointRequest {
        tenant: tenant(),
        devices: Devices::new(&["d".to_owned()], "").unwrap(),
        wants: Wants::new(metrics.iter().map(|metric| (*metric).to_owned()).collect()).unwrap(),
        from: Timestamp::from_micros(from),
        to: Timestamp::from_micros(to),
        order,
        limit,
        resume_cursor: cursor,
    };
    let permit = Admission::new("queries", 1).enter(&tenant()).unwrap();
    let reader = Reader::new(Arc::clone(store) as _);
    Points::new(reader, request, vec![device("d")], permit).unwrap()
}

async fn all(mut points: Points) -> (Vec<Point>, String) {
    let (mut found, mut cursor) = (vec![], String::new());
    while let Some(page) = points.next().await.unwrap() {
        found.extend(page.points);
        cursor = page.cursor;
        assert!(page.stats.is_none_or(|stats| stats.points == found.len() as u64));
    }
    (found, cursor)
}

type Seen = (i64, String, Position, Value);

fn seen(points: Vec<Point>) -> Vec<Seen> {
    points
        .into_iter()
        .map(|point| (point.ts.as_micros(), point.metric.to_string(), point.position, point.value))
        .collect()
}

fn expected(
    model: &BTreeMap<(i64, &'static str), (Position, Value)>,
    (from, to): (i64, i64),
    descending: bool,
    metrics: &[&str],
) -> Vec<Seen> {
    let wanted =
        |ts: i64, metric: &str| from <= ts && ts < to && (metrics.is_empty() || metrics.contains(&metric));
    let mut found: Vec<Seen> = model
        .iter()
        .filter(|((ts, metric), _)| wanted(*ts, metric))
        .map(|((ts, metric), (position, value))| (*ts, (*metric).to_owned(), *position, value.clone()))
        .collect();
    if descending {
        found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn one_value_for_each_metric_and_ts_whatever_the_buckets(
        puts in any_puts(),
        descending in any::<bool>(),
        range in prop_oneof![
            Just((i64::MIN, i64::MAX)),
            (699..702_i64, 0..3 * DAY).prop_map(|(day, len)| (day * DAY + 1, day * DAY + 1 + len)),
        ],
        metrics in prop::sample::subsequence(METRICS.to_vec(), 0..3),
        limit in prop::option::of(1..40_u64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, model) = fill(&puts).await;
            let order = if descending { ScanOrder::Descending } else { ScanOrder::Ascending };
            let expected = expected(&model, range, descending, &metrics);
            let (whole, _) = all(points(&store, range, order, &metrics, None, String::new())).await;
            assert_eq!(seen(whole), expected);
            // The same in streams of `limit` points, each after the cursor of the one before.
            let Some(limit) = limit else { return };
            let (mut found, mut cursor) = (vec![], String::new());
            loop {
                let (part, next) = all(points(&store, range, order, &metrics, Some(limit), cursor)).await;
                assert!(part.len() as u64 <= limit);
                let is_last = (part.len() as u64) < limit;
                found.extend(seen(part));
                cursor = next;
                if is_last {
                    break;
                }
            }
            assert_eq!(found, expected);
        });
    }
}

#[tokio::test]
async fn rows_come_by_ts_and_position_in_either_order() {
    let puts: Vec<Put> =
        (0..500).map(|n| (700 * DAY + (n * 7_919 % 97) * 100_000, 1, (n % 5) as u8)).collect();
    let (store, _) = fill(&puts).await;
    for order in [ScanOrder::Ascending, ScanOrder::Descending] {
        let range = Range { series: series("d"), from: Timestamp::MIN, to: Timestamp::MAX, order };
        let mut rows = Rows::new(Reader::new(Arc::clone(&store) as _), range);
        let mut places = vec![];
        while let Some(row) = rows.next().await.unwrap() {
            places.push((row.ts, row.position));
        }
        assert_eq!(places.len(), 500);
        let in_order = |pair: &[(Timestamp, Position)]| match order {
            ScanOrder::Ascending => pair[0] < pair[1],
            ScanOrder::Descending => pair[0] > pair[1],
        };
        assert!(places.windows(2).all(in_order), "{order:?}");
    }
}

#[tokio::test]
async fn a_gap_of_years_costs_few_reads_backwards() {
    let puts: Vec<Put> = vec![(0, 1, 0), (20_000 * DAY, 1, 0)];
    let (store, _) = fill(&puts).await;
    let (found, _) =
        all(points(&store, (i64::MIN, i64::MAX), ScanOrder::Descending, &[], None, String::new())).await;
    assert_eq!(found.iter().map(|point| point.ts.as_micros()).collect::<Vec<_>>(), [20_000 * DAY, 0]);
}

#[tokio::test]
async fn a_sealed_bucket_is_refused_by_name() {
    let (store, _) = fill(&[(0, 1, 0)]).await;
    store.buckets.lock().values_mut().for_each(|bucket| bucket.seal_generation = 1);
    let mut points = points(&store, (i64::MIN, i64::MAX), ScanOrder::Ascending, &[], None, String::new());
    assert_eq!(points.next().await.unwrap_err().reason(), "NOT_BUILT");
}

#[tokio::test]
async fn a_cursor_of_another_request_is_refused() {
    let (store, _) = fill(&[(0, 1, 0), (1, 1, 0)]).await;
    let (_, cursor) = all(points(&store, (0, 10), ScanOrder::Ascending, &[], Some(1), String::new())).await;
    let request = PointRequest {
        tenant: tenant(),
        devices: Devices::new(&["d".to_owned()], "").unwrap(),
        wants: Wants::default(),
        from: Timestamp::from_micros(0),
        to: Timestamp::from_micros(11),
        order: ScanOrder::Ascending,
        limit: None,
        resume_cursor: cursor,
    };
    let permit = Admission::new("queries", 1).enter(&tenant()).unwrap();
    let refused = Points::new(Reader::new(store as _), request, vec![device("d")], permit);
    assert_eq!(refused.err().unwrap().reason(), "CURSOR_INVALID");
}
