//! The port `Log`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use weir_core::{
    Error, Partition, Result, Stream, Timestamp, Uid,
    port::{Bounds, Log, LogIdentity, LogReader},
};

use crate::{bus::Shared, error, handle::Handle, publish, reader::Reader, reconcile};

/// Questions for ids that are under way at once: a record of 256 KiB comes with each.
const IDS_AT_ONCE: usize = 8;
/// A consumer that answers one question is gone after this, if it could not be deleted.
const QUESTION: Duration = Duration::from_secs(10);

/// The log on the bus.
pub(crate) struct NatsLog {
    shared: Arc<Shared>,
    streams: [Arc<Handle>; Stream::ALL.len()],
}

impl NatsLog {
    pub(crate) fn new(shared: Arc<Shared>, streams: [Arc<Handle>; Stream::ALL.len()]) -> Self {
        Self { shared, streams }
    }

    fn handle(&self, stream: Stream) -> Result<&Arc<Handle>> {
        let found = self.streams.iter().find(|handle| handle.stream == stream);
        found.ok_or_else(|| Error::internal(format!("stream {stream} has no handle"))) // every stream has
    }
}

#[async_trait]
impl Log for NatsLog {
    async fn publish(&self, stream: Stream, partition: Partition, id: Uid, bytes: Bytes) -> Result<u64> {
        publish::publish(self.handle(stream)?, partition, id, bytes).await
    }

    async fn read_from(&self, stream: Stream, partition: Partition, from: u64) -> Result<Box<dyn LogReader>> {
        let handle = Arc::clone(self.handle(stream)?);
        let seen = handle.look().await?;
        Ok(Box::new(Reader::new(handle, partition, from, &seen)))
    }

    async fn trim(&self, stream: Stream, through: u64) -> Result<()> {
        let handle = self.handle(stream)?;
        let seen = handle.look().await?;
        // A purge beyond the end would move the end: sequences that nobody was given.
        let below = through.min(seen.last).saturating_add(1);
        if below <= seen.first {
            return Ok(());
        }
        Ok(self.shared.api.purge_below(&handle.name, below).await?)
    }

    /// A consumer that starts at a time tells where that is, for the price of one question and no record.
    async fn sequence_before(&self, stream: Stream, instant: Timestamp) -> Result<u64> {
        let handle = self.handle(stream)?;
        let since_1970 = u64::try_from(instant.as_micros()).unwrap_or(0);
        let seen = handle.look().await?;
        if since_1970 == 0 || seen.last == 0 {
            return Ok(0);
        }
        // A time after this instant is as good as the end of time, and one that the bus can read.
        let latest = SystemTime::now() + Duration::from_secs(24 * 3_600);
        let asked = SystemTime::UNIX_EPOCH + Duration::from_micros(since_1970.min(i64::MAX as u64 / 4));
        if asked >= latest {
            return Ok(seen.last);
        }
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartTime { start_time: asked.into() },
            ack_policy: AckPolicy::None,
            inactive_threshold: QUESTION,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = self.shared.jetstream.create_consumer_on_stream(config, &handle.name).await;
        let consumer = consumer.map_err(|failure| {
            let what = format!("find a time in stream {}", handle.name);
            error::away(&what, &failure.to_string()).with_source(failure)
        })?;
        let info = consumer.cached_info();
        let before = info.delivered.stream_sequence;
        let _ = self.shared.jetstream.delete_consumer_from_stream(&info.name, &handle.name).await; // it expires
        Ok(before.min(seen.last))
    }

    async fn identity(&self, stream: Stream) -> Result<LogIdentity> {
        Ok(self.handle(stream)?.look().await?.identity)
    }

    async fn bounds(&self, stream: Stream) -> Result<Bounds> {
        self.bounds_with(stream, 0).await
    }

    async fn bounds_with(&self, stream: Stream, known: u64) -> Result<Bounds> {
        let seen = self.handle(stream)?.look_with(known).await?;
        Ok(Bounds { first: seen.first, last: seen.last, bytes: seen.bytes, bytes_max: seen.bytes_max })
    }

    async fn ids(&self, stream: Stream, sequences: &[u64]) -> Result<Vec<Option<Uid>>> {
        let handle = self.handle(stream)?;
        let questions = sequences.iter().map(|sequence| handle.id(*sequence)).collect::<Vec<_>>();
        stream::iter(questions).buffered(IDS_AT_ONCE).try_collect().await
    }

    async fn writable(&self) -> Result<()> {
        if !self.shared.link.borrow().connected {
            return Err(error::away("publish", "the bus is not connected"));
        }
        for handle in &self.streams {
            let seen = handle.look().await?;
            if seen.bytes_max.is_some_and(|max| seen.bytes >= max) {
                let max = seen.bytes_max.unwrap_or_default();
                return Err(error::full(handle.stream, max, "maximum bytes reached"));
            }
        }
        Ok(())
    }

    async fn durable(&self) -> Result<()> {
        for stream in Stream::ALL {
            reconcile::check(&self.shared, stream).await?;
        }
        Ok(())
    }
}
