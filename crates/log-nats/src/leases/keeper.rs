//! Holds one membership.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{
    Message, RequestErrorKind, Subscriber,
    client::Request,
    jetstream::{
        context::{PublishError, PublishErrorKind},
        kv::{Entry, Operation, PutError, Store, Watch},
    },
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

/// How a write of the own key ended.
enum Wrote {
    Yes,
    /// The bus refused, at once.
    No,
    /// No stream takes writes of the bucket: it is gone, or has no leader.
    NobodyThere,
    /// No answer in time.
    Late,
}

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
    refresh: Option<BoxFuture<'static, Wrote>>,
    /// The look whether the bucket is still there, beside which writes go on: while the bucket has no leader, nobody answers
    /// it, and the first write after the election must not wait for that.
    mend: Option<BoxFuture<'static, ()>>,
    /// The watch that is being made.
    rewatch: Option<BoxFuture<'static, Option<Watch>>>,
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
            mend: None,
            rewatch: None,
            refresh_at: now + REFRESH_EVERY,
            asking: FuturesUnordered::new(),
            views,
        };
        if !matches!(keeper.write().await, Wrote::Yes) {
            return Err(error::away(&what, "the lease was not written"));
        }
        keeper.held = Instant::now();
        keeper.watch = keeper.rewatch().await;
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
                _ = tick.tick() => self.tick(),
                Ok(()) = link.changed() => {
                    (self.watch, self.rewatch) = (None, None);
                    (self.refresh, self.refresh_at) = (None, Instant::now());
                    tick.reset_immediately();
                }
                Some(message) = self.asked.next() => self.answer(message).await,
                entry = next(&mut self.watch) => self.entry(entry),
                wrote = finished(&mut self.refresh) => self.wrote(wrote),
                () = finished(&mut self.mend) => {}
                watch = finished(&mut self.rewatch) => self.watch = watch,
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

    fn tick(&mut self) {
        let now = Instant::now();
        if self.watch.is_none() && self.rewatch.is_none() {
            self.rewatch = Some(self.rewatch());
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

    /// Writes the own key.
    fn write(&self) -> BoxFuture<'static, Wrote> {
        let store = self.store.clone();
        let key = key(&self.group, self.me.id);
        let value = Bytes::from(serde_json::to_vec(&self.me).unwrap_or_default());
        async move {
            match time::timeout(ANSWER_MAX, store.put(key, value)).await {
                Ok(Ok(_)) => Wrote::Yes,
                Ok(Err(failure)) => {
                    tracing::warn!(%failure, "the lease was not written");
                    if nobody_there(&failure) { Wrote::NobodyThere } else { Wrote::No }
                }
                Err(_) => {
                    tracing::warn!("the lease was not written: no answer in time");
                    Wrote::Late
                }
            }
        }
        .boxed()
    }

    /// A write that failed is tried again at the next tick, within a second, and one that took long at once: a lease
    /// outlives an election of some seconds.
    fn wrote(&mut self, wrote: Wrote) {
        let now = Instant::now();
        self.refresh_at = now;
        match wrote {
            Wrote::Yes => (self.held, self.refresh_at) = (now, now + REFRESH_EVERY),
            Wrote::No => {}
            Wrote::NobodyThere => {
                if self.mend.is_none() {
                    self.mend = Some(mend(Arc::clone(&self.shared)));
                }
            }
            Wrote::Late => self.refresh = Some(self.write()),
        }
    }

    fn rewatch(&self) -> BoxFuture<'static, Option<Watch>> {
        let (store, keys) = (self.store.clone(), format!("{}.*", self.group));
        async move {
            match time::timeout(ANSWER_MAX, store.watch_with_history(keys)).await {
                Ok(Ok(watch)) => Some(watch),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "leases cannot be watched");
                    None
                }
                Err(_) => {
                    tracing::debug!("leases cannot be watched: no answer in time");
                    None
                }
            }
        }
        .boxed()
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

/// Whether no stream took the write: the bucket is gone, or has no leader.
fn nobody_there(failure: &PutError) -> bool {
    let source = std::error::Error::source(failure).and_then(|source| source.downcast_ref::<PublishError>());
    source.is_some_and(|source| source.kind() == PublishErrorKind::StreamNotFound)
}

/// Makes the bucket again where the bus says that it is gone.
fn mend(shared: Arc<Shared>) -> BoxFuture<'static, ()> {
    async move {
        match time::timeout(ANSWER_MAX, reconcile::leases(&shared)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the bucket of leases cannot be looked at"),
            Err(_) => tracing::debug!("the bucket of leases cannot be looked at: no answer in time"),
        }
    }
    .boxed()
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
async fn finished<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
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
