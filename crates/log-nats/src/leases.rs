//! Leases: a key for each member in a bucket that forgets, and neighbours that ask each other whether they are there.
//!
//! A member writes its key every few seconds. The bucket forgets a key after 15 s, which is how a member that is stalled
//! or cut off leaves the views. Whoever's connection is closed leaves sooner: each member asks the next few in the ring of
//! ids, and where the server says that nobody serves a member's subject (twice, a moment apart) deletes its key. No answer
//! at all proves nothing.

mod keeper;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::watch, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;
use weir_core::{
    Error, Result, Uid,
    port::{Leases, Member, Membership, View},
};

use crate::bus::Shared;
use keeper::Keeper;

/// How long a key lives that is not written again; with the 3 s between two writes a stalled member is out within 18 s.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How long leaving may take.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// Leases on the bus.
pub(crate) struct NatsLeases {
    shared: Arc<Shared>,
    me: Member,
}

impl NatsLeases {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let me = Member { id: Uid::random(), name: shared.options.client.clone() };
        Self { shared, me }
    }
}

#[async_trait]
impl Leases for NatsLeases {
    async fn join(&self, group: &str) -> Result<Box<dyn Membership>> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if group.is_empty() || !group.bytes().all(allowed) {
            return Err(Error::internal(format!("group {group:?} of leases must be of [a-z0-9-]")));
        }
        let (views, seen) = watch::channel(View::default());
        let leave = CancellationToken::new();
        let keeper = Keeper::join(Arc::clone(&self.shared), self.me.clone(), group, views).await?;
        let task = tokio::spawn(keeper.run(leave.clone()));
        Ok(Box::new(Joined { me: self.me.clone(), views: seen, given: None, leave, task }))
    }
}

struct Joined {
    me: Member,
    views: watch::Receiver<View>,
    given: Option<View>,
    leave: CancellationToken,
    task: JoinHandle<()>,
}

#[async_trait]
impl Membership for Joined {
    fn me(&self) -> &Member {
        &self.me
    }

    async fn changed(&mut self) -> View {
        loop {
            let view = self.views.borrow_and_update().clone();
            if self.given.as_ref() != Some(&view) {
                self.given = Some(view.clone());
                return view;
            }
            if self.views.changed().await.is_err() {
                // The keeper is gone, and the lease with it.
                if self.given.as_ref().is_some_and(|given| given.members.is_empty()) {
                    return std::future::pending().await;
                }
                self.given = Some(View::default());
                return View::default();
            }
        }
    }

    async fn leave(mut self: Box<Self>) {
        self.leave.cancel();
        // If it takes longer, the lease ends by itself.
        let _ = time::timeout(LEAVE_MAX, &mut self.task).await;
    }
}

/// A membership that is dropped is a process that died: its neighbours notice.
impl Drop for Joined {
    fn drop(&mut self) {
        self.task.abort();
    }
}
