//! From messages to what the store writes.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use weir_core::{
    Partition, Position, Result, Timestamp, Value,
    port::{BucketId, BucketRow, LatestCell, Record, Row, SeriesKey, TelemetryBatch},
};
use weir_frame::{
    Frame,
    row::{encode_latest, encode_row},
};

use super::{
    Heard,
    devices::{Changed, Devices},
};

/// The messages of a record.
///
/// # Errors
/// Those of the frame codec: `DataLoss` where the bytes are not a frame, `FailedPrecondition` for a newer version.
pub(crate) fn decode(record: &Record, partition: Partition, generation: u32) -> Result<Vec<Arc<Heard>>> {
    let frame = Frame::decode(record.bytes.clone())?;
    let heard = frame.messages().map(|message| {
        Arc::new(Heard {
            series: SeriesKey { tenant: message.tenant().clone(), uid: message.uid() },
            device: message.device().clone(),
            partition,
            generation,
            sequence: record.sequence,
            readings: message.readings().collect(),
        })
    });
    Ok(heard.collect())
}

/// The newest value of a metric within a batch.
struct Newest<'a> {
    ts: Timestamp,
    position: Position,
    value: &'a Value,
    received_at: Timestamp,
}

/// Takes messages in, in log order: moves their devices' clocks, counts their buckets, and gives what to write. Rows are
/// the same whenever they are built again from the same state. A bucket is written as empty before its first row; what
/// it holds is told at the next checkpoint.
///
/// # Errors
/// `Internal` where a device was not loaded.
pub(super) fn build(
    heard: &[Arc<Heard>],
    devices: &mut Devices,
    changed: &mut Changed,
    full: u64,
) -> Result<TelemetryBatch> {
    let mut batch = TelemetryBatch::default();
    batch.rows.reserve(heard.iter().map(|message| message.readings.len()).sum());
    let mut newest: HashMap<&SeriesKey, HashMap<&str, Newest<'_>>> = HashMap::new();
    let mut late = Vec::new();
    for message in heard {
        let device = devices.get(&message.series)?;
        let cells = newest.entry(&message.series).or_default();
        let mut counted: HashMap<BucketId, u64> = HashMap::new();
        for (index, reading) in &message.readings {
            late.clear();
            device.clock.observe(
                reading.ts,
                reading.values.iter().map(|(metric, _)| metric),
                |_, is_late| {
                    late.push(is_late);
                },
            );
            let body = encode_row(reading, |value| late.get(value).copied().unwrap_or(false));
            let chosen = device.choose(reading.ts, body.len(), full)?;
            if chosen.new {
                batch.buckets.push(bucket_row(&message.series, chosen.bucket, 0));
            }
            counted.insert(chosen.bucket, chosen.bytes);
            let position = message.position(*index);
            for (metric, value) in &reading.values {
                let value = Newest { ts: reading.ts, position, value, received_at: reading.received_at };
                keep_newer(cells.entry(metric.as_ref()), value);
            }
            batch.rows.push(Row {
                series: message.series.clone(),
                bucket: chosen.bucket,
                ts: reading.ts,
                position,
                body,
            });
        }
        match changed.get_mut(&message.series) {
            Some(known) => known.extend(counted),
            None => drop(changed.insert(message.series.clone(), counted)),
        }
    }
    batch.latest = newest.into_iter().flat_map(|(series, cells)| cells_of(series, cells)).collect();
    Ok(batch)
}

/// That a bucket exists, and what is in it; nothing is sealed.
pub(super) fn bucket_row(series: &SeriesKey, bucket: BucketId, bytes: u64) -> BucketRow {
    BucketRow { series: series.clone(), bucket, bytes, seal_generation: 0, sealed_through: None }
}

fn keep_newer<'a>(cell: Entry<'_, &'a str, Newest<'a>>, value: Newest<'a>) {
    match cell {
        Entry::Vacant(cell) => drop(cell.insert(value)),
        Entry::Occupied(mut cell) => {
            let known = cell.get();
            if (value.ts, value.position) > (known.ts, known.position) {
                cell.insert(value);
            }
        }
    }
}

fn cells_of<'a>(
    series: &'a SeriesKey,
    cells: HashMap<&'a str, Newest<'a>>,
) -> impl Iterator<Item = LatestCell> + 'a {
    cells.into_iter().map(|(metric, newest)| LatestCell {
        series: series.clone(),
        metric: Arc::from(metric),
        ts: newest.ts,
        position: newest.position,
        body: encode_latest(newest.value, newest.received_at),
    })
}
