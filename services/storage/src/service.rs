//! The service: its owners, its readers, and their orderly end.

use std::{sync::Arc, thread::available_parallelism};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_core::{
    Clock, Error, ErrorKind, Partition, Position, Result, Stream,
    port::{
        Leases, Log, Records, Registry, RuleRow, RuleRows, RuleScan, ScanOrder, SeriesKey, SignalStream,
        Signals, TelemetryReader, TelemetryStore, Topic,
    },
};
use weir_frame::row::RowView;
use weir_runtime::ownership::Ownership;

use crate::{
    Config,
    marks::{self, Marks},
    metrics::Metrics,
    poison::{self, Info, Place},
    query::{
        Admission, AggregateRequest, Aggregates, Devices, Latest, PageToken, Point, PointRequest, Points,
        Wants, resolve,
    },
    read::{Range, Reader, Rows},
    tail::{FanOut, Follower, Sources, Tail, TailRequest},
    trim::trim,
    writer::{Owner, READER, Shared},
};

/// Writes what the log has, and answers questions about it. Dropped without [`weir_runtime::Service::drain`], it ends as a
/// crash would.
pub struct Service {
    pub(crate) config: Config,
    pub(crate) registry: Arc<dyn Registry>,
    signals: Arc<dyn Signals>,
    shared: Arc<Shared>,
    ownership: Arc<Ownership>,
    queries: Arc<Admission>,
    tails: Arc<Admission>,
    tasks: TaskTracker,
    /// Ends every task but those of owners.
    stop: CancellationToken,
    /// Ends every stream of answers.
    pub(crate) closing: CancellationToken,
}

/// How far storage is behind the log in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: Partition,
    /// Everything up to this sequence of the stream can be read.
    pub written: u64,
    /// Frames of the stream, of whatever partition, that are not yet looked at.
    pub frames: u64,
}

impl Service {
    /// Joins the other replicas, and starts an owner for each partition that is this one's.
    ///
    /// # Errors
    /// `FailedPrecondition` (`PARTITIONS_CHANGED`) for another partition count than the recorded one; those of store, log
    /// and leases.
    #[allow(clippy::too_many_arguments)] // the ports that it stands on, each once
    pub async fn start(
        config: Config,
        log: Arc<dyn Log>,
        records: Arc<dyn Records>,
        telemetry: Arc<dyn TelemetryStore>,
        signals: Arc<dyn Signals>,
        leases: Arc<dyn Leases>,
        registry: Arc<dyn Registry>,
        clock: Arc<dyn Clock>,
        metrics: &prometheus::Registry,
    ) -> Result<Arc<Self>> {
        let metrics = Arc::new(Metrics::new(metrics)?);
        let partitions = config.partitions;
        // Listening begins before marks are read, so that none falls in between.
        let heard = signals.subscribe(Topic::Progress).await;
        let marks =
            Marks::open(Arc::clone(&log), Arc::clone(&records), Stream::Readings, READER, partitions).await?;
        let marks = Arc::new(marks);
        let shared = Arc::new(Shared {
            config: config.writer.clone(),
            fan_out: FanOut::new(
                config.query.tail_buffer.as_usize(),
                Arc::clone(&marks),
                Arc::clone(&metrics),
            ),
            // One core has nothing to gain from a second batch, but another partition should not wait for its write.
            slots: Semaphore::new(available_parallelism().map_or(2, |cores| cores.get().max(2))),
            store: telemetry,
            signals: Arc::clone(&signals),
            log,
            records,
            marks,
            metrics,
        });
        let ownership = Arc::new(Ownership::join(&*leases, READER, partitions).await?);
        let service = Arc::new(Self {
            queries: Admission::new("queries", config.query.queries_per_tenant),
            tails: Admission::new("live tails", config.query.tails_per_tenant),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
            registry,
            signals,
            shared,
            ownership,
        });
        service.tell_use();
        service.spawn_tasks(heard, clock);
        service.ownership.start(Arc::new(Owner(Arc::clone(&service.shared)))).await?;
        Ok(service)
    }

    /// How what is bounded here is read at a scrape.
    fn tell_use(&self) {
        let metrics = &self.shared.metrics;
        self.ownership.tell(&metrics.owned);
        let max = self.shared.slots.available_permits();
        metrics.writer.slots_max.set(i64::try_from(max).unwrap_or(i64::MAX));
        let shared = Arc::downgrade(&self.shared);
        metrics.writer.slots.by(move || {
            shared.upgrade().map_or(0, |shared| max.saturating_sub(shared.slots.available_permits())) as f64
        });
        let queries = Arc::clone(&self.queries);
        metrics.running.by(move || queries.running() as f64);
        let (queries, tails) = (Arc::clone(&self.queries), Arc::clone(&self.tails));
        metrics.refused.by(move || (queries.refused() + tails.refused()) as f64);
    }

    fn spawn_tasks(&self, heard: SignalStream, clock: Arc<dyn Clock>) {
        let Shared { log, marks, fan_out, .. } = &*self.shared;
        for partition in (0..self.config.partitions).map(Partition) {
            let (log, marks, fan_out) = (Arc::clone(log), Arc::clone(marks), Arc::clone(fan_out));
            self.spawn(Follower { log, marks, fan_out, partition }.follow());
        }
        let marks = Arc::clone(marks);
        self.spawn(async move { marks.listen(heard).await });
        let (shared, ownership) = (Arc::clone(&self.shared), Arc::clone(&self.ownership));
        self.spawn(trim(shared, ownership, self.config.partitions, self.config.keep, clock));
        self.tasks.close();
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// How far each partition is behind the log.
    ///
    /// # Errors
    /// `Unavailable` of the log.
    pub async fn lag(&self) -> Result<Vec<PartitionLag>> {
        let end = self.shared.log.bounds(Stream::Readings).await?.last;
        let marks = self.shared.marks.all();
        let lag = (0..).map(Partition).zip(marks).map(|(partition, mark)| PartitionLag {
            partition,
            written: mark.sequence,
            frames: end.saturating_sub(mark.sequence),
        });
        Ok(lag.collect())
    }

    pub(crate) async fn query(
        &self,
        request: PointRequest,
        min_positions: &[Position],
        deadline: Option<Instant>,
    ) -> Result<Points> {
        let permit = self.queries.enter(&request.tenant)?;
        let reader = self.reader("query");
        marks::wait(&self.shared.marks, min_positions, deadline).await?;
        let devices = resolve(&*self.registry, &request.tenant, &request.devices).await?;
        Points::new(reader, request, devices, permit)
    }

    pub(crate) async fn aggregate(
        &self,
        request: AggregateRequest,
        min_positions: &[Position],
        deadline: Option<Instant>,
    ) -> Result<Aggregates> {
        request.check()?;
        let permit = self.queries.enter(&request.tenant)?;
        let reader = self.reader("aggregate");
        marks::wait(&self.shared.marks, min_positions, deadline).await?;
        let devices = resolve(&*self.registry, &request.tenant, &request.devices).await?;
        Aggregates::new(reader, request, devices, self.config.query.aggregate_memory.as_usize(), permit)
    }

    pub(crate) async fn latest(
        &self,
        request: LatestRequest,
        min_positions: &[Position],
        deadline: Option<Instant>,
    ) -> Result<(Vec<Point>, Option<PageToken>)> {
        let _permit = self.queries.enter(&request.tenant)?;
        let reader = self.reader("latest");
        marks::wait(&self.shared.marks, min_positions, deadline).await?;
        let devices = resolve(&*self.registry, &request.tenant, &request.devices).await?;
        Latest::new(reader, devices, request.wants, request.after).page(request.page_size).await
    }

    pub(crate) async fn tail(&self, request: TailRequest) -> Result<Tail> {
        let permit = self.tails.enter(&request.tenant)?;
        let reader = self.reader("tail");
        let devices = resolve(&*self.registry, &request.tenant, &request.devices).await?;
        let snapshot = Latest::new(reader, devices, request.wants.clone(), None);
        let sources = Sources {
            log: Arc::clone(&self.shared.log),
            registry: Arc::clone(&self.registry),
            signals: Arc::clone(&self.signals),
            marks: Arc::clone(&self.shared.marks),
            fan_out: Arc::clone(&self.shared.fan_out),
        };
        Tail::open(sources, request, snapshot, permit).await
    }

    pub(crate) async fn poison_frames(
        &self,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<(Place, Info)>> {
        poison::list(&*self.shared.records, self.config.partitions, after, limit).await
    }

    pub(crate) async fn poison_frame(&self, at: Place) -> Result<(Info, Bytes)> {
        poison::get(&*self.shared.records, at).await
    }

    pub(crate) async fn replay_poison_frame(&self, at: Place) -> Result<u64> {
        poison::replay(&*self.shared.records, &*self.shared.log, at).await
    }

    pub(crate) async fn forget_poison_frame(&self, at: Place) -> Result<()> {
        poison::forget(&*self.shared.records, at).await
    }

    fn reader(&self, method: &str) -> Reader {
        self.shared.metrics.queries.with_label_values(&[method]).inc();
        Reader::metered(Arc::clone(&self.shared.store), &self.shared.metrics)
    }
}

/// Asks for newest values.
pub(crate) struct LatestRequest {
    pub(crate) tenant: weir_core::TenantId,
    pub(crate) devices: Devices,
    pub(crate) wants: Wants,
    pub(crate) page_size: usize,
    pub(crate) after: Option<PageToken>,
}

/// Rows for rules. A value that is not late has a ts that no lower position exceeds, so among the rows that have such a
/// value the order of (ts, position) is the order of positions: no sort is needed, however long the range.
#[async_trait]
impl TelemetryReader for Service {
    async fn scan_for_rules(&self, scan: RuleScan) -> Result<RuleRows> {
        let marks = &self.shared.marks;
        // What a lost position would have brought is not coming; what the store has of it is all there is.
        if let Some(through) = scan.through {
            marks.know(through.generation).await?;
        }
        if let Some(through) =
            scan.through.filter(|through| marks.holds(through.generation, through.sequence))
        {
            let written = marks::wait(marks, &[through], None).await;
            written.map_err(|error| match error.kind() {
                ErrorKind::DeadlineExceeded => {
                    Error::unavailable("storage is behind the log").with_source(error)
                }
                _ => error,
            })?;
        }
        let range = Range {
            series: SeriesKey { tenant: scan.tenant.clone(), uid: scan.uid },
            from: scan.from,
            to: scan.to,
            order: ScanOrder::Ascending,
        };
        let rows = Rows::new(self.reader("rules"), range);
        let stream = stream::try_unfold((rows, scan), |(mut rows, scan)| async move {
            Ok(next_for_rules(&mut rows, &scan).await?.map(|row| (row, (rows, scan))))
        });
        Ok(stream.boxed())
    }
}

async fn next_for_rules(rows: &mut Rows, scan: &RuleScan) -> Result<Option<RuleRow>> {
    while let Some(row) = rows.next().await? {
        let position = row.position;
        let view = RowView::parse(&row.body)?;
        let mut values = Vec::with_capacity(view.len().min(256));
        for field in view.fields() {
            let field = field?;
            if !field.late {
                values.push((Arc::from(field.metric), field.value.to_value()));
            }
        }
        if values.is_empty() || scan.after.is_some_and(|after| position <= after) {
            continue;
        }
        if scan.through.is_some_and(|through| position > through) {
            return Ok(None);
        }
        return Ok(Some(RuleRow { position, ts: row.ts, received_at: view.received_at, values }));
    }
    Ok(None)
}

#[async_trait]
impl weir_runtime::Service for Service {
    fn name(&self) -> &'static str {
        READER
    }

    async fn ready(&self) -> Result<(), String> {
        self.ownership.ready()
    }

    async fn stop_intake(&self) {
        self.closing.cancel();
    }

    async fn drain(&self) {
        self.ownership.end().await;
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.cancel(); // the task that trims shares the ownership, which ends with its last holder
    }
}
