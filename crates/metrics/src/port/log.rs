//! The log, measured.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use prometheus::{GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use weir_core::{
    Error, Partition, Result, Stream, Timestamp, Uid,
    port::{Batch, Bounds, Log, LogIdentity, LogReader},
};

use crate::{Registrar, buckets};

/// Operations that can fail, as labels.
const OPERATIONS: [&str; 6] = ["publish", "read", "trim", "bounds", "writable", "durable"];

/// What is measured of the log.
#[derive(Clone)]
pub struct LogMetrics {
    publish: HistogramVec,
    published: IntCounterVec,
    read: IntCounterVec,
    read_records: IntCounterVec,
    failures: IntCounterVec,
    bytes: IntGaugeVec,
    capacity: IntGaugeVec,
    left: IntGaugeVec,
    used: GaugeVec,
    last: IntGaugeVec,
    first: IntGaugeVec,
    /// 1 while a publish would be accepted.
    pub up: IntGauge,
    /// 1 while what it acknowledges is as durable as configured.
    pub durable: IntGauge,
}

impl LogMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn new(registrar: &Registrar<'_>) -> Result<Self> {
        const STREAM: &[&str] = &["stream"];
        let counters = |name: &str, help: &str| registrar.counters(name, help, STREAM);
        let gauges = |name: &str, help: &str| registrar.gauges(name, help, STREAM);
        Ok(Self {
            publish: registrar.histograms(
                "weir_log_publish_seconds",
                "how long the log takes to make one record durable, by stream",
                STREAM,
                &buckets::LATENCY,
            )?,
            published: counters("weir_log_published_bytes_total", "bytes that the log made durable, by stream")?,
            read: counters("weir_log_read_bytes_total", "bytes that this process read from the log, by stream")?,
            read_records: counters("weir_log_read_records_total", "records that this process read, by stream")?,
            failures: registrar.counters_of(
                "weir_log_failures_total",
                "operations of the log that failed, by operation",
                "operation",
                &OPERATIONS,
            )?,
            bytes: gauges("weir_log_bytes", "bytes that a stream of the log holds")?,
            capacity: gauges("weir_log_capacity_bytes", "bytes at which a stream of the log refuses")?,
            left: gauges("weir_log_left_bytes", "bytes that a stream of the log still takes")?,
            used: registrar.real_gauges(
                "weir_log_used_ratio",
                "bytes that a stream of the log holds, as a share of those at which it refuses",
                STREAM,
            )?,
            first: gauges("weir_log_first_sequence", "the lowest sequence that a stream may still hold")?,
            last: gauges("weir_log_last_sequence", "the highest sequence that a stream ever gave out")?,
            up: registrar.gauge("weir_log_up", "1 while the log would take a record, asked every 10 s")?,
            durable: registrar.gauge(
                "weir_log_durable",
                "1 while what the log acknowledges survives what log.durability promises, as far as that can be asked; \
                 asked every 10 s",
            )?,
        })
    }

    fn of(&self, stream: Stream) -> OfStream {
        let label = [stream.as_str()];
        OfStream {
            publish: self.publish.with_label_values(&label),
            published: self.published.with_label_values(&label),
            read: self.read.with_label_values(&label),
            read_records: self.read_records.with_label_values(&label),
        }
    }

    fn holds(&self, stream: Stream, bounds: Bounds) {
        let label = [stream.as_str()];
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.bytes.with_label_values(&label).set(number(bounds.bytes));
        self.first.with_label_values(&label).set(number(bounds.first));
        self.last.with_label_values(&label).set(number(bounds.last));
        if let Some(max) = bounds.bytes_max {
            self.capacity.with_label_values(&label).set(number(max));
            self.left.with_label_values(&label).set(number(max.saturating_sub(bounds.bytes)));
            self.used.with_label_values(&label).set(bounds.bytes as f64 / max.max(1) as f64);
        }
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(&Error) {
        let failures = self.failures.clone();
        move |_| failures.with_label_values(&[operation]).inc()
    }
}

/// The handles of one stream.
#[derive(Clone)]
struct OfStream {
    publish: Histogram,
    published: IntCounter,
    read: IntCounter,
    read_records: IntCounter,
}

/// A log that is measured.
pub struct MeasuredLog {
    log: Arc<dyn Log>,
    metrics: LogMetrics,
    readings: OfStream,
    commands: OfStream,
}

impl MeasuredLog {
    /// Measures `log`.
    pub fn over(log: Arc<dyn Log>, metrics: LogMetrics) -> Arc<Self> {
        let (readings, commands) = (metrics.of(Stream::Readings), metrics.of(Stream::Commands));
        Arc::new(Self { log, metrics, readings, commands })
    }

    fn stream(&self, stream: Stream) -> &OfStream {
        match stream {
            Stream::Readings => &self.readings,
            Stream::Commands => &self.commands,
        }
    }
}

#[async_trait]
impl Log for MeasuredLog {
    async fn publish(&self, stream: Stream, partition: Partition, id: Uid, bytes: Bytes) -> Result<u64> {
        let (began, len) = (Instant::now(), bytes.len() as u64);
        let sequence = self
            .log
            .publish(stream, partition, id, bytes)
            .await
            .inspect_err(self.metrics.failed("publish"))?;
        let of = self.stream(stream);
        of.publish.observe(began.elapsed().as_secs_f64());
        of.published.inc_by(len);
        Ok(sequence)
    }

    async fn read_from(&self, stream: Stream, partition: Partition, from: u64) -> Result<Box<dyn LogReader>> {
        let failed = self.metrics.failed("read");
        let reader = self.log.read_from(stream, partition, from).await.inspect_err(failed)?;
        let failures = self.metrics.failures.with_label_values(&["read"]);
        Ok(Box::new(MeasuredReader { reader, of: self.stream(stream).clone(), failures }))
    }

    async fn trim(&self, stream: Stream, through: u64) -> Result<()> {
        self.log.trim(stream, through).await.inspect_err(self.metrics.failed("trim"))
    }

    async fn sequence_before(&self, stream: Stream, instant: Timestamp) -> Result<u64> {
        self.log.sequence_before(stream, instant).await.inspect_err(self.metrics.failed("bounds"))
    }

    async fn identity(&self, stream: Stream) -> Result<LogIdentity> {
        self.log.identity(stream).await.inspect_err(self.metrics.failed("bounds"))
    }

    async fn bounds(&self, stream: Stream) -> Result<Bounds> {
        let bounds = self.log.bounds(stream).await.inspect_err(self.metrics.failed("bounds"))?;
        self.metrics.holds(stream, bounds);
        Ok(bounds)
    }

    async fn bounds_with(&self, stream: Stream, known: u64) -> Result<Bounds> {
        let asked = self.log.bounds_with(stream, known).await;
        let bounds = asked.inspect_err(self.metrics.failed("bounds"))?;
        self.metrics.holds(stream, bounds);
        Ok(bounds)
    }

    async fn ids(&self, stream: Stream, sequences: &[u64]) -> Result<Vec<Option<Uid>>> {
        self.log.ids(stream, sequences).await.inspect_err(self.metrics.failed("read"))
    }

    async fn writable(&self) -> Result<()> {
        self.log.writable().await.inspect_err(self.metrics.failed("writable"))
    }

    async fn durable(&self) -> Result<()> {
        self.log.durable().await.inspect_err(self.metrics.failed("durable"))
    }
}

struct MeasuredReader {
    reader: Box<dyn LogReader>,
    of: OfStream,
    failures: IntCounter,
}

#[async_trait]
impl LogReader for MeasuredReader {
    async fn next(&mut self, bytes_max: usize, wait: Duration) -> Result<Batch> {
        let batch = self.reader.next(bytes_max, wait).await.inspect_err(|_| self.failures.inc())?;
        self.of.read_records.inc_by(batch.records.len() as u64);
        self.of.read.inc_by(batch.records.iter().map(|record| record.bytes.len() as u64).sum());
        Ok(batch)
    }
}
