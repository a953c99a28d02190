//! A device's clock, derived from what the store holds of it.
//!
//! The clock before a position is the highest ts over rows of lower positions, and the metrics that have a value at it. A
//! metric's newest value is the greatest (ts, position) over everything written. So where no newest value of the device
//! stands at or above that position, the greatest ts among them is the clock, and the metrics that have it are those seen
//! at it: exactly, because a metric has a value at the clock if and only if its newest value is there.
//!
//! Where some newest value does stand above (a crash came after the write and before the progress; or a former owner is
//! still writing), rows decide, which are immutable: the first ts from above that has a row below the position. Only rows
//! written since the last recorded progress are stepped over.

use std::sync::Arc;

use weir_core::{
    Position, Result, Timestamp,
    event_clock::EventClock,
    port::{LatestCell, ScanOrder, SeriesKey},
};
use weir_frame::row::RowView;

use crate::read::{Range, Reader, Rows};

/// The clock of a device over every reading below `before`.
///
/// # Errors
/// Those of the store.
pub(super) async fn derive(reader: &Reader, series: &SeriesKey, before: Position) -> Result<EventClock> {
    let cells = reader.store.latest(series).await?;
    if cells.iter().all(|cell| cell.position < before) {
        return Ok(from_cells(&cells));
    }
    from_rows(reader, series, before).await
}

fn from_cells(cells: &[LatestCell]) -> EventClock {
    let Some(now) = cells.iter().map(|cell| cell.ts).max() else { return EventClock::default() };
    at(now, cells.iter().filter(|cell| cell.ts == now).map(|cell| Arc::clone(&cell.metric)))
}

async fn from_rows(reader: &Reader, series: &SeriesKey, before: Position) -> Result<EventClock> {
    let range = Range {
        series: series.clone(),
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        order: ScanOrder::Descending,
    };
    let mut rows = Rows::new(reader.clone(), range);
    let (mut now, mut seen) = (None, Vec::new());
    while let Some(row) = rows.next().await? {
        if now.is_some_and(|now| row.ts < now) {
            break;
        }
        if row.position < before {
            now = Some(row.ts);
            for field in RowView::parse(&row.body)?.fields() {
                let metric: Arc<str> = Arc::from(field?.metric);
                if !seen.contains(&metric) {
                    seen.push(metric);
                }
            }
        }
    }
    Ok(now.map_or_else(EventClock::default, |now| at(now, seen)))
}

fn at(now: Timestamp, seen: impl IntoIterator<Item = Arc<str>>) -> EventClock {
    let seen: Vec<Arc<str>> = seen.into_iter().collect();
    let mut clock = EventClock::default();
    clock.observe(now, &seen, |_, _| {});
    clock
}
