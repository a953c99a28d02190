//! Reads the log from a cursor up to what is written, or was handed over.

use std::{sync::Arc, time::Duration};

use weir_core::{
    Error, ErrorKind, Partition, Result, Stream,
    port::{Log, LogReader},
};

use super::cursor::{Cursor, Place};
use crate::{
    marks::{Mark, Marks},
    writer::{Heard, decode},
};

/// Bytes of frames held at once.
const READ_BYTES: usize = 256 << 10;
/// Everything up to the mark is there already; an engine that does not give it in this time is away.
const READ_WAIT: Duration = Duration::from_secs(1);

/// The partitions that are still to be read, one after the other.
pub(super) struct CatchUp {
    log: Arc<dyn Log>,
    marks: Arc<Marks>,
    targets: Vec<Mark>,
    partition: u16,
    reader: Option<Box<dyn LogReader>>,
    reached: bool,
}

/// What came of one step.
pub(super) enum Step {
    /// Messages, in order.
    Heard(Vec<Arc<Heard>>),
    /// Everything of a partition up to this mark was given.
    Reached(Partition, Mark),
    /// Every partition has reached its mark.
    Done,
}

impl CatchUp {
    /// Up to `targets`.
    pub(super) fn new(log: Arc<dyn Log>, marks: Arc<Marks>, targets: Vec<Mark>) -> Self {
        Self { log, marks, targets, partition: 0, reader: None, reached: false }
    }

    /// Goes one step on; the caller has moved `cursor` over what the last step gave.
    ///
    /// # Errors
    /// `CURSOR_TOO_OLD` where the log no longer holds what follows the cursor; `POSITION_LOST` where the log fell back;
    /// those of the log.
    pub(super) async fn next(&mut self, cursor: &Cursor) -> Result<Step> {
        while let Some(target) = self.targets.get(usize::from(self.partition)).copied() {
            let partition = Partition(self.partition);
            if self.reached {
                (self.partition, self.reader, self.reached) = (self.partition + 1, None, false);
                return Ok(Step::Reached(partition, target));
            }
            let place = cursor.place(partition);
            let mut reader = match self.reader.take() {
                Some(reader) => reader,
                None if place >= Place::through(target) => {
                    self.partition += 1;
                    continue;
                }
                None => self.open(partition, place).await?,
            };
            let batch = reader.next(READ_BYTES, READ_WAIT).await.map_err(too_old)?;
            self.reached = batch.records.last().is_none_or(|record| record.sequence >= target.sequence);
            self.reader = Some(reader);
            let mut heard = Vec::new();
            for record in batch.records.iter().filter(|record| record.sequence <= target.sequence) {
                let generation = self.marks.generation_of(record.sequence);
                // What cannot be decoded the writer has kept aside and reported.
                heard.extend(decode(record, partition, generation).unwrap_or_default());
            }
            return Ok(Step::Heard(heard));
        }
        Ok(Step::Done)
    }

    async fn open(&mut self, partition: Partition, place: Place) -> Result<Box<dyn LogReader>> {
        // A mark right after a loss stands below the first sequence of its generation.
        let holds = |sequence| self.marks.holds(place.generation, sequence);
        if place.sequence > 0 && !holds(place.sequence) && !holds(place.sequence.saturating_add(1)) {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                "POSITION_LOST",
                "the log has lost what resume_cursor points at: start anew without it",
            )
            .with_field("resume_cursor"));
        }
        let from = place.next_sequence();
        if self.log.bounds(Stream::Readings).await?.first > from {
            return Err(cursor_too_old());
        }
        self.log.read_from(Stream::Readings, partition, from).await.map_err(too_old)
    }
}

fn too_old(error: Error) -> Error {
    if error.reason() == "TRIMMED_PAST" { cursor_too_old() } else { error }
}

fn cursor_too_old() -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        "CURSOR_TOO_OLD",
        "the log no longer holds what follows resume_cursor: start anew without it",
    )
    .with_field("resume_cursor")
}
