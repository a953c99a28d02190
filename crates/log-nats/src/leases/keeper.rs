//! Holds one membership.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{
    Message, RequestErrorKind, Subscriber,
    client::Request,
    jetstream::kv::{Entry, Operation, Store, Watch},
};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use weir_core::{
    Result, Uid,
    port::{Member, View},
};

use super::LEASE;
use crate::{bus::Shared, error, reconcile};

/// How often a key is written again: four may fail before it is forgotten.
const REFRESH_EVERY: Duration = Duration::from_secs(3);
/// A member that could not write its key for this long stops working, some time before the others take over.
const OWN_MAX: Duration = Duration::from_secs(10);
/// A key whose end was not told (the watch broke) is taken for forgotten after this.
const OTHER_MAX: Duration = Duration::from_secs(17);
/// How often neighbours are asked.
const TICK: Duration = Duration::from_secs(1);
/// How many of the next members in the ring each one asks: also where several die at once, and the load does not grow
/// with their number.
const NEIGHBOURS: usize = 3;
/// The moment between two "nobody is there" that count.
const MOMENT: Duration = Duration::from_millis(500);
/// What one write or question may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

struct Other {
    member: Member,
    /// The key as it was last written.
    revision: u64,
    seen: Instant,
}

/// A neighbour that is not there, as of this writing of its key.
struct Gone {
    id: Uid,
    revision: u64,
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    store: Store,
    group: String,
    me: Member,
    /// When the own key was last written.
    held: Instant,
    others: BTreeMap<Uid, Other>,
    asked: Subscriber,
    watch: Option<Watch>,
    /// The write that is under way.
    refresh: Option<BoxFuture<'static, bool>>,
    refresh_at: Instant,
    /// Neighbours that are being asked.
    asking: FuturesUnordered<BoxFuture<'static, Option<Gone>>>,
    views: watch::Sender<View>,
}

impl Keeper {
    /// Writes the own key and reads those of the others.
    pub(super) async fn join(
        shared: Arc<Shared>,
        me: Member,
        group: &str,
        views: watch::Sender<View>,
    ) -> Result<Self> {
        let what = format!("join group {group}");
        let bucket = reconcile::bucket_name(&shared);
        let store = shared.jetstream.get_key_value(&bucket).await;
        let store = store.map_err(|failure| error::away(&what, &failure.to_string()).with_source(failure))?;
        let asked = shared.api.client.subscribe(subject(&shared, group, me.id)).await;
        let asked = asked.map_err(|failure| error::away(&what, &failure.to_string()).with_source(failure))?;
        let now = Instant::now();
        let mut keeper = Self {
            shared,
            store,
            group: group.to_owned(),
            me,
            held: now,
            others: BTreeMap::new(),
            asked,
            watch: None,
            refresh: None,
            refresh_at: now + REFRESH_EVERY,
            asking: FuturesUnordered::new(),
            views,
        };
        if !keeper.write().await {
            return Err(error::away(&what, "the lease was not written"));
        }
        keeper.held = Instant::now();
        keeper.rewatch().await;
        keeper.first_view().await;
        keeper.tell();
        Ok(keeper)
    }

    /// Holds the lease until told to leave.
    pub(super) async fn run(mut self, leave: CancellationToken) {
        let mut link = self.shared.link.clone();
        link.mark_unchanged();
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = leave.cancelled() => break,
                _ = tick.tick() => self.tick().await,
                Ok(()) = link.changed() => {
                    (self.watch, self.refresh, self.refresh_at) = (None, None, Instant::now());
                    tick.reset_immediately();
                }
                Some(message) = self.asked.next() => self.answer(message).await,
                entry = next(&mut self.watch) => self.entry(entry),
                written = finished(&mut self.refresh) => self.written(written),
                Some(gone) = self.asking.next(), if !self.asking.is_empty() => {
                    if let Some(gone) = gone {
                        self.gone(gone).await;
                    }
                }
            }
            self.tell();
        }
        // Without the key the others know at once; without an answer, soon.
        let _ = time::timeout(ANSWER_MAX, self.store.delete(key(&self.group, self.me.id))).await;
        self.views.send_replace(View::default());
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        if self.watch.is_none() {
            self.rewatch().await;
        }
        if self.refresh.is_none() && now >= self.refresh_at {
            self.refresh = Some(self.write());
        }
        self.others.retain(|_, other| now < other.seen + OTHER_MAX);
        if self.asking.is_empty() {
            for (id, revision) in self.neighbours() {
                let (shared, subject) = (Arc::clone(&self.shared), subject(&self.shared, &self.group, id));
                self.asking.push(
                    async move { is_gone(&shared, &subject).await.then_some(Gone { id, revision }) }.boxed(),
                );
            }
        }
    }

    /// The next members in the ring of ids.
    fn neighbours(&self) -> Vec<(Uid, u64)> {
        let after = self.others.range(self.me.id..);
        let ring = after.chain(self.others.range(..self.me.id));
        ring.take(NEIGHBOURS).map(|(id, other)| (*id, other.revision)).collect()
    }

    /// Writes the own key; where that fails, makes sure that the bucket is there for the next attempt.
    fn write(&self) -> BoxFuture<'static, bool> {
        let (shared, store) = (Arc::clone(&self.shared), self.store.clone());
        let key = key(&self.group, self.me.id);
        let value = Bytes::from(serde_json::to_vec(&self.me).unwrap_or_default());
        async move {
            let failure = match time::timeout(ANSWER_MAX, store.put(key, value)).await {
                Ok(Ok(_)) => return true,
                Ok(Err(failure)) => failure.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            tracing::warn!(failure, "the lease was not written");
            if let Err(error) = reconcile::leases(&shared).await {
                tracing::debug!(%error, "the bucket of leases cannot be looked at");
            }
            false
        }
        .boxed()
    }

    fn written(&mut self, written: bool) {
        let now = Instant::now();
        if written {
            (self.held, self.refresh_at) = (now, now + REFRESH_EVERY);
        } else {
            self.refresh_at = now + TICK;
        }
    }

    async fn rewatch(&mut self) {
        let watch = self.store.watch_with_history(format!("{}.*", self.group));
        match time::timeout(ANSWER_MAX, watch).await {
            Ok(Ok(watch)) => self.watch = Some(watch),
            Ok(Err(error)) => tracing::debug!(%error, "leases cannot be watched"),
            Err(_) => tracing::debug!("leases cannot be watched: no answer in time"),
        }
    }

    /// Takes the keys as they are, of which the own is one.
    async fn first_view(&mut self) {
        let until = Instant::now() + ANSWER_MAX;
        while let Ok(entry) = time::timeout_at(until, next(&mut self.watch)).await {
            let last = entry.as_ref().is_none_or(|entry| entry.delta == 0);
            self.entry(entry);
            if last {
                return;
            }
        }
    }

    async fn answer(&mut self, message: Message) {
        if let Some(reply) = message.reply {
            let _ = self.shared.api.client.publish(reply, Bytes::new()).await; // who asks will ask again
        }
    }

    fn entry(&mut self, entry: Option<Entry>) {
        let Some(entry) = entry else {
            self.watch = None; // made again at the next tick
            return;
        };
        let Some(id) = entry.key.rsplit('.').next().and_then(|id| id.parse::<Uid>().ok()) else { return };
        match entry.operation {
            Operation::Put if id != self.me.id => {
                if let Ok(member) = serde_json::from_slice::<Member>(&entry.value) {
                    let other = Other { member, revision: entry.revision, seen: Instant::now() };
                    self.others.insert(id, other);
                }
            }
            Operation::Put => {}
            // A neighbour took this one for dead.
            Operation::Delete | Operation::Purge if id == self.me.id => self.refresh_at = Instant::now(),
            Operation::Delete | Operation::Purge => {
                self.others.remove(&id);
            }
        }
    }

    /// Takes out a neighbour whose connection is closed, unless it has written its key since.
    async fn gone(&mut self, Gone { id, revision }: Gone) {
        if self.others.get(&id).is_none_or(|other| other.revision != revision) {
            return;
        }
        self.others.remove(&id);
        self.tell();
        let deleted = self.store.delete_expect_revision(key(&self.group, id), Some(revision));
        let _ = time::timeout(ANSWER_MAX, deleted).await; // if it fails, the key is forgotten later
    }

    /// Publishes the view, where it is another one.
    fn tell(&self) {
        let mut members = vec![];
        if Instant::now() < self.held + OWN_MAX {
            members.push(self.me.clone());
            members.extend(self.others.values().map(|other| other.member.clone()));
            members.sort_unstable();
        }
        self.views.send_if_modified(|view| {
            let changed = view.members != members;
            view.members = members;
            changed
        });
    }
}

fn key(group: &str, id: Uid) -> String {
    format!("{group}.{id}")
}

fn subject(shared: &Shared, group: &str, id: Uid) -> String {
    format!("{}.lease.{group}.{id}", shared.config.prefix)
}

/// Whether the server says, twice, that nobody serves the subject.
async fn is_gone(shared: &Shared, subject: &str) -> bool {
    for pause in [Duration::ZERO, MOMENT] {
        time::sleep(pause).await;
        let question = Request::new().timeout(Some(ANSWER_MAX));
        let question = shared.api.client.send_request(subject.to_owned(), question);
        match time::timeout(ANSWER_MAX, question).await {
            Ok(Err(failure)) if failure.kind() == RequestErrorKind::NoResponders => {}
            _ => return false,
        }
    }
    true
}

/// The next entry; none where the watch broke. Waits for ever without a watch.
async fn next(watch: &mut Option<Watch>) -> Option<Entry> {
    match watch {
        Some(watch) => watch.next().await.and_then(Result::ok),
        None => std::future::pending().await,
    }
}

/// The outcome of what is under way, which is then no more. Waits for ever where nothing is.
async fn finished(work: &mut Option<BoxFuture<'static, bool>>) -> bool {
    match work {
        Some(running) => {
            let outcome = running.await;
            *work = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

const _: () = assert!(OWN_MAX.as_secs() < LEASE.as_secs());
