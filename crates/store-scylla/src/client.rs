//! The session with the servers: a bound on what is under way, and retries of what may be repeated.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use scylla::{
    client::{execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    cluster::Node,
    deserialize::row::DeserializeRow,
    errors::ExecutionError,
    policies::{
        load_balancing::{DefaultPolicy, NodeIdentifier, SingleTargetLoadBalancingPolicy},
        retry::{DefaultRetryPolicy, FallthroughRetryPolicy},
    },
    response::{PagingState, PagingStateResponse, query_result::QueryResult},
    serialize::{batch::BatchValues, row::SerializeRow},
    statement::{Consistency, SerialConsistency, Statement, batch::Batch, prepared::PreparedStatement},
    value::{CqlValue, Row},
};
use tokio::sync::{Semaphore, SemaphorePermit};
use weir_core::{Error, Result};

use crate::{
    backoff::Backoff,
    config::Config,
    failure::{self, Fate},
    tls,
};

/// Attempts of a request that may be repeated, the driver's own tries of other nodes not counted. With the waits below they
/// take about a second, or as long as that many time-outs: past that the caller knows better what to do.
const ATTEMPTS: usize = 5;
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Rows of one page of an answer: some hundred KiB of usual rows.
const PAGE_ROWS: i32 = 500;
/// How often a connection is asked whether it lives: a paused or cut-off node keeps its connections, and each request that
/// is sent there costs its whole time-out, until this finds out.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// A change of the schema takes seconds on a busy cluster.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// A node that is paused answers no question about itself.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// A session whose requests are bounded in number.
pub(crate) struct Client {
    session: Session,
    slots: Semaphore,
    /// Attempts that failed and were followed by another.
    retries: AtomicU64,
    pub(crate) keyspace: String,
    pub(crate) data_center: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) concurrency: usize,
}

impl Client {
    pub(crate) async fn connect(config: &Config) -> Result<Self> {
        config.validate()?;
        let mut balancing = DefaultPolicy::builder().token_aware(true);
        if let Some(data_center) = &config.data_center {
            balancing = balancing.prefer_datacenter(data_center.clone());
        }
        let profile = ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .serial_consistency(Some(SerialConsistency::LocalSerial))
            .request_timeout(Some(config.request_timeout))
            .load_balancing_policy(balancing.build())
            .retry_policy(Arc::new(DefaultRetryPolicy::new()))
            .build();
        let mut builder = SessionBuilder::new()
            .known_nodes(&config.hosts)
            .default_execution_profile_handle(profile.into_handle())
            .connection_timeout(config.request_timeout)
            .keepalive_interval(KEEPALIVE)
            .keepalive_timeout(config.request_timeout)
            // Tables' columns come with prepared statements; token-aware routing needs only the keyspace's strategy.
            .keyspaces_to_fetch([&config.keyspace]);
        if let (Some(user), Some(file)) = (&config.user, &config.password_file) {
            builder = builder.user(user, password(file)?);
        }
        if let Some(tls) = &config.tls {
            builder = tls::encrypt(builder, tls)?;
        }
        let session = builder.build().await.map_err(|source| failure::of_connect(&config.hosts, source))?;
        Ok(Self {
            session,
            slots: Semaphore::new(config.concurrency),
            retries: AtomicU64::new(0),
            keyspace: config.keyspace.clone(),
            data_center: config.data_center.clone(),
            timeout: config.request_timeout,
            concurrency: config.concurrency,
        })
    }

    /// Prepares a statement that may be repeated: the driver tries another node at once where one fails.
    pub(crate) async fn prepare(&self, cql: String) -> Result<PreparedStatement> {
        let mut prepared = self.prepare_once(cql).await?;
        prepared.set_is_idempotent(true);
        prepared.set_retry_policy(None);
        Ok(prepared)
    }

    /// Prepares a statement that the driver must not repeat.
    pub(crate) async fn prepare_once(&self, cql: String) -> Result<PreparedStatement> {
        let what = format!("prepare {cql:?}");
        let mut attempts = Attempts::new(&what, &self.retries);
        loop {
            match self.session.prepare(cql.as_str()).await {
                Ok(mut prepared) => {
                    prepared.set_page_size(PAGE_ROWS);
                    prepared.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
                    return Ok(prepared);
                }
                Err(source) => attempts.again(None, source.into()).await?,
            }
        }
    }

    /// Runs a statement that may be repeated and gives the first page of its answer.
    pub(crate) async fn run(
        &self,
        what: &str,
        statement: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
    ) -> Result<QueryResult> {
        self.page(what, statement, values, &PagingState::start()).await.map(|(result, _)| result)
    }

    /// One page of an answer, and where the next begins.
    pub(crate) async fn page(
        &self,
        what: &str,
        statement: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
        from: &PagingState,
    ) -> Result<(QueryResult, PagingStateResponse)> {
        let mut attempts = Attempts::new(what, &self.retries);
        loop {
            let slot = self.slot().await;
            match self.session.execute_single_page(statement, values, from.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(source) => attempts.again(slot, source).await?,
            }
        }
    }

    /// Runs a batch that may be repeated.
    pub(crate) async fn write(
        &self,
        what: &str,
        batch: &Batch,
        values: &(impl BatchValues + Sync),
    ) -> Result<()> {
        let mut attempts = Attempts::new(what, &self.retries);
        loop {
            let slot = self.slot().await;
            match self.session.batch(batch, values).await {
                Ok(_) => return Ok(()),
                Err(source) => attempts.again(slot, source).await?,
            }
        }
    }

    /// Runs a batch once.
    pub(crate) async fn write_once(
        &self,
        batch: &Batch,
        values: &(impl BatchValues + Sync),
    ) -> Result<QueryResult, ExecutionError> {
        let _slot = self.slot().await;
        self.session.batch(batch, values).await
    }

    /// Every row of an answer of one page, such as that of a limit below a page.
    pub(crate) async fn rows<R>(
        &self,
        what: &str,
        statement: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
    ) -> Result<Vec<R>>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        parse(what, self.run(what, statement, values).await?)
    }

    /// Runs a statement that returns nothing, such as one that changes the schema, without preparing it.
    pub(crate) async fn change(&self, cql: &str) -> Result<()> {
        let _slot = self.slot().await;
        let mut statement = Statement::new(cql);
        statement.set_request_timeout(Some(CHANGE_TIMEOUT));
        let outcome = self.session.query_unpaged(statement, ()).await;
        outcome.map(drop).map_err(|source| failure::of_request(&format!("run {cql:?}"), source))
    }

    /// Whether a conditional statement without values was applied.
    pub(crate) async fn decide(&self, cql: &str) -> Result<bool> {
        let _slot = self.slot().await;
        let result = self.session.query_unpaged(cql, ()).await;
        applied(cql, result.map_err(|source| failure::of_request(&format!("run {cql:?}"), source))?)
    }

    /// The rows of a query without values.
    pub(crate) async fn query<R>(&self, cql: &str) -> Result<Vec<R>>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let mut statement = Statement::new(cql);
        statement.set_is_idempotent(true);
        let mut attempts = Attempts::new(cql, &self.retries);
        loop {
            let slot = self.slot().await;
            match self.session.query_unpaged(statement.clone(), ()).await {
                Ok(result) => return parse(cql, result),
                Err(source) => attempts.again(slot, source).await?,
            }
        }
    }

    /// The rows of a query that one node answers about itself.
    pub(crate) async fn ask<R>(&self, node: &Arc<Node>, cql: &str) -> Result<Vec<R>>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let mut statement = Statement::new(cql);
        let target = NodeIdentifier::Node(Arc::clone(node));
        statement.set_load_balancing_policy(Some(SingleTargetLoadBalancingPolicy::new(target, None)));
        statement.set_consistency(Consistency::One);
        statement.set_request_timeout(Some(NODE_TIMEOUT));
        let result = self.session.query_unpaged(statement, ()).await;
        parse(cql, result.map_err(|source| failure::of_request(cql, source))?)
    }

    /// The nodes whose word counts: all, or those of the data centre that holds the rows.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        let state = self.session.get_cluster_state();
        let counts = |node: &&Arc<Node>| {
            self.data_center.is_none() || node.datacenter.as_ref() == self.data_center.as_ref()
        };
        state.get_nodes_info().iter().filter(counts).cloned().collect()
    }

    /// Attempts so far that failed and were followed by another.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        self.slots.acquire().await.ok() // it is never closed
    }
}

/// How often a request that may be repeated has been tried.
struct Attempts<'a> {
    what: &'a str,
    left: usize,
    backoff: Backoff,
    retries: &'a AtomicU64,
}

impl<'a> Attempts<'a> {
    fn new(what: &'a str, retries: &'a AtomicU64) -> Self {
        Self { what, left: ATTEMPTS - 1, backoff: Backoff::new(BACKOFF.0, BACKOFF.1), retries }
    }

    /// Gives the slot of a failed attempt free and waits before the next, unless there shall be none.
    async fn again(&mut self, slot: Option<SemaphorePermit<'_>>, source: ExecutionError) -> Result<()> {
        drop(slot);
        if self.left == 0 || failure::fate(&source) == Fate::Refused {
            return Err(failure::of_request(self.what, source));
        }
        self.left -= 1;
        self.retries.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(what = self.what, error = %source, "a request to a CQL server failed and is repeated");
        self.backoff.wait().await;
        Ok(())
    }
}

/// Runs requests, at most so many at once; the first that fails ends it.
pub(crate) async fn together(requests: Vec<impl Future<Output = Result<()>>>, most: usize) -> Result<()> {
    stream::iter(requests).buffer_unordered(most.max(1)).try_collect::<()>().await
}

/// Reads every row of an answer.
pub(crate) fn parse<R>(what: &str, result: QueryResult) -> Result<Vec<R>>
where
    R: for<'f, 'm> DeserializeRow<'f, 'm>,
{
    let rows = result.into_rows_result().map_err(|source| failure::unexpected(what, source))?;
    let typed = rows.rows::<R>().map_err(|source| failure::unexpected(what, source))?;
    typed.collect::<Result<Vec<R>, _>>().map_err(|source| failure::unexpected(what, source))
}

/// Whether a conditional write was applied. What else a server answers differs: Cassandra gives the rows that did not
/// match, ScyllaDB those of every condition.
pub(crate) fn applied(what: &str, result: QueryResult) -> Result<bool> {
    let rows = result.into_rows_result().map_err(|source| failure::unexpected(what, source))?;
    let first = rows.first_row::<Row>().map_err(|source| failure::unexpected(what, source))?;
    match first.columns.into_iter().next().flatten() {
        Some(CqlValue::Boolean(applied)) => Ok(applied),
        other => Err(Error::internal(format!("{what} was answered with {other:?} for [applied]"))),
    }
}

/// A stored value of its own, so that it does not keep the whole page that it came with.
pub(crate) fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn password(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).map_err(|source| {
        let text = format!("cannot read cql.password_file {}: {source}", file.display());
        Error::invalid("cql.password_file", "CONFIG_INVALID", text).with_source(source)
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
