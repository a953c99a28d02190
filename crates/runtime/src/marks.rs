//! How far a store has each partition of a stream, known on every replica of the service that writes it.
//!
//! An owner moves the mark of its partition here and tells the others by [`Signal::Written`]: when it moves, 20 times a
//! second at most, and once a second in any case, so that whoever missed a signal knows a second later. A mark says what
//! is in the store, whoever put it there: it never falls, and it is true though its owner has lost its claim since.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::StreamExt as _;
use parking_lot::RwLock;
use tokio::sync::watch;
use weir_core::{
    Partition, Result, Stream,
    port::{Log, Records, Signal, SignalStream, Signals},
    progress::{Generations, Progress, all_progress},
};

/// Marks of one partition that are told a second at most, one in so many milliseconds.
const TELL_EVERY: Duration = Duration::from_millis(50);
/// A mark is told again this often though it stands: a signal may be lost, and a replica may have started since.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Every frame of a partition up to this one is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mark {
    /// The generation of `sequence`.
    pub generation: u32,
    /// The frame, or the end of the stream as an idle owner saw it.
    pub sequence: u64,
}

/// The marks of every partition, and the generations that they are numbered with.
pub struct Marks {
    log: Arc<dyn Log>,
    records: Arc<dyn Records>,
    stream: Stream,
    reader: &'static str,
    generations: RwLock<Generations>,
    marks: Vec<watch::Sender<Mark>>,
    /// Changes with any of them.
    moved: watch::Sender<()>,
}

impl Marks {
    /// Marks of what `reader` writes, at first as its recorded progress has them.
    ///
    /// # Errors
    /// `FailedPrecondition` (`PARTITIONS_CHANGED`) for another partition count than the recorded one; `Unavailable` of
    /// store or log.
    pub async fn open(
        log: Arc<dyn Log>,
        records: Arc<dyn Records>,
        stream: Stream,
        reader: &'static str,
        partitions: u16,
    ) -> Result<Self> {
        let generations = Generations::open(&*records, &*log, stream, partitions).await?;
        let recorded = all_progress(&*records, stream, &[reader], partitions).await?;
        let marks = recorded.into_iter().map(|known| {
            let (generation, sequence) = (known.progress.generation, known.progress.sequence);
            watch::Sender::new(Mark { generation, sequence })
        });
        Ok(Self {
            marks: marks.collect(),
            moved: watch::Sender::new(()),
            generations: RwLock::new(generations),
            log,
            records,
            stream,
            reader,
        })
    }

    /// The generation of a frame of the current log.
    pub fn generation_of(&self, sequence: u64) -> u32 {
        self.generations.read().of(sequence)
    }

    /// The generation of `to`, for an owner that comes to it from `progress`.
    ///
    /// # Errors
    /// `Aborted`, as of [`Generations::step`]: the owner begins anew.
    pub fn step(&self, progress: &Progress, to: u64) -> Result<u32> {
        self.generations.read().step(progress, to)
    }

    /// Whether a position can still be reached. One of a generation that is not known yet needs [`Marks::know`] first.
    pub fn holds(&self, generation: u32, sequence: u64) -> bool {
        self.generations.read().holds(generation, sequence)
    }

    /// The sequence at which to go on after everything up to a mark.
    pub fn next_after(&self, mark: Mark) -> u64 {
        self.generations.read().next_after(mark.generation, mark.sequence)
    }

    /// Takes over a list that knows more: every partition numbers with the same one.
    pub fn adopt(&self, generations: Generations) {
        let mut known = self.generations.write();
        if generations.newest() > known.newest() {
            *known = generations;
        }
    }

    /// Reads the generations anew where `generation` is newer than all that are known: another replica has raised it.
    ///
    /// # Errors
    /// `Unavailable` of store or log.
    pub async fn know(&self, generation: u32) -> Result<()> {
        if generation > self.generations.read().newest() {
            let partitions = self.partitions();
            self.adopt(Generations::open(&*self.records, &*self.log, self.stream, partitions).await?);
        }
        Ok(())
    }

    /// Tells that a partition is written up to `mark`; a mark never falls.
    pub fn advance(&self, partition: Partition, mark: Mark) {
        if let Some(sender) = self.marks.get(usize::from(partition.0)) {
            let higher = sender.send_if_modified(|known| {
                let higher = mark > *known;
                *known = mark.max(*known);
                higher
            });
            if higher {
                self.moved.send_replace(());
            }
        }
    }

    /// The marks of all partitions.
    pub fn all(&self) -> Vec<Mark> {
        self.marks.iter().map(|sender| *sender.borrow()).collect()
    }

    /// The mark of a partition, as it moves; none where there is no such partition.
    pub fn watch(&self, partition: Partition) -> Option<watch::Receiver<Mark>> {
        self.marks.get(usize::from(partition.0)).map(watch::Sender::subscribe)
    }

    /// Changes whenever a mark moves.
    pub fn moved(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u16 {
        u16::try_from(self.marks.len()).unwrap_or(u16::MAX)
    }

    /// Takes over what other replicas tell, until the signals end. What a gap has swallowed comes with the next
    /// heartbeat.
    pub async fn listen(&self, mut signals: SignalStream) {
        while let Some(signal) = signals.next().await {
            let Some(Signal::Written { reader, stream, partition, generation, sequence }) = signal else {
                continue;
            };
            if reader != self.reader || stream != self.stream {
                continue;
            }
            // A mark must not be seen before its generation is: whoever sees it numbers with what is known here.
            match self.know(generation).await {
                Ok(()) => self.advance(partition, Mark { generation, sequence }),
                Err(error) => {
                    tracing::warn!(reader, %partition, generation, %error, "cannot read a new generation; the next signal tries again");
                }
            }
        }
    }

    /// Tells the other replicas how far a partition is, for as long as it is polled.
    pub async fn announce(&self, signals: &dyn Signals, partition: Partition) -> Infallible {
        let Some(mut mark) = self.watch(partition) else { return std::future::pending().await };
        loop {
            let Mark { generation, sequence } = *mark.borrow_and_update();
            let reader = self.reader.to_owned();
            let stream = self.stream;
            signals.publish(Signal::Written { reader, stream, partition, generation, sequence }).await;
            tokio::time::sleep(TELL_EVERY).await;
            let _ = tokio::time::timeout(HEARTBEAT, mark.changed()).await; // either way: tell it
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use weir_log_embedded::{EmbeddedLog, LocalSignals};
    use weir_store_embedded::EmbeddedStore;

    use super::*;

    fn log_in(dir: &std::path::Path) -> Arc<dyn Log> {
        Arc::new(EmbeddedLog::open(dir, Default::default()).unwrap())
    }

    fn written(reader: &str, stream: Stream, generation: u32, sequence: u64) -> Option<Signal> {
        let partition = Partition(1);
        Some(Signal::Written { reader: reader.to_owned(), stream, partition, generation, sequence })
    }

    #[tokio::test]
    async fn marks_of_other_replicas_are_taken_over_with_the_generations_that_they_are_of() {
        let dir = tempfile::tempdir().unwrap();
        let records: Arc<dyn Records> =
            EmbeddedStore::open(dir.path().join("s"), Default::default()).unwrap();
        let log = log_in(&dir.path().join("one"));
        let open = async || {
            Marks::open(Arc::clone(&log), Arc::clone(&records), Stream::Readings, "storage", 2).await.unwrap()
        };
        let (here, other) = (open().await, open().await);
        // Another replica finds a log that was made anew.
        let anew = log_in(&dir.path().join("another"));
        Generations::open(&*records, &*anew, Stream::Readings, 2).await.unwrap();
        assert!(!here.holds(2, 5));
        let heard = vec![
            written("storage", Stream::Readings, 1, 7),
            None,
            written("analytics", Stream::Readings, 1, 8),
            written("storage", Stream::Commands, 1, 9),
            written("storage", Stream::Readings, 2, 5),
            written("storage", Stream::Readings, 1, 10),
        ];
        let mut moved = here.moved();
        here.listen(stream::iter(heard).boxed()).await;
        assert_eq!(here.all(), [Mark::default(), Mark { generation: 2, sequence: 5 }]);
        assert!(here.holds(2, 5) && moved.has_changed().unwrap());

        // And one tells the other.
        let signals = LocalSignals::new();
        let heard = signals.subscribe(weir_core::port::Topic::Progress).await;
        let mut mark = other.watch(Partition(1)).unwrap();
        tokio::select! {
            never = here.announce(&signals, Partition(1)) => match never {},
            () = other.listen(heard) => panic!("signals do not end"),
            reached = mark.wait_for(|mark| mark.sequence == 5) => assert_eq!(reached.unwrap().generation, 2),
        }
        moved.mark_unchanged();
        here.advance(Partition(1), Mark { generation: 1, sequence: 99 });
        assert!(!moved.has_changed().unwrap(), "a mark never falls");
    }
}
