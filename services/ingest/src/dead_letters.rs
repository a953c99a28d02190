//! Payloads that were refused where the wire could not say so: a bounded ring for each tenant.
//!
//! A letter is two records, so that a list reads no payloads: `l/<id>` with what is known of it and `p/<id>` with the
//! payload as it came. Ids rise with time. What was evicted is counted beside them, in the same commit.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use weir_core::{
    Clock, DeviceId, Error, Result, TenantId, Timestamp, Uid, json, name,
    port::{KeyRange, Records, Stored, Table, Write},
};

use crate::{
    config::DeadLettersConfig,
    explain::{cut, explain},
};

/// One record partition for each tenant.
const DEAD_LETTERS: Table = Table("dead_letters");
const LETTER: &str = "l/";
const PAYLOAD: &str = "p/";
const COUNTS: &[u8] = b"c";
/// As much of a topic as is kept.
const TOPIC_MAX: usize = 1_024;
/// Letters that one new one may push out: more only where the ring was made smaller, and then the next ones go on. Two
/// records each stay within a commit.
const EVICT_MAX: usize = 400;

/// A payload that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Refused<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) device: &'a DeviceId,
    pub(crate) topic: &'a str,
    pub(crate) payload: Bytes,
    pub(crate) error: &'a Error,
}

/// What is known of a letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) id: Uid,
    pub(crate) device: DeviceId,
    pub(crate) topic: String,
    pub(crate) at: Timestamp,
    pub(crate) reason: String,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) field: String,
    pub(crate) payload_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Counts {
    count: u64,
    bytes: u64,
    evicted: u64,
}

/// The rings.
pub(crate) struct DeadLetters {
    records: Arc<dyn Records>,
    clock: Arc<dyn Clock>,
    config: DeadLettersConfig,
    /// One writer for each tenant's ring, so that counts agree with letters. As many as there are tenants with a letter.
    writers: parking_lot::Mutex<HashMap<TenantId, Arc<Mutex<()>>>>,
}

impl DeadLetters {
    pub(crate) fn new(records: Arc<dyn Records>, clock: Arc<dyn Clock>, config: DeadLettersConfig) -> Self {
        Self { records, clock, config, writers: parking_lot::Mutex::default() }
    }

    /// Keeps a payload; durable when it returns. The oldest make room.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn keep(&self, refused: Refused<'_>) -> Result<()> {
        let writer = Arc::clone(self.writers.lock().entry(refused.tenant.clone()).or_default());
        let _one = writer.lock().await;
        let partition = refused.tenant.as_str().as_bytes();
        let mut counts = self.counts(refused.tenant).await?;
        let letter = self.letter(&refused);
        counts.count += 1;
        counts.bytes += letter.payload_bytes;
        let mut writes = self.evict(refused.tenant, &mut counts).await?;
        writes.push(Write::put(key(LETTER, letter.id), json::to_bytes(&letter)?));
        writes.push(Write::put(key(PAYLOAD, letter.id), refused.payload));
        writes.push(Write::put(COUNTS, json::to_bytes(&counts)?));
        self.records.commit(DEAD_LETTERS, partition, writes).await.map(drop)
    }

    fn letter(&self, refused: &Refused<'_>) -> Letter {
        let error = refused.error;
        Letter {
            id: Uid::random(),
            device: refused.device.clone(),
            topic: cut(refused.topic, TOPIC_MAX).to_owned(),
            at: self.clock.now(),
            reason: error.reason().to_owned(),
            message: explain(error),
            field: error.field().unwrap_or_default().to_owned(),
            payload_bytes: refused.payload.len() as u64,
        }
    }

    /// The writes that make room, oldest first.
    async fn evict(&self, tenant: &TenantId, counts: &mut Counts) -> Result<Vec<Write>> {
        let (count_max, bytes_max) = (self.config.count as u64, self.config.bytes.0);
        let mut writes = Vec::new();
        if counts.count <= count_max && counts.bytes <= bytes_max {
            return Ok(writes);
        }
        let oldest = KeyRange::prefix(LETTER.as_bytes());
        for stored in self.records.scan(DEAD_LETTERS, tenant.as_str().as_bytes(), oldest, EVICT_MAX).await? {
            if counts.count <= count_max && counts.bytes <= bytes_max {
                break;
            }
            let letter: Letter = json::from_stored(&stored)?;
            counts.count = counts.count.saturating_sub(1);
            counts.bytes = counts.bytes.saturating_sub(letter.payload_bytes);
            counts.evicted += 1;
            writes.push(Write::delete(stored.key));
            writes.push(Write::delete(key(PAYLOAD, letter.id)));
        }
        Ok(writes)
    }

    async fn counts(&self, tenant: &TenantId) -> Result<Counts> {
        let stored = self.records.get(DEAD_LETTERS, tenant.as_str().as_bytes(), COUNTS).await?;
        stored.as_ref().map(json::from_stored).transpose().map(Option::unwrap_or_default)
    }

    /// Letters, newest first, before the one with id `before`; and how many were evicted since the tenant was created.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn list(
        &self,
        tenant: &TenantId,
        before: Option<Uid>,
        limit: usize,
    ) -> Result<(Vec<Letter>, u64)> {
        let mut range = KeyRange::prefix(LETTER.as_bytes()).reversed();
        if let Some(before) = before {
            range = range.before(&key(LETTER, before));
        }
        let found = self.records.scan(DEAD_LETTERS, tenant.as_str().as_bytes(), range, limit).await?;
        let letters = found.iter().map(json::from_stored).collect::<Result<_>>()?;
        Ok((letters, self.counts(tenant).await?.evicted))
    }

    /// A letter with its payload.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` of the store.
    pub(crate) async fn get(&self, tenant: &TenantId, id: Uid) -> Result<(Letter, Bytes)> {
        let partition = tenant.as_str().as_bytes();
        let letter = self.records.get(DEAD_LETTERS, partition, &key(LETTER, id)).await?;
        let payload = self.records.get(DEAD_LETTERS, partition, &key(PAYLOAD, id)).await?;
        match (letter, payload) {
            (Some(letter), Some(Stored { value, .. })) => Ok((json::from_stored(&letter)?, value)),
            _ => Err(Error::not_found(name::child(tenant, "deadLetters", id))),
        }
    }
}

fn key(kind: &str, id: Uid) -> Bytes {
    format!("{kind}{id}").into()
}

#[cfg(test)]
mod tests {
    use weir_config::ByteSize;
    use weir_core::SystemClock;

    use super::*;
    use crate::testing;

    async fn keep(letters: &DeadLetters, tenant: &TenantId, payload: Vec<u8>) {
        let device = DeviceId::new("d1").unwrap();
        let error = Error::invalid("temp", "TYPE_MISMATCH", "temp is text");
        let topic = "v1/telemetry";
        let payload = payload.into();
        letters.keep(Refused { tenant, device: &device, topic, payload, error: &error }).await.unwrap();
    }

    #[tokio::test]
    async fn a_ring_keeps_the_newest_within_its_bounds_and_counts_the_rest_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let records = testing::records(dir.path());
        let config = DeadLettersConfig { count: 5, bytes: ByteSize(1_000) };
        let make = || DeadLetters::new(Arc::clone(&records), Arc::new(SystemClock), config.clone());
        let (one, other) = (TenantId::new("t1").unwrap(), TenantId::new("t2").unwrap());
        let letters = make();
        for n in 0..7_u8 {
            keep(&letters, &one, vec![n; 10]).await;
        }
        let (found, evicted) = make().list(&one, None, 100).await.unwrap();
        assert_eq!((found.len(), evicted), (5, 2));
        let mut payloads = Vec::new();
        for letter in &found {
            payloads.push(letters.get(&one, letter.id).await.unwrap().1[0]);
        }
        assert_eq!(payloads, [6, 5, 4, 3, 2], "newest first");
        keep(&make(), &one, vec![9; 985]).await;
        let (found, evicted) = letters.list(&one, None, 100).await.unwrap();
        assert_eq!((found.len(), evicted), (2, 6), "by bytes too");
        let (page, _) = letters.list(&one, Some(found[0].id), 100).await.unwrap();
        assert_eq!(page, found[1..]);
        assert!(letters.list(&other, None, 100).await.unwrap().0.is_empty(), "each tenant has its own");
        assert!(letters.get(&other, found[0].id).await.is_err());
    }
}
