//! What this process measures of what it stands on: the engines behind their ports, the gRPC listener, itself. And the
//! inventory: everything that any process of Weir measures.

use std::{sync::Arc, time::Duration};

use prometheus::{IntGauge, IntGaugeVec, Registry};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use weir_core::{Error, Result, Stream, progress};
use weir_grpc::ServerMetrics;
use weir_metrics::{
    Description, Registrar,
    port::{LogMetrics, MeasuredLog, MeasuredRecords, MeasuredTelemetry, StoreMetrics},
};

use crate::{config::Config, engines::Engines};

/// How often log and store are asked whether they are there: two or three times between two usual scrapes.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// What does not answer within this is away.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What this process measures of what it stands on.
pub(crate) struct Measures {
    /// Calls and connections.
    pub(crate) server: Arc<ServerMetrics>,
    log: LogMetrics,
    store: StoreMetrics,
    partitions: IntGauge,
    durability: IntGaugeVec,
}

impl Measures {
    /// Registers them.
    ///
    /// # Errors
    /// `Internal` where one is registered already.
    pub(crate) fn register(registrar: &Registrar<'_>) -> Result<Self> {
        weir_observability::process_metrics(registrar)?;
        Ok(Self {
            server: ServerMetrics::new(registrar)?,
            log: LogMetrics::new(registrar)?,
            store: StoreMetrics::new(registrar)?,
            partitions: registrar.gauge("weir_log_partitions", "partitions of each stream of the log")?,
            durability: registrar.gauges(
                "weir_log_durability_info",
                "1: what an acknowledgement survives as configured (log.durability): power-loss, process",
                &["durability"],
            )?,
        })
    }

    /// The engines, measured.
    pub(crate) fn over(&self, engines: Engines, config: &Config) -> Engines {
        self.partitions.set(config.log.partitions.into());
        self.durability.with_label_values(&[config.log.durability.as_str()]).set(1);
        let retries = Arc::clone(&engines.retries);
        self.store.retries.by(move || retries() as f64);
        Engines {
            log: MeasuredLog::over(engines.log, self.log.clone()),
            records: MeasuredRecords::over(engines.records, &self.store),
            telemetry: MeasuredTelemetry::over(engines.telemetry, &self.store),
            ..engines
        }
    }

    /// Asks log and store whether they are there, until `stop`. How much the log holds is told by the way.
    pub(crate) async fn watch(self: Arc<Self>, engines: Engines, stop: CancellationToken) {
        let mut known = Known::default();
        loop {
            let (log, durable, store) = tokio::join!(
                answered("the log", async {
                    for stream in Stream::ALL {
                        engines.log.bounds(stream).await?;
                    }
                    engines.log.writable().await
                }),
                answered("the log", engines.log.durable()),
                answered("the store", async {
                    engines
                        .records
                        .get(progress::GENERATIONS, Stream::Readings.as_str().as_bytes(), b"")
                        .await
                }),
            );
            known.log.tell(&self.log.up, "the log takes nothing", log);
            // Of a log that is away it is not known: what was known stays.
            let durable = match durable {
                Err(error) if error.kind().retryable() => None,
                known => Some(known),
            };
            if let Some(durable) = durable {
                known.durable.tell(&self.log.durable, "the log is not as durable as configured", durable);
            }
            known.store.tell(&self.store.up, "the store does not answer", store);
            if stop.run_until_cancelled(tokio::time::sleep(ASK_EVERY)).await.is_none() {
                return;
            }
        }
    }
}

async fn answered<T>(what: &str, asked: impl Future<Output = Result<T>>) -> Result<()> {
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(Error::unavailable(format!("{what} did not answer within {} s", ANSWER_MAX.as_secs()))),
    }
}

/// What was answered last, so that a change is logged once.
#[derive(Default)]
struct Known {
    log: Last,
    durable: Last,
    store: Last,
}

#[derive(Default)]
struct Last(Option<bool>);

impl Last {
    fn tell(&mut self, gauge: &IntGauge, otherwise: &str, answer: Result<()>) {
        gauge.set(answer.is_ok().into());
        let changed = self.0.replace(answer.is_ok()) != Some(answer.is_ok());
        if let Err(error) = answer.as_ref()
            && changed
        {
            tracing::warn!(%error, "{otherwise}");
        }
    }
}

/// One metric in the inventory.
#[derive(Serialize)]
struct Entry {
    name: String,
    kind: &'static str,
    labels: Vec<String>,
    help: String,
}

/// Every metric of every component, as JSON: what `docs/metrics.md` is made from.
///
/// # Errors
/// `Internal` where two have one name.
pub(crate) fn inventory() -> Result<String> {
    let registry = Registry::new();
    let registrar = Registrar::new(&registry);
    drop(Measures::register(&registrar)?);
    weir_registry::register_metrics(&registrar)?;
    weir_ingest::register_metrics(&registrar)?;
    weir_storage::register_metrics(&registrar)?;
    weir_analytics::register_metrics(&registrar)?;
    weir_commands::register_metrics(&registrar)?;
    weir_operator::register_metrics(&registrar)?;
    let entry = |Description { name, kind, labels, help }| Entry { name, kind: kind.as_str(), labels, help };
    let mut entries: Vec<Entry> = registrar.descriptions().into_iter().map(entry).collect();
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    serde_json::to_string_pretty(&entries)
        .map_err(|source| Error::internal("the inventory cannot be written").with_source(source))
}
