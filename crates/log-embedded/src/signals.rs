//! Signals between the services of one process.

use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use weir_core::port::{Signal, SignalStream, Signals, Topic};

/// Signals of a topic that a slow subscriber may be behind; one that falls further behind gets `None` and re-reads.
const BEHIND_MAX: usize = 256;

/// Signals in process.
#[derive(Debug)]
pub struct LocalSignals {
    registry: broadcast::Sender<Signal>,
    commands: broadcast::Sender<Signal>,
    rules: broadcast::Sender<Signal>,
}

impl LocalSignals {
    /// Without a subscriber yet.
    pub fn new() -> Self {
        let topic = || broadcast::Sender::new(BEHIND_MAX);
        Self { registry: topic(), commands: topic(), rules: topic() }
    }

    const fn topic(&self, topic: Topic) -> &broadcast::Sender<Signal> {
        match topic {
            Topic::Registry => &self.registry,
            Topic::Commands => &self.commands,
            Topic::Rules => &self.rules,
        }
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
        let _ = self.topic(signal.topic()).send(signal); // nobody listens: it is a hint
    }

    async fn subscribe(&self, topic: Topic) -> SignalStream {
        BroadcastStream::new(self.topic(topic).subscribe()).map(Result::ok).boxed()
    }
}
