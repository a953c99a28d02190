//! Leases of the one process that has the data directory.

use std::sync::Arc;

use async_trait::async_trait;
use weir_core::{
    Result, Uid,
    port::{Leases, Member, Membership, View},
};

/// Everything is this process's: nobody else can open the data directory.
#[derive(Debug)]
pub struct LocalLeases {
    me: Arc<Member>,
}

impl LocalLeases {
    /// A process that is alone.
    pub fn new() -> Self {
        Self { me: Arc::new(Member { id: Uid::random(), name: "this process".to_owned() }) }
    }
}

impl Default for LocalLeases {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Leases for LocalLeases {
    async fn join(&self, _group: &str) -> Result<Box<dyn Membership>> {
        Ok(Box::new(Alone { me: Arc::clone(&self.me), told: false }))
    }
}

struct Alone {
    me: Arc<Member>,
    told: bool,
}

#[async_trait]
impl Membership for Alone {
    fn me(&self) -> &Member {
        &self.me
    }

    async fn changed(&mut self) -> View {
        if std::mem::replace(&mut self.told, true) {
            return std::future::pending().await;
        }
        View { members: vec![Member::clone(&self.me)] }
    }

    async fn leave(self: Box<Self>) {}
}
