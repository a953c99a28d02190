//! `PromQL` over any source of series, with the results of Prometheus.
//!
//! Pure: no clock, no sockets, no runtime. Storage serves it over HTTP; a test evaluates it on series in memory.
//!
//! The way of a query: [`Query::instant`] or [`Query::range`] reads the text into a plan, with every time resolved and
//! everything refused that is not built ("… is not supported by Weir"); [`Query::read`] asks a [`Source`] for the series of
//! each selector, within a [`Budget`]; [`Query::evaluate`] computes the [`Outcome`], which writes itself as the JSON of
//! Prometheus.
//!
//! # What results are the same as
//!
//! Prometheus 2.42: windows and lookback are closed on both sides (`steps::first_of` is the one place where that is
//! decided; Prometheus 3 leaves the older end out), `rate` and its kin extrapolate as that release does, sums over time
//! are Neumaier's, sums over series plain, in the order of labels. Staleness markers do not exist here: a series ends
//! five minutes after its last sample.
//!
//! # Rejected
//!
//! - Evaluating step by step, as the language is specified: labels would be compared once for each step.
//! - Streaming samples through the evaluator: it would save memory for `sum(x)` alone, while the budget bounds it for all.
//! - Writing a parser: `promql-parser` follows Prometheus' grammar and its tests. It is wrapped: what a text may cost is
//!   checked before it reads it (`text`), its tree is converted at once and goes no further (`plan`).
//!
//! Sources: [Prometheus, "Querying"](https://prometheus.io/docs/prometheus/latest/querying/basics/); the behaviour of its
//! release 2.42.0, which the system tests compare with; Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation
//! endlicher Summen" (1974); Welford (1962).

mod calendar;
mod errors;
mod eval;
mod labels;
mod matcher;
mod number;
mod outcome;
pub mod param;
mod plan;
mod query;
mod source;
mod steps;
mod text;

pub use labels::{Labels, METRIC_NAME, is_label_name};
pub use matcher::{Matcher, Op, accepts_all};
pub use number::{format_time, format_value};
pub use outcome::{Outcome, labels_json};
pub use query::{Data, Query};
pub use source::{Budget, Sample, Selection, Series, Source};
pub use steps::{LOOKBACK_MS, STEPS_MAX};
pub use text::QUERY_BYTES_MAX;

/// The matchers of a series selector such as `temp{device="room-1"}`: the parameter `match[]`.
///
/// # Errors
/// `QUERY_INVALID` for what is none, or selects everything; `QUERY_NOT_SUPPORTED`; `QUERY_TOO_LARGE`.
pub fn parse_selector(selector: &str) -> weir_core::Result<Vec<Matcher>> {
    plan::matchers_of(selector)
}
