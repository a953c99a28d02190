//! Leases of replicas in one process: who sees whom is what a test says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use tokio::sync::watch;
use weir_core::{
    Result, Uid,
    port::{Leases, Member, Membership, View},
};

/// Where the replicas of a test meet.
#[derive(Clone, Default)]
pub struct Board(Arc<std::sync::Mutex<Vec<Weak<Inner>>>>);

/// One replica's leases.
#[derive(Clone)]
pub struct Seat(Arc<Inner>);

struct Inner {
    board: Board,
    me: Member,
    state: std::sync::Mutex<SeatState>,
}

#[derive(Default)]
struct SeatState {
    /// The groups that it has joined, and what it sees of each.
    joined: BTreeMap<String, watch::Sender<View>>,
    /// It sees what it saw, and nobody sees it.
    cut_off: bool,
}

impl Board {
    /// A replica that has joined nothing yet.
    pub fn seat(&self, name: &str) -> Seat {
        let me = Member { id: Uid::random(), name: name.to_owned() };
        let seat = Arc::new(Inner { board: self.clone(), me, state: std::sync::Mutex::default() });
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(Arc::downgrade(&seat));
        Seat(seat)
    }

    fn seats(&self) -> Vec<Arc<Inner>> {
        let seats = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        seats.iter().filter_map(Weak::upgrade).collect()
    }

    /// Shows everybody who is not cut off the members of a group.
    fn show(&self, group: &str) {
        let seats = self.seats();
        let mut members: Vec<Member> =
            seats.iter().filter(|seat| seat.is_there(group)).map(|seat| seat.me.clone()).collect();
        members.sort();
        for seat in seats.iter().filter(|seat| seat.is_there(group)) {
            if let Some(view) = seat.lock().joined.get(group) {
                view.send_replace(View { members: members.clone() });
            }
        }
    }
}

impl Seat {
    /// Stalls or dies: the others no longer see it, and it sees for ever what it saw last.
    pub fn cut_off(&self) {
        self.move_to(true);
    }

    /// Sees the others again, and is seen.
    pub fn come_back(&self) {
        self.move_to(false);
    }

    /// Its own lease in a group is lost: it sees nobody, until the next change.
    pub fn lose(&self, group: &str) {
        if let Some(view) = self.0.lock().joined.get(group) {
            view.send_replace(View::default());
        }
    }

    fn move_to(&self, cut_off: bool) {
        self.0.lock().cut_off = cut_off;
        let groups: Vec<String> = self.0.lock().joined.keys().cloned().collect();
        groups.iter().for_each(|group| self.0.board.show(group));
    }
}

impl Inner {
    fn is_there(&self, group: &str) -> bool {
        let state = self.lock();
        !state.cut_off && state.joined.contains_key(group)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SeatState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[async_trait]
impl Leases for Seat {
    async fn join(&self, group: &str) -> Result<Box<dyn Membership>> {
        let view = watch::Sender::new(View::default());
        let seen = view.subscribe();
        self.0.lock().joined.insert(group.to_owned(), view);
        self.0.board.show(group);
        Ok(Box::new(Sitting { seat: Arc::clone(&self.0), group: group.to_owned(), seen, told: false }))
    }
}

struct Sitting {
    seat: Arc<Inner>,
    group: String,
    seen: watch::Receiver<View>,
    told: bool,
}

#[async_trait]
impl Membership for Sitting {
    fn me(&self) -> &Member {
        &self.seat.me
    }

    async fn changed(&mut self) -> View {
        if std::mem::replace(&mut self.told, true) && self.seen.changed().await.is_err() {
            return std::future::pending().await;
        }
        self.seen.borrow_and_update().clone()
    }

    async fn leave(self: Box<Self>) {
        self.seat.lock().joined.remove(&self.group);
        self.seat.board.show(&self.group);
    }
}
