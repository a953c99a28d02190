//! Checkpoints: chunks, then one conditional write that names them and moves progress.
//!
//! Each name has two slots, and its chunk is written into the one that does not count: a checkpoint that is not finished
//! leaves every chunk of the last one whole. A chunk's key is `k/` name, slot, part; every part tells the number of its
//! checkpoint and how many parts there are. Of a name the slot with the highest number not above the pointer's counts: a
//! higher one is of a checkpoint that was not finished. Those are deleted by the next owner, before a pointer can reach
//! their number. An empty chunk says that there is nothing any more; the next owner deletes both slots of such a name.
//!
//! So nothing is deleted to supersede it. On the CQL engine a deletion is a tombstone that every later scan of these rows
//! steps over, for as long as the servers keep it; a slot that is written again has none.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_core::{
    Error, Result, Timestamp, json,
    port::{KeyRange, Write},
    progress::{Claim, Progress},
};

const PREFIX: &[u8] = b"k/";
const POINTER: &[u8] = b"pointer";
const SLOTS: u8 = 2;
/// A part of a chunk, and the most of one commit: together with progress far below the port's 1 MiB.
const PART_BYTES: usize = 256 * 1024;
const COMMIT_BYTES: usize = 512 * 1024;
const COMMIT_WRITES: usize = 500;
/// Parts of one page when they are loaded: 16 MiB at most.
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
    /// The slot that counts, of each name that has one.
    live: HashMap<Bytes, u8>,
}

impl Checkpoints {
    /// Loads the last checkpoint, and deletes what an unfinished one left and names of which there is nothing any more.
    ///
    /// # Errors
    /// `Aborted` where another owner has claimed; `DataLoss` where a chunk is missing or damaged; `Unavailable` of the
    /// store.
    pub(super) async fn load(claim: &mut Claim) -> Result<(Self, Loaded)> {
        let pointer = claim.checkpoint(KeyRange::prefix(POINTER), 1).await?;
        let pointer: Pointer = pointer.first().map(json::from_stored).transpose()?.unwrap_or_default();
        let mut names: HashMap<Bytes, Named> = HashMap::new();
        let (mut unfinished, mut range) = (HashSet::new(), KeyRange::prefix(PREFIX));
        loop {
            let page = claim.checkpoint(range.clone(), PAGE).await?;
            for stored in &page {
                let place = Place::of(&stored.key)?;
                let chunk = Part::of(&stored.value)?;
                if chunk.number > pointer.number {
                    unfinished.insert(stored.key.clone());
                } else {
                    names.entry(place.name.clone()).or_default().found(&place, &chunk)?;
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => range = range.after(&last.key),
                _ => break,
            }
        }
        let (mut this, mut loaded) = (Self { pointer, ..Self::default() }, Loaded::new());
        let mut gone = Vec::new();
        for (name, mut named) in names {
            match named.state(&name)? {
                Some((slot, state)) => {
                    this.live.insert(name.clone(), slot);
                    loaded.insert(name, state);
                }
                None => gone.extend(named.keys(&name)),
            }
        }
        gone.retain(|key| !unfinished.contains(key)); // a commit has a key once
        let stale: Vec<Bytes> = unfinished.into_iter().chain(gone).collect();
        for keys in stale.chunks(COMMIT_WRITES) {
            claim.commit_fenced(keys.iter().cloned().map(Write::delete).collect()).await?;
        }
        Ok((this, loaded))
    }

    /// Records `dirty` (nothing: it is gone), the pointer and progress, in one commit where they fit into one.
    ///
    /// # Errors
    /// `Aborted` where another owner has claimed; `Unavailable` of the store. Then begin again from the last one: what
    /// this one left must be deleted before its number is used.
    pub(super) async fn save(
        &mut self,
        claim: &mut Claim,
        progress: Progress,
        pointer: Pointer,
        dirty: Vec<(Bytes, Option<Vec<u8>>)>,
        also: Vec<Write>,
    ) -> Result<()> {
        let number = self.pointer.number + 1;
        let (mut writes, mut bytes) = (also, 0);
        let mut written = Vec::with_capacity(dirty.len());
        for (name, state) in dirty {
            let slot = self.live.get(&name).map_or(0, |live| (live + 1) % SLOTS);
            let state = state.unwrap_or_default();
            let parts: Vec<&[u8]> =
                if state.is_empty() { vec![&[]] } else { state.chunks(PART_BYTES).collect() };
            let count =
                u16::try_from(parts.len()).map_err(|_| Error::internal("a state has too many parts"))?;
            for (part, bytes_of) in (0_u16..).zip(parts) {
                if bytes + bytes_of.len() > COMMIT_BYTES || writes.len() >= COMMIT_WRITES {
                    claim.commit_fenced(std::mem::take(&mut writes)).await?;
                    bytes = 0;
                }
                bytes += bytes_of.len();
                let value = Part { number, parts: count, bytes: bytes_of }.to_bytes();
                writes.push(Write::put(key(&name, slot, part), value));
            }
            written.push((name, slot));
        }
        let pointer = Pointer { number, ..pointer };
        writes.push(Write::put(Bytes::from_static(POINTER), json::to_bytes(&pointer)?));
        claim.advance(progress, writes).await?;
        self.pointer = pointer;
        self.live.extend(written);
        Ok(())
    }
}

/// What was found of a name; its parts come in order of (slot, part), and none is of an unfinished checkpoint.
#[derive(Default)]
struct Named {
    /// The slot with the highest number so far.
    best: Option<Best>,
    /// Parts that each slot has, stale ones too.
    kept: [u16; SLOTS as usize],
}

struct Best {
    slot: u8,
    number: u64,
    parts: u16,
    read: u16,
    state: Vec<u8>,
}

impl Named {
    fn found(&mut self, place: &Place, chunk: &Part<'_>) -> Result<()> {
        if let Some(kept) = self.kept.get_mut(usize::from(place.slot)) {
            *kept = place.part.saturating_add(1);
        }
        match &mut self.best {
            Some(best) if best.slot == place.slot => {
                if place.part >= best.parts {
                    return Ok(()); // of an older and larger chunk
                }
                if chunk.number != best.number || place.part != best.read {
                    return Err(incomplete(&place.name));
                }
                best.read += 1;
                best.state.extend_from_slice(chunk.bytes);
            }
            best => {
                // Without its first part a slot is what is left of an older chunk where an unfinished one was deleted.
                if place.part == 0 && best.as_ref().is_none_or(|best| best.number < chunk.number) {
                    let Part { number, parts, bytes } = *chunk;
                    *best = Some(Best { slot: place.slot, number, parts, read: 1, state: bytes.to_vec() });
                }
            }
        }
        Ok(())
    }

    /// The slot that counts and its state; nothing where the name is gone.
    fn state(&mut self, name: &Bytes) -> Result<Option<(u8, Vec<u8>)>> {
        match self.best.take() {
            Some(best) if best.read != best.parts => Err(incomplete(name)),
            Some(best) if !best.state.is_empty() => Ok(Some((best.slot, best.state))),
            best => {
                self.best = best;
                Ok(None)
            }
        }
    }

    /// The keys of a name that is gone, those of the slot that says so last: they may go in several commits.
    fn keys(&self, name: &Bytes) -> Vec<Bytes> {
        let last = self.best.as_ref().map_or(0, |best| best.slot);
        let slots = (1..=SLOTS).map(|after| (last + after) % SLOTS);
        let parts = |slot: u8| 0..self.kept.get(usize::from(slot)).copied().unwrap_or_default();
        slots.flat_map(|slot| parts(slot).map(move |part| key(name, slot, part))).collect()
    }
}

fn incomplete(name: &Bytes) -> Error {
    Error::data_loss(format!("the chunk {:?} of a checkpoint is not whole", String::from_utf8_lossy(name)))
}

/// Where a part is.
struct Place {
    name: Bytes,
    slot: u8,
    part: u16,
}

impl Place {
    fn of(key: &Bytes) -> Result<Self> {
        let damaged = || Error::data_loss("the key of a checkpoint's chunk cannot be read");
        let (rest, part) = key.split_last_chunk::<2>().ok_or_else(damaged)?;
        let (slot, rest) = rest.split_last().ok_or_else(damaged)?;
        if *slot >= SLOTS || rest.len() < PREFIX.len() {
            return Err(damaged());
        }
        Ok(Self { name: key.slice(PREFIX.len()..rest.len()), slot: *slot, part: u16::from_be_bytes(*part) })
    }
}

/// A part as it is stored: number of the checkpoint, how many parts the chunk has, its bytes.
struct Part<'a> {
    number: u64,
    parts: u16,
    bytes: &'a [u8],
}

impl<'a> Part<'a> {
    fn of(value: &'a [u8]) -> Result<Self> {
        let damaged = || Error::data_loss("a chunk of a checkpoint cannot be read");
        let (number, rest) = value.split_first_chunk().ok_or_else(damaged)?;
        let (parts, bytes) = rest.split_first_chunk().ok_or_else(damaged)?;
        Ok(Self { number: u64::from_be_bytes(*number), parts: u16::from_be_bytes(*parts), bytes })
    }

    fn to_bytes(&self) -> Bytes {
        [&self.number.to_be_bytes()[..], &self.parts.to_be_bytes(), self.bytes].concat().into()
    }
}

fn key(name: &[u8], slot: u8, part: u16) -> Bytes {
    [PREFIX, name, &[slot], &part.to_be_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use weir_core::{Partition, Stream, port::Records};
    use weir_store_embedded::{EmbeddedStore, Options};

    use super::*;

    type Dirty = Vec<(Bytes, Option<Vec<u8>>)>;

    async fn claim(store: &Arc<EmbeddedStore>) -> Claim {
        let records = Arc::clone(store) as Arc<dyn Records>;
        Claim::take(records, "analytics", Stream::Readings, Partition(0)).await.unwrap()
    }

    fn open() -> (tempfile::TempDir, Arc<EmbeddedStore>) {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path(), Options::default()).unwrap();
        (dir, store)
    }

    fn name(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    /// A state of so many parts.
    fn big(parts: usize, seed: u8) -> Vec<u8> {
        (0..(parts - 1) * PART_BYTES + 7).map(|n| n as u8 ^ seed).collect()
    }

    async fn save(checkpoints: &mut Checkpoints, claim: &mut Claim, dirty: Dirty) {
        checkpoints.save(claim, Progress::default(), Pointer::default(), dirty, vec![]).await.unwrap();
    }

    async fn keys(claim: &Claim) -> Vec<Bytes> {
        let found = claim.checkpoint(KeyRange::prefix(PREFIX), 1_000).await.unwrap();
        found.into_iter().map(|stored| stored.key).collect()
    }

    #[tokio::test]
    async fn what_was_saved_is_loaded_and_what_was_not_finished_is_not() {
        let (_dir, store) = open();
        let mut first = claim(&store).await;
        let (mut checkpoints, loaded) = Checkpoints::load(&mut first).await.unwrap();
        assert!(loaded.is_empty());
        let dirty = vec![
            (name("big"), Some(big(4, 0))), // two commits
            (name("small"), Some(vec![1])),
            (name("gone"), Some(big(2, 0))),
        ];
        save(&mut checkpoints, &mut first, dirty).await;
        save(&mut checkpoints, &mut first, vec![(name("small"), Some(vec![3])), (name("gone"), None)]).await;
        // A checkpoint that crashes before its pointer: over the slot that does not count, and in a name of its own.
        let part = |bytes| Part { number: 3, parts: 2, bytes }.to_bytes();
        let unfinished = vec![
            Write::put(key(b"small", 0, 0), part(&[4])),
            Write::put(key(b"big", 1, 0), part(&[5])),
            Write::put(key(b"new", 0, 0), part(&[6])),
        ];
        first.commit_fenced(unfinished).await.unwrap();

        for _ in 0..2 {
            let mut next = claim(&store).await;
            let (mut checkpoints, loaded) = Checkpoints::load(&mut next).await.unwrap();
            assert_eq!(loaded, Loaded::from([(name("big"), big(4, 0)), (name("small"), vec![3])]));
            // The number of the checkpoint that crashed is used again, and what that one wrote must not come back.
            save(&mut checkpoints, &mut next, vec![]).await;
        }
        let mut last = claim(&store).await;
        assert_eq!(keys(&last).await.len(), 5, "four parts of big, one of small");
        assert!(first.commit_fenced(vec![]).await.is_err(), "a former owner is fenced");
        last.commit_fenced(vec![]).await.unwrap();
    }

    #[tokio::test]
    async fn a_name_keeps_two_slots_however_often_and_in_whatever_size_it_is_saved() {
        let (_dir, store) = open();
        let mut owner = claim(&store).await;
        let (mut checkpoints, _) = Checkpoints::load(&mut owner).await.unwrap();
        let mut before = Vec::new();
        for (round, parts) in (0_u8..).zip([3, 1, 2, 1, 1, 4, 2, 3, 1]) {
            save(&mut checkpoints, &mut owner, vec![(name("n"), Some(big(parts, round)))]).await;
            let now = keys(&owner).await;
            assert!(before.iter().all(|key| now.contains(key)), "nothing is deleted");
            before = now;
            owner = claim(&store).await;
            let loaded;
            (checkpoints, loaded) = Checkpoints::load(&mut owner).await.unwrap();
            assert_eq!(loaded, Loaded::from([(name("n"), big(parts, round))]), "round {round}");
        }
        assert_eq!(before.len(), 7, "three parts in one slot, four in the other");
    }

    #[tokio::test]
    async fn a_name_that_comes_back_before_or_after_it_was_removed_is_what_it_was_last() {
        let (_dir, store) = open();
        let mut owner = claim(&store).await;
        let (mut checkpoints, _) = Checkpoints::load(&mut owner).await.unwrap();
        for state in [Some(vec![1]), None, Some(vec![2]), None, None, Some(vec![3])] {
            save(&mut checkpoints, &mut owner, vec![(name("n"), state)]).await;
        }
        let (_, loaded) = Checkpoints::load(&mut claim(&store).await).await.unwrap();
        assert_eq!(loaded, Loaded::from([(name("n"), vec![3])]));
        for state in [Some(vec![4]), None, Some(big(2, 1)), None, None, Some(vec![5]), Some(vec![6])] {
            let mut owner = claim(&store).await;
            let (mut checkpoints, _) = Checkpoints::load(&mut owner).await.unwrap();
            save(&mut checkpoints, &mut owner, vec![(name("n"), state.clone())]).await;
            let mut next = claim(&store).await;
            let (_, loaded) = Checkpoints::load(&mut next).await.unwrap();
            assert_eq!(loaded.get(&name("n")), state.as_ref());
            assert_eq!(keys(&next).await.is_empty(), state.is_none(), "nothing is left of what is gone");
        }
    }

    /// Every order of saves, crashes anywhere in one, and claims: what is loaded is what the last pointer says.
    #[tokio::test]
    async fn whatever_crashes_half_way_the_last_finished_checkpoint_is_loaded() {
        let (_dir, store) = open();
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut expected: BTreeMap<Bytes, Vec<u8>> = BTreeMap::new();
        let mut owner = claim(&store).await;
        let (mut checkpoints, _) = Checkpoints::load(&mut owner).await.unwrap();
        for round in 0..100_u64 {
            let mut dirty = Dirty::new();
            for each in ["a", "b", "c", "d"] {
                let state = match next(5) {
                    0 => None,
                    1 => Some(big(1 + next(3) as usize, round as u8)),
                    2 => Some(vec![round as u8; 3]),
                    _ => continue,
                };
                dirty.push((name(each), state));
            }
            if next(2) == 0 {
                // As far as a crash lets it: some of the parts that a save would write, in its order.
                let mut writes = Vec::new();
                for (each, state) in &dirty {
                    let slot = checkpoints.live.get(each).map_or(0, |live| (live + 1) % SLOTS);
                    let state = state.clone().unwrap_or_default();
                    let parts: Vec<&[u8]> =
                        if state.is_empty() { vec![&[]] } else { state.chunks(PART_BYTES).collect() };
                    for (part, bytes) in parts.iter().enumerate() {
                        let number = checkpoints.pointer.number + 1;
                        let value = Part { number, parts: parts.len() as u16, bytes }.to_bytes();
                        writes.push(Write::put(key(each, slot, part as u16), value));
                    }
                }
                writes.truncate(next(writes.len() as u64 + 1) as usize);
                for write in writes {
                    owner.commit_fenced(vec![write]).await.unwrap();
                }
                owner = claim(&store).await;
                let loaded;
                (checkpoints, loaded) = Checkpoints::load(&mut owner).await.unwrap();
                assert_eq!(loaded.into_iter().collect::<BTreeMap<_, _>>(), expected, "round {round}");
            } else {
                save(&mut checkpoints, &mut owner, dirty.clone()).await;
                for (each, state) in dirty {
                    match state {
                        Some(state) => drop(expected.insert(each, state)),
                        None => drop(expected.remove(&each)),
                    }
                }
            }
        }
    }
}
