//! Becoming the owner of a partition: claim, check the log, load the checkpoint, find out what was under way.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use weir_core::{
    Partition, Position, Result, Stream, TenantId, Uid, json,
    port::{KeyRange, LogReader},
    progress::{Claim, Progress},
};

use super::{READER, Shared, change::ChangeList, checkpoint::Checkpoints, state::Memory};
use crate::{
    alarm::{ALARMS, key},
    outbox::Row,
};

/// Record partitions, and outbox rows, of one page of a scan; a row has at most some 50 KiB.
const PAGE: usize = 100;
/// Tenants whose alarms are taken over at once: an engine syncs their commits together.
const WIDTH: usize = 16;

/// A partition that is owned.
pub(crate) struct Owned {
    pub(super) shared: Arc<Shared>,
    pub(super) partition: Partition,
    pub(super) claim: Claim,
    pub(super) reader: Option<Box<dyn LogReader>>,
    /// As it is in memory; the claim has what is recorded.
    pub(super) progress: Progress,
    /// The last frame that was evaluated.
    pub(super) evaluated: (u32, u64),
    /// The last entry of the change list that was applied.
    pub(super) applied: u64,
    pub(super) list: ChangeList,
    pub(super) checkpoints: Checkpoints,
    pub(super) memory: Memory,
    /// Up to where something was recorded for a tenant before this owner: there it reads again what another has
    /// evaluated, and nothing changes but by the list.
    pub(super) horizons: HashMap<TenantId, Position>,
    /// Tenants among whose alarms no owner before this one writes any more.
    pub(super) fenced: HashSet<TenantId>,
    /// Frames that wait for the next look, with what they need.
    pub(super) caught_up: bool,
    /// Devices that the registry does not know, and since when.
    pub(super) strangers: HashMap<Uid, Instant>,
    /// Devices that were not yet looked for in this round of the sweep.
    pub(super) unswept: Vec<Uid>,
    pub(super) times: Times,
}

/// When what comes by itself was done last, or is due.
pub(super) struct Times {
    pub(super) checkpoint_due: Instant,
    pub(super) idle_due: Instant,
    pub(super) tick_due: Instant,
    pub(super) sweep_due: Instant,
    pub(super) alive_due: Instant,
}

impl Owned {
    /// Claims the partition and takes over where the former owner's checkpoint is.
    ///
    /// # Errors
    /// Those of log and store.
    pub(super) async fn recover(shared: Arc<Shared>, partition: Partition) -> Result<Self> {
        // A log that does not answer here may well answer the present owner: it is not taken from that one in vain.
        shared.log.identity(Stream::Readings).await?;
        let mut claim = Claim::take(Arc::clone(&shared.records), READER, Stream::Readings, partition).await?;
        let resume = claim.resume(&*shared.log, Stream::Readings, shared.config.partitions).await?;
        shared.marks.adopt(resume.generations);
        if let Some(lost) = &resume.lost {
            tracing::error!(%partition, lost, "the log has lost readings");
        }
        let (checkpoints, loaded) = Checkpoints::load(&mut claim).await?;
        let pointer = checkpoints.pointer.clone();
        let list = ChangeList::load(&claim, pointer.applied).await?;
        let alive_at = (pointer.number > 0).then_some(pointer.alive_at);
        let memory = Memory::restore(partition, loaded, alive_at, &shared.catalog).await?;
        let reader = shared.log.read_from(Stream::Readings, partition, resume.from).await?;
        let (fenced, horizons) = open_alarms(&shared, partition, claim.epoch()).await?;
        let soon = Instant::now();
        Ok(Self {
            evaluated: still_there(pointer.evaluated, &resume.progress),
            progress: resume.progress,
            applied: pointer.applied,
            reader: Some(reader),
            shared,
            partition,
            claim,
            list,
            checkpoints,
            memory,
            fenced,
            horizons,
            caught_up: false,
            strangers: HashMap::new(),
            unswept: Vec::new(),
            times: Times {
                checkpoint_due: soon,
                idle_due: soon,
                tick_due: soon,
                sweep_due: soon, // whatever was signalled while nobody listened
                alive_due: soon,
            },
        })
    }

    /// The generation of what comes next at `sequence`.
    ///
    /// # Errors
    /// `Aborted` where the log began again below what was evaluated, as another has found: this one begins anew.
    pub(super) fn follows(&self, sequence: u64) -> Result<u32> {
        self.shared.marks.step(&self.progress, sequence)
    }

    /// The position from which a change counts that is made now.
    pub(super) fn next_position(&self) -> Position {
        let (_, evaluated) = self.evaluated;
        let sequence = evaluated.max(self.progress.sequence) + 1;
        self.position(sequence)
    }

    pub(super) fn position(&self, sequence: u64) -> Position {
        Position {
            stream: Stream::Readings,
            generation: self.shared.marks.generation_of(sequence),
            sequence,
            index: 0,
            partition: self.partition,
        }
    }

    /// Whether a frame was perhaps evaluated before, with visible results.
    pub(super) fn is_behind(&self, tenant: &TenantId, at: Position) -> bool {
        self.horizons
            .get(tenant)
            .is_some_and(|horizon| (at.generation, at.sequence) <= (horizon.generation, horizon.sequence))
    }
}

/// The last frame that was evaluated; where the log has lost it, the last one before those that are read now, so that
/// what changes until then counts from the first of them.
fn still_there(evaluated: (u32, u64), progress: &Progress) -> (u32, u64) {
    let (generation, _) = evaluated;
    if generation < progress.generation { (progress.generation, progress.sequence) } else { evaluated }
}

/// Takes a partition's alarms over: from now on no former owner adds to them. Hands what waits in the outbox to the
/// dispatcher, and gives the tenants and the horizon of each.
async fn open_alarms(
    shared: &Shared,
    partition: Partition,
    epoch: u64,
) -> Result<(HashSet<TenantId>, HashMap<TenantId, Position>)> {
    let prefix = key::places(partition);
    let (mut fenced, mut horizons) = (HashSet::new(), HashMap::new());
    let mut after = prefix.clone().into_bytes();
    loop {
        let page = shared.records.partitions(ALARMS, Some(&after), PAGE).await?;
        let mut tenants = Vec::new();
        for place in &page {
            match std::str::from_utf8(place).ok().and_then(|place| place.strip_prefix(&prefix)) {
                Some(tenant) => tenants.push(TenantId::new(tenant)?),
                None => break,
            }
        }
        let last = tenants.len() < PAGE;
        let looks = tenants.into_iter().map(|tenant| async move {
            // First the fence: what is read after it is all that former owners have done.
            let counter = shared.alarms.fence(epoch, partition, &tenant).await?;
            waiting_rows(shared, partition, key::place(partition, &tenant).as_bytes()).await?;
            Ok::<_, weir_core::Error>((tenant, counter.through))
        });
        let found: Vec<_> = stream::iter(looks).buffered(WIDTH).try_collect().await?;
        if let Some((tenant, _)) = found.last() {
            after = key::place(partition, tenant).into_bytes();
        }
        for (tenant, through) in found {
            horizons.extend(through.map(|through| (tenant.clone(), through)));
            fenced.insert(tenant);
        }
        if last {
            return Ok((fenced, horizons));
        }
    }
}

async fn waiting_rows(shared: &Shared, partition: Partition, place: &[u8]) -> Result<()> {
    let mut range = KeyRange::prefix(key::OUTBOX);
    loop {
        let page = shared.records.scan(ALARMS, place, range.clone(), PAGE).await?;
        let rows = page.iter().map(json::from_stored).collect::<Result<Vec<Row>>>()?;
        shared.dispatcher.take(partition, rows);
        match page.last() {
            Some(last) if page.len() == PAGE => range = range.after(&last.key),
            _ => return Ok(()),
        }
    }
}
