//! A batch in the form in which the database takes it, made by the caller so that the writer only writes.

use fjall::{Keyspace, UserKey, UserValue};
use weir_core::port::TelemetryBatch;

use super::key;
use crate::database::Database;

type Item = (UserKey, UserValue);

/// A batch, sorted by key, each key once: one write of the database may not name a key twice.
pub(crate) struct Encoded {
    buckets: Vec<Item>,
    rows: Vec<Item>,
    latest: Vec<Item>,
    bytes: usize,
}

impl Encoded {
    pub(super) fn new(batch: TelemetryBatch) -> Self {
        let buckets = batch.buckets.iter().map(|row| {
            (UserKey::from(key::bucket(&row.series, row.bucket)), UserValue::from(key::bucket_value(row)))
        });
        let rows = batch.rows.iter().map(|row| {
            let key = key::row(&row.series, row.bucket, row.ts, row.position);
            (UserKey::from(key), UserValue::from(row.body.as_ref()))
        });
        let latest = batch.latest.iter().map(|cell| {
            (UserKey::from(key::latest(&cell.series, &cell.metric)), UserValue::from(key::latest_value(cell)))
        });
        let mut buckets: Vec<Item> = buckets.collect();
        let mut rows: Vec<Item> = rows.collect();
        let mut latest: Vec<Item> = latest.collect();
        buckets.sort_by(|a, b| a.0.cmp(&b.0));
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        latest.sort_unstable(); // values begin with (ts, position): the greatest is the newest
        keep_last(&mut buckets);
        keep_last(&mut rows);
        keep_last(&mut latest);
        let bytes = [&buckets, &rows, &latest].into_iter().flatten().map(|(k, v)| k.len() + v.len()).sum();
        Self { buckets, rows, latest, bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that it brings to the journal, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes it. A newest value replaces only an older one; there is one writer, so what is read here stays true.
    pub(crate) fn apply(&self, database: &Database) -> fjall::Result<()> {
        let mut items = Vec::with_capacity(self.buckets.len() + self.rows.len() + self.latest.len());
        let item = |keyspace, (key, value): &Item| (keyspace, key.clone(), Some(value.clone()));
        items.extend(self.buckets.iter().map(|of| item(&database.buckets, of)));
        items.extend(self.rows.iter().map(|of| item(&database.rows, of)));
        for of in &self.latest {
            if is_newer(&database.latest, of)? {
                items.push(item(&database.latest, of));
            }
        }
        database.apply(items.into_iter())
    }
}

fn is_newer(latest: &Keyspace, (key, value): &Item) -> fjall::Result<bool> {
    let head = |value: &UserValue| value.get(..key::HEAD_BYTES).map(<[u8]>::to_vec);
    Ok(latest.get(key)?.is_none_or(|stored| head(value) > head(&stored)))
}

/// Of neighbours with the same key keeps the last.
fn keep_last(items: &mut Vec<Item>) {
    items.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            std::mem::swap(later, earlier);
        }
        same
    });
}
