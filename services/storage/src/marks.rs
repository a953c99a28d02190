//! Waiting until what was published can be read.

use std::time::Duration;

use tokio::time::Instant;
use weir_core::{Error, ErrorKind, Position, Result, Stream};
pub(crate) use weir_runtime::marks::{Mark, Marks};

/// The longest wait for a position, whatever the caller's deadline: a writer that is further behind is an incident, and
/// the caller should know.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Positions in one request: one for each partition that a client's batch touched, by default.
const POSITIONS_MAX: usize = 16;

/// Waits until all of `positions` can be read, until `deadline` and 30 s at most.
///
/// # Errors
/// `InvalidArgument` for a position of another stream or partition; `FailedPrecondition` (`POSITION_LOST`) where the
/// log has lost one; `DeadlineExceeded` where the writer is not there in time; `Unavailable` of store or log.
pub(crate) async fn wait(marks: &Marks, positions: &[Position], deadline: Option<Instant>) -> Result<()> {
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
        wait_for(marks, position, until).await?;
    }
    Ok(())
}

async fn wait_for(marks: &Marks, position: &Position, until: Instant) -> Result<()> {
    let mark = marks.watch(position.partition).filter(|_| position.stream == Stream::Readings);
    let Some(mut mark) = mark else {
        return Err(Error::invalid(
            "min_positions",
            "POSITION_INVALID",
            format!("position {position} is not one of a reading"),
        ));
    };
    // Whoever numbered it may have known of a loss before this replica does.
    marks.know(position.generation).await?;
    let lost = || !marks.holds(position.generation, position.sequence);
    let wanted = Mark { generation: position.generation, sequence: position.sequence };
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
