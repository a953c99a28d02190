//! What is measured of the store, whatever is asked of it.

use std::time::Instant;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};
use weir_core::{ErrorKind, Result};

use crate::{Registrar, Sampled, buckets};

/// What is measured of the store.
#[derive(Clone)]
pub struct StoreMetrics {
    statements: IntCounterVec,
    seconds: HistogramVec,
    read: IntCounterVec,
    written: IntCounterVec,
    /// Requests to a server that the engine repeated by itself.
    pub retries: Sampled,
    /// 1 while the store answers.
    pub up: IntGauge,
}

impl StoreMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn new(registrar: &Registrar<'_>) -> Result<Self> {
        const OPERATION: &[&str] = &["operation"];
        Ok(Self {
            statements: registrar.counters(
                "weir_store_statements_total",
                "what was asked of the store, by operation and result: ok, conflict (an expectation of a commit did not \
                 hold), failed",
                &["operation", "result"],
            )?,
            seconds: registrar.histograms(
                "weir_store_statement_seconds",
                "how long the store takes, by operation",
                OPERATION,
                &buckets::LATENCY,
            )?,
            read: registrar.counters(
                "weir_store_read_bytes_total",
                "bytes of values that the store gave, by operation",
                OPERATION,
            )?,
            written: registrar.counters(
                "weir_store_written_bytes_total",
                "bytes of values that the store took, by operation",
                OPERATION,
            )?,
            retries: registrar.sampled_counter(
                "weir_store_retries_total",
                "requests to a server of the store that were repeated, before whoever asked was told",
            )?,
            up: registrar.gauge("weir_store_up", "1 while the store answers, asked every 10 s")?,
        })
    }

    pub(super) fn operation(&self, operation: &'static str) -> Operation {
        let result = |result| self.statements.with_label_values(&[operation, result]);
        Operation {
            ok: result("ok"),
            conflict: result("conflict"),
            failed: result("failed"),
            seconds: self.seconds.with_label_values(&[operation]),
            read: self.read.with_label_values(&[operation]),
            written: self.written.with_label_values(&[operation]),
        }
    }
}

/// The handles of one operation.
pub(super) struct Operation {
    ok: IntCounter,
    conflict: IntCounter,
    failed: IntCounter,
    seconds: Histogram,
    read: IntCounter,
    written: IntCounter,
}

impl Operation {
    /// Does `work`, which writes `written` bytes, and counts what came of it; `read` tells the bytes of an answer.
    pub(super) async fn run<T>(
        &self,
        written: usize,
        work: impl Future<Output = Result<T>>,
        read: impl FnOnce(&T) -> usize,
    ) -> Result<T> {
        let began = Instant::now();
        let done = work.await;
        self.seconds.observe(began.elapsed().as_secs_f64());
        match &done {
            Ok(answer) => {
                self.ok.inc();
                self.read.inc_by(read(answer) as u64);
                self.written.inc_by(written as u64);
            }
            Err(error) if error.kind() == ErrorKind::Aborted => self.conflict.inc(),
            Err(_) => self.failed.inc(),
        }
        done
    }
}
