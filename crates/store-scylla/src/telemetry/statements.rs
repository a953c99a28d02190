//! The statements of telemetry, prepared once.

use std::sync::atomic::AtomicI64;

use scylla::statement::prepared::PreparedStatement;
use weir_core::Result;

use crate::{client::Client, known::Known};

/// Periods of series that this process knows to be listed: as many as devices that write often; 8 MiB.
const PERIODS_KNOWN: usize = 200_000;

/// Prepared statements and what this process remembers.
pub(crate) struct TelemetryTables {
    pub(crate) put_row: PreparedStatement,
    pub(crate) put_latest: PreparedStatement,
    pub(crate) put_bucket: PreparedStatement,
    pub(crate) put_period: PreparedStatement,
    pub(crate) rows: PreparedStatement,
    pub(crate) rows_after: PreparedStatement,
    pub(crate) rows_down: PreparedStatement,
    pub(crate) rows_down_before: PreparedStatement,
    pub(crate) latest: PreparedStatement,
    pub(crate) periods: PreparedStatement,
    pub(crate) buckets: PreparedStatement,
    pub(crate) periods_known: Known,
    /// The newest write timestamp that this process gave to a bucket's row.
    pub(crate) bucket_clock: AtomicI64,
}

impl TelemetryTables {
    pub(crate) async fn prepare(client: &Client) -> Result<Self> {
        let keyspace = &client.keyspace;
        let rows = |what: &str| {
            client.prepare(format!(
                "SELECT ts, position, body FROM {keyspace}.readings WHERE tenant = ? AND uid = ? AND bucket = ? AND \
                 width = ? AND {what} LIMIT ?"
            ))
        };
        let prepare = |cql: String| client.prepare(cql);
        let down = "ORDER BY ts DESC, position DESC";
        Ok(Self {
            put_row: prepare(format!(
                "INSERT INTO {keyspace}.readings (tenant, uid, bucket, width, ts, position, body) \
                 VALUES (?, ?, ?, ?, ?, ?, ?)"
            ))
            .await?,
            put_latest: prepare(format!(
                "INSERT INTO {keyspace}.latest (tenant, uid, metric, value) VALUES (?, ?, ?, ?) USING TIMESTAMP ?"
            ))
            .await?,
            put_bucket: prepare(format!(
                "INSERT INTO {keyspace}.buckets (tenant, uid, class, period, start, width, bytes, seal_generation, \
                 sealed_through) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
            ))
            .await?,
            put_period: prepare(format!(
                "INSERT INTO {keyspace}.bucket_periods (tenant, uid, class, period) VALUES (?, ?, ?, ?)"
            ))
            .await?,
            rows: rows("ts >= ? AND ts < ?").await?,
            rows_after: rows("(ts, position) > (?, ?) AND (ts) < (?)").await?,
            rows_down: rows(&format!("ts >= ? AND ts < ? {down}")).await?,
            rows_down_before: rows(&format!("(ts) >= (?) AND (ts, position) < (?, ?) {down}")).await?,
            latest: prepare(format!(
                "SELECT metric, value, WRITETIME(value) FROM {keyspace}.latest WHERE tenant = ? AND uid = ?"
            ))
            .await?,
            periods: prepare(format!(
                "SELECT period FROM {keyspace}.bucket_periods WHERE tenant = ? AND uid = ? AND class = ? AND \
                 period >= ? AND period <= ?"
            ))
            .await?,
            buckets: prepare(format!(
                "SELECT start, width, bytes, seal_generation, sealed_through FROM {keyspace}.buckets WHERE \
                 tenant = ? AND uid = ? AND class = ? AND period = ? AND (start, width) > (?, ?) AND (start) < (?) \
                 LIMIT ?"
            ))
            .await?,
            periods_known: Known::new(PERIODS_KNOWN),
            bucket_clock: AtomicI64::new(0),
        })
    }
}
