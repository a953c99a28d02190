//! Deciding a commit, also where its answer is lost.
//!
//! A server that times out in the middle of Paxos, or whose connection breaks, does not tell whether the batch was
//! written. A read at `LOCAL_SERIAL` finishes or buries what was begun, and then:
//!
//! - the partition's newest commit is ours, or a key that we put has our version: it was written;
//! - no commit was ever written, or a record that we replace or delete by version still has that version: it was not, and
//!   the same commit is tried again. Versions never come back, so this is proof;
//! - else others have committed since, and ours may have come before theirs: nobody can know, and the answer says so.
//!
//! Where the server said that it gave up, nothing of the attempt goes on after that read, whose ballot is higher. Where the
//! connection broke, the server may still be at it; then the commit is tried again only if it expects a version, so that of
//! the two at most one is written, and a conflict of the second attempt is looked into before it is believed.

use std::time::{Duration, Instant};

use weir_core::{
    Error, Result, Uid,
    port::{Expect, Op},
};

use super::Commit;
use crate::{
    ScyllaStore,
    backoff::Backoff,
    client::applied,
    failure::{self, Fate},
};

/// How long a commit may be tried, in request time-outs: past it the caller is told that it is not known.
const TRIES: u32 = 2;
/// Paxos needs a few milliseconds; those who contend should spread over many of them.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

enum Outcome {
    Written,
    NotWritten,
    Unknown,
}

impl ScyllaStore {
    /// Writes a commit or tells why not.
    pub(super) async fn decide(&self, commit: &Commit<'_>) -> Result<()> {
        let place = commit.place;
        let _turn = self.turn(Uid::hash(&[place.table.0.as_bytes(), place.partition])).await;
        let until = Instant::now() + self.client.timeout * TRIES;
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let (batch, values) = commit.batch(&self.records);
        let mut under_way = false;
        loop {
            let source = match self.client.write_once(&batch, &values).await {
                Ok(answer) => {
                    if applied("a commit", answer)? {
                        return Ok(());
                    }
                    return match under_way {
                        false => Err(commit.conflict()),
                        true => self.look_again(commit).await,
                    };
                }
                Err(source) => source,
            };
            let fate = failure::fate(&source);
            if fate == Fate::Refused {
                return Err(failure::of_request("commit", source));
            }
            under_way |= fate == Fate::Untold;
            tracing::debug!(error = %source, ?fate, "the answer to a commit is missing");
            match self.look(commit).await? {
                Outcome::Written => return Ok(()),
                Outcome::NotWritten if !under_way || commit.expects_version() => {}
                Outcome::NotWritten | Outcome::Unknown => return Err(not_known(&source.to_string())),
            }
            if Instant::now() > until {
                return Err(failure::of_request("commit", source));
            }
            backoff.wait().await;
        }
    }

    /// A conflict after an attempt that may have been written: was it that attempt?
    async fn look_again(&self, commit: &Commit<'_>) -> Result<()> {
        match self.look(commit).await? {
            Outcome::Written => Ok(()),
            Outcome::NotWritten | Outcome::Unknown => Err(not_known("others committed meanwhile")),
        }
    }

    /// Waits for the turn of whatever writes conditionally into the CQL partition of that name.
    pub(super) async fn turn(&self, partition: Uid) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let turns = &self.records.turns;
        let index = usize::try_from(partition.as_u128() % (turns.len().max(1) as u128)).unwrap_or_default();
        Some(turns.get(index)?.lock().await)
    }

    /// Whether the commit was written, as far as can be known.
    async fn look(&self, commit: &Commit<'_>) -> Result<Outcome> {
        let (table, partition) = (commit.place.table.0, commit.place.partition);
        let what = "look for a commit";
        let newest = self
            .client
            .rows::<(Option<Vec<u8>>,)>(what, &self.records.newest_commit, &(table, partition))
            .await?;
        match newest.into_iter().next().and_then(|(id,)| id) {
            None => return Ok(Outcome::NotWritten),
            Some(id) if id == commit.id.to_bytes() => return Ok(Outcome::Written),
            Some(_) => {}
        }
        if commit.writes.iter().all(|(write, _)| write.op == Op::Check) {
            return Ok(Outcome::NotWritten); // to check once more changes nothing
        }
        let Some((write, version)) = commit.telling() else { return Ok(Outcome::Unknown) };
        let values = (table, partition, &write.key[..]);
        let found = self.client.rows::<(Option<i64>,)>(what, &self.records.newest_version, &values).await?;
        let found = found.into_iter().next().and_then(|(version,)| version).map(i64::cast_unsigned);
        Ok(match (found, write.expect) {
            (Some(found), _) if found == *version => Outcome::Written,
            (Some(found), Expect::Version(expected)) if found == expected => Outcome::NotWritten,
            _ => Outcome::Unknown,
        })
    }
}

impl Commit<'_> {
    /// Whether it can be written once only: after that a version that it expects is gone.
    fn expects_version(&self) -> bool {
        let once = |(write, _): &(weir_core::port::Write, u64)| {
            matches!(write.expect, Expect::Version(_)) && write.op != Op::Check
        };
        self.writes.iter().any(once) || self.writes.iter().all(|(write, _)| write.op == Op::Check)
    }

    /// The write whose record tells most of whether the commit was written.
    fn telling(&self) -> Option<&(weir_core::port::Write, u64)> {
        let changes = || self.writes.iter().filter(|(write, _)| write.op != Op::Check);
        let by_version = changes().find(|(write, _)| matches!(write.expect, Expect::Version(_)));
        by_version.or_else(|| changes().find(|(_, version)| *version != 0))
    }
}

fn not_known(why: &str) -> Error {
    failure::away(format!("it is not known whether a commit was written: {why}"))
}
