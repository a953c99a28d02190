//! Reading one partition: never skips, never repeats, and knows what an empty read promises.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::{self, Instant};
use weir_core::{
    Partition, Result, Uid,
    port::{Batch, LogIdentity, LogReader, Record},
};

use crate::{
    error,
    feed::{Fed, Feed},
    handle::{Handle, Seen},
};

/// How often a reader that is used looks whether the log is still the one that it read.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Before a consumer is made again.
const PAUSE: Duration = Duration::from_millis(50);
/// How often an empty read is confirmed, while leaders change, before the bus is called away.
const CONFIRMATIONS: usize = 5;
/// The longest wait in one call, so that a wait without an end is still a time that a clock can hold.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);

/// When the log was found to be the one that was read, as the leader told it, and over which connection.
struct Checked {
    at: Instant,
    seen: Seen,
    changes: u64,
}

/// A place in a partition.
pub(crate) struct Reader {
    handle: Arc<Handle>,
    partition: Partition,
    subject: String,
    identity: LogIdentity,
    /// What came and was not given yet.
    buffer: VecDeque<Record>,
    /// Everything below is in the buffer, was given, or is not of the partition.
    next: u64,
    /// The last record that came.
    last: Option<(u64, Uid)>,
    /// The highest end of the stream that this reader relied on.
    end: u64,
    feed: Option<Feed>,
    checked: Option<Checked>,
}

impl Reader {
    /// A reader of the log that `seen` tells of.
    pub(crate) fn new(handle: Arc<Handle>, partition: Partition, from: u64, seen: &Seen) -> Self {
        let subject = handle.subject(partition);
        Self {
            handle,
            partition,
            subject,
            identity: seen.identity,
            buffer: VecDeque::new(),
            next: from.max(1),
            last: None,
            end: seen.last,
            feed: None,
            checked: None,
        }
    }

    fn changes(&self) -> u64 {
        self.handle.shared.link.borrow().changes
    }

    fn is_check_due(&self) -> bool {
        let fresh = |checked: &Checked| {
            checked.changes == self.changes() && Instant::now() < checked.at + CHECK_EVERY
        };
        !self.checked.as_ref().is_some_and(fresh)
    }

    /// Whether the log is the one that was read, and still has what is to be read next.
    async fn check(&mut self) -> Result<Seen> {
        let changes = self.changes();
        let seen = self.handle.look().await?;
        self.compare(&seen)?;
        // Where nothing at all has moved, the record is what it was: it need not be read again.
        let same = |checked: &Checked| checked.seen == seen && checked.changes == changes;
        if !self.checked.as_ref().is_some_and(same)
            && let Some((sequence, id)) = self.last
            && let Some(found) = self.handle.id(sequence).await?
            && found != id
        {
            return Err(self.fell_back(&format!("record {sequence} was {id} and is {found}")));
        }
        self.checked = Some(Checked { at: Instant::now(), seen: seen.clone(), changes });
        Ok(seen)
    }

    /// What the reader needs next must still be there.
    fn check_first(&self, seen: &Seen) -> Result<()> {
        if seen.first > self.next && self.buffer.is_empty() {
            return Err(error::trimmed(self.handle.stream, self.partition, self.next, seen.first));
        }
        Ok(())
    }

    /// What the leader's word alone tells.
    fn compare(&mut self, seen: &Seen) -> Result<()> {
        if seen.identity != self.identity {
            return Err(self.fell_back("it was made anew"));
        }
        if seen.last < self.end {
            return Err(self.fell_back(&format!("it ended at {}, and ends at {}", self.end, seen.last)));
        }
        self.end = seen.last;
        Ok(())
    }

    /// What the leader tells now, after the check where that is due.
    async fn look(&mut self) -> Result<Seen> {
        let seen = if self.is_check_due() {
            self.check().await?
        } else {
            let seen = self.handle.look().await?;
            self.compare(&seen)?;
            seen
        };
        self.check_first(&seen)?;
        Ok(seen)
    }

    fn fell_back(&self, how: &str) -> weir_core::Error {
        error::fell_back(self.handle.stream, self.partition, how)
    }

    /// Keeps a record that came, unless it is known.
    fn keep(&mut self, record: Record) {
        if record.sequence < self.next {
            return; // a consumer on a replica that lags starts before its place
        }
        self.handle.saw(record.sequence);
        self.next = record.sequence + 1;
        self.end = self.end.max(record.sequence);
        self.last = Some((record.sequence, record.id));
        self.buffer.push_back(record);
    }

    /// Records to give, at least one, where there are any.
    fn give(&mut self, bytes_max: usize) -> Option<Batch> {
        let (mut records, mut bytes) = (vec![], 0_usize);
        while let Some(record) = self.buffer.front() {
            bytes = bytes.saturating_add(record.bytes.len());
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            records.extend(self.buffer.pop_front());
        }
        let end = self.end.max(self.handle.last_seen());
        (!records.is_empty()).then_some(Batch { records, end })
    }

    /// Takes what has come, waiting for it until `until` or the next check. Cancel safe.
    async fn fetch(&mut self, until: Instant) -> Result<()> {
        if self.feed.is_none() {
            self.feed = Some(Feed::open(&self.handle, self.partition, self.next).await?);
        }
        let check = self.checked.as_ref().map_or_else(Instant::now, |checked| checked.at + CHECK_EVERY);
        let mut until = until.min(check);
        // What has come already is taken without waiting, up to what was asked for.
        while let Some(feed) = &mut self.feed {
            if feed.is_drained() && !self.buffer.is_empty() {
                break; // the next request waits until this much was given
            }
            match time::timeout_at(until, feed.next()).await {
                Err(_) => break,
                Ok(Fed::Nothing) => {}
                Ok(Fed::Record(record)) => {
                    self.keep(record);
                    until = Instant::now();
                }
                Ok(Fed::Lost(why)) => {
                    tracing::debug!(stream = self.handle.name, partition = %self.partition, why, "a consumer is made again");
                    (self.feed, self.checked) = (None, None);
                    if self.buffer.is_empty() {
                        time::sleep_until(until.min(Instant::now() + PAUSE)).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether there is nothing of the partition: then how far. Asks the leader, which must be the same throughout; a
    /// record that it has and the consumer did not bring is taken from it.
    async fn confirm_empty(&mut self) -> Result<Option<u64>> {
        for _ in 0..CONFIRMATIONS {
            let before = self.look().await?;
            let found = self.handle.next(&self.subject, self.next).await?;
            let after = self.handle.look().await?;
            self.compare(&after)?;
            let checked = self.checked.as_ref().map(|checked| &checked.seen.leader);
            if before.leader != after.leader || checked != Some(&after.leader) {
                self.checked = None; // another leader: is the log the same?
            } else if let Some(record) = found {
                self.keep(record);
                return Ok(None);
            } else {
                return Ok(Some(before.last));
            }
        }
        let what = format!("read stream {}, partition {}", self.handle.name, self.partition);
        Err(error::away(&what, "its leader keeps changing"))
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self, bytes_max: usize, wait: Duration) -> Result<Batch> {
        let until = Instant::now() + wait.min(WAIT_MAX);
        loop {
            if self.is_check_due() {
                let seen = self.check().await?;
                self.check_first(&seen)?;
            }
            if let Some(batch) = self.give(bytes_max) {
                return Ok(batch);
            }
            self.fetch(until).await?;
            if self.buffer.is_empty()
                && Instant::now() >= until
                && let Some(end) = self.confirm_empty().await?
            {
                self.next = self.next.max(end + 1);
                return Ok(Batch { records: vec![], end });
            }
        }
    }
}
