//! Reads the log for whoever watches here, where the owner of a partition does not hand its messages over: it is another
//! replica, or has just become this one. Nothing is read while nobody watches.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use weir_core::{
    Partition, Result, Stream,
    port::{Log, LogReader, Record},
};

use super::FanOut;
use crate::{
    marks::{Mark, Marks},
    writer::decode,
};

/// Bytes of frames held at once, of each partition.
const READ_BYTES: usize = 256 << 10;
/// Everything up to the mark is in the log; where this replica's connection is behind, it looks again.
const READ_WAIT: Duration = Duration::from_millis(100);
/// How long it rests after the log failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows one partition.
pub(crate) struct Follower {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) fan_out: Arc<FanOut>,
    pub(crate) partition: Partition,
}

/// A reader, and where it stands.
struct Reading {
    reader: Box<dyn LogReader>,
    /// Everything up to this mark was taken out of it and handed over.
    at: Mark,
    /// Read, but not yet known to be written.
    ahead: VecDeque<Record>,
}

impl Follower {
    /// Hands over what is written and was not handed over, for as long as it is polled.
    pub(crate) async fn follow(self) {
        let Some(mut written) = self.marks.watch(self.partition) else { return };
        let mut watched = self.fan_out.watched();
        let mut reading = None;
        loop {
            let target = *written.borrow_and_update();
            if !*watched.borrow_and_update() {
                reading = None;
                if watched.changed().await.is_err() {
                    return;
                }
            } else if self.fan_out.told(self.partition) >= target {
                let _ = written.changed().await; // the sender is in `marks`
            } else if let Err(error) = self.step(&mut reading, target).await {
                reading = None;
                let partition = self.partition;
                if error.reason() == "TRIMMED_PAST" {
                    tracing::warn!(%partition, %error, "live tails are behind what the log holds and end");
                    self.fan_out.let_go();
                } else {
                    tracing::warn!(%partition, %error, "live tails wait for the log");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Hands one read over, of what is at or below `target`.
    async fn step(&self, reading: &mut Option<Reading>, target: Mark) -> Result<()> {
        let told = self.fan_out.told(self.partition);
        let mut here = match reading.take().filter(|reading| reading.at == told) {
            Some(here) => here,
            None => {
                let from = self.marks.next_after(told);
                let reader = self.log.read_from(Stream::Readings, self.partition, from).await?;
                Reading { reader, at: told, ahead: VecDeque::new() }
            }
        };
        let mut end = None;
        if here.ahead.is_empty() {
            let batch = here.reader.next(READ_BYTES, READ_WAIT).await?;
            end = batch.records.is_empty().then_some(batch.end);
            here.ahead.extend(batch.records);
        }
        let is_written = |record: &Record| self.mark_of(record) <= target;
        let (mut heard, mut to) = (Vec::new(), told);
        while here.ahead.front().is_some_and(is_written)
            && let Some(record) = here.ahead.pop_front()
        {
            to = self.mark_of(&record);
            // What cannot be decoded the writer has kept aside and reported.
            heard.extend(decode(&record, self.partition, to.generation).unwrap_or_default());
        }
        if !here.ahead.is_empty() || end.is_some_and(|end| end >= target.sequence) {
            to = target;
        }
        self.fan_out.hand_over(self.partition, told, to, &heard);
        here.at = to;
        *reading = Some(here);
        Ok(())
    }

    fn mark_of(&self, record: &Record) -> Mark {
        Mark { generation: self.marks.generation_of(record.sequence), sequence: record.sequence }
    }
}
