//! Who is there to share the work of a service.
//!
//! A lease says who *tries* to own a partition; the store decides who *may* ([`crate::progress::Claim`]). So a view may be
//! wrong for a moment, at both of two members, and nothing is lost by it.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Result, Uid};

/// One process that runs a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// New at each start of the process.
    pub id: Uid,
    /// What people call it: host name and process.
    pub name: String,
}

/// Who is there, as one member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Every member that is there, this one among them, in the order of their ids. Empty where this member's own lease
    /// cannot be held (the bus is away): it must stop to work on what needs a lease.
    pub members: Vec<Member>,
}

/// Membership of processes in groups; a group is the name of a service.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Joins a group. The lease is held in the background until [`Membership::leave`] or the process ends.
    ///
    /// # Errors
    /// `Unavailable` where the bus is away.
    async fn join(&self, group: &str) -> Result<Box<dyn Membership>>;
}

/// This process in a group.
#[async_trait]
pub trait Membership: Send {
    /// This process.
    fn me(&self) -> &Member;

    /// The view as it is, at the first call; then the next one that differs from the last that was given. A member whose
    /// connection closed is out of every view within 5 s, one that is stalled or cut off within 20 s. Cancel safe.
    async fn changed(&mut self) -> View;

    /// Leaves at once: the others see it within a second.
    async fn leave(self: Box<Self>);
}
