//! The targets as data: a name and how it starts, each after those whose call ports it uses. `all` is the set of them,
//! never a second wiring: a port is bound to the service in this process where there is one, else to its gRPC client.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::BoxFuture;
use prometheus::Registry as Metrics;
use weir_clients::Gateway;
use weir_core::{
    Clock, Error, ErrorKind, Result, SystemClock,
    port::{CommandQueue, CommandSender, Registry, TelemetryReader},
};
use weir_registry::Peppers;
use weir_runtime::Service;

use crate::{config::Config, engines::Engines, peers::Peers};

/// One service that this binary can be.
pub(crate) struct Target {
    /// What `--target` calls it.
    pub(crate) name: &'static str,
    /// The gRPC port that `weir init` gives it where each service is a process of its own on one machine.
    pub(crate) loopback_grpc_port: u16,
    start: for<'a> fn(&'a mut Running) -> BoxFuture<'a, Result<()>>,
}

/// The target that knows everybody: it alone needs the peppers.
pub(crate) const REGISTRY: &str = "registry";
/// The target that devices talk to: it alone listens for MQTT and HTTP.
pub(crate) const EDGE: &str = "ingest";

/// Every target; what it needs stands before it.
pub(crate) const TARGETS: [Target; 5] = [
    Target {
        name: "registry",
        loopback_grpc_port: 9081,
        start: |running| Box::pin(running.start_registry()),
    },
    Target {
        name: "commands",
        loopback_grpc_port: 9082,
        start: |running| Box::pin(running.start_commands()),
    },
    Target { name: "storage", loopback_grpc_port: 9083, start: |running| Box::pin(running.start_storage()) },
    Target {
        name: "analytics",
        loopback_grpc_port: 9084,
        start: |running| Box::pin(running.start_analytics()),
    },
    Target { name: EDGE, loopback_grpc_port: 8081, start: |running| Box::pin(running.start_ingest()) },
];

/// The targets that `list` names (`all`, or names joined by commas).
///
/// # Errors
/// `TARGET_UNKNOWN` for a name that is none.
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
    Ok(TARGETS.iter().filter(|target| names.contains(target.name)).collect())
}

/// Refuses less than all targets on engines that one process has for itself.
///
/// # Errors
/// `ENGINES_NOT_SHARED` that says what to configure.
pub(crate) fn check(targets: &[&Target], config: &Config) -> Result<()> {
    if targets.len() == TARGETS.len() || config.is_shared()? {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::FailedPrecondition,
        "ENGINES_NOT_SHARED",
        "embedded engines are of one process: use --target all, or log.engine = \"nats\" with store.engine = \"cql\" (`weir \
         init --nats … --cql …` writes them)",
    )
    .with_field("target"))
}

/// The services of this process and what they stand on.
pub(crate) struct Running {
    config: Config,
    engines: Engines,
    peppers: Option<Peppers>,
    clock: Arc<dyn Clock>,
    peers: Peers,
    /// The client of a registry elsewhere, with what it remembers: one for all who ask.
    registry_elsewhere: Option<Arc<dyn Registry>>,
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
    /// Starts `targets`, each after those that it needs; what they measure is registered in `metrics`.
    ///
    /// # Errors
    /// What the first that fails says.
    pub(crate) async fn start(
        mut config: Config,
        engines: Engines,
        peppers: Option<Peppers>,
        metrics: Metrics,
        targets: &[&Target],
    ) -> Result<Self> {
        config.share();
        let mut running = Self {
            peers: Peers::new(&config)?,
            registry_elsewhere: None,
            config,
            engines,
            peppers,
            clock: Arc::new(SystemClock),
            metrics,
            registry: None,
            commands: None,
            storage: None,
            analytics: None,
            ingest: None,
        };
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

    /// Whoever knows tokens, devices and profiles: in this process, or elsewhere.
    ///
    /// # Errors
    /// Those of [`Peers`].
    pub(crate) async fn registry_port(&mut self) -> Result<Arc<dyn Registry>> {
        if let Some(here) = &self.registry {
            return Ok(Arc::clone(here) as _);
        }
        if let Some(known) = &self.registry_elsewhere {
            return Ok(Arc::clone(known));
        }
        let signals = Arc::clone(&self.engines.signals);
        let elsewhere = self.peers.registry(signals, Arc::clone(&self.clock)).await?;
        self.registry_elsewhere = Some(Arc::clone(&elsewhere));
        Ok(elsewhere)
    }

    fn sender_port(&mut self) -> Result<Arc<dyn CommandSender>> {
        match &self.commands {
            Some(here) => Ok(Arc::clone(here) as _),
            None => Ok(self.peers.commands()?),
        }
    }

    fn queue_port(&mut self) -> Result<Arc<dyn CommandQueue>> {
        match &self.commands {
            Some(here) => Ok(Arc::clone(here) as _),
            None => Ok(self.peers.commands()?),
        }
    }

    fn telemetry_port(&mut self) -> Result<Arc<dyn TelemetryReader>> {
        match &self.storage {
            Some(here) => Ok(Arc::clone(here) as _),
            None => Ok(self.peers.storage()?),
        }
    }

    /// Hands on calls of users for services that this process does not run.
    ///
    /// # Errors
    /// Those of [`Peers`].
    pub(crate) fn gateway(&mut self) -> Result<Gateway> {
        let here: Vec<&str> = self.services().iter().map(|service| service.name()).collect();
        self.peers.gateway(&here)
    }

    async fn start_registry(&mut self) -> Result<()> {
        let peppers = self.peppers.clone().ok_or_else(|| Error::internal("the registry has no peppers"))?;
        let service = weir_registry::Service::start(
            self.config.registry.clone(),
            Arc::clone(&self.engines.records),
            Arc::clone(&self.engines.signals),
            Arc::clone(&self.clock),
            peppers,
            &self.metrics,
        )
        .await?;
        self.registry = Some(service);
        Ok(())
    }

    async fn start_commands(&mut self) -> Result<()> {
        let registry = self.registry_port().await?;
        let service = weir_commands::Service::start(
            self.config.commands.clone(),
            Arc::clone(&self.engines.log),
            Arc::clone(&self.engines.records),
            Arc::clone(&self.engines.signals),
            Arc::clone(&self.engines.leases),
            registry,
            Arc::clone(&self.clock),
            &self.metrics,
        )
        .await?;
        self.commands = Some(service);
        Ok(())
    }

    async fn start_storage(&mut self) -> Result<()> {
        let registry = self.registry_port().await?;
        let service = weir_storage::Service::start(
            self.config.storage.clone(),
            Arc::clone(&self.engines.log),
            Arc::clone(&self.engines.records),
            Arc::clone(&self.engines.telemetry),
            Arc::clone(&self.engines.signals),
            Arc::clone(&self.engines.leases),
            registry,
            Arc::clone(&self.clock),
            &self.metrics,
        )
        .await?;
        self.storage = Some(service);
        Ok(())
    }

    async fn start_analytics(&mut self) -> Result<()> {
        let registry = self.registry_port().await?;
        let (sender, telemetry) = (self.sender_port()?, self.telemetry_port()?);
        let service = weir_analytics::Service::start(
            self.config.analytics.clone(),
            Arc::clone(&self.engines.log),
            Arc::clone(&self.engines.records),
            Arc::clone(&self.engines.signals),
            Arc::clone(&self.engines.leases),
            registry,
            sender,
            telemetry,
            Arc::clone(&self.clock),
            &self.metrics,
        )
        .await?;
        self.analytics = Some(service);
        Ok(())
    }

    async fn start_ingest(&mut self) -> Result<()> {
        let registry = self.registry_port().await?;
        let queue = self.queue_port()?;
        let service = weir_ingest::Service::start(
            self.config.ingest.clone(),
            Arc::clone(&self.engines.log),
            Arc::clone(&self.engines.records),
            Arc::clone(&self.engines.signals),
            Arc::clone(&self.engines.leases),
            registry,
            queue,
            Arc::clone(&self.clock),
            &self.metrics,
        )
        .await?;
        self.ingest = Some(service);
        Ok(())
    }
}
