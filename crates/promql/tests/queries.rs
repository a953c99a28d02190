//! Queries on series in memory: what they give, what they refuse, and that no text can do harm.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

use std::{cell::Cell, time::Duration};

use async_trait::async_trait;
use futures::FutureExt as _;
use proptest::prelude::*;
use weir_core::{Error, Result};
use weir_promql::{
    Budget, Labels, Outcome, Query, Sample, Selection, Series, Source, accepts_all, parse_selector,
};

/// What every query may hold here.
const LIMIT: usize = 100_000;

struct Memory(Vec<Series>);

#[async_trait]
impl Source for Memory {
    async fn select(&self, selection: &Selection, budget: &Budget) -> Result<Vec<Series>> {
        let mut found = vec![];
        for series in self.0.iter().filter(|series| accepts_all(&selection.matchers, &series.labels)) {
            let samples = series.samples.iter().copied();
            let samples: Vec<_> =
                samples.filter(|sample| (selection.start..=selection.end).contains(&sample.t)).collect();
            budget.take(1, samples.len())?;
            found.push(Series { labels: series.labels.clone(), samples });
        }
        Ok(found)
    }
}

/// Ten minutes of `temp` of two rooms, a sample every 10 s from instant 0.
fn rooms() -> Memory {
    let room = |device: &str, base: f64| Series {
        labels: Labels::new([("__name__", "temp"), ("device", device), ("type", "room")]),
        samples: (0..60).map(|n| Sample { t: n * 10_000, v: base + n as f64 }).collect(),
    };
    Memory(vec![room("b", 100.0), room("a", 0.0)])
}

fn run(query: Result<Query>, budget: &Budget) -> Result<Outcome> {
    let (query, source) = (query?, rooms());
    let data = query.read(&source, budget).now_or_never().expect("memory is ready")?;
    query.evaluate(&data, budget, &|| Ok(()))
}

/// The values at an instant in milliseconds, by their labels.
fn at(query: &str, at: i64) -> Vec<(String, f64)> {
    match run(Query::instant(query, at), &Budget::new(LIMIT)).unwrap() {
        Outcome::Vector(series) => {
            series.into_iter().map(|series| (series.labels.to_string(), series.samples[0].v)).collect()
        }
        Outcome::Scalar(sample) => vec![(String::new(), sample.v)],
        other => panic!("{query}: {other:?}"),
    }
}

fn refused(query: &str) -> Error {
    run(Query::instant(query, 100_000), &Budget::new(LIMIT)).unwrap_err()
}

#[test]
fn windows_and_lookback_are_closed_on_both_sides() {
    let count = |query: &str, ms: i64| at(query, ms).first().map_or(0.0, |(_, value)| *value);
    assert_eq!(count("count_over_time(temp{device=\"a\"}[20s])", 40_000), 3.0);
    assert_eq!(count("count_over_time(temp{device=\"a\"}[20s])", 40_001), 2.0);
    assert_eq!(count("count(temp)", 590_000 + 300_000), 2.0);
    assert_eq!(count("count(temp)", 590_000 + 300_001), 0.0);
}

#[test]
fn the_order_is_that_of_labels_unless_asked_for() {
    let devices = |query| at(query, 0).into_iter().map(|(labels, _)| labels).collect::<Vec<_>>();
    assert!(devices("temp")[0].contains("device=\"a\""));
    assert!(devices("sort_desc(temp)")[0].contains("device=\"b\""));
    assert!(devices("topk(2, temp)")[0].contains("device=\"b\""));
}

#[test]
fn a_range_has_every_step_and_a_gap_where_there_is_nothing() {
    let query = Query::range("temp{device=\"a\"} > 3", 0, 60_000, 20_000);
    let Outcome::Matrix(series) = run(query, &Budget::new(LIMIT)).unwrap() else { panic!("no matrix") };
    let samples: Vec<_> = series[0].samples.iter().map(|sample| (sample.t, sample.v)).collect();
    assert_eq!(samples, [(40_000, 4.0), (60_000, 6.0)]);
}

#[test]
fn what_is_not_supported_says_so_and_the_rest_says_why() {
    for query in [
        "histogram_quantile(0.9, temp)",
        "holt_winters(temp[5m], 0.1, 0.1)",
        "limitk(1, temp)",
        "temp + fill(0) temp",
        "{a=\"b\" or c=\"d\"}",
        "timestamp(temp @ 5 offset 1s)",
    ] {
        let error = refused(query);
        assert!(error.message().ends_with("is not supported by Weir"), "{query}: {error}");
        assert_eq!(error.reason(), "QUERY_NOT_SUPPORTED");
    }
    for query in
        ["", "temp[5m", "rate(temp)", "1 > 2", "sum(temp) by", "ln(0)", "temp @ \"x\"", "temp offset 2000y"]
    {
        assert_eq!(refused(query).reason(), "QUERY_INVALID", "{query}");
    }
    for query in
        ["temp + on (type) temp", "rate({type=\"room\",device=~\"a|b\"}[1m]) + on () temp", "topk(NaN, temp)"]
    {
        assert_eq!(refused(query).reason(), "QUERY_FAILED", "{query}");
    }
}

#[test]
fn a_selector_of_a_list_is_one_and_nothing_else() {
    assert_eq!(parse_selector("temp{device=\"a\"}").unwrap().len(), 2);
    for bad in ["temp[5m]", "temp offset 5m", "sum(temp)", "{}", "", "{device=~\".*\"}"] {
        assert_eq!(parse_selector(bad).unwrap_err().reason(), "QUERY_INVALID", "{bad}");
    }
}

#[test]
fn a_query_holds_no_more_than_its_budget_and_gives_it_back() {
    let budget = Budget::new(150);
    let error = run(Query::instant("sum_over_time(temp[10m])", 600_000), &Budget::new(100)).unwrap_err();
    assert_eq!((error.reason(), error.limit()), ("QUERY_TOO_LARGE", Some("100")));
    run(Query::instant("sum(temp) + sum(temp) + sum(temp)", 600_000), &budget).unwrap();
    assert!(budget.held() < 150, "only what was read is still held: {}", budget.held());
    // Nothing is read and nothing would be held, but the steps alone are too many.
    for query in ["count_over_time(vector(1)[100y:1ms])", "absent_over_time(nothing[100y:1ms])"] {
        assert_eq!(refused(query).reason(), "QUERY_TOO_LARGE", "{query}");
    }
    let wide = Query::range("temp", 0, 11_000_000, 1_000);
    assert_eq!(run(wide, &Budget::new(2_000)).unwrap_err().reason(), "QUERY_TOO_LARGE");
}

#[test]
fn an_evaluation_ends_when_it_is_told_to() {
    let query = Query::range("rate(temp[5m]) + rate(temp[5m])", 0, 590_000, 1_000).unwrap();
    let (source, budget) = (rooms(), Budget::new(LIMIT));
    let data = query.read(&source, &budget).now_or_never().unwrap().unwrap();
    let asked = Cell::new(0);
    let check = || {
        asked.set(asked.get() + 1);
        if asked.get() > 100 { Err(Error::unavailable("enough")) } else { Ok(()) }
    };
    assert_eq!(query.evaluate(&data, &budget, &check).unwrap_err().message(), "enough");
    assert_eq!(asked.get(), 101);
}

#[test]
fn nesting_is_bounded_before_it_costs_the_stack() {
    let nested =
        |open: &str, close: &str, times: usize| format!("{}temp{}", open.repeat(times), close.repeat(times));
    for query in [
        nested("-", "", 1_900),
        nested("abs(", ")", 600),
        nested("sum(", ")", 600),
        nested("1 + (", ")", 400),
        format!("temp{}", " + temp".repeat(900)),
        nested("max_over_time((", ")[1m:1s])", 150),
    ] {
        assert!(matches!(refused(&query).reason(), "QUERY_INVALID" | "QUERY_TOO_LARGE"));
    }
    assert_eq!(at(&nested("(", ")", 900), 0).len(), 2);
    assert_eq!(at(&nested("abs(", ")", 95), 0).len(), 2);
    assert_eq!(at(&nested("max_over_time((", ")[1m:1s])", 60), 0).len(), 2);
    assert_eq!(at(&format!("temp{}", " + temp".repeat(90)), 0).len(), 2);
}

/// Texts that are queries more often than chance would make them.
fn any_query() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "temp",
        "rate",
        "sum",
        "by",
        "without",
        "(",
        ")",
        "[5m]",
        "[1h:1m]",
        "[",
        "]",
        "{",
        "}",
        "device",
        "=",
        "=~",
        "\"a\"",
        "'.*'",
        ",",
        "+",
        "-",
        "*",
        "/",
        "%",
        "^",
        "==",
        "> bool",
        "and",
        "or",
        "unless",
        "on",
        "ignoring",
        "group_left",
        "offset",
        "5m",
        "-1h",
        "@",
        "start()",
        "end()",
        "1e3",
        "0x1f",
        "NaN",
        "Inf",
        "topk",
        "quantile",
        "avg_over_time",
        "label_replace",
        "vector",
        "scalar",
        "time()",
        "1e400",
        "99999999999y",
        "[0s]",
        "-5",
        "#",
        "\n",
        "\"",
        "atan2",
        "bool",
        "count_values",
        "absent",
        ":",
        "temp[1e400]",
        "offset 1e400",
        "[9e18]",
        "0.1",
    ]);
    let words = prop::collection::vec(word, 0..24).prop_map(|words| words.join(" "));
    prop_oneof![4 => words, 1 => ".{0,40}", 1 => "[a-z(){}\\[\\]\"'=~!@+*/,0-9 -]{0,40}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn any_text_has_an_answer_or_an_error(query in any_query(), ms in -1_000_000_000_000_i64..2_000_000_000_000) {
        for query in [Query::instant(&query, ms), Query::range(&query, ms, ms.saturating_add(90_000), 7_000)] {
            let started = std::time::Instant::now();
            if let Ok(outcome) = run(query, &Budget::new(LIMIT)) {
                for piece in outcome.into_json() {
                    drop(piece);
                }
            }
            prop_assert!(started.elapsed() < Duration::from_secs(20));
        }
        drop(parse_selector(&query));
    }
}
