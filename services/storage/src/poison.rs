//! Frames that cannot be decoded: kept aside for a person, so that one of them neither disappears nor blocks a partition.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_core::{
    Error, ErrorKind, Partition, Result, Stream, Timestamp, Uid, json,
    port::{KeyRange, Log, Record, Records, Stored, Table, Write},
};
use weir_frame::Frame;

/// Poison frames, one record partition for each partition of the log: `info/…` tells about a frame, `body/…` holds it.
pub(crate) const POISON_FRAMES: Table = Table("poison_frames");

const INFO: &str = "info/";
const BODY: &str = "body/";
/// Bytes kept of a frame: no frame is larger, unless what was published never was one.
const BODY_BYTES_MAX: usize = 900 << 10;

/// What is known of a poison frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Info {
    /// The id under which it was published.
    pub(crate) id: Uid,
    /// When the log stored it.
    pub(crate) stored_at: Timestamp,
    /// Its length as published.
    pub(crate) bytes: usize,
    /// Why it cannot be decoded.
    pub(crate) reason: String,
    /// The same for people.
    pub(crate) message: String,
}

/// Where a poison frame stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The partition.
    pub(crate) partition: Partition,
    /// The generation of `sequence`.
    pub(crate) generation: u32,
    /// In the stream of readings.
    pub(crate) sequence: u64,
}

impl Place {
    fn records(self) -> String {
        format!("{:05}", self.partition.0)
    }

    fn key(self, prefix: &str) -> Bytes {
        format!("{prefix}{:08x}{:016x}", self.generation, self.sequence).into()
    }

    fn parse(partition: Partition, stored: &Stored) -> Option<Self> {
        let name = std::str::from_utf8(stored.key.strip_prefix(INFO.as_bytes())?).ok()?;
        let (generation, sequence) = name.split_at_checked(8)?;
        let generation = u32::from_str_radix(generation, 16).ok()?;
        Some(Self { partition, generation, sequence: u64::from_str_radix(sequence, 16).ok()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.partition.0, self.generation, self.sequence)
    }
}

impl FromStr for Place {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, '-');
        let mut next = || parts.next().unwrap_or_default();
        match (next().parse(), next().parse(), next().parse()) {
            (Ok(partition), Ok(generation), Ok(sequence)) => {
                Ok(Self { partition: Partition(partition), generation, sequence })
            }
            _ => Err(Error::invalid(
                "name",
                "NAME_INVALID",
                "name must have the form poisonFrames/{partition}-{generation}-{sequence}",
            )),
        }
    }
}

/// Keeps a frame, durably; at `frames_max` the oldest goes. Keeping it twice is keeping it once.
///
/// # Errors
/// Those of the store.
pub(crate) async fn keep(
    records: &dyn Records,
    partition: Partition,
    generation: u32,
    record: &Record,
    error: &Error,
    frames_max: usize,
) -> Result<()> {
    let at = Place { partition, generation, sequence: record.sequence };
    let (place, known_key) = (at.records(), at.key(""));
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
    let mut writes = vec![Write::put(at.key(INFO), json::to_bytes(&info)?), Write::put(at.key(BODY), body)];
    let others: Vec<&[u8]> = known
        .iter()
        .filter_map(|stored| stored.key.strip_prefix(INFO.as_bytes()))
        .filter(|key| *key != known_key.as_ref())
        .collect();
    let surplus = (others.len() + 1).saturating_sub(frames_max.max(1));
    for oldest in others.iter().take(surplus).map(|key| String::from_utf8_lossy(key)) {
        tracing::error!(%partition, frame = %oldest, frames_max, "a poison frame was dropped to make room for a newer one");
        writes.push(Write::delete(format!("{INFO}{oldest}")));
        writes.push(Write::delete(format!("{BODY}{oldest}")));
    }
    records.commit(POISON_FRAMES, place.as_bytes(), writes).await.map(drop)
}

/// At most `limit` poison frames of all partitions after `after`.
///
/// # Errors
/// Those of the store.
pub(crate) async fn list(
    records: &dyn Records,
    partitions: u16,
    after: Option<Place>,
    limit: usize,
) -> Result<Vec<(Place, Info)>> {
    let mut found = Vec::new();
    let first = after.map_or(0, |after| after.partition.0);
    for partition in (first..partitions).map(Partition) {
        let mut range = KeyRange::prefix(INFO.as_bytes());
        if let Some(after) = after.filter(|after| after.partition == partition) {
            range = range.after(&after.key(INFO));
        }
        let place = format!("{:05}", partition.0);
        for stored in records.scan(POISON_FRAMES, place.as_bytes(), range, limit - found.len()).await? {
            let at = Place::parse(partition, &stored)
                .ok_or_else(|| Error::data_loss("the key of a poison frame cannot be read"))?;
            found.push((at, json::from_stored(&stored)?));
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

/// A poison frame and its bytes.
///
/// # Errors
/// `NotFound`; those of the store.
pub(crate) async fn get(records: &dyn Records, at: Place) -> Result<(Info, Bytes)> {
    let place = at.records();
    let info = records.get(POISON_FRAMES, place.as_bytes(), &at.key(INFO)).await?;
    let body = records.get(POISON_FRAMES, place.as_bytes(), &at.key(BODY)).await?;
    match (info, body) {
        (Some(info), Some(body)) => Ok((json::from_stored(&info)?, body.value)),
        _ => Err(Error::not_found(format!("poisonFrames/{at}"))),
    }
}

/// Publishes a poison frame to its partition again, then forgets it here. Twice within the log's duplicate window is once.
///
/// # Errors
/// `NotFound`; `FailedPrecondition` (`FRAME_UNREADABLE`) where it still cannot be decoded; those of log and store.
pub(crate) async fn replay(records: &dyn Records, log: &dyn Log, at: Place) -> Result<u64> {
    let (info, body) = get(records, at).await?;
    let unreadable = |message: String| Error::new(ErrorKind::FailedPrecondition, "FRAME_UNREADABLE", message);
    if body.len() < info.bytes {
        let kept = body.len();
        return Err(unreadable(format!(
            "only {kept} of the {} bytes of poisonFrames/{at} are kept",
            info.bytes
        )));
    }
    Frame::decode(body.clone()).map_err(|error| {
        unreadable(format!("this release cannot decode poisonFrames/{at} either: {}", error.message()))
    })?;
    let id = Uid::hash(&[b"replay of a poison frame", &info.id.to_bytes()]);
    let sequence = log.publish(Stream::Readings, at.partition, id, body).await?;
    forget(records, at).await?;
    Ok(sequence)
}

/// Forgets a poison frame for good; nothing happens where there is none.
///
/// # Errors
/// Those of the store.
pub(crate) async fn forget(records: &dyn Records, at: Place) -> Result<()> {
    let writes = vec![Write::delete(at.key(INFO)), Write::delete(at.key(BODY))];
    records.commit(POISON_FRAMES, at.records().as_bytes(), writes).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_core::{DeviceId, Message, Reading, TenantId, Value};
    use weir_log_embedded::EmbeddedLog;
    use weir_store_embedded::EmbeddedStore;

    use super::*;

    fn frame() -> Bytes {
        let mut encoder = weir_frame::Encoder::new();
        let ts = Timestamp::from_micros(1_700_000_000_000_000);
        let message = Message {
            tenant: TenantId::new("t").unwrap(),
            device: DeviceId::new("d").unwrap(),
            uid: Uid::from_u128(1),
            trace_context: None,
            readings: vec![Reading {
                ts,
                received_at: ts,
                claimed_ts: None,
                values: vec![("v".into(), Value::Double(1.0))],
            }],
        };
        encoder.push(&message).unwrap();
        encoder.finish()
    }

    fn record(sequence: u64, bytes: Bytes) -> Record {
        Record { sequence, id: Uid::from_u128(sequence.into()), stored_at: Timestamp::from_micros(7), bytes }
    }

    #[tokio::test]
    async fn a_poison_frame_is_listed_read_and_replayed_once_it_can_be_decoded() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path().join("s"), Default::default()).unwrap();
        let records: Arc<dyn Records> = store;
        let log = EmbeddedLog::open(&dir.path().join("l"), Default::default()).unwrap();
        let why = Error::data_loss("no frame");
        let (junk, good) = (record(4, Bytes::from_static(b"junk")), record(9, frame()));
        for (partition, record) in [(Partition(3), &junk), (Partition(1), &good)] {
            keep(&*records, partition, 1, record, &why, 64).await.unwrap();
        }
        let first = list(&*records, 16, None, 1).await.unwrap();
        let second = list(&*records, 16, Some(first[0].0), 5).await.unwrap();
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_eq!((first[0].0.sequence, second[0].0.sequence), (9, 4));
        let (readable, unreadable) = (first[0].0, second[0].0);
        assert_eq!(unreadable.to_string().parse::<Place>().unwrap(), unreadable);
        assert_eq!(get(&*records, unreadable).await.unwrap().1, junk.bytes);

        let refused = replay(&*records, &log, unreadable).await.unwrap_err();
        assert_eq!(refused.reason(), "FRAME_UNREADABLE");
        let sequence = replay(&*records, &log, readable).await.unwrap();
        let mut reader = log.read_from(Stream::Readings, Partition(1), 1).await.unwrap();
        let read = reader.next(1 << 20, std::time::Duration::from_secs(10)).await.unwrap();
        assert_eq!((read.records[0].sequence, &read.records[0].bytes), (sequence, &good.bytes));
        assert_eq!(get(&*records, readable).await.unwrap_err().kind(), ErrorKind::NotFound);
        forget(&*records, unreadable).await.unwrap();
        assert!(list(&*records, 16, None, 5).await.unwrap().is_empty());
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for name in ["", "1", "1-2", "1-2-x", "70000-1-1", "1-2-3-4"] {
            assert_eq!(name.parse::<Place>().unwrap_err().reason(), "NAME_INVALID", "{name}");
        }
    }
}
