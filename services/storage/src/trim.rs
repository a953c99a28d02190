//! Trims the stream of readings now and then: storage is the reader that always is there.

use std::{sync::Arc, time::Duration};

use weir_core::{Clock, Stream};
use weir_runtime::{ownership::Ownership, trim::trim_once};

use crate::writer::{READER, Shared};

/// Who reads frames of readings: nothing goes before each of them is done with it.
const READERS: [&str; 2] = [READER, "analytics"];
/// A minute more of log than is to be kept is nothing, and each round asks the store once a partition and reader.
const EVERY: Duration = Duration::from_secs(60);

/// Trims for as long as it is polled, where this replica is the first in its view. Two that believe so do no harm:
/// trimming twice is trimming once.
pub(crate) async fn trim(
    shared: Arc<Shared>,
    ownership: Arc<Ownership>,
    partitions: u16,
    keep: Duration,
    clock: Arc<dyn Clock>,
) {
    loop {
        tokio::time::sleep(EVERY).await;
        if !ownership.is_first() {
            shared.metrics.trim.leave();
            continue;
        }
        let (log, records) = (&*shared.log, &*shared.records);
        match trim_once(log, records, Stream::Readings, &READERS, partitions, keep, &*clock).await {
            Ok(trimmed) => shared.metrics.trim.tell(&trimmed),
            Err(error) => tracing::warn!(%error, "the stream of readings was not trimmed"),
        }
    }
}
