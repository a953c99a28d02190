//! Commands as a running service.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_core::{
    Clock, Partition, Result, Stream,
    port::{Log, Records, Registry, Signals},
    progress::Generations,
};
use weir_runtime::trim::trim_once;

use crate::{
    Config,
    backlog::Backlog,
    hub::Hub,
    metrics::Metrics,
    owner::{self, READER, Worker},
    store::Store,
    sweep::Timers,
};

/// Claims at once: an engine syncs them together.
const CLAIM_WIDTH: usize = 64;
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
    /// The generations of the log, as the last owner that looked found them.
    pub(crate) generations: RwLock<Option<Generations>>,
    /// Up to which sequence of the stream each partition is in the store.
    pub(crate) copied: watch::Sender<Vec<u64>>,
    /// What keeps a worker from its work, in words.
    pub(crate) trouble: Mutex<BTreeMap<Worker, String>>,
    /// Ends streams.
    pub(crate) stop_intake: CancellationToken,
    /// Ends everything.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Service {
    /// Claims every partition and starts to copy, to end what is over, and to trim.
    ///
    /// # Errors
    /// `InvalidArgument` for a configuration out of bounds; `FailedPrecondition` for a changed partition count;
    /// `Unavailable` of log or store.
    #[allow(clippy::too_many_arguments)] // each is a port of its own
    pub async fn start(
        config: Config,
        log: Arc<dyn Log>,
        records: Arc<dyn Records>,
        signals: Arc<dyn Signals>,
        registry: Arc<dyn Registry>,
        clock: Arc<dyn Clock>,
        metrics: &prometheus::Registry,
    ) -> Result<Arc<Self>> {
        config.check()?;
        let partitions = config.partitions;
        let generations = Generations::open(&*records, &*log, Stream::Commands, partitions).await?;
        let claims = (0..partitions).map(Partition).map(|partition| {
            let records = Arc::clone(&records);
            async move { Ok::<_, weir_core::Error>((partition, owner::claim(records, partition).await?)) }
        });
        let claims: Vec<_> = stream::iter(claims).buffer_unordered(CLAIM_WIDTH).try_collect().await?;
        let service = Arc::new(Self {
            store: Store::new(Arc::clone(&records)),
            metrics: Metrics::new(metrics)?,
            hub: Hub::new(),
            backlog: Backlog::default(),
            timers: Timers::new(partitions),
            generations: RwLock::new(Some(generations)),
            copied: watch::Sender::new(vec![0; usize::from(partitions)]),
            trouble: Mutex::default(),
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
        for (partition, claim) in claims {
            service.tasks.spawn(Arc::clone(&service).own(partition, claim));
        }
        service.tasks.spawn(Arc::clone(&service).sweep());
        service.tasks.spawn(Arc::clone(&service).trim());
        Ok(service)
    }

    async fn trim(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TRIM_EVERY) => {}
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
            if let Err(error) = trimmed.await {
                tracing::warn!(%error, "cannot trim stream commands; will try again");
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
        match self.trouble.lock().iter().next() {
            None => Ok(()),
            Some((worker, what)) => Err(format!("{worker}: {what}")),
        }
    }

    async fn stop_intake(&self) {
        self.stop_intake.cancel();
    }

    async fn drain(&self) {
        self.stop_intake.cancel();
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
