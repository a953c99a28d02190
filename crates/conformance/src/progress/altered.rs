//! Real engines in states that they do not reach at will: a log that lost its tail, one trimmed too far, a store whose
//! answer gets lost on the way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use weir_core::{
    Error, Partition, Result, Stream, Timestamp, Uid,
    port::{Bounds, KeyRange, Log, LogIdentity, LogReader, Records, Stored, Table, Write},
};

/// A log, but for its identity or its first sequence.
pub(super) struct AlteredLog {
    inner: Arc<dyn Log>,
    identity: Option<LogIdentity>,
    first: u64,
}

impl AlteredLog {
    /// `other`, under the identity of `log`: that log after it fell back to what `other` holds.
    pub(super) async fn with_identity_of(log: &dyn Log, other: Arc<dyn Log>) -> Self {
        let identity = log.identity(Stream::Readings).await.ok();
        Self { inner: other, identity, first: 0 }
    }

    /// `log` without its records below `first`; an engine may trim whole segments only.
    pub(super) fn trimmed_below(log: Arc<dyn Log>, first: u64) -> Self {
        Self { inner: log, identity: None, first }
    }
}

#[async_trait]
impl Log for AlteredLog {
    async fn publish(&self, stream: Stream, partition: Partition, id: Uid, bytes: Bytes) -> Result<u64> {
        self.inner.publish(stream, partition, id, bytes).await
    }
    async fn read_from(&self, stream: Stream, partition: Partition, from: u64) -> Result<Box<dyn LogReader>> {
        self.inner.read_from(stream, partition, from.max(self.first)).await
    }
    async fn trim(&self, stream: Stream, through: u64) -> Result<()> {
        self.inner.trim(stream, through).await
    }
    async fn sequence_before(&self, stream: Stream, instant: Timestamp) -> Result<u64> {
        self.inner.sequence_before(stream, instant).await
    }
    async fn identity(&self, stream: Stream) -> Result<LogIdentity> {
        match self.identity {
            Some(identity) => Ok(identity),
            None => self.inner.identity(stream).await,
        }
    }
    async fn bounds(&self, stream: Stream) -> Result<Bounds> {
        let bounds = self.inner.bounds(stream).await?;
        Ok(Bounds { first: bounds.first.max(self.first), ..bounds })
    }
    async fn ids(&self, stream: Stream, sequences: &[u64]) -> Result<Vec<Option<Uid>>> {
        let ids = self.inner.ids(stream, sequences).await?;
        Ok(sequences.iter().zip(ids).map(|(sequence, id)| id.filter(|_| *sequence >= self.first)).collect())
    }
    async fn writable(&self) -> Result<()> {
        self.inner.writable().await
    }
}

/// Records whose next commit is written, but answered with `Unavailable`.
pub(super) struct AnswerLost {
    inner: Arc<dyn Records>,
    lose: AtomicBool,
}

impl AnswerLost {
    pub(super) fn new(inner: Arc<dyn Records>) -> Self {
        Self { inner, lose: AtomicBool::new(false) }
    }

    pub(super) fn lose_next(&self) {
        self.lose.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Records for AnswerLost {
    async fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        self.inner.get(table, partition, key).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        self.inner.scan(table, partition, range, limit).await
    }
    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>> {
        let outcome = self.inner.commit(table, partition, writes).await;
        if self.lose.swap(false, Ordering::SeqCst) {
            return Err(Error::unavailable("the answer of the store was lost on the way"));
        }
        outcome
    }
    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.inner.partitions(table, after, limit).await
    }
}
