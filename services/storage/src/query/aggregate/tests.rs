//! Aggregates against a model that has all values in hand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;
use weir_core::{
    Timestamp, Value,
    port::{BucketId, Width},
};

use super::{AggregateRequest, AggregateRow, Aggregates, Function, Spacing};
use crate::{
    query::{Admission, Devices, Wants},
    read::Reader,
    testing::{MemoryStore, device, position, reading, series, tenant},
};

const MINUTE: i64 = 60_000_000;
const ALL: [Function; 9] = [
    Function::Count,
    Function::Min,
    Function::Max,
    Function::Avg,
    Function::Sum,
    Function::First,
    Function::Last,
    Function::Stddev,
    Function::Rate,
];

async fn ask(
    store: &Arc<MemoryStore>,
    spacing: Spacing,
    (from, to): (i64, i64),
    percentiles: &[f64],
    memory: usize,
) -> Vec<AggregateRow> {
    let request = AggregateRequest {
        tenant: tenant(),
        devices: Devices::new(&["d".to_owned()], "").unwrap(),
        wants: Wants::default(),
        from: Timestamp::from_micros(from),
        to: Timestamp::from_micros(to),
        spacing,
        functions: ALL.to_vec(),
        percentiles: percentiles.to_vec(),
    };
    let permit = Admission::new("queries", 1).enter(&tenant()).unwrap();
    let reader = Reader::new(Arc::clone(store) as _);
    let mut aggregates = Aggregates::new(reader, request, vec![device("d")], memory, permit).unwrap();
    let mut rows = vec![];
    while let Some(page) = aggregates.next().await.unwrap() {
        rows.extend(page.rows);
    }
    rows
}

async fn store_of(values: &BTreeMap<(&'static str, i64), Value>) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::default());
    for (sequence, ((metric, ts), value)) in (1..).zip(values) {
        let reading = reading(*ts, &[(metric, value.clone())]);
        store
            .put(&series("d"), BucketId::containing(reading.ts, Width::Hour), position(sequence), &reading)
            .await;
    }
    store
}

/// By recursion over groups, where the code goes once over the values.
fn tree_sum(values: &[(i64, f64)], units: &[i64]) -> f64 {
    let Some((unit, finer)) = units.split_first() else {
        return values.iter().map(|(_, value)| *value).reduce(|sum, value| sum + value).unwrap();
    };
    let mut groups: BTreeMap<i64, Vec<(i64, f64)>> = BTreeMap::new();
    values.iter().for_each(|(ts, value)| groups.entry(ts.div_euclid(*unit)).or_default().push((*ts, *value)));
    groups.values().map(|group| tree_sum(group, finer)).reduce(|sum, value| sum + value).unwrap()
}

fn close(found: &Option<Value>, expected: f64) -> bool {
    let found = found.as_ref().and_then(Value::as_f64).unwrap();
    (found - expected).abs() <= 1e-9 * expected.abs().max(1e6)
}

fn check(row: &AggregateRow, values: &[(i64, f64)], percentiles: &[f64]) {
    let count = values.len() as f64;
    let sum = tree_sum(values, &[1_440 * MINUTE, 60 * MINUTE, MINUTE]);
    let mean = values.iter().map(|(_, value)| value).sum::<f64>() / count;
    let variance = values.iter().map(|(_, value)| (value - mean).powi(2)).sum::<f64>() / count;
    let [rows, min, max, avg, total, first, last, stddev, rate] = row.values.as_slice() else {
        panic!("nine")
    };
    assert_eq!(*rows, Some(Value::Int64(values.len() as i64)));
    assert_eq!(*min, Some(Value::Double(values.iter().map(|(_, value)| *value).reduce(f64::min).unwrap())));
    assert_eq!(*max, Some(Value::Double(values.iter().map(|(_, value)| *value).reduce(f64::max).unwrap())));
    assert_eq!(
        total.as_ref().unwrap().as_f64().unwrap().to_bits(),
        sum.to_bits(),
        "the same to the last bit"
    );
    assert_eq!(*avg, Some(Value::Double(sum / count)));
    assert_eq!(
        (first, last),
        (&Some(Value::Double(values[0].1)), &Some(Value::Double(values.last().unwrap().1)))
    );
    assert!(close(stddev, variance.sqrt()), "{stddev:?} {}", variance.sqrt());
    match values {
        [_] => assert_eq!(*rate, None),
        _ => {
            let rises = values
                .windows(2)
                .map(|pair| if pair[1].1 >= pair[0].1 { pair[1].1 - pair[0].1 } else { pair[1].1 });
            let seconds = (values.last().unwrap().0 - values[0].0) as f64 / 1e6;
            assert!(close(rate, rises.sum::<f64>() / seconds));
        }
    }
    let mut sorted: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    sorted.sort_by(f64::total_cmp);
    for (percentile, found) in percentiles.iter().zip(&row.percentiles) {
        let rank = percentile / 100.0 * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
        let margin = 0.011 * low.abs().max(high.abs()) + 1e-9;
        assert!(
            *found >= low - margin && *found <= high + margin,
            "p{percentile} {found} of [{low}, {high}]"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_function_of_every_step_is_that_of_its_values(
        values in prop::collection::btree_map((prop::sample::select(vec!["a", "b", "c"]), 0..3 * 1_440 * MINUTE), -1e6..1e6_f64, 1..200),
        step in prop::sample::select(vec![None, Some(1), Some(90), Some(60), Some(3_600), Some(86_400), Some(2 * 86_400)]),
        from in 0..1_440 * MINUTE,
        memory in prop::sample::select(vec![1_usize, 4_096, 64 << 20]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let values = values.into_iter().map(|(key, value)| (key, Value::Double(value))).collect();
            let store = store_of(&values).await;
            let to = from + match step { Some(1) => 90_000 * 1_000_000, _ => 2 * 1_440 * MINUTE };
            let spacing = Spacing::new(step.map(Duration::from_secs), "").unwrap();
            let mut expected: BTreeMap<(String, i64), Vec<(i64, f64)>> = BTreeMap::new();
            for ((metric, ts), value) in &values {
                if (from..to).contains(ts) {
                    let start = step.map_or(from, |step| ts.div_euclid(step as i64 * 1_000_000) * step as i64 * 1_000_000);
                    expected.entry(((*metric).to_owned(), start)).or_default().push((*ts, value.as_f64().unwrap()));
                }
            }
            let percentiles = [0.0, 50.0, 99.0, 100.0];
            let rows = ask(&store, spacing, (from, to), &percentiles, memory).await;
            let keys: Vec<_> = rows.iter().map(|row| (row.metric.to_string(), row.start.as_micros())).collect();
            assert_eq!(keys, expected.keys().cloned().collect::<Vec<_>>(), "in order of metric and start, each once");
            for (row, values) in rows.iter().zip(expected.values()) {
                check(row, values, &percentiles);
            }
        });
    }
}

#[tokio::test]
async fn text_counts_and_is_first_and_last_but_is_no_number() {
    let text = |text: &str| Value::String(text.to_owned());
    let values = [(("s", 1), text("x")), (("s", 2), text("y"))].into();
    let rows = ask(&store_of(&values).await, Spacing::Whole, (0, 10), &[50.0], 1).await;
    let expected =
        vec![Some(Value::Int64(2)), None, None, None, None, Some(text("x")), Some(text("y")), None, None];
    assert_eq!((&rows[0].values, rows[0].percentiles.len()), (&expected, 0));
}

#[tokio::test]
async fn the_extremes_of_integers_are_exact() {
    let values = [(("i", 1), Value::Int64(i64::MAX - 1)), (("i", 2), Value::Int64(i64::MAX))].into();
    let rows = ask(&store_of(&values).await, Spacing::Whole, (0, 10), &[], 1).await;
    assert_eq!(rows[0].values[1..3], [Some(Value::Int64(i64::MAX - 1)), Some(Value::Int64(i64::MAX))]);
}

#[test]
fn a_request_over_a_limit_is_refused_with_its_number() {
    let request = |functions: Vec<Function>, percentiles: Vec<f64>| AggregateRequest {
        tenant: tenant(),
        devices: Devices::new(&["d".to_owned()], "").unwrap(),
        wants: Wants::default(),
        from: Timestamp::from_micros(0),
        to: Timestamp::from_micros(1),
        spacing: Spacing::Whole,
        functions,
        percentiles,
    };
    let refused = |functions, percentiles| {
        let error = request(functions, percentiles).check().unwrap_err();
        (error.reason().to_owned(), error.limit().map(str::to_owned))
    };
    assert_eq!(refused(vec![], vec![1.0; 17]), ("TOO_MANY_PERCENTILES".into(), Some("16".into())));
    assert_eq!(refused(vec![], vec![100.1]), ("PERCENTILE_INVALID".into(), Some("100".into())));
    assert_eq!(refused(vec![], vec![f64::NAN]), ("PERCENTILE_INVALID".into(), Some("100".into())));
    assert_eq!(refused(vec![], vec![]), ("FUNCTIONS_MISSING".into(), None));
}
