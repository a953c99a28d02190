//! Poison: records of the stream of readings that are no frames, put there by somebody else, in the middle of load.
//!
//! What must hold afterwards, beside everything that always must (they block nothing and cost nobody a reading):
//!
//! - `weir poison-frame list` shows each of them, once, with its partition, place and length, and nothing else;
//! - `get --raw` gives its bytes; `replay` is refused as `FRAME_UNREADABLE` and keeps it; `delete` forgets it.
//!
//! Whether a publish that nobody answered put something there is not known: such a record may be listed or not.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use async_nats::jetstream::{self, context::PublishError};
use bytes::Bytes;
use weir_core::{Error, Result};
use weir_drive::random::Random;

use crate::{cluster::Cluster, process::until};

/// Partitions of the log, as `weir init` leaves them.
const PARTITIONS: u64 = 16;
/// Weir keeps so many of a partition and drops the oldest; past half of it nothing more is put there.
const EACH_MAX: usize = 32;
/// The longest junk: a good part of the largest frame.
const LENGTH_MAX: u64 = 200_000;
/// How long after everything is healed they may take to be listed.
const LAG: Duration = Duration::from_secs(60);

/// What was put there.
#[derive(Debug, Default)]
pub struct Junk {
    context: Option<jetstream::Context>,
    /// By place: partition and sequence.
    records: BTreeMap<(u64, u64), Bytes>,
    /// Of those that nobody answered: partition and bytes.
    unknown: Vec<(u64, Bytes)>,
}

/// How they fared.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Put there.
    pub expected: u64,
    /// Not as they must be.
    pub wrong: u64,
    /// In words.
    pub examples: Vec<String>,
}

impl Outcome {
    fn wrong(&mut self, what: String) {
        self.wrong += 1;
        if self.examples.len() < 20 {
            self.examples.push(what);
        }
    }
}

/// A line of `weir poison-frame list -o csv`.
struct Listed {
    id: String,
    partition: u64,
    sequence: u64,
    bytes: u64,
}

impl Junk {
    /// Puts one record into `count` partitions each.
    ///
    /// # Errors
    /// Where there is no bus.
    pub async fn put(&mut self, cluster: &Cluster, count: u64, random: &mut Random) -> Result<()> {
        let context = match self.context.take() {
            Some(context) => context,
            None => jetstream::new(connect(cluster).await?),
        };
        for _ in 0..count {
            let partition = random.below(PARTITIONS);
            let of = self.records.keys().filter(|(known, _)| *known == partition).count();
            if of >= EACH_MAX {
                continue;
            }
            let bytes = junk(random);
            match publish(&context, partition, bytes.clone()).await {
                Some(sequence) => drop(self.records.insert((partition, sequence), bytes)),
                None => self.unknown.push((partition, bytes)),
            }
        }
        self.context = Some(context);
        Ok(())
    }

    /// Looks at what became of them, with the commands that a person has.
    ///
    /// # Errors
    /// Where a command cannot be run at all.
    pub async fn finish(self, cluster: &Cluster, binary: &Path) -> Result<Outcome> {
        let mut outcome = Outcome { expected: self.records.len() as u64, ..Outcome::default() };
        if self.records.is_empty() && self.unknown.is_empty() {
            return Ok(outcome);
        }
        let weir = Weir { binary, address: cluster.api()?, token: cluster.token() };
        let mut listed = Vec::new();
        // Judged as it is when the time is up.
        drop(
            until("all poison frames are listed", LAG, async || {
                listed = weir.list().await.ok()?;
                let found = |at: &(u64, u64)| listed.iter().any(|one| (one.partition, one.sequence) == *at);
                self.records.keys().all(found).then_some(())
            })
            .await,
        );
        for (partition, sequence) in self.records.keys() {
            let count =
                listed.iter().filter(|one| (one.partition, one.sequence) == (*partition, *sequence)).count();
            if count != 1 {
                outcome.wrong(format!("the junk at {partition}/{sequence} is listed {count} times"));
            }
        }
        for one in &listed {
            self.judge(&weir, one, &mut outcome).await?;
        }
        let left = weir.list().await?;
        left.iter().for_each(|one| outcome.wrong(format!("poison frame {} is deleted and listed", one.id)));
        Ok(outcome)
    }

    async fn judge(&self, weir: &Weir<'_>, listed: &Listed, outcome: &mut Outcome) -> Result<()> {
        let id = &listed.id;
        let raw = weir.run(&["get", id, "--raw"]).await?;
        let put = match self.records.get(&(listed.partition, listed.sequence)) {
            Some(bytes) => bytes == &raw.stdout,
            None => self.unknown.iter().any(|(at, bytes)| *at == listed.partition && bytes == &raw.stdout),
        };
        if !put || !raw.status.success() || raw.stdout.len() as u64 != listed.bytes {
            outcome.wrong(format!(
                "poison frame {id} of {} bytes: get gives {} bytes that were not put there: {}",
                listed.bytes,
                raw.stdout.len(),
                complaint(&raw)
            ));
        }
        let replay = weir.run(&["replay", id]).await?;
        if replay.status.success() || !complaint(&replay).contains("FRAME_UNREADABLE") {
            outcome.wrong(format!("poison frame {id}: replay is not refused: {:?}", complaint(&replay)));
        }
        let delete = weir.run(&["delete", id]).await?;
        if !delete.status.success() {
            outcome.wrong(format!("poison frame {id}: delete says {:?}", complaint(&delete)));
        }
        Ok(())
    }
}

/// A connection to the bus, as anybody's.
pub(super) async fn connect(cluster: &Cluster) -> Result<async_nats::Client> {
    let servers = cluster.bus()?.servers();
    async_nats::connect(servers)
        .await
        .map_err(|source| Error::unavailable(format!("cannot connect to NATS: {source}")).with_source(source))
}

/// Bytes that no release takes for a frame: nothing, too little, or the beginning of one and then noise.
fn junk(random: &mut Random) -> Bytes {
    let length = match random.below(4) {
        0 => random.below(20),
        1 | 2 => random.below(2_000),
        _ => random.below(LENGTH_MAX),
    };
    let begin: &[u8] = if random.once_in(2) { b"WF\x01" } else { b"" };
    let noise = (0..length).map(|_| random.next() as u8);
    begin.iter().copied().chain(noise).collect()
}

/// Publishes once (without an id a second one would be another record); its sequence, or none where nobody answered.
async fn publish(context: &jetstream::Context, partition: u64, bytes: Bytes) -> Option<u64> {
    let subject = format!("weir.log.readings.{partition}");
    let sent: std::result::Result<_, PublishError> =
        async { context.publish(subject, bytes).await?.await }.await;
    sent.ok().map(|ack| ack.sequence)
}

/// The command line as a person with the first token types it.
struct Weir<'a> {
    binary: &'a Path,
    address: String,
    token: &'a str,
}

impl Weir<'_> {
    async fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.binary);
        command.arg("poison-frame").args(args);
        command.env("WEIR_ADDR", &self.address).env("WEIR_TOKEN", self.token).env_remove("WEIR_CONTEXT");
        let what = format!("weir poison-frame {}", args.join(" "));
        tokio::task::spawn_blocking(move || command.output())
            .await
            .map_err(|source| Error::internal("running a command panicked").with_source(source))?
            .map_err(|source| Error::unavailable(format!("{what}: {source}")).with_source(source))
    }

    async fn list(&self) -> Result<Vec<Listed>> {
        let output = self.run(&["list", "-o", "csv"]).await?;
        if !output.status.success() {
            return Err(Error::unavailable(format!("weir poison-frame list: {}", complaint(&output))));
        }
        let mut reader = csv::Reader::from_reader(output.stdout.as_slice());
        let rows: std::result::Result<Vec<BTreeMap<String, String>>, _> = reader.deserialize().collect();
        let rows =
            rows.map_err(|source| Error::internal(format!("weir poison-frame list -o csv: {source}")))?;
        let number = |row: &BTreeMap<String, String>, name: &str| {
            row.get(name).and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
        };
        let listed = rows.iter().map(|row| Listed {
            id: row.get("id").cloned().unwrap_or_default(),
            partition: number(row, "partition"),
            sequence: number(row, "sequence"),
            bytes: number(row, "bytes"),
        });
        Ok(listed.collect())
    }
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
