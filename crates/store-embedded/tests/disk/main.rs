//! The boundary between the store and the disk: directories, crashes, a full disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail as tests do"
)]

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use weir_core::{
    Partition, Position, Result, Stream, TenantId, Timestamp, Uid,
    port::{
        BucketId, Records, Row, RowScan, ScanOrder, SeriesKey, Table, TelemetryBatch, TelemetryStore, Width,
        Write,
    },
};
use weir_store_embedded::{EmbeddedStore, Options};

mod crash;
mod directory;
mod full;

const TABLE: Table = Table("table");

fn open(dir: &Path) -> Result<Arc<EmbeddedStore>> {
    EmbeddedStore::open(dir, Options::default())
}

fn series() -> SeriesKey {
    SeriesKey { tenant: TenantId::new("tenant").unwrap(), uid: Uid::from_u128(1) }
}

/// The bucket of every [`row`].
fn bucket() -> BucketId {
    BucketId::containing(Timestamp::from_micros(0), Width::Day)
}

fn row(number: u64, bytes: usize) -> Row {
    let ts = Timestamp::from_micros(i64::try_from(number).unwrap());
    let position = Position {
        stream: Stream::Readings,
        generation: 1,
        sequence: number,
        index: 0,
        partition: Partition(0),
    };
    // A body that does not compress, so that it takes its room on the disk (xorshift64, Marsaglia 2003).
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut body = Vec::with_capacity(bytes + 8);
    while body.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body.extend(state.to_be_bytes());
    }
    Row { series: series(), bucket: bucket(), ts, position, body: body.into() }
}

fn batch(rows: impl IntoIterator<Item = Row>) -> TelemetryBatch {
    TelemetryBatch { rows: rows.into_iter().collect(), ..TelemetryBatch::default() }
}

/// The numbers of the rows that are there, in order.
async fn numbers(store: &EmbeddedStore) -> Vec<u64> {
    let scan = RowScan {
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        after: None,
        order: ScanOrder::Ascending,
        limit: usize::MAX,
    };
    let rows = store.rows(&series(), bucket(), scan).await.unwrap();
    rows.iter().for_each(|found| assert_eq!(*found, row(found.position.sequence, found.body.len())));
    rows.iter().map(|row| row.position.sequence).collect()
}

async fn put(store: &EmbeddedStore, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64> {
    store.commit(TABLE, b"partition", vec![Write::put(key, value)]).await.map(|versions| versions[0])
}

async fn value(store: &EmbeddedStore, key: &[u8]) -> Option<Bytes> {
    store.get(TABLE, b"partition", key).await.unwrap().map(|stored| stored.value)
}
