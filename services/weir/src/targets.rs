//! The targets as data: a name and how it starts, each after those whose call ports it uses. `all` is the set of them, never a second wiring.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::BoxFuture;
use prometheus::Registry as Metrics;
use weir_core::{Clock, Error, Result, SystemClock};
use weir_registry::Peppers;
use weir_runtime::Service;

use crate::{config::Config, engines::Engines};

/// One service that this binary can be.
pub(crate) struct Target {
    /// What `--target` calls it.
    pub(crate) name: &'static str,
    start: for<'a> fn(&'a mut Running) -> BoxFuture<'a, Result<()>>,
}

/// The target that devices talk to: it alone listens for MQTT and HTTP.
pub(crate) const EDGE: &str = "ingest";

/// Every target; what it needs stands before it.
pub(crate) const TARGETS: [Target; 5] = [
    Target { name: "registry", start: |running| Box::pin(running.start_registry()) },
    Target { name: "commands", start: |running| Box::pin(running.start_commands()) },
    Target { name: "storage", start: |running| Box::pin(running.start_storage()) },
    Target { name: "analytics", start: |running| Box::pin(running.start_analytics()) },
    Target { name: EDGE, start: |running| Box::pin(running.start_ingest()) },
];

/// The targets that `list` names (`all`, or names joined by commas).
///
/// # Errors
/// `TARGET_UNKNOWN` for a name that is none; `NOT_BUILT` for less than all of them: on embedded engines one process has
/// everything, and call ports over the network are not built in this release.
pub(crate) fn parse(list: &str) -> Result<Vec<&'static Target>> {
    let names: BTreeSet<&str> = match list {
        "all" => TARGETS.iter().map(|target| target.name).collect(),
        list => list.split(',').map(str::trim).collect(),
    };
    if let Some(unknown) = names.iter().find(|name| TARGETS.iter().all(|target| target.name != **name)) {
        let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        return Err(Error::invalid(
            "target",
            "TARGET_UNKNOWN",
            format!("target {unknown:?} must be all or some of {}", known.join(",")),
        ));
    }
    let chosen: Vec<_> = TARGETS.iter().filter(|target| names.contains(target.name)).collect();
    if chosen.len() < TARGETS.len() {
        let what = format!("a process with only {list}, beside others,");
        return Err(Error::not_built("target", what).context("use --target all"));
    }
    Ok(chosen)
}

/// The services of this process and what they stand on.
pub(crate) struct Running {
    config: Config,
    engines: Engines,
    peppers: Peppers,
    clock: Arc<dyn Clock>,
    /// Every metric of this process.
    pub(crate) metrics: Metrics,
    /// Tenants, tokens, profiles, devices.
    pub(crate) registry: Option<Arc<weir_registry::Service>>,
    /// Commands.
    pub(crate) commands: Option<Arc<weir_commands::Service>>,
    /// Telemetry.
    pub(crate) storage: Option<Arc<weir_storage::Service>>,
    /// Rules and alarms.
    pub(crate) analytics: Option<Arc<weir_analytics::Service>>,
    /// The device edge.
    pub(crate) ingest: Option<Arc<weir_ingest::Service>>,
}

impl Running {
    /// Starts `targets`, each after those that it needs.
    ///
    /// # Errors
    /// What the first that fails says.
    pub(crate) async fn start(
        mut config: Config,
        engines: Engines,
        peppers: Peppers,
        targets: &[&Target],
    ) -> Result<Self> {
        config.share();
        let mut running = Self {
            config,
            engines,
            peppers,
            clock: Arc::new(SystemClock),
            metrics: Metrics::new(),
            registry: None,
            commands: None,
            storage: None,
            analytics: None,
            ingest: None,
        };
        weir_observability::process_metrics(&running.metrics)?;
        for target in targets {
            (target.start)(&mut running).await.map_err(|error| error.context(target.name))?;
        }
        Ok(running)
    }

    /// The services, the edge first: in the order in which they end.
    pub(crate) fn services(&self) -> Vec<Arc<dyn Service>> {
        fn as_dyn<S: Service + 'static>(service: &Option<Arc<S>>) -> Option<Arc<dyn Service>> {
            service.as_ref().map(|service| Arc::clone(service) as Arc<dyn Service>)
        }
        let ending = [
            as_dyn(&self.ingest),
            as_dyn(&self.analytics),
            as_dyn(&self.commands),
            as_dyn(&self.storage),
            as_dyn(&self.registry),
        ];
        ending.into_iter().flatten().collect()
    }

    async fn start_registry(&mut self) -> Result<()> {
        let service = weir_registry::Service::start(
            self.config.registry.clone(),
            Arc::clone(&self.engines.records),
            Arc::clone(&self.engines.signals),
            Arc::clone(&self.clock),
            self.peppers.clone(),
            &self.metrics,
        )
        .await?;
        self.registry = Some(service);
        Ok(())
    }

    async fn start_commands(&mut self) -> Result<()> {
        let service = weir_commands::Service::start(
            self.config.commands.clone(),
            Arc::clone(&self.engines.log),
            Arc::clone(&self.engines.records),
            Arc::clone(&self.engines.signals),
            started(&self.registry, "registry")?,
            Arc::clone(&self.clock),
            &self.metrics,
        )
        .await?;
        self.commands = Some(service);
        Ok(())
    }

    async fn start_storage(&mut self) -> Result<()> {
        let service = weir_storage::Service::start(
            self.config.storage.clone(),
            Arc::clone(&self.engines.log),
            Arc::clone(&self.engines.records),
            Arc::clone(&self.engines.telemetry),
            Arc::clone(&self.engines.signals),
            started(&self.registry, "registry")?,
            Arc::clone(&self.clock),
            &self.metrics,
        )
        .await?;
        self.storage = Some(service);
        Ok(())
    }

    async fn start_analytics(&mut self) -> Result<()> {
        let service = weir_analytics::Service::start(
            self.config.analytics.clone(),
            Arc::clone(&self.engines.log),
            Arc::clone(&self.engines.records),
            Arc::clone(&self.engines.signals),
            started(&self.registry, "registry")?,
            started(&self.commands, "commands")?,
            started(&self.storage, "storage")?,
            Arc::clone(&self.clock),
            &self.metrics,
        )
        .await?;
        self.analytics = Some(service);
        Ok(())
    }

    async fn start_ingest(&mut self) -> Result<()> {
        let service = weir_ingest::Service::start(
            self.config.ingest.clone(),
            Arc::clone(&self.engines.log),
            Arc::clone(&self.engines.records),
            Arc::clone(&self.engines.signals),
            Arc::clone(&self.engines.leases),
            started(&self.registry, "registry")?,
            started(&self.commands, "commands")?,
            Arc::clone(&self.clock),
            &self.metrics,
        )
        .await?;
        self.ingest = Some(service);
        Ok(())
    }
}

/// A service that stands before this one in [`TARGETS`].
fn started<S>(service: &Option<Arc<S>>, name: &str) -> Result<Arc<S>> {
    service.clone().ok_or_else(|| Error::internal(format!("target {name} has not started")))
}
