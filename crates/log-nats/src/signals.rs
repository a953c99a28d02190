//! Signals over core NATS.
//!
//! A message is `{from, n, signal}`: `n` counts what a publisher has sent to the topic, so that one that was lost on the
//! way shows. A message without a signal says that the publisher may have lost some: it was cut off.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::{Message, Subscriber};
use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, broadcast, watch},
    time,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_core::{
    Uid,
    port::{Signal, SignalStream, Signals, Topic},
};

use crate::{bus::Shared, connect::Link};

/// Signals of a topic that a slow subscriber may be behind; one that falls further behind gets `None` and re-reads.
const BEHIND_MAX: usize = 1_024;
/// Publishers of a topic whose numbering is followed; with more, subscribers are told of a gap, and it begins anew.
const PUBLISHERS_MAX: usize = 4_096;
/// A hint that cannot be handed to the connection by then is dropped, and told as a gap after the reconnect.
const PUBLISH_MAX: Duration = Duration::from_millis(500);
/// How long a subscription may take to reach the server before its subscriber goes on without.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(2);
/// Before a subscription that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Serialize, Deserialize)]
struct Envelope {
    from: Uid,
    n: u64,
    signal: Option<Signal>,
}

struct Hub {
    topic: Topic,
    subject: String,
    heard: broadcast::Sender<Option<Signal>>,
    /// Whether the server has the subscription; none before the first subscriber.
    subscribed: Mutex<Option<watch::Receiver<bool>>>,
    /// What this process has sent to the topic. Held while a message is handed over, so that they leave in order.
    sent: Mutex<u64>,
}

/// Signals on the bus.
pub(crate) struct NatsSignals {
    shared: Arc<Shared>,
    me: Uid,
    hubs: [Arc<Hub>; Topic::ALL.len()],
    stop: CancellationToken,
    _stop_with_it: DropGuard,
}

impl NatsSignals {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let hubs = Topic::ALL.map(|topic| {
            Arc::new(Hub {
                topic,
                subject: format!("{}.signal.{}", shared.config.prefix, topic.as_str()),
                heard: broadcast::Sender::new(BEHIND_MAX),
                subscribed: Mutex::new(None),
                sent: Mutex::new(0),
            })
        });
        let stop = CancellationToken::new();
        let me = Uid::random();
        let gaps = tell_gaps(Arc::clone(&shared), me, hubs.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(gaps));
        Self { shared, me, hubs, _stop_with_it: stop.clone().drop_guard(), stop }
    }

    fn hub(&self, topic: Topic) -> Option<&Arc<Hub>> {
        self.hubs.iter().find(|hub| hub.topic == topic)
    }
}

#[async_trait]
impl Signals for NatsSignals {
    async fn publish(&self, signal: Signal) {
        if let Some(hub) = self.hub(signal.topic()) {
            send(&self.shared, self.me, hub, Some(signal)).await;
        }
    }

    async fn subscribe(&self, topic: Topic) -> SignalStream {
        let Some(hub) = self.hub(topic) else { return stream::pending().boxed() }; // every topic has one
        let heard = hub.heard.subscribe();
        let mut subscribed = {
            let mut subscribed = hub.subscribed.lock().await;
            subscribed
                .get_or_insert_with(|| {
                    let (ready, seen) = watch::channel(false);
                    let listening = listen(Arc::clone(&self.shared), Arc::clone(hub), ready);
                    tokio::spawn(self.stop.clone().run_until_cancelled_owned(listening));
                    seen
                })
                .clone()
        };
        // Where it takes longer, the bus is away, and a gap is told when it is back.
        let _ = time::timeout(SUBSCRIBE_MAX, subscribed.wait_for(|ready| *ready)).await;
        stream::unfold(heard, |mut heard| async move {
            match heard.recv().await {
                Ok(signal) => Some((signal, heard)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((None, heard)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .boxed()
    }
}

/// Hands a message to the connection; without a signal it tells of a gap.
async fn send(shared: &Shared, me: Uid, hub: &Hub, signal: Option<Signal>) {
    let mut sent = hub.sent.lock().await;
    *sent += 1;
    if !shared.link.borrow().connected {
        return; // the gap is told after the reconnect
    }
    let Ok(bytes) = serde_json::to_vec(&Envelope { from: me, n: *sent, signal }) else { return }; // it always can be
    let handed = shared.api.client.publish(hub.subject.clone(), bytes.into());
    match time::timeout(PUBLISH_MAX, handed).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(topic = hub.topic.as_str(), %error, "a signal was not sent"),
        Err(_) => {
            tracing::debug!(topic = hub.topic.as_str(), "a signal was not sent: the connection is busy")
        }
    }
}

/// After each reconnect, tells the subscribers of every topic that this process has published to that something may be
/// missing: their own connections may have been well all the time.
async fn tell_gaps(shared: Arc<Shared>, me: Uid, hubs: [Arc<Hub>; Topic::ALL.len()]) {
    let mut link = shared.link.clone();
    let mut changes = link.borrow_and_update().changes;
    loop {
        match link.wait_for(|link| link.connected && link.changes != changes).await {
            Ok(now) => changes = now.changes,
            Err(_) => return, // the connection is closed for good
        }
        for hub in &hubs {
            if *hub.sent.lock().await > 0 {
                send(&shared, me, hub, None).await;
            }
        }
    }
}

/// Keeps a subscription and passes on what comes.
async fn listen(shared: Arc<Shared>, hub: Arc<Hub>, ready: watch::Sender<bool>) {
    loop {
        let mut link = shared.link.clone();
        link.mark_unchanged();
        let subscribed = shared.api.client.subscribe(hub.subject.clone()).await;
        match subscribed {
            Ok(subscriber) => {
                round_trip(&shared).await;
                ready.send_replace(true);
                pass_on(&shared, &hub, subscriber, link).await;
            }
            Err(error) => tracing::debug!(topic = hub.topic.as_str(), %error, "cannot subscribe"),
        }
        let _ = hub.heard.send(None); // nobody listens: nobody has to know
        time::sleep(PAUSE).await;
    }
}

/// The server answers in order: when it has said that nobody serves a question, it has what was sent before.
async fn round_trip(shared: &Shared) {
    let nobody = shared.api.client.new_inbox();
    let _ = time::timeout(SUBSCRIBE_MAX, shared.api.client.request(nobody, "".into())).await;
}

async fn pass_on(shared: &Shared, hub: &Hub, mut subscriber: Subscriber, mut link: watch::Receiver<Link>) {
    let mut numbers = HashMap::new();
    loop {
        let signal = tokio::select! {
            // A gap is told before what comes after it.
            biased;
            changed = link.changed() => {
                if changed.is_err() {
                    return;
                }
                if link.borrow_and_update().connected {
                    round_trip(shared).await; // the subscription is there again: what is read from now on is complete
                }
                None
            }
            message = subscriber.next() => match message {
                Some(message) => match open(&message, &mut numbers) {
                    Opened::Signal(signal) => Some(signal),
                    Opened::Gap(signal) => {
                        let _ = hub.heard.send(None);
                        match signal {
                            Some(signal) => Some(signal),
                            None => continue,
                        }
                    }
                },
                None => return,
            },
        };
        let _ = hub.heard.send(signal); // nobody listens now: it is a hint
    }
}

enum Opened {
    Signal(Signal),
    /// Something is missing before what came.
    Gap(Option<Signal>),
}

fn open(message: &Message, numbers: &mut HashMap<Uid, u64>) -> Opened {
    let Ok(Envelope { from, n, signal }) = serde_json::from_slice(&message.payload) else {
        return Opened::Gap(None); // of another release, perhaps
    };
    let mut gap = numbers.len() >= PUBLISHERS_MAX;
    if gap {
        numbers.clear();
    }
    gap |= numbers.insert(from, n).is_some_and(|before| before + 1 != n);
    match signal {
        Some(signal) if !gap => Opened::Signal(signal),
        signal => Opened::Gap(signal),
    }
}
