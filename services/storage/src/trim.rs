//! Trims the stream of readings now and then: storage is the reader that always is there.

use std::{sync::Arc, time::Duration};

use weir_core::{Clock, Stream};
use weir_runtime::trim::trim_once;

use crate::writer::{READER, Shared};

/// Who reads frames of readings: nothing goes before each of them is done with it.
const READERS: [&str; 2] = [READER, "analytics"];
/// A minute more of log than is to be kept is nothing, and each round asks the store once a partition and reader.
const EVERY: Duration = Duration::from_secs(60);

/// Trims until the service stops. Several processes may do so at once: trimming twice is trimming once.
pub(crate) async fn trim(shared: Arc<Shared>, partitions: u16, keep: Duration, clock: Arc<dyn Clock>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let (log, records) = (&*shared.log, &*shared.records);
        match trim_once(log, records, Stream::Readings, &READERS, partitions, keep, &*clock).await {
            Ok(through) => shared.metrics.trimmed.set(i64::try_from(through).unwrap_or(i64::MAX)),
            Err(error) => tracing::warn!(%error, "the stream of readings was not trimmed"),
        }
    }
}
