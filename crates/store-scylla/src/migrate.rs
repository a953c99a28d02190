//! Making the schema, and bringing an older one up to this release's: what `weir migrate` does.
//!
//! Each step is recorded when it is done, and every statement may be repeated, so a run that died is simply run again. One
//! runner works at a time: it holds a lease, taken by a lightweight transaction, that expires by itself.

use std::time::{Duration, Instant};

use weir_core::{Error, ErrorKind, Result, Uid};

use crate::{
    client::Client,
    config::Config,
    schema::{self, CURRENT, SCOPE},
};

pub use schema::Step;

/// A runner that died holds up the next for this long; one that works renews it before each step, which takes seconds.
const LEASE: Duration = Duration::from_secs(60);
/// Servers agree on a table that was just made within a second or two, on a busy machine within some more.
const AGREEMENT: Duration = Duration::from_secs(20);
/// How long to wait for another runner: long enough for a lease to expire.
const WAIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(500);

/// The steps that [`run`] would take, with their CQL; also where the keyspace does not exist yet.
///
/// # Errors
/// `Unavailable` of the servers; `FailedPrecondition` (`SCHEMA_NEW`) where a newer release made the schema.
pub async fn plan(config: &Config) -> Result<Vec<Step>> {
    let client = Client::connect(config).await?;
    pending(&client, config).await
}

/// Takes the steps that are missing, one runner at a time; tells each before it begins. Returns how many were taken.
///
/// # Errors
/// `Unavailable` of the servers, or where another runner works for longer than two minutes; `FailedPrecondition`
/// (`SCHEMA_NEW`) where a newer release made the schema. Run it again: what is done is not done again.
pub async fn run(config: &Config, mut tell: impl FnMut(&Step)) -> Result<usize> {
    let client = Client::connect(config).await?;
    let missing = pending(&client, config).await?;
    if missing.is_empty() {
        return Ok(0);
    }
    let mut told = 0;
    // What there is to take turns by must be there first; the same for everybody, so it needs no turn.
    for step in missing.iter().filter(|step| step.number == 1) {
        tell(step);
        told = step.number;
        apply(&client, step).await?;
    }
    let lease = Lease::take(&client).await?;
    let outcome = run_holding(&client, config, &lease, told, tell).await;
    let released = lease.release().await;
    let taken = outcome?;
    released.map(|()| taken)
}

async fn run_holding(
    client: &Client,
    config: &Config,
    lease: &Lease<'_>,
    told: u32,
    mut tell: impl FnMut(&Step),
) -> Result<usize> {
    let missing = pending(client, config).await?; // another runner may have worked meanwhile
    for step in &missing {
        lease.renew().await?;
        if step.number > told {
            tell(step);
            apply(client, step).await?;
        }
        let Step { number, name, .. } = step;
        let record = format!(
            "INSERT INTO {}.schema_version (scope, step, name) VALUES ('{SCOPE}', {number}, '{name}')",
            client.keyspace
        );
        client.change(&record).await?;
    }
    Ok(missing.len())
}

/// Refuses a schema that this release does not read.
///
/// # Errors
/// `FailedPrecondition`: `SCHEMA_OLD` or `SCHEMA_NEW`; `Unavailable` of the servers.
pub(crate) async fn check(client: &Client) -> Result<()> {
    let refuse =
        |reason: &'static str, text: String| Err(Error::new(ErrorKind::FailedPrecondition, reason, text));
    let keyspace = &client.keyspace;
    match version(client).await? {
        found if found < CURRENT => {
            let text = format!(
                "keyspace {keyspace} has schema {found}, and this release needs {CURRENT}: run `weir migrate`"
            );
            refuse("SCHEMA_OLD", text)
        }
        found if found > CURRENT => refuse("SCHEMA_NEW", too_new(keyspace, found)),
        _ => Ok(()),
    }
}

fn too_new(keyspace: &str, found: u32) -> String {
    format!(
        "keyspace {keyspace} has schema {found}, and this release reads {CURRENT}: a newer release ran `weir migrate`; \
         run that release"
    )
}

async fn pending(client: &Client, config: &Config) -> Result<Vec<Step>> {
    let found = version(client).await?;
    if found > CURRENT {
        let text = too_new(&client.keyspace, found);
        return Err(Error::new(ErrorKind::FailedPrecondition, "SCHEMA_NEW", text));
    }
    let steps = schema::steps(config, tablets_off(client).await?);
    Ok(steps.into_iter().filter(|step| step.number > found).collect())
}

/// The last step that is done; 0 where there is no schema.
async fn version(client: &Client) -> Result<u32> {
    let keyspace = &client.keyspace;
    let table = format!(
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{keyspace}' AND \
         table_name = 'schema_version'"
    );
    if client.query::<(String,)>(&table).await?.is_empty() {
        return Ok(0);
    }
    let steps = format!("SELECT step FROM {keyspace}.schema_version WHERE scope = '{SCOPE}'");
    let steps = client.query::<(i32,)>(&steps).await?;
    Ok(steps.into_iter().filter_map(|(step,)| u32::try_from(step).ok()).max().unwrap_or(0))
}

async fn apply(client: &Client, step: &Step) -> Result<()> {
    for statement in &step.statements {
        client.change(statement).await?;
    }
    Ok(())
}

/// Whether the server is a ScyllaDB that knows tablets, but no lightweight transactions on them: then `tablets` must be
/// turned off for the keyspace. Cassandra has no such column, and is never told of tablets.
async fn tablets_off(client: &Client) -> Result<bool> {
    if !is_scylla(client).await? {
        return Ok(false);
    }
    let features = client.query::<(Option<String>,)>("SELECT supported_features FROM system.local").await?;
    let features = features.into_iter().next().and_then(|(features,)| features).unwrap_or_default();
    let has = |name: &str| features.split(',').any(|feature| feature.trim() == name);
    Ok(has("TABLETS") && !has("LWT_WITH_TABLETS"))
}

/// Whether the servers are ScyllaDB: only there does `system.local` tell features.
pub(crate) async fn is_scylla(client: &Client) -> Result<bool> {
    let column = "SELECT column_name FROM system_schema.columns WHERE keyspace_name = 'system' AND \
                  table_name = 'local' AND column_name = 'supported_features'";
    Ok(!client.query::<(String,)>(column).await?.is_empty())
}

/// The right to change the schema.
struct Lease<'a> {
    client: &'a Client,
    holder: Uid,
}

impl<'a> Lease<'a> {
    async fn take(client: &'a Client) -> Result<Self> {
        let lease = Self { client, holder: Uid::random() };
        let began = Instant::now();
        let take = format!(
            "INSERT INTO {}.schema_lease (scope, holder) VALUES ('{SCOPE}', 0x{}) IF NOT EXISTS USING TTL {}",
            client.keyspace,
            lease.holder,
            LEASE.as_secs()
        );
        loop {
            // A renewal succeeds also where the answer to the taking got lost.
            let taken = match lease.decide(&take).await {
                Ok(false) => lease.renewed().await,
                taken => taken,
            };
            match taken {
                Ok(true) => break,
                Ok(false) => {}
                // The table was made a moment ago, and not every server knows it.
                Err(error) if began.elapsed() < AGREEMENT => {
                    tracing::debug!(error = %error, "the lease of the schema cannot be had yet");
                }
                Err(error) => return Err(error),
            }
            if began.elapsed() > WAIT {
                let text = format!("another `weir migrate` of keyspace {} is running", client.keyspace);
                return Err(Error::unavailable(text).with_retry_after(LEASE));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(lease)
    }

    async fn renew(&self) -> Result<()> {
        if self.renewed().await? {
            return Ok(());
        }
        let text = format!("another `weir migrate` of keyspace {} has taken over", self.client.keyspace);
        Err(Error::unavailable(text).with_retry_after(LEASE))
    }

    async fn renewed(&self) -> Result<bool> {
        let (keyspace, holder) = (&self.client.keyspace, self.holder);
        let renew = format!(
            "UPDATE {keyspace}.schema_lease USING TTL {} SET holder = 0x{holder} WHERE scope = '{SCOPE}' \
             IF holder = 0x{holder}",
            LEASE.as_secs()
        );
        self.decide(&renew).await
    }

    async fn release(self) -> Result<()> {
        let (keyspace, holder) = (&self.client.keyspace, self.holder);
        let release =
            format!("DELETE FROM {keyspace}.schema_lease WHERE scope = '{SCOPE}' IF holder = 0x{holder}");
        self.decide(&release).await.map(drop)
    }

    /// Whether a conditional statement was applied.
    async fn decide(&self, cql: &str) -> Result<bool> {
        self.client.decide(cql).await
    }
}
