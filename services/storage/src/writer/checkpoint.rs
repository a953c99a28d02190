//! Progress, and the bucket counts that belong to it, in one commit.
//!
//! Counts are a redo log for the `buckets` table: a checkpoint holds every count that changed since the one before; only
//! after it is committed do these counts go into the table, and they are durable there before the next checkpoint
//! replaces them. So whenever an owner begins, it writes the counts of the last checkpoint into the table once more, and the
//! table stands exactly where progress does.
//!
//! A sync of the store may take half a minute, so an owner does not wait for it ([`super::session`]): it freezes progress
//! and counts, and goes on reading and writing while the sync runs; then it saves what it froze. The above stays true
//! because one checkpoint at a time is under way: the counts of checkpoint n went into the table before n + 1 was frozen,
//! and its sync began after that, so it covers them, and every row up to the frozen progress. What was written during the
//! sync belongs to n + 2: its rows may or may not be durable, its counts are in memory only, and no progress has passed
//! it. Where the sync fails, rows since the last one that succeeded may be gone, and so may the counts of n in the table;
//! but n is still the last checkpoint, so whoever begins anew writes its counts again and reads all those rows again.
//!
//! A checkpoint too large for one commit goes in chunks, before the commit that moves progress and names them. There are two
//! slots, overwritten in turn: the chunks of checkpoint n are in slot n mod 2, and those of n + 1 leave them alone, so an
//! owner that dies half-way leaves the last checkpoint whole. What it did write is overwritten by the next attempt at n + 1,
//! which writes every chunk that it then names. Each chunk tells its number, so that one of another checkpoint is never
//! taken for it. Nothing is ever deleted: on the CQL engine a deletion of an ever-new key each second is a tombstone that
//! every later read of these rows must step over, for as long as the servers keep it. Chunks past those of a smaller
//! checkpoint stay until a larger one comes; a session's bound on changed counts bounds them, to some ten megabytes.

use std::collections::HashMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use weir_core::{
    Error, Result, TenantId, Timestamp, Uid, json,
    port::{BucketId, BucketRow, KeyRange, SeriesKey, Width, Write},
    progress::{Claim, Progress},
};

use super::{batch::bucket_row, devices::Changed};

const POINTER_KEY: &[u8] = b"checkpoint";
const CHUNK_PREFIX: &[u8] = b"redo/";
const SLOTS: u64 = 2;
const VERSION: u8 = 1;
/// A chunk begins with its version and the number of its checkpoint.
const HEAD_BYTES: usize = 1 + 8;
/// Bytes of a chunk at most: with progress beside it, below the 1 MiB of one commit.
const CHUNK_BYTES: usize = 512 << 10;
/// A series in a chunk: tenant's length, tenant (at most 63), uid, count.
const SERIES_BYTES_MAX: usize = 1 + 63 + 16 + 4;
/// A bucket in a chunk: start, width, bytes.
const BUCKET_BYTES: usize = 8 + 1 + 8;

/// Names the chunks that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Pointer {
    number: u64,
    chunks: u32,
}

/// The checkpoints of one claim.
pub(super) struct Checkpoints {
    pointer: Pointer,
}

impl Checkpoints {
    /// The last checkpoint of a claimed partition, and the counts that it holds.
    ///
    /// # Errors
    /// Those of the store; `DataLoss` where a chunk is missing or damaged.
    pub(super) async fn open(claim: &Claim) -> Result<(Self, Vec<BucketRow>)> {
        let exactly =
            KeyRange { to: Some([POINTER_KEY, b"\0"].concat().into()), ..KeyRange::prefix(POINTER_KEY) };
        let pointer: Pointer = match claim.checkpoint(exactly, 1).await?.first() {
            Some(stored) => json::from_stored(stored)?,
            None => Pointer::default(),
        };
        let mut rows = Vec::new();
        for chunk in 0..pointer.chunks {
            let key = chunk_key(pointer.number, chunk);
            let found = claim.checkpoint(KeyRange::prefix(&key), 1).await?;
            let decoded = found.first().and_then(|stored| decode(pointer.number, &stored.value));
            rows.extend(decoded.ok_or_else(|| {
                Error::data_loss(format!(
                    "chunk {chunk} of storage's checkpoint {} cannot be read",
                    pointer.number
                ))
            })?);
        }
        Ok((Self { pointer }, rows))
    }

    /// Records progress with the counts that changed up to it, and gives them as rows for the `buckets` table. The store
    /// must have everything up to `progress` durably, and what the checkpoint before gave as well.
    ///
    /// # Errors
    /// `Aborted` where the partition was claimed by another; those of the store. It is then not known what was recorded:
    /// claim anew.
    pub(super) async fn save(
        &mut self,
        claim: &mut Claim,
        progress: Progress,
        changed: &Changed,
    ) -> Result<Vec<BucketRow>> {
        let number = self.pointer.number + 1;
        let mut chunks = encode(number, changed);
        let next = Pointer { number, chunks: chunks.len() as u32 };
        let last = chunks.pop();
        for (index, chunk) in chunks.into_iter().enumerate() {
            claim.commit_fenced(vec![Write::put(chunk_key(next.number, index as u32), chunk)]).await?;
        }
        let mut also = vec![Write::put(POINTER_KEY, json::to_bytes(&next)?)];
        also.extend(last.map(|chunk| Write::put(chunk_key(next.number, next.chunks - 1), chunk)));
        claim.advance(progress, also).await?;
        self.pointer = next;
        let rows = changed.iter().flat_map(|(series, buckets)| {
            buckets.iter().map(move |(bucket, bytes)| bucket_row(series, *bucket, *bytes))
        });
        Ok(rows.collect())
    }
}

fn chunk_key(number: u64, chunk: u32) -> Bytes {
    [CHUNK_PREFIX, format!("{}/{chunk:08x}", number % SLOTS).as_bytes()].concat().into()
}

/// Version, number of the checkpoint, then for each series: tenant's length, tenant, uid, count, and so many of (start,
/// width, bytes); all big-endian.
fn encode(number: u64, changed: &Changed) -> Vec<Bytes> {
    let per_series = (CHUNK_BYTES - HEAD_BYTES - SERIES_BYTES_MAX) / BUCKET_BYTES;
    let (mut chunks, mut chunk) = (Vec::new(), BytesMut::new());
    for (series, buckets) in changed {
        let buckets: Vec<_> = buckets.iter().collect();
        for part in buckets.chunks(per_series) {
            if !chunk.is_empty() && chunk.len() + SERIES_BYTES_MAX + part.len() * BUCKET_BYTES > CHUNK_BYTES {
                chunks.push(chunk.split().freeze());
            }
            if chunk.is_empty() {
                chunk.put_u8(VERSION);
                chunk.put_u64(number);
            }
            put_series(&mut chunk, series, part);
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk.freeze());
    }
    chunks
}

fn put_series(out: &mut BytesMut, series: &SeriesKey, buckets: &[(&BucketId, &u64)]) {
    let tenant = series.tenant.as_str().as_bytes();
    out.put_u8(tenant.len() as u8); // at most 63
    out.put_slice(tenant);
    out.put_slice(&series.uid.to_bytes());
    out.put_u32(buckets.len() as u32);
    for (bucket, bytes) in buckets {
        out.put_i64(bucket.start.as_micros());
        out.put_u8(bucket.width as u8);
        out.put_u64(**bytes);
    }
}

/// The counts of a chunk, if it is one of checkpoint `number`.
fn decode(number: u64, chunk: &[u8]) -> Option<Vec<BucketRow>> {
    let (version, rest) = chunk.split_first()?;
    let (of, mut rest) = rest.split_first_chunk()?;
    if *version != VERSION || u64::from_be_bytes(*of) != number {
        return None;
    }
    let mut found: HashMap<(SeriesKey, BucketId), u64> = HashMap::new();
    while let Some((len, tail)) = rest.split_first() {
        let (tenant, tail) = tail.split_at_checked(usize::from(*len))?;
        let (uid, tail) = tail.split_first_chunk()?;
        let (count, tail) = tail.split_first_chunk()?;
        let tenant = TenantId::new(std::str::from_utf8(tenant).ok()?).ok()?;
        let series = SeriesKey { tenant, uid: Uid::from_bytes(*uid) };
        rest = tail;
        for _ in 0..u32::from_be_bytes(*count) {
            let (start, tail) = rest.split_first_chunk()?;
            let (width, tail) = tail.split_first()?;
            let (bytes, tail) = tail.split_first_chunk()?;
            let bucket = BucketId {
                start: Timestamp::from_micros(i64::from_be_bytes(*start)),
                width: Width::from_u8(*width)?,
            };
            found.insert((series.clone(), bucket), u64::from_be_bytes(*bytes));
            rest = tail;
        }
    }
    Some(found.into_iter().map(|((series, bucket), bytes)| bucket_row(&series, bucket, bytes)).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashSet},
        sync::Arc,
    };

    use proptest::prelude::*;
    use weir_core::{Partition, Stream};

    use super::*;

    fn any_changed() -> impl Strategy<Value = Changed> {
        let bucket = (0..5_u8, -1_000..1_000_i64).prop_map(|(width, day)| {
            BucketId::containing(
                Timestamp::from_micros(day * 86_400_000_000 + 7),
                Width::from_u8(width).unwrap(),
            )
        });
        let series = (0..3_u8, any::<u128>()).prop_map(|(tenant, uid)| SeriesKey {
            tenant: TenantId::new("t".repeat(usize::from(tenant) * 31 + 1)).unwrap(),
            uid: Uid::from_u128(uid),
        });
        let buckets = prop::collection::hash_map(bucket, any::<u64>(), 1..50);
        prop::collection::hash_map(series, buckets, 0..20)
    }

    fn sorted(rows: impl IntoIterator<Item = BucketRow>) -> BTreeMap<(SeriesKey, BucketId), u64> {
        rows.into_iter().map(|row| ((row.series, row.bucket), row.bytes)).collect()
    }

    proptest! {
        #[test]
        fn counts_read_back(changed in any_changed()) {
            let rows = encode(7, &changed).iter().flat_map(|chunk| decode(7, chunk).unwrap()).collect::<Vec<_>>();
            let expected = changed.iter().flat_map(|(series, buckets)| {
                buckets.iter().map(move |(bucket, bytes)| bucket_row(series, *bucket, *bytes))
            });
            prop_assert_eq!(sorted(rows), sorted(expected));
        }

        #[test]
        fn a_damaged_chunk_is_refused_or_read_but_never_a_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(0, &tail);
            let _ = decode(7, &[&[VERSION], &7_u64.to_be_bytes()[..], &tail].concat());
        }
    }

    fn seconds(uid: u128, count: i64) -> Changed {
        let series = SeriesKey { tenant: TenantId::new("t").unwrap(), uid: Uid::from_u128(uid) };
        let bucket = |n: i64| BucketId::containing(Timestamp::from_micros(n * 1_000_000), Width::Second);
        [(series, (0..count).map(|n| (bucket(n), n as u64)).collect())].into()
    }

    fn as_rows(changed: &Changed) -> BTreeMap<(SeriesKey, BucketId), u64> {
        sorted(changed.iter().flat_map(|(series, buckets)| {
            buckets.iter().map(move |(bucket, bytes)| bucket_row(series, *bucket, *bytes))
        }))
    }

    #[tokio::test]
    async fn the_last_checkpoint_is_read_back_whole_whatever_a_crash_left_and_nothing_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let store = weir_store_embedded::EmbeddedStore::open(dir.path(), Default::default()).unwrap();
        let take = async || {
            let claim = Claim::take(Arc::clone(&store) as _, "storage", Stream::Readings, Partition(3))
                .await
                .unwrap();
            let (checkpoints, rows) = Checkpoints::open(&claim).await.unwrap();
            (claim, checkpoints, sorted(rows))
        };
        let (mut claim, mut checkpoints, rows) = take().await;
        assert!(rows.is_empty());
        let mut keys = HashSet::new();
        for count in [32_000, 5, 62_000, 0, 1, 31_000] {
            let changed = seconds(1, count);
            let told = checkpoints.save(&mut claim, Progress::default(), &changed).await.unwrap();
            assert_eq!(sorted(told), as_rows(&changed));
            // A crash after the first chunk of the next checkpoint.
            let number = checkpoints.pointer.number + 1;
            let chunk = encode(number, &seconds(2, 10)).remove(0);
            claim.commit_fenced(vec![Write::put(chunk_key(number, 0), chunk)]).await.unwrap();
            let left = claim.checkpoint(KeyRange::prefix(CHUNK_PREFIX), 100).await.unwrap();
            let left: HashSet<_> = left.into_iter().map(|stored| stored.key).collect();
            assert!(left.is_superset(&keys), "a chunk was deleted");
            keys = left;
            let found;
            (claim, checkpoints, found) = take().await;
            assert_eq!(found, as_rows(&changed));
        }
        assert_eq!(
            keys.len(),
            5,
            "slots are overwritten: three chunks of the largest checkpoint, two of the other slot"
        );
    }

    #[tokio::test]
    async fn a_chunk_of_another_checkpoint_is_not_taken_for_one_of_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let store = weir_store_embedded::EmbeddedStore::open(dir.path(), Default::default()).unwrap();
        let mut claim = Claim::take(store, "storage", Stream::Readings, Partition(3)).await.unwrap();
        let (mut checkpoints, _) = Checkpoints::open(&claim).await.unwrap();
        checkpoints.save(&mut claim, Progress::default(), &seconds(1, 5)).await.unwrap();
        let other = encode(3, &seconds(1, 6)).remove(0);
        claim.commit_fenced(vec![Write::put(chunk_key(3, 0), other)]).await.unwrap();
        let Err(error) = Checkpoints::open(&claim).await else {
            panic!("read a chunk of checkpoint 3 for 1")
        };
        assert_eq!(error.kind(), weir_core::ErrorKind::DataLoss);
    }

    #[test]
    fn a_large_checkpoint_is_cut_into_chunks_below_the_limit_of_a_commit() {
        let series = |uid| SeriesKey { tenant: TenantId::new("t").unwrap(), uid: Uid::from_u128(uid) };
        let buckets = |count: i64| -> HashMap<BucketId, u64> {
            (0..count)
                .map(|n| (BucketId::containing(Timestamp::from_micros(n * 1_000_000), Width::Second), 1))
                .collect()
        };
        let changed: Changed = [(series(1), buckets(86_400)), (series(2), buckets(10))].into();
        let chunks = encode(1, &changed);
        assert!(
            chunks.len() >= 3 && chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES + SERIES_BYTES_MAX)
        );
        let seen: HashSet<_> = chunks
            .iter()
            .flat_map(|chunk| decode(1, chunk).unwrap())
            .map(|row| (row.series, row.bucket))
            .collect();
        assert_eq!(seen.len(), 86_410);
    }
}
