//! Signals between the services of one process.

use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use weir_core::port::{Signal, SignalStream, Signals, Topic};

/// Signals of a topic that a slow subscriber may be behind; one that falls further behind gets `None` and re-reads.
const BEHIND_MAX: usize = 256;
/// The same where a burst is ordinary: a read of the log may bring a thousand commands. About 1 MB.
const COMMAND_CHANGES_BEHIND_MAX: usize = 4_096;

/// Signals in process.
#[derive(Debug)]
pub struct LocalSignals {
    topics: [(Topic, broadcast::Sender<Signal>); Topic::ALL.len()],
}

impl LocalSignals {
    /// Without a subscriber yet.
    pub fn new() -> Self {
        let behind_max = |topic| match topic {
            Topic::CommandChanges => COMMAND_CHANGES_BEHIND_MAX,
            _ => BEHIND_MAX,
        };
        Self { topics: Topic::ALL.map(|topic| (topic, broadcast::Sender::new(behind_max(topic)))) }
    }

    fn topic(&self, wanted: Topic) -> Option<&broadcast::Sender<Signal>> {
        self.topics.iter().find(|(topic, _)| *topic == wanted).map(|(_, sender)| sender)
    }
}

impl Default for LocalSignals {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Signals for LocalSignals {
    async fn publish(&self, signal: Signal) {
        if let Some(topic) = self.topic(signal.topic()) {
            let _ = topic.send(signal); // nobody listens: it is a hint
        }
    }

    async fn subscribe(&self, topic: Topic) -> SignalStream {
        match self.topic(topic) {
            Some(topic) => BroadcastStream::new(topic.subscribe()).map(Result::ok).boxed(),
            None => futures::stream::pending().boxed(), // every topic is there
        }
    }
}
