//! How long to wait before the next attempt.

use std::time::Duration;

use weir_core::Uid;

/// Waits that double from `first` up to `longest`, each shortened by up to half at random, so that those who failed
/// together do not come back together ("full jitter" of Brooker, "Exponential Backoff And Jitter", halved).
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    pub(crate) async fn wait(&mut self) {
        // The low bits of a new uid are random.
        let random = u32::try_from(Uid::random().as_u128() & 0xFF).unwrap_or_default();
        tokio::time::sleep(self.next - self.next * random / 512).await;
        self.next = (self.next * 2).min(self.longest);
    }
}
