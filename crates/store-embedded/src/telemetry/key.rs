//! Keys and values of telemetry:
//!
//! ```text
//! series    tenant's length (1 byte) · tenant · uid (16)
//! rows      series · bucket start (8) · width (1) · ts (8) · position (19)     →  body
//! latest    series · metric                                                   →  ts (8) · position (19) · body
//! buckets   series · start (8) · width (1)            →  bytes (8) · seal generation (8) · sealed through (0 or 19)
//! ```
//!
//! Numbers are big-endian, times with their sign bit flipped, so that byte order is the order of the port.

use std::sync::Arc;

use bytes::Bytes;
use weir_core::{
    Position, Timestamp,
    port::{BucketId, BucketRow, LatestCell, Row, SeriesKey, Width},
};

const TIME_BYTES: usize = 8;
/// (ts, position) at the head of a newest value: compared as bytes, the greater is the newer.
pub(super) const HEAD_BYTES: usize = TIME_BYTES + Position::LEN;

/// What every key of a series begins with.
pub(super) fn series(series: &SeriesKey) -> Vec<u8> {
    let tenant = series.tenant.as_str().as_bytes();
    let mut key = Vec::with_capacity(128);
    key.push(u8::try_from(tenant.len()).unwrap_or(u8::MAX)); // at most 63
    key.extend_from_slice(tenant);
    key.extend_from_slice(&series.uid.to_bytes());
    key
}

/// The key of a bucket.
pub(super) fn bucket(of: &SeriesKey, bucket: BucketId) -> Vec<u8> {
    let mut key = bucket_start(of, bucket.start);
    key.push(bucket.width as u8);
    key
}

/// Below every bucket that begins at `start` or later.
pub(super) fn bucket_start(of: &SeriesKey, start: Timestamp) -> Vec<u8> {
    let mut key = series(of);
    key.extend(time(start));
    key
}

/// The least key after a bucket's.
pub(super) fn past_bucket(of: &SeriesKey, after: BucketId) -> Vec<u8> {
    let mut key = bucket(of, after);
    key.push(0);
    key
}

/// Below every row of a bucket at `ts` or later.
pub(super) fn row_time(of: &SeriesKey, in_bucket: BucketId, ts: Timestamp) -> Vec<u8> {
    let mut key = bucket(of, in_bucket);
    key.extend(time(ts));
    key
}

/// The key of a row.
pub(super) fn row(of: &SeriesKey, in_bucket: BucketId, ts: Timestamp, position: Position) -> Vec<u8> {
    let mut key = row_time(of, in_bucket, ts);
    key.extend(position.to_bytes());
    key
}

/// The key of a newest value.
pub(super) fn latest(of: &SeriesKey, metric: &str) -> Vec<u8> {
    let mut key = series(of);
    key.extend_from_slice(metric.as_bytes());
    key
}

/// The value of a newest value.
pub(super) fn latest_value(cell: &LatestCell) -> Vec<u8> {
    [&time(cell.ts)[..], &cell.position.to_bytes(), &cell.body].concat()
}

/// The value of a bucket.
pub(super) fn bucket_value(bucket: &BucketRow) -> Vec<u8> {
    let mut value = Vec::with_capacity(16 + Position::LEN);
    value.extend(bucket.bytes.to_be_bytes());
    value.extend(bucket.seal_generation.to_be_bytes());
    value.extend(bucket.sealed_through.iter().flat_map(|position| position.to_bytes()));
    value
}

/// Reads a row of a bucket.
pub(super) fn read_row(of: &SeriesKey, in_bucket: BucketId, key: &[u8], value: &[u8]) -> Option<Row> {
    let (ts, position) = head(key.strip_prefix(bucket(of, in_bucket).as_slice())?)?;
    let body = Bytes::copy_from_slice(value);
    Some(Row { series: of.clone(), bucket: in_bucket, ts, position, body })
}

/// Reads a newest value of a series.
pub(super) fn read_latest(of: &SeriesKey, key: &[u8], value: &[u8]) -> Option<LatestCell> {
    let metric = std::str::from_utf8(key.strip_prefix(series(of).as_slice())?).ok()?;
    let (head_bytes, body) = value.split_at_checked(HEAD_BYTES)?;
    let (ts, position) = head(head_bytes)?;
    let body = Bytes::copy_from_slice(body);
    Some(LatestCell { series: of.clone(), metric: Arc::from(metric), ts, position, body })
}

/// Reads which bucket a key names.
pub(super) fn bucket_of(of: &SeriesKey, key: &[u8]) -> Option<BucketId> {
    let (start, rest) = key.strip_prefix(series(of).as_slice())?.split_first_chunk()?;
    let [width] = rest else { return None };
    Some(BucketId { start: read_time(*start), width: Width::from_u8(*width)? })
}

/// Reads the value of a bucket.
pub(super) fn read_bucket(of: &SeriesKey, bucket: BucketId, value: &[u8]) -> Option<BucketRow> {
    let (bytes, rest) = value.split_first_chunk()?;
    let (seal_generation, rest) = rest.split_first_chunk()?;
    let sealed_through = match rest {
        [] => None,
        position => Some(Position::from_bytes(position).ok()?),
    };
    Some(BucketRow {
        series: of.clone(),
        bucket,
        bytes: u64::from_be_bytes(*bytes),
        seal_generation: u64::from_be_bytes(*seal_generation),
        sealed_through,
    })
}

fn head(bytes: &[u8]) -> Option<(Timestamp, Position)> {
    let (ts, position) = bytes.split_first_chunk()?;
    Some((read_time(*ts), Position::from_bytes(position).ok()?))
}

fn time(ts: Timestamp) -> [u8; TIME_BYTES] {
    (ts.as_micros() ^ i64::MIN).to_be_bytes()
}

fn read_time(bytes: [u8; TIME_BYTES]) -> Timestamp {
    Timestamp::from_micros(i64::from_be_bytes(bytes) ^ i64::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_core::{Partition, Stream, TenantId, Uid};

    use super::*;

    fn any_row() -> impl Strategy<Value = Row> {
        let tenant = prop_oneof![Just("a"), Just("aa"), Just("b")];
        (tenant, 0..3_u128, 0..5_u8, any::<i64>(), any::<u64>()).prop_map(
            |(tenant, uid, width, ts, sequence)| {
                let ts = Timestamp::from_micros(ts / 2);
                let width = Width::from_u8(width).unwrap();
                let position = Position {
                    stream: Stream::Readings,
                    generation: 1,
                    sequence,
                    index: 0,
                    partition: Partition(0),
                };
                Row {
                    series: SeriesKey { tenant: TenantId::new(tenant).unwrap(), uid: Uid::from_u128(uid) },
                    bucket: BucketId::containing(ts, width),
                    ts,
                    position,
                    body: Bytes::from_static(b"body"),
                }
            },
        )
    }

    fn key_of(of: &Row) -> Vec<u8> {
        row(&of.series, of.bucket, of.ts, of.position)
    }

    proptest! {
        #[test]
        fn a_row_reads_back_and_sorts_by_bucket_time_and_position(a in any_row(), b in any_row()) {
            prop_assert_eq!(read_row(&a.series, a.bucket, &key_of(&a), &a.body), Some(a.clone()));
            if a.series == b.series {
                let order = (a.bucket, a.ts, a.position).cmp(&(b.bucket, b.ts, b.position));
                prop_assert_eq!(key_of(&a).cmp(&key_of(&b)), order);
            } else {
                prop_assert!(!key_of(&a).starts_with(&series(&b.series)));
            }
        }

        #[test]
        fn a_bucket_reads_back(row in any_row(), bytes in any::<u64>(), sealed in any::<bool>()) {
            let written = BucketRow {
                series: row.series.clone(),
                bucket: row.bucket,
                bytes,
                seal_generation: bytes / 2,
                sealed_through: sealed.then_some(row.position),
            };
            let key = bucket(&row.series, row.bucket);
            prop_assert_eq!(bucket_of(&row.series, &key), Some(row.bucket));
            prop_assert_eq!(read_bucket(&row.series, row.bucket, &bucket_value(&written)), Some(written));
        }
    }
}
