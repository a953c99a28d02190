//! One ephemeral consumer, and what it delivers.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Message, Subscriber,
    jetstream::{
        self,
        consumer::{AckPolicy, DeliverPolicy, pull},
    },
};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use weir_core::{Partition, Result, port::Record};

use crate::{
    connect::Link,
    error,
    handle::{Handle, micros},
};

/// Records asked for at once.
const BATCH: usize = 256;
/// Bytes asked for at once, at least: several frames of 256 KiB, and little enough for many readers in one process.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// Subject, headers and acknowledgement subject of a record, which the server counts too.
const OVERHEAD: usize = 4 * 1024;
/// How long the server keeps a request that waits for records.
const PULL: Duration = Duration::from_secs(30);
/// While it waits, the server says so this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence after which the consumer is taken for lost.
const SILENCE: Duration = Duration::from_secs(3);
/// A consumer that nobody asks is gone after this.
const INACTIVE: Duration = Duration::from_secs(60);

/// What came.
pub(crate) enum Fed {
    Record(Record),
    /// Something that is no record.
    Nothing,
    /// The consumer cannot be relied on any more, and why.
    Lost(String),
}

/// A consumer of one partition.
pub(crate) struct Feed {
    handle: Arc<Handle>,
    consumer: String,
    inbox: String,
    subscriber: Subscriber,
    /// The link as it was when the consumer was made: requests die with the connection.
    changes: u64,
    link: watch::Receiver<Link>,
    /// Records that the current request may still bring; 0 where there is none.
    outstanding: usize,
    requests: u64,
    /// The consumer's own number of the last record.
    delivered: u64,
    heard: Instant,
}

impl Feed {
    /// Makes a consumer that starts at `from`.
    pub(crate) async fn open(handle: &Arc<Handle>, partition: Partition, from: u64) -> Result<Self> {
        let shared = &handle.shared;
        let what = format!("read stream {}, partition {partition}", handle.name);
        let link = shared.link.clone();
        let changes = link.borrow().changes;
        let inbox = shared.api.client.new_inbox();
        let subscribed = shared.api.client.subscribe(format!("{inbox}.*"));
        let subscriber = time::timeout(shared.config.request_timeout, subscribed)
            .await
            .map_err(|_| error::away(&what, "the bus is not connected"))?
            .map_err(|failure| error::away(&what, &failure.to_string()).with_source(failure))?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from.max(1) },
            filter_subject: handle.subject(partition),
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let made = shared.jetstream.create_consumer_on_stream(config, &handle.name);
        let made = time::timeout(shared.config.request_timeout, made)
            .await
            .map_err(|_| error::away(&what, "no answer in time"))?
            .map_err(|failure| error::away(&what, &failure.to_string()).with_source(failure))?;
        Ok(Self {
            handle: Arc::clone(handle),
            consumer: made.cached_info().name.clone(),
            inbox,
            subscriber,
            changes,
            link,
            outstanding: 0,
            requests: 0,
            delivered: 0,
            heard: Instant::now(),
        })
    }

    /// Whether the last request has brought all that it may.
    pub(crate) fn is_drained(&self) -> bool {
        self.outstanding == 0
    }

    /// Waits for the next thing to come. Cancel safe.
    pub(crate) async fn next(&mut self) -> Fed {
        if self.link.borrow().changes != self.changes {
            return Fed::Lost("the connection was made anew".to_owned());
        }
        if self.outstanding == 0
            && let Err(why) = self.request().await
        {
            return Fed::Lost(why);
        }
        tokio::select! {
            biased;
            message = self.subscriber.next() => match message {
                Some(message) => self.take(message),
                None => Fed::Lost("the subscription ended".to_owned()),
            },
            changed = self.link.changed() => match changed {
                Ok(()) => Fed::Nothing,
                Err(_) => Fed::Lost("the connection is closed".to_owned()),
            },
            () = time::sleep_until(self.heard + SILENCE) => Fed::Lost(format!("silence for {SILENCE:?}")),
        }
    }

    async fn request(&mut self) -> Result<(), String> {
        let client = &self.handle.shared.api.client;
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let body = serde_json::json!({
            "batch": BATCH,
            "max_bytes": BATCH_BYTES.max(client.max_payload() + OVERHEAD),
            "expires": nanos(PULL),
            "idle_heartbeat": nanos(HEARTBEAT),
        });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.handle.name, self.consumer);
        let reply = format!("{}.{}", self.inbox, self.requests + 1);
        let sent = client.publish_with_reply(subject, reply, Bytes::from(body.to_string()));
        sent.await.map_err(|failure| failure.to_string())?;
        self.requests += 1;
        self.outstanding = BATCH;
        self.heard = Instant::now();
        Ok(())
    }

    fn take(&mut self, message: Message) -> Fed {
        self.heard = Instant::now();
        match message.status.map(u16::from) {
            None | Some(200) => self.record(message),
            Some(100) => self.heartbeat(&message),
            Some(status) => self.status(status, &message),
        }
    }

    fn record(&mut self, message: Message) -> Fed {
        let message = jetstream::Message { message, context: self.handle.shared.jetstream.clone() };
        let Ok(info) = message.info() else {
            return Fed::Lost("a message without its place in the stream".to_owned());
        };
        if info.consumer_sequence != self.delivered + 1 {
            return Fed::Lost(format!(
                "record {} of the consumer came after {}",
                info.consumer_sequence, self.delivered
            ));
        }
        self.delivered += 1;
        self.outstanding = self.outstanding.saturating_sub(1);
        let sequence = info.stream_sequence;
        Fed::Record(Record {
            sequence,
            id: self.handle.id_of(message.headers.as_ref(), sequence),
            stored_at: micros(info.published.unix_timestamp_nanos()),
            bytes: message.message.payload,
        })
    }

    /// Says how many records the consumer has delivered: more than came means that some were lost on the way.
    fn heartbeat(&self, message: &Message) -> Fed {
        let delivered = message.headers.as_ref().and_then(|headers| headers.get("Nats-Last-Consumer"));
        match delivered.and_then(|delivered| delivered.as_str().parse::<u64>().ok()) {
            Some(delivered) if delivered != self.delivered => {
                Fed::Lost(format!("the consumer delivered {delivered} records, and {} came", self.delivered))
            }
            _ => Fed::Nothing,
        }
    }

    /// The end of a request, or of the consumer (ADR-13).
    fn status(&mut self, status: u16, message: &Message) -> Fed {
        let description = message.description.as_deref().unwrap_or_default();
        let request_ended = match status {
            404 | 408 => true,
            409 => description.contains("MaxBytes") || description.contains("Batch Completed"),
            _ => false,
        };
        if !request_ended {
            return Fed::Lost(format!("{status} {description}"));
        }
        if message.subject.as_str().rsplit('.').next() == Some(self.requests.to_string().as_str()) {
            self.outstanding = 0;
        }
        Fed::Nothing
    }
}
