//! The store as its users hold it.

use std::sync::Arc;

use weir_config::Durability;
use weir_core::Result;

use crate::{
    client::Client, config::Config, durability::Watch, migrate, records::RecordTables,
    telemetry::TelemetryTables,
};

/// Records and telemetry in one keyspace: an `Arc` of it is an `Arc<dyn Records>` and an `Arc<dyn TelemetryStore>`.
pub struct ScyllaStore {
    pub(crate) client: Client,
    pub(crate) records: RecordTables,
    pub(crate) telemetry: TelemetryTables,
    pub(crate) watch: Watch,
    detail: String,
}

impl ScyllaStore {
    /// Connects, and checks that the schema is the one of this release and that the servers keep what they acknowledge as
    /// `durability` asks.
    ///
    /// # Errors
    /// `Unavailable` where no server answers; `FailedPrecondition`: `SCHEMA_OLD` or `SCHEMA_NEW` (run `weir migrate`, or the
    /// release that did), `STORE_NOT_DURABLE` with the node, its setting and what to change; `InvalidArgument`
    /// (`CONFIG_INVALID`) with the key.
    pub async fn connect(config: &Config, durability: Durability) -> Result<Arc<Self>> {
        let client = Client::connect(config).await?;
        migrate::check(&client).await?;
        let watch = Watch::begin(&client, durability).await?;
        let records = RecordTables::prepare(&client).await?;
        let telemetry = TelemetryTables::prepare(&client).await?;
        let detail = format!("{}, keyspace {}", watch.detail().await, config.keyspace);
        Ok(Arc::new(Self { client, records, telemetry, watch, detail }))
    }

    /// Requests so far that a server failed or left unanswered, and that were made again before anybody was told.
    pub fn retries(&self) -> u64 {
        self.client.retries()
    }

    /// For people: which servers, how many nodes, and when they write their commit log, as it was at the start.
    pub fn detail(&self) -> String {
        self.detail.clone()
    }
}
