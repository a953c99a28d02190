//! Reading one partition.

use std::{future, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::Notify,
    task,
    time::{self, Instant},
};
use weir_core::{
    Error, Partition, Result,
    port::{Batch, LogReader, Record},
};

use crate::{
    segment::{Sealed, SegmentReader},
    state::{Look, Shared},
};

/// The longest wait in one call, so that a wait without an end is still a time that a clock can hold.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A place in a partition of a stream.
#[derive(Debug)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
    partition: Partition,
    /// The next sequence that it has not seen.
    next: u64,
    doorbell: Arc<Notify>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, partition: Partition, from: u64) -> Self {
        let doorbell = shared.state.lock().doorbell(partition);
        Self { shared, partition, next: from.max(1), doorbell }
    }

    /// Records of a sealed segment; moves behind it where it has none.
    async fn sealed(&mut self, segment: Sealed, bytes_max: usize) -> Result<Vec<Record>> {
        let (shared, partition, from, last) =
            (Arc::clone(&self.shared), self.partition, self.next, segment.last);
        let records = blocking(move || {
            // A segment that was trimmed meanwhile is found to be gone at the next look.
            let Some(open) = shared.cache.get(&segment)? else { return Ok(None) };
            read(&open.reader, open.index.offsets_of(partition, from..=segment.last), bytes_max).map(Some)
        })
        .await?;
        if records.as_ref().is_some_and(Vec::is_empty) {
            self.next = last + 1;
        }
        Ok(records.unwrap_or_default())
    }

    fn batch(&mut self, records: Vec<Record>, end: u64) -> Batch {
        if let Some(last) = records.last() {
            self.next = last.sequence + 1;
        }
        Batch { records, end }
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self, bytes_max: usize, wait: Duration) -> Result<Batch> {
        let until = Instant::now() + wait.min(WAIT_MAX);
        let doorbell = Arc::clone(&self.doorbell);
        loop {
            let mut rung = pin!(doorbell.notified());
            rung.as_mut().enable(); // before the look, so that nothing falls between them
            let (look, end) = self.shared.look(self.partition, self.next, bytes_max)?;
            let records = match look {
                Look::Records(records) => records,
                Look::Active(reader, offsets) => blocking(move || read(&reader, offsets, bytes_max)).await?,
                Look::Sealed(segment) => self.sealed(segment, bytes_max).await?,
                Look::Nothing => {
                    self.next = self.next.max(end + 1);
                    if time::timeout_at(until, rung).await.is_err() {
                        return Ok(self.batch(vec![], end));
                    }
                    vec![]
                }
            };
            if !records.is_empty() {
                return Ok(self.batch(records, end));
            }
        }
    }
}

/// Reads records until `bytes_max`, but one at least. Blocks.
fn read(
    reader: &SegmentReader,
    offsets: impl IntoIterator<Item = u64>,
    bytes_max: usize,
) -> Result<Vec<Record>> {
    let (mut records, mut bytes) = (vec![], 0_usize);
    for offset in offsets {
        let record = reader.record(offset)?;
        bytes = bytes.saturating_add(record.bytes.len());
        if bytes > bytes_max && !records.is_empty() {
            break;
        }
        records.push(record);
    }
    Ok(records)
}

/// Runs what blocks where it blocks nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(ended) if ended.is_cancelled() => future::pending().await, // the runtime ends, and so does the caller
        Err(ended) => Err(Error::internal("reading the log ended in a panic").with_source(ended)),
    }
}
