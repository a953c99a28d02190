//! Taking frames: in order, each under the rules and facts of its place.

use std::collections::HashSet;

use weir_core::{Error, ErrorKind, Position, Result, TenantId, Uid, port::Record};
use weir_frame::Frame;

use super::{change::Facts, intake::Speakers, recover::Owned, state::Fed};

/// A frame of the log; none of it where it cannot be decoded.
struct Decoded {
    at: Position,
    id: Uid,
    frame: Option<Frame>,
    tenants: HashSet<TenantId>,
}

impl Owned {
    /// Evaluates records in order. What follows from each is durable before the next one is looked at.
    pub(super) async fn take(&mut self, records: Vec<Record>) -> Result<()> {
        self.caught_up = false;
        let mut frames = Vec::with_capacity(records.len());
        for record in records {
            frames.push(self.decode(record)?);
        }
        let mut rest = frames.as_slice();
        while let Some(first) = rest.first() {
            let cut = self.replay_through(rest, first.at).await?;
            let (now, later) = rest.split_at(cut);
            for decoded in now {
                self.evaluate(decoded).await?;
            }
            rest = later;
        }
        let evaluated = self.evaluated;
        self.horizons.retain(|_, horizon| (horizon.generation, horizon.sequence) > evaluated);
        Ok(())
    }

    fn decode(&self, record: Record) -> Result<Decoded> {
        let at = self.position(record.sequence);
        match Frame::decode(record.bytes) {
            Ok(frame) => {
                let tenants = frame.messages().map(|message| message.tenant().clone()).collect();
                Ok(Decoded { at, id: record.id, frame: Some(frame), tenants })
            }
            Err(error) if error.kind() == ErrorKind::DataLoss => {
                tracing::error!(partition = %self.partition, sequence = record.sequence, %error, "a frame cannot be read; rules pass over it");
                self.shared.metrics.poison_frames.inc();
                Ok(Decoded { at, id: record.id, frame: None, tenants: HashSet::new() })
            }
            Err(error) => Err(error),
        }
    }

    /// Brings rules and facts to where the first frame needs them, and says how many frames they are good for.
    async fn replay_through(&mut self, frames: &[Decoded], first: Position) -> Result<usize> {
        self.apply_pending(Some(first)).await?;
        if let Some(next) = self.list.pending.front() {
            let until = (next.from.generation, next.from.sequence);
            let before = |frame: &&Decoded| (frame.at.generation, frame.at.sequence) < until;
            let cut = frames.iter().take_while(before).count().max(1);
            self.track_unseen(frames.get(..cut).unwrap_or_default());
            return Ok(cut);
        }
        let is_old = |frame: &&Decoded| self.horizons.keys().any(|tenant| self.is_behind(tenant, frame.at));
        let old = frames.iter().take_while(is_old).count();
        if old == 0 {
            self.end_outage(first).await?;
        }
        // Frames that were evaluated before for a tenant are read again as they were then; whatever has changed since
        // counts from the first one that was not.
        let behind: HashSet<&TenantId> = frames
            .iter()
            .flat_map(|frame| &frame.tenants)
            .filter(|tenant| self.is_behind(tenant, first))
            .collect();
        let cut = behind
            .iter()
            .map(|tenant| frames.iter().take_while(|frame| self.is_behind(tenant, frame.at)).count())
            .min()
            .unwrap_or(frames.len())
            .min(if old == 0 { frames.len() } else { old })
            .max(1);
        let now = frames.get(..cut).unwrap_or_default();
        let tenants: HashSet<TenantId> = now
            .iter()
            .flat_map(|frame| &frame.tenants)
            .filter(|tenant| !behind.contains(tenant))
            .cloned()
            .collect();
        let mut speakers = Speakers::new();
        for frame in now.iter().filter_map(|frame| frame.frame.as_ref()) {
            for message in frame.messages() {
                if tenants.contains(message.tenant()) || !self.memory.devices.contains_key(&message.uid()) {
                    speakers
                        .entry(message.uid())
                        .or_insert_with(|| (message.tenant().clone(), message.device().clone()));
                }
            }
        }
        self.take_changes(&tenants, &speakers, first).await?;
        Ok(cut)
    }

    /// Follows the clocks of devices that no entry names: no rule looked at them then.
    fn track_unseen(&mut self, frames: &[Decoded]) {
        for message in frames.iter().filter_map(|frame| frame.frame.as_ref()).flat_map(Frame::messages) {
            if !self.memory.devices.contains_key(&message.uid()) {
                self.memory.track(Facts::unknown(message.tenant(), message.device(), message.uid()));
            }
        }
    }

    /// Applies entries of the list that count from `through` on or before; all of them without it.
    pub(super) async fn apply_pending(&mut self, through: Option<Position>) -> Result<()> {
        let mut effects = Vec::new();
        while let Some(entry) = self.list.pending.front() {
            let from = (entry.from.generation, entry.from.sequence);
            if through.is_some_and(|through| from > (through.generation, through.sequence)) {
                break;
            }
            let Some(entry) = self.list.pending.pop_front() else { break };
            effects.extend(self.memory.apply(entry.change, entry.from, &self.shared.catalog).await?);
            self.applied = entry.number;
        }
        self.effect(effects).await
    }

    async fn evaluate(&mut self, decoded: &Decoded) -> Result<()> {
        if self.follows(decoded.at.sequence)? != decoded.at.generation {
            return Err(Error::aborted("the log began again at or below a frame that was just read"));
        }
        if let Some(frame) = &decoded.frame {
            let Fed { effects, readings, newest } =
                self.memory.feed(frame, decoded.at.generation, decoded.at.sequence);
            self.shared.metrics.readings.inc_by(readings);
            if let Some(newest) = newest {
                self.shared.metrics.behind.passed(self.partition, newest);
            }
            self.shared.metrics.frames.inc();
            // Before what follows can be seen: a test that is made because of it covers it.
            self.shared.evaluated.lock().insert(self.partition, (decoded.at.generation, decoded.at.sequence));
            if effects.is_empty() {
                tokio::task::yield_now().await; // other partitions and listeners share these threads
            } else {
                self.effect(effects).await?;
            }
        }
        self.evaluated = (decoded.at.generation, decoded.at.sequence);
        self.progress.passed(decoded.at.generation, decoded.at.sequence, decoded.id);
        Ok(())
    }
}
