//! The service: what it stands on, its tasks, and their orderly end.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_core::{
    Clock, Result, Stream, TenantId, Uid,
    port::{
        CommandSender, Leases, Log, Records, Registry, Signal, SignalStream, Signals, TelemetryReader, Topic,
    },
};
use weir_runtime::{marks::Marks, ownership::Ownership};

use crate::{
    Config,
    admission::Admission,
    alarm::{Alarm, Alarms, Filter, Op, Person, Watch},
    catalog::Catalog,
    housekeeping,
    metrics::Metrics,
    outbox::Dispatcher,
    owner::{Bells, Owner, READER, STORE, Shared},
    rules::Store,
};

/// How long tries of actions that are under way may take before they are left to end by themselves.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Rules over the log, alarms, actions. Dropped without [`weir_runtime::Service::drain`], it ends as a crash would.
pub struct Service {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) signals: Arc<dyn Signals>,
    pub(crate) telemetry: Arc<dyn TelemetryReader>,
    pub(crate) rules: Store,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) ownership: Ownership,
    pub(crate) watches: Admission,
    pub(crate) tests: Admission,
    pub(crate) tasks: TaskTracker,
    /// Ends every stream of answers.
    pub(crate) closing: CancellationToken,
    /// Ends every task but those of owners.
    stop: CancellationToken,
    /// Ends everything where it stands.
    kill: CancellationToken,
}

impl Service {
    /// Joins the other replicas, and starts an owner for each partition that is this one's: returns when these have
    /// recovered and evaluate.
    ///
    /// # Errors
    /// `InvalidArgument` for a configuration out of bounds; `FailedPrecondition` (`PARTITIONS_CHANGED`) for another
    /// partition count than the recorded one; those of store, log and leases.
    #[allow(clippy::too_many_arguments)] // the ports that it stands on, each once
    pub async fn start(
        config: Config,
        log: Arc<dyn Log>,
        records: Arc<dyn Records>,
        signals: Arc<dyn Signals>,
        leases: Arc<dyn Leases>,
        registry: Arc<dyn Registry>,
        commands: Arc<dyn CommandSender>,
        telemetry: Arc<dyn TelemetryReader>,
        clock: Arc<dyn Clock>,
        metrics: &prometheus::Registry,
    ) -> Result<Arc<Self>> {
        config.check()?;
        let metrics = Arc::new(Metrics::new(metrics)?);
        let rules = Store::new(Arc::clone(&records));
        let catalog = Arc::new(Catalog::new(rules.clone()));
        let alarms = Arc::new(Alarms::new(
            Arc::clone(&records),
            Arc::clone(&signals),
            Arc::clone(&clock),
            config.partitions,
            config.actions.waiting_per_rule,
        ));
        let kill = CancellationToken::new();
        let dispatcher = Dispatcher::new(
            Arc::clone(&alarms),
            commands,
            config.actions.clone(),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            kill.clone(),
        );
        // Listening begins before the generations are read, so that no newer one falls in between.
        let written = signals.subscribe(Topic::Progress).await;
        let (of_log, of_store) = (Arc::clone(&log), Arc::clone(&records));
        let marks = Marks::open(of_log, of_store, Stream::Readings, STORE, config.partitions).await?;
        let shared = Arc::new(Shared {
            marks,
            bells: Bells::new(config.partitions),
            config: config.clone(),
            log,
            records,
            registry,
            catalog: Arc::clone(&catalog),
            alarms: Arc::clone(&alarms),
            dispatcher,
            clock: Arc::clone(&clock),
            metrics,
            evaluated: Mutex::default(),
        });
        let ownership = Ownership::join(&*leases, READER, config.partitions).await?;
        let service = Arc::new(Self {
            watches: Admission::new("watches", config.streams_per_tenant),
            tests: Admission::new("tests", config.streams_per_tenant),
            config,
            clock,
            signals,
            telemetry,
            rules,
            catalog,
            alarms,
            shared,
            ownership,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            kill,
        });
        service.run(written).await?;
        Ok(service)
    }

    /// How what is counted elsewhere is read at a scrape.
    fn tell_use(&self) {
        let metrics = &self.shared.metrics;
        self.ownership.tell(&metrics.owned);
        let (evaluations, unknown) = (self.catalog.tally(), self.catalog.tally());
        metrics.evaluations.by(move || evaluations.evaluations() as f64);
        metrics.unknown.by(move || unknown.unknown() as f64);
    }

    async fn run(self: &Arc<Self>, written: SignalStream) -> Result<()> {
        self.tell_use();
        let shared = Arc::clone(&self.shared);
        self.spawn(async move { shared.marks.listen(written).await });
        // Listening begins before anything is read, so that no change falls in between.
        for topic in [Topic::Rules, Topic::Registry] {
            let (heard, shared) = (self.signals.subscribe(topic).await, Arc::clone(&self.shared));
            self.spawn(async move { shared.bells.listen(heard).await });
        }
        let (heard, alarms) = (self.signals.subscribe(Topic::Alarms).await, Arc::clone(&self.alarms));
        self.spawn(async move { alarms.listen(heard).await });
        self.spawn(housekeeping::keep(Arc::downgrade(self)));
        self.ownership.start(Arc::new(Owner(Arc::clone(&self.shared)))).await
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let (kill, stop) = (self.kill.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = kill.cancelled() => {}
                () = stop.cancelled() => {}
            }
        });
    }

    pub(crate) async fn person(&self, tenant: &TenantId, person: Person) -> Result<Alarm> {
        let (partition, known) = self.alarms.find(tenant, person.alarm).await?;
        let request_id =
            if person.request_id.is_empty() { Uid::random().to_string() } else { person.request_id.clone() };
        let person = Person { request_id, ..person };
        let uid = person.alarm;
        let mut applied = self.alarms.apply(partition, tenant, &[Op::Person(person)]).await?;
        self.signals.publish(Signal::RulesChanged { tenant: tenant.clone() }).await;
        Ok(applied.alarms.remove(&uid).unwrap_or(known))
    }

    pub(crate) async fn watch(&self, tenant: TenantId, filter: Filter, cursor: &str) -> Result<Watch> {
        Watch::new(Arc::clone(&self.alarms), tenant, filter, cursor).await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

#[async_trait]
impl weir_runtime::Service for Service {
    fn name(&self) -> &'static str {
        "analytics"
    }

    async fn ready(&self) -> Result<(), String> {
        self.ownership.ready()
    }

    async fn stop_intake(&self) {
        self.closing.cancel();
    }

    async fn drain(&self) {
        self.closing.cancel();
        self.ownership.end().await;
        self.stop.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout(DRAIN_MAX, async {
            self.tasks.wait().await;
            self.shared.dispatcher.drain().await;
        });
        if ended.await.is_err() {
            tracing::warn!("actions that are under way did not end in time; they are tried again");
        }
        self.kill.cancel();
    }
}
