//! The HTTP API of Prometheus: answer by answer the same as a real Prometheus that holds the same series.

mod api;
mod client;
mod compare;
mod queries;
mod series;

use std::collections::BTreeMap;

pub(crate) use client::Client;
use compare::{Alike, compare};
use queries::{Generator, WRITTEN};
use series::{LENGTH, Random, START};
use weir_test_servers::{
    or_skip,
    prometheus::{Options, Prometheus},
};
use weir_tests::Weir;

/// Queries by the generator, beside those written by hand.
const GENERATED: usize = 400;
/// What the generator begins with; another one is tried with `WEIR_TEST_SEED`.
const SEED: u64 = 0x00c0_ffee;

/// A client of the API of a `weir dev`, with its token.
pub(crate) fn client(weir: &Weir) -> Client {
    let token = std::fs::read_to_string(weir.home().join("data/secrets/token")).unwrap();
    Client::new(format!("http://{}/prometheus", weir.addresses["grpc"]), Some(token.trim().to_owned()))
}

/// Whether the order of the answer is the query's.
fn is_ordered(query: &str) -> bool {
    ["sort", "topk", "bottomk"].iter().any(|function| query.starts_with(function))
}

#[test]
fn every_answer_is_that_of_a_real_prometheus() {
    let lines = series::all();
    let options = Options { series: Some(series::openmetrics(&lines)), ..Options::default() };
    let Some(server) = or_skip("prometheus", Prometheus::start(&options)) else { return };
    let weir = Weir::start();
    let (ours, theirs) = (client(&weir), Client::new(server.url(), None));
    series::send(&weir, &ours, &lines);
    let seed = std::env::var("WEIR_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let mut generator = Generator(Random(seed));
    let generated: Vec<String> = (0..GENERATED).map(|_| generator.query()).collect();
    let queries = WRITTEN.iter().map(|query| (*query).to_owned()).chain(generated);
    let mut random = Random(seed ^ 1);
    let (mut told, mut wrong) = (BTreeMap::<Alike, usize>::new(), vec![]);
    for query in queries {
        let at = START + random.below(LENGTH as usize) as i64;
        let step = [15_000, 60_000, 137_000, 600_000][random.below(4)];
        let range = (at - 3_600_000, at, step);
        let instant = compare(&ours.query(&query, at), &theirs.query(&query, at), is_ordered(&query));
        let ranged = compare(&ours.query_range(&query, range), &theirs.query_range(&query, range), false);
        for (kind, result) in [("instant", instant), ("range", ranged)] {
            match result {
                Ok(alike) => *told.entry(alike).or_default() += 1,
                Err(error) => wrong.push(format!("{kind} at {at} every {step}: {query}\n    {error}")),
            }
        }
    }
    println!("seed {seed}: {told:?}");
    assert!(wrong.is_empty(), "{} answers differ (seed {seed}):\n{}", wrong.len(), wrong.join("\n"));
    assert!(told[&Alike::Same] > 2 * told[&Alike::SameEmpty], "most answers hold something: {told:?}");
}
