//! What storage does with a partition that is this replica's.

use std::sync::Arc;

use async_trait::async_trait;
use weir_core::{Error, Partition, Result};
use weir_runtime::ownership::{Held, Work};

use super::{Shared, session::Session, start::Claimed};

/// Owns partitions: each session claims anew and begins at the recorded progress.
pub(crate) struct Owner(pub(crate) Arc<Shared>);

#[async_trait]
impl Work for Owner {
    async fn own(&self, held: &Held) -> Result<()> {
        let (shared, partition) = (&self.0, held.partition());
        shared.metrics.behind.begin(partition);
        let claimed = Claimed::take(shared, partition).await?;
        let session = Session::new(Arc::clone(shared), partition, claimed);
        tokio::select! {
            ended = session.run(held) => ended,
            never = shared.marks.announce(&*shared.signals, partition) => match never {},
        }
    }

    fn failed(&self, _: Partition, _: &Error) {
        self.0.metrics.restarts.inc();
    }

    fn ended(&self, partition: Partition) {
        self.0.metrics.forget(partition);
    }
}
