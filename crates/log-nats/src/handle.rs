//! One stream of the log, as its leader knows it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{
        message::StreamMessage,
        stream::{Info, RawMessage},
    },
};
use parking_lot::Mutex;
use tokio::time::{self, Instant};
use weir_core::{
    Error, Partition, Result, Stream, Timestamp, Uid,
    port::{LogIdentity, Record},
};

use crate::{
    api::Which,
    bus::Shared,
    error::{Failure, code},
    reconcile,
};

/// A leader that was just elected may not have applied all that was committed, and then its end looks as if the log had
/// fallen back. An end below one that was seen is believed when it stays below for this long.
const SETTLE: Duration = Duration::from_secs(2);
/// How often it is asked meanwhile.
const SETTLE_EVERY: Duration = Duration::from_millis(100);

/// An end below one that is known from elsewhere, as of a reader's recorded progress, is believed when it stays below for
/// this long: a leader that is cut off from the others still answers until it steps down, and a process that has just
/// started has seen nothing of its own to hold against it. An election takes less.
const BELIEVE: Duration = Duration::from_secs(12);
/// How often it is asked meanwhile.
const BELIEVE_EVERY: Duration = Duration::from_millis(500);

/// Where a record's id stands.
pub(crate) const ID_HEADER: &str = "Nats-Msg-Id";

/// Who leads a stream, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Leader {
    name: Option<String>,
    since: Option<i128>,
}

/// What the leader of a stream tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) identity: LogIdentity,
    pub(crate) leader: Leader,
    /// The lowest sequence that may still be there.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_max: Option<u64>,
}

/// One stream.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stream: Stream,
    pub(crate) name: String,
    /// The highest sequence that this process has seen in the stream.
    last: AtomicU64,
    identity: Mutex<Option<LogIdentity>>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>, stream: Stream) -> Self {
        let name = shared.stream_name(stream);
        Self { shared, stream, name, last: AtomicU64::new(0), identity: Mutex::new(None) }
    }

    pub(crate) fn subject(&self, partition: Partition) -> String {
        self.shared.subject_of(self.stream, partition)
    }

    /// A sequence of this stream was seen.
    pub(crate) fn saw(&self, sequence: u64) {
        self.last.fetch_max(sequence, Ordering::Relaxed);
    }

    /// The highest sequence that was seen.
    pub(crate) fn last_seen(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Asks the leader. An end below one that was seen before, of the same stream, is asked for again until it is not, or
    /// has stayed so for [`SETTLE`]. A stream that is gone is made again: what is published next is of a new log.
    ///
    /// # Errors
    /// `Unavailable` of the bus.
    pub(crate) async fn look(&self) -> Result<Seen> {
        let until = Instant::now() + SETTLE;
        loop {
            let before = self.last_seen(); // before the question: acknowledgements come while it is answered
            let seen = self.ask().await?;
            let another = *self.identity.lock() != Some(seen.identity);
            if another || seen.last >= before || Instant::now() >= until {
                *self.identity.lock() = Some(seen.identity);
                if another || seen.last < before {
                    self.last.store(seen.last, Ordering::Relaxed);
                }
                self.saw(seen.last);
                return Ok(seen);
            }
            time::sleep(SETTLE_EVERY).await;
        }
    }

    /// As [`Handle::look`], for whoever knows that the stream held `known`: an end below it is asked for again until it is
    /// not, the stream is another one, or it has stayed so for [`BELIEVE`].
    ///
    /// # Errors
    /// `Unavailable` of the bus.
    pub(crate) async fn look_with(&self, known: u64) -> Result<Seen> {
        let until = Instant::now() + BELIEVE;
        let mut seen = self.look().await?;
        let identity = seen.identity;
        while seen.last < known && seen.identity == identity && Instant::now() < until {
            time::sleep(BELIEVE_EVERY).await;
            seen = self.look().await?;
        }
        Ok(seen)
    }

    async fn ask(&self) -> Result<Seen> {
        match self.shared.api.info(&self.name).await {
            Ok(info) => Ok(self.seen(&info)),
            Err(failure) if failure.code() == code::STREAM_NOT_FOUND => {
                tracing::error!(
                    stream = self.name,
                    "the stream is gone from the bus, and is made anew: what it held is lost"
                );
                reconcile::stream(&self.shared, self.stream).await?;
                let info = self.shared.api.info(&self.name).await?;
                Ok(self.seen(&info))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    fn seen(&self, info: &Info) -> Seen {
        let cluster = info.cluster.as_ref();
        let created = info.created.unix_timestamp_nanos().to_be_bytes();
        Seen {
            identity: LogIdentity(Uid::hash(&[self.name.as_bytes(), &created])),
            leader: Leader {
                name: cluster.and_then(|cluster| cluster.leader.clone()),
                since: cluster
                    .and_then(|cluster| cluster.leader_since)
                    .map(|since| since.unix_timestamp_nanos()),
            },
            first: info.state.first_sequence.max(1),
            last: info.state.last_sequence,
            bytes: info.state.bytes,
            bytes_max: u64::try_from(info.config.max_bytes).ok(),
        }
    }

    /// The id of the record with this sequence, as the leader has it.
    ///
    /// # Errors
    /// `Unavailable` of the bus.
    pub(crate) async fn id(&self, sequence: u64) -> Result<Option<Uid>> {
        if sequence == 0 {
            return Ok(None);
        }
        let which = Which { sequence, next_of: None };
        match self.message(&which).await? {
            None => Ok(None),
            Some(message) => {
                let message = RawMessage { payload: String::new(), ..message };
                self.record(message).map(|record| Some(record.id))
            }
        }
    }

    /// The first record of a partition at or after `sequence`, as the leader has it.
    ///
    /// # Errors
    /// `Unavailable` of the bus.
    pub(crate) async fn next(&self, subject: &str, sequence: u64) -> Result<Option<Record>> {
        let message = self.message(&Which { sequence, next_of: Some(subject) }).await?;
        message.map(|message| self.record(message)).transpose()
    }

    async fn message(&self, which: &Which<'_>) -> Result<Option<RawMessage>, Failure> {
        self.shared.api.message(&self.name, which).await
    }

    fn record(&self, message: RawMessage) -> Result<Record> {
        let message = StreamMessage::try_from(message).map_err(|source| {
            Error::internal(format!("a message of stream {} is not understood: {source}", self.name))
        })?;
        Ok(Record {
            sequence: message.sequence,
            id: self.id_of(Some(&message.headers), message.sequence),
            stored_at: micros(message.time.unix_timestamp_nanos()),
            bytes: message.payload,
        })
    }

    /// The id in a message's headers. A message that somebody else put there without one gets one from its place, so that
    /// it is seen and refused as a poison frame, rather than passed over.
    pub(crate) fn id_of(&self, headers: Option<&HeaderMap>, sequence: u64) -> Uid {
        headers
            .and_then(|headers| headers.get(ID_HEADER))
            .and_then(|id| id.as_str().parse().ok())
            .unwrap_or_else(|| Uid::hash(&[self.name.as_bytes(), &sequence.to_be_bytes()]))
    }
}

/// Whole microseconds, rounded down, of a time after 1970.
pub(crate) fn micros(nanos: i128) -> Timestamp {
    Timestamp::from_micros(i64::try_from(nanos / 1_000).unwrap_or(i64::MAX))
}
