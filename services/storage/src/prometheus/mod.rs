//! The HTTP API of Prometheus over stored telemetry, so that a tool that speaks it (Grafana, `prometheus-api-client`) needs
//! no plugin. `docs/prometheus-api.md` says what is answered and how.
//!
//! A reading becomes one sample of one series for each metric that is a number: `__name__` is the metric as it is named,
//! `device` the device's id, and further labels are the device's (`names`). The language is `weir-promql`'s; here is where
//! its series come from (`source`, `catalog`), and what requests and answers look like (`request`, `answer`, `routes`).

mod answer;
mod catalog;
mod names;
mod request;
mod routes;
mod run;
mod source;

pub use answer::refuse;

/// Where the API stands.
pub const PREFIX: &str = "/prometheus/";
