//! An orderly end: not ready → wait for the endpoint delay → stop intake → drain with a deadline.

use std::{sync::Arc, time::Duration};

use crate::Service;

/// Ends `services` in the given order (the edge first, so that what it accepted still finds those behind it), waiting at
/// most `deadline` in all. The caller has made itself not ready and waited for its endpoint delay. Returns the names of
/// those that were not done in time.
pub async fn drain(services: &[Arc<dyn Service>], deadline: Duration) -> Vec<&'static str> {
    let until = tokio::time::Instant::now() + deadline;
    for service in services {
        if tokio::time::timeout_at(until, service.stop_intake()).await.is_err() {
            tracing::warn!(service = service.name(), "intake did not stop in time");
        }
    }
    let mut late = Vec::new();
    for service in services {
        if tokio::time::timeout_at(until, service.drain()).await.is_err() {
            tracing::warn!(service = service.name(), "service did not drain in time");
            late.push(service.name());
        }
    }
    late
}
