//! Frames that cannot be decoded: kept aside for a person, so that one of them neither disappears nor blocks a partition.

use serde::{Deserialize, Serialize};
use weir_core::{
    Error, Partition, Result, Timestamp, Uid, json,
    port::{KeyRange, Record, Records, Table, Write},
};

/// Poison frames, one record partition for each partition of the log: `info/…` tells about a frame, `body/…` holds it.
pub(super) const POISON_FRAMES: Table = Table("poison_frames");

const INFO: &str = "info/";
/// Bytes kept of a frame: no frame is larger, unless what was published never was one.
const BODY_BYTES_MAX: usize = 900 << 10;

/// What is known of a poison frame.
#[derive(Debug, Serialize, Deserialize)]
struct Info {
    id: Uid,
    stored_at: Timestamp,
    bytes: usize,
    reason: String,
    message: String,
}

/// Keeps a frame, durably; at `frames_max` the oldest goes. Keeping it twice is keeping it once.
///
/// # Errors
/// Those of the store.
pub(super) async fn keep(
    records: &dyn Records,
    partition: Partition,
    generation: u32,
    record: &Record,
    error: &Error,
    frames_max: usize,
) -> Result<()> {
    let place = format!("{:05}", partition.0);
    let name = format!("{generation:08x}{:016x}", record.sequence);
    let body = record.bytes.slice(..record.bytes.len().min(BODY_BYTES_MAX));
    let info = Info {
        id: record.id,
        stored_at: record.stored_at,
        bytes: record.bytes.len(),
        reason: error.reason().to_owned(),
        message: error.message().to_owned(),
    };
    let known = records
        .scan(
            POISON_FRAMES,
            place.as_bytes(),
            KeyRange::prefix(INFO.as_bytes()),
            frames_max.saturating_add(1),
        )
        .await?;
    let mut writes = vec![
        Write::put(format!("{INFO}{name}"), json::to_bytes(&info)?),
        Write::put(format!("body/{name}"), body),
    ];
    let others: Vec<&[u8]> = known
        .iter()
        .filter_map(|stored| stored.key.strip_prefix(INFO.as_bytes()))
        .filter(|key| *key != name.as_bytes())
        .collect();
    let surplus = (others.len() + 1).saturating_sub(frames_max.max(1));
    for oldest in others.iter().take(surplus).map(|key| String::from_utf8_lossy(key)) {
        tracing::error!(%partition, frame = %oldest, frames_max, "a poison frame was dropped to make room for a newer one");
        writes.push(Write::delete(format!("{INFO}{oldest}")));
        writes.push(Write::delete(format!("body/{oldest}")));
    }
    records.commit(POISON_FRAMES, place.as_bytes(), writes).await.map(drop)
}
