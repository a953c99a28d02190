//! Checkpoints: chunks that are never rewritten, then one conditional write that names them and moves progress.
//!
//! A chunk's key is `k/` name, number of the checkpoint, part. Of a name the chunk with the highest number not above the
//! pointer's counts; an empty one says that there is nothing any more. Chunks of a checkpoint that was not finished have a
//! higher number than the pointer, and are deleted by the next owner; superseded ones go with the checkpoint after.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_core::{
    Error, Result, Timestamp, json,
    port::{KeyRange, Write},
    progress::{Claim, Progress},
};

const PREFIX: &[u8] = b"k/";
const POINTER: &[u8] = b"pointer";
/// The bytes after a chunk's name: number and part.
const TAIL: usize = 10;
/// A part of a chunk, and the most of one commit: together with progress far below the port's 1 MiB.
const PART_BYTES: usize = 256 * 1024;
const COMMIT_BYTES: usize = 512 * 1024;
const COMMIT_WRITES: usize = 500;
/// Deletions that go with a checkpoint.
const GARBAGE_PER_COMMIT: usize = 400;
/// Chunks of one page when they are loaded: 16 MiB at most.
const PAGE: usize = 64;

/// What the last checkpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Pointer {
    /// Its number, from 1.
    pub(super) number: u64,
    /// The last entry of the change list that is in it.
    pub(super) applied: u64,
    /// When its owner was certainly alive: silence while nobody listened is not a device's.
    #[serde(default)]
    pub(super) alive_at: Timestamp,
    /// The last frame that was evaluated: (generation, sequence).
    #[serde(default)]
    pub(super) evaluated: (u32, u64),
}

/// What was loaded: state by name.
pub(super) type Loaded = HashMap<Bytes, Vec<u8>>;

/// The checkpoints of a partition, as their owner writes them.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    pub(super) pointer: Pointer,
    /// Parts of the chunk that counts: (number, parts).
    live: HashMap<Bytes, (u64, u16)>,
    /// Keys of superseded chunks, oldest first.
    garbage: Vec<Bytes>,
}

impl Checkpoints {
    /// Loads the last checkpoint, and deletes what an unfinished one left.
    pub(super) async fn load(claim: &mut Claim) -> Result<(Self, Loaded)> {
        let pointer = claim.checkpoint(KeyRange::prefix(POINTER), 1).await?;
        let pointer: Pointer = pointer.first().map(json::from_stored).transpose()?.unwrap_or_default();
        let mut this = Self { pointer, ..Self::default() };
        let mut loaded = Loaded::new();
        let (mut unfinished, mut range) = (Vec::new(), KeyRange::prefix(PREFIX));
        loop {
            let page = claim.checkpoint(range.clone(), PAGE).await?;
            for stored in &page {
                let (name, number, part) = split(&stored.key)?;
                if number > this.pointer.number {
                    unfinished.push(stored.key.clone());
                    continue;
                }
                this.found(&mut loaded, name, number, part, &stored.value);
            }
            match page.last() {
                Some(last) if page.len() == PAGE => range = range.after(&last.key),
                _ => break,
            }
        }
        for keys in unfinished.chunks(COMMIT_WRITES) {
            claim.commit_fenced(keys.iter().cloned().map(Write::delete).collect()).await?;
        }
        let empty: Vec<Bytes> =
            loaded.iter().filter(|(_, bytes)| bytes.is_empty()).map(|(name, _)| name.clone()).collect();
        for name in empty {
            loaded.remove(&name);
            this.supersede(&name);
        }
        Ok((this, loaded))
    }

    /// Takes a part; they come in order of (name, number, part).
    fn found(&mut self, loaded: &mut Loaded, name: Bytes, number: u64, part: u16, value: &[u8]) {
        match self.live.get(&name) {
            Some((known, _)) if *known == number => {
                loaded.entry(name.clone()).or_default().extend_from_slice(value);
            }
            _ => {
                self.supersede(&name);
                loaded.insert(name.clone(), value.to_vec());
            }
        }
        self.live.insert(name, (number, part + 1));
    }

    fn supersede(&mut self, name: &Bytes) {
        if let Some((number, parts)) = self.live.remove(name) {
            self.garbage.extend((0..parts).map(|part| key(name, number, part)));
        }
    }

    /// Records `dirty` (nothing: it is gone), the pointer and progress, in one commit where they fit into one.
    ///
    /// # Errors
    /// `Aborted` where another owner has claimed; `Unavailable` of the store. Then begin again from the last one.
    pub(super) async fn save(
        &mut self,
        claim: &mut Claim,
        progress: Progress,
        pointer: Pointer,
        dirty: Vec<(Bytes, Option<Vec<u8>>)>,
        also: Vec<Write>,
    ) -> Result<()> {
        let number = self.pointer.number + 1;
        let gone: Vec<Bytes> = self.garbage.drain(..self.garbage.len().min(GARBAGE_PER_COMMIT)).collect();
        let (mut writes, mut bytes) = (also, 0);
        let mut named = Vec::with_capacity(dirty.len());
        for (name, state) in dirty {
            let state = state.unwrap_or_default();
            let parts: Vec<&[u8]> =
                if state.is_empty() { vec![&[]] } else { state.chunks(PART_BYTES).collect() };
            for (part, value) in (0_u16..).zip(&parts) {
                if bytes + value.len() > COMMIT_BYTES || writes.len() >= COMMIT_WRITES {
                    claim.commit_fenced(std::mem::take(&mut writes)).await?;
                    bytes = 0;
                }
                bytes += value.len();
                writes.push(Write::put(key(&name, number, part), Bytes::copy_from_slice(value)));
            }
            let parts =
                u16::try_from(parts.len()).map_err(|_| Error::internal("a state has too many parts"))?;
            named.push((name, parts, state.is_empty()));
        }
        let pointer = Pointer { number, ..pointer };
        writes.push(Write::put(Bytes::from_static(POINTER), json::to_bytes(&pointer)?));
        writes.extend(gone.into_iter().map(Write::delete));
        claim.advance(progress, writes).await?;
        self.pointer = pointer;
        for (name, parts, empty) in named {
            self.supersede(&name);
            self.live.insert(name.clone(), (number, parts));
            if empty {
                self.supersede(&name);
            }
        }
        Ok(())
    }
}

fn key(name: &[u8], number: u64, part: u16) -> Bytes {
    [PREFIX, name, &number.to_be_bytes(), &part.to_be_bytes()].concat().into()
}

fn split(key: &Bytes) -> Result<(Bytes, u64, u16)> {
    let damaged = || Error::data_loss("the key of a checkpoint's chunk cannot be read");
    let (rest, part) = key.split_last_chunk::<2>().ok_or_else(damaged)?;
    let (_, number) = rest.split_last_chunk::<8>().ok_or_else(damaged)?;
    if key.len() < PREFIX.len() + TAIL {
        return Err(damaged());
    }
    let name = key.slice(PREFIX.len()..key.len() - TAIL);
    Ok((name, u64::from_be_bytes(*number), u16::from_be_bytes(*part)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_core::{Partition, Stream, port::Records};
    use weir_store_embedded::{EmbeddedStore, Options};

    use super::*;

    async fn claim(store: &Arc<EmbeddedStore>) -> Claim {
        let records = Arc::clone(store) as Arc<dyn Records>;
        Claim::take(records, "analytics", Stream::Readings, Partition(0)).await.unwrap()
    }

    fn pointer() -> Pointer {
        Pointer::default()
    }

    #[tokio::test]
    async fn what_was_saved_is_loaded_and_what_was_not_finished_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path(), Options::default()).unwrap();
        let mut first = claim(&store).await;
        let (mut checkpoints, loaded) = Checkpoints::load(&mut first).await.unwrap();
        assert!(loaded.is_empty());
        let big: Vec<u8> = (0..3 * PART_BYTES + 7).map(|n| n as u8).collect(); // four parts, two commits
        let name = |name: &'static str| Bytes::from_static(name.as_bytes());
        let dirty = vec![
            (name("big"), Some(big.clone())),
            (name("small"), Some(vec![1])),
            (name("gone"), Some(vec![2])),
        ];
        checkpoints.save(&mut first, Progress::default(), pointer(), dirty, vec![]).await.unwrap();
        let dirty = vec![(name("small"), Some(vec![3])), (name("gone"), None)];
        checkpoints.save(&mut first, Progress::default(), pointer(), dirty, vec![]).await.unwrap();
        // A checkpoint that crashes before its pointer.
        first.commit_fenced(vec![Write::put(key(b"small", 3, 0), vec![4])]).await.unwrap();

        for _ in 0..2 {
            let mut next = claim(&store).await;
            let (mut checkpoints, loaded) = Checkpoints::load(&mut next).await.unwrap();
            assert_eq!(loaded, Loaded::from([(name("big"), big.clone()), (name("small"), vec![3])]));
            // Superseded chunks go with the next checkpoint, and nothing else does.
            checkpoints.save(&mut next, Progress::default(), pointer(), vec![], vec![]).await.unwrap();
        }
        let mut last = claim(&store).await;
        let keys = last.checkpoint(KeyRange::prefix(PREFIX), 100).await.unwrap();
        assert_eq!(keys.len(), 5, "four parts of big, one of small");
        assert!(first.commit_fenced(vec![]).await.is_err(), "a former owner is fenced");
        last.commit_fenced(vec![]).await.unwrap();
    }
}
