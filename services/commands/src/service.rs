//! Commands as a running service.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_core::{
    Clock, Result, Stream,
    port::{Leases, Log, Records, Registry, Signal, SignalStream, Signals, Topic},
};
use weir_runtime::{marks::Marks, ownership::Ownership, trim::trim_once};

use crate::{
    Config,
    backlog::Backlog,
    hub::{Change, Hub},
    metrics::Metrics,
    owner::{Owner, READER},
    store::Store,
    sweep::Timers,
};

/// Trimming frees whole segments of minutes or hours.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// Commands: Send, the queues of devices, and the state machine.
pub struct Service {
    pub(crate) config: Config,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) store: Store,
    pub(crate) signals: Arc<dyn Signals>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) hub: Hub,
    pub(crate) backlog: Backlog,
    pub(crate) timers: Timers,
    /// Up to where each partition of the stream is in the store, whoever copied it.
    pub(crate) marks: Marks,
    pub(crate) ownership: Ownership,
    /// Why commands whose time is over are not ended, where they are not.
    pub(crate) not_swept: Mutex<Option<String>>,
    /// Ends streams.
    pub(crate) stop_intake: CancellationToken,
    /// Ends everything.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Service {
    /// Joins the other replicas, and starts to copy the partitions that are this one's, to end what is over in them, and
    /// to trim.
    ///
    /// # Errors
    /// `InvalidArgument` for a configuration out of bounds; `FailedPrecondition` for a changed partition count;
    /// `Unavailable` of log, store or leases.
    #[allow(clippy::too_many_arguments)] // each is a port of its own
    pub async fn start(
        config: Config,
        log: Arc<dyn Log>,
        records: Arc<dyn Records>,
        signals: Arc<dyn Signals>,
        leases: Arc<dyn Leases>,
        registry: Arc<dyn Registry>,
        clock: Arc<dyn Clock>,
        metrics: &prometheus::Registry,
    ) -> Result<Arc<Self>> {
        config.check()?;
        let partitions = config.partitions;
        // Listening begins before anything is read, so that nothing falls in between.
        let (written, changed) =
            (signals.subscribe(Topic::Progress).await, signals.subscribe(Topic::CommandChanges).await);
        let marks =
            Marks::open(Arc::clone(&log), Arc::clone(&records), Stream::Commands, READER, partitions).await?;
        let ownership = Ownership::join(&*leases, READER, partitions).await?;
        let service = Arc::new(Self {
            store: Store::new(Arc::clone(&records)),
            metrics: Metrics::new(metrics)?,
            hub: Hub::new(),
            backlog: Backlog::default(),
            timers: Timers::new(partitions),
            not_swept: Mutex::default(),
            marks,
            ownership,
            stop_intake: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
            log,
            records,
            signals,
            registry,
            clock,
        });
        service.ownership.tell(&service.metrics.owned);
        service.tasks.spawn(Arc::clone(&service).listen(written, changed));
        service.tasks.spawn(Arc::clone(&service).sweep());
        service.tasks.spawn(Arc::clone(&service).trim());
        if let Err(error) = service.ownership.start(Arc::new(Owner(Arc::clone(&service)))).await {
            service.stop.cancel();
            return Err(error);
        }
        Ok(service)
    }

    /// Hears what the replicas have copied and changed, this one among them.
    async fn listen(self: Arc<Self>, written: SignalStream, mut changed: SignalStream) {
        let changes = async {
            while let Some(signal) = changed.next().await {
                match signal {
                    Some(Signal::CommandChanged { to, id }) => {
                        self.backlog.leave(to.uid, id); // it is in the store
                        self.hub.tell(Change { to, id });
                    }
                    Some(_) => {}
                    None => self.hub.tell_gap(),
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = async { tokio::join!(self.marks.listen(written), changes) } => {}
        }
    }

    async fn trim(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TRIM_EVERY) => {}
            }
            if !self.ownership.is_first() {
                self.metrics.trim.leave();
                continue; // one of the replicas is enough; two do no harm
            }
            let (partitions, keep) = (self.config.partitions, self.config.log_keep);
            let trimmed = trim_once(
                &*self.log,
                &*self.records,
                Stream::Commands,
                &[READER],
                partitions,
                keep,
                &*self.clock,
            );
            match trimmed.await {
                Ok(trimmed) => self.metrics.trim.tell(&trimmed),
                Err(error) => tracing::warn!(%error, "cannot trim stream commands; will try again"),
            }
        }
    }
}

#[async_trait]
impl weir_runtime::Service for Service {
    fn name(&self) -> &'static str {
        "commands"
    }

    async fn ready(&self) -> Result<(), String> {
        self.ownership.ready()?;
        match &*self.not_swept.lock() {
            None => Ok(()),
            Some(what) => Err(format!("the end of commands whose time is over: {what}")),
        }
    }

    async fn stop_intake(&self) {
        self.stop_intake.cancel();
    }

    async fn drain(&self) {
        self.stop_intake.cancel();
        self.ownership.end().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
