//! What the store has accepted: a `written` mark for each partition, and who waits for it.

use std::time::Duration;

use parking_lot::RwLock;
use tokio::{sync::watch, time::Instant};
use weir_core::{Error, ErrorKind, Partition, Position, Result, Stream, progress::Generations};

/// The longest wait for a position, whatever the caller's deadline: a writer that is further behind is an incident, and
/// the caller should know.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Positions in one request: one for each partition that a client's batch touched, by default.
const POSITIONS_MAX: usize = 16;

/// Every frame of a partition up to this one can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Mark {
    pub(crate) generation: u32,
    pub(crate) sequence: u64,
}

/// The marks of every partition, and the generations that they are numbered with.
pub(crate) struct Marks {
    generations: RwLock<Generations>,
    marks: Vec<watch::Sender<Mark>>,
}

impl Marks {
    pub(crate) fn new(generations: Generations, marks: impl IntoIterator<Item = Mark>) -> Self {
        let marks = marks.into_iter().map(watch::Sender::new).collect();
        Self { generations: RwLock::new(generations), marks }
    }

    /// The generation of a frame of the current log.
    pub(crate) fn generation_of(&self, sequence: u64) -> u32 {
        self.generations.read().of(sequence)
    }

    /// Whether a position can still be reached.
    pub(crate) fn holds(&self, generation: u32, sequence: u64) -> bool {
        self.generations.read().holds(generation, sequence)
    }

    /// Takes over a list that knows more: every partition numbers with the same one.
    pub(crate) fn adopt(&self, generations: Generations) {
        let mut known = self.generations.write();
        if generations.newest() > known.newest() {
            *known = generations;
        }
    }

    /// Tells that a partition is written up to `mark`; a mark never falls.
    pub(crate) fn advance(&self, partition: Partition, mark: Mark) {
        if let Some(sender) = self.marks.get(usize::from(partition.0)) {
            sender.send_if_modified(|known| {
                let higher = mark > *known;
                *known = mark.max(*known);
                higher
            });
        }
    }

    /// The marks of all partitions.
    pub(crate) fn all(&self) -> Vec<Mark> {
        self.marks.iter().map(|sender| *sender.borrow()).collect()
    }

    /// How many partitions there are.
    pub(crate) fn partitions(&self) -> u16 {
        u16::try_from(self.marks.len()).unwrap_or(u16::MAX)
    }

    /// Waits until all of `positions` can be read, until `deadline` and 30 s at most.
    ///
    /// # Errors
    /// `InvalidArgument` for a position of another stream or partition; `FailedPrecondition` (`POSITION_LOST`) where the
    /// log has lost one; `DeadlineExceeded` where the writer is not there in time.
    pub(crate) async fn wait(&self, positions: &[Position], deadline: Option<Instant>) -> Result<()> {
        if positions.len() > POSITIONS_MAX {
            return Err(Error::invalid(
                "min_positions",
                "TOO_MANY_POSITIONS",
                format!("min_positions has {} entries, the limit is {POSITIONS_MAX}", positions.len()),
            )
            .with_limit(POSITIONS_MAX));
        }
        let latest = Instant::now() + WAIT_MAX;
        let until = deadline.map_or(latest, |deadline| deadline.min(latest));
        for position in positions {
            self.wait_for(position, until).await?;
        }
        Ok(())
    }

    async fn wait_for(&self, position: &Position, until: Instant) -> Result<()> {
        let sender = self.marks.get(usize::from(position.partition.0));
        let Some(sender) = sender.filter(|_| position.stream == Stream::Readings) else {
            return Err(Error::invalid(
                "min_positions",
                "POSITION_INVALID",
                format!("position {position} is not one of a reading"),
            ));
        };
        let lost = || !self.holds(position.generation, position.sequence);
        let wanted = Mark { generation: position.generation, sequence: position.sequence };
        let mut mark = sender.subscribe();
        // A generation can be raised while somebody waits, and a raise always moves the mark.
        let reached = mark.wait_for(|mark| *mark >= wanted || lost());
        match tokio::time::timeout_at(until, reached).await {
            Ok(_) if lost() => Err(Error::new(
                ErrorKind::FailedPrecondition,
                "POSITION_LOST",
                format!("the log has lost position {position}: publish that reading again"),
            )
            .with_field("min_positions")),
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(
                ErrorKind::DeadlineExceeded,
                "POSITION_NOT_WRITTEN",
                format!("position {position} was not written within the deadline, or {WAIT_MAX:?} at most"),
            )
            .with_field("min_positions")
            .with_limit(format!("{}s", WAIT_MAX.as_secs()))),
        }
    }
}
