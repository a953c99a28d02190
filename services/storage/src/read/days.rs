//! Walks the `buckets` table of a series day by day, in either direction.

use std::collections::VecDeque;

use weir_core::{
    Error, Result, Timestamp,
    port::{BucketId, BucketRow, ScanOrder, Width},
};

use super::{Range, Reader};

/// Buckets in one read of the table: three years of quiet days, or one busy quarter of an hour.
const PAGE: usize = 1_000;
/// Buckets read to learn whether there is one at all: an engine may give a few that end before the range.
const PROBE: usize = 16;
const DAY: i64 = Width::Day.micros();

/// The buckets of a range, one day at a time; days without a bucket are stepped over.
pub(super) struct Days {
    reader: Reader,
    range: Range,
    state: State,
}

enum State {
    Ascending {
        ahead: VecDeque<BucketRow>,
        after: Option<BucketId>,
        complete: bool,
    },
    /// Days from `low` on and before `high`, both at midnight; not known before the first step.
    Descending(Option<(i64, i64)>),
}

impl Days {
    pub(super) fn new(reader: Reader, range: Range) -> Self {
        let state = match range.order {
            ScanOrder::Ascending => State::Ascending { ahead: VecDeque::new(), after: None, complete: false },
            ScanOrder::Descending => State::Descending(None),
        };
        Self { reader, range, state }
    }

    /// The buckets of the next day in the order in which a merge opens them: ascending by start, descending by end. At most
    /// 95,353 of them: a day in which every second has its own.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<BucketId>>> {
        let found = match self.range.order {
            ScanOrder::Ascending => self.next_ascending().await?,
            ScanOrder::Descending => self.next_descending().await?,
        };
        found.map(|rows| rows.into_iter().map(readable).collect()).transpose()
    }

    async fn next_ascending(&mut self) -> Result<Option<Vec<BucketRow>>> {
        let State::Ascending { ahead, after, complete } = &mut self.state else { return Ok(None) };
        let mut day: Vec<BucketRow> = Vec::new();
        loop {
            while let Some(next) = ahead.front() {
                if day.first().is_some_and(|first| day_of(first.bucket.start) != day_of(next.bucket.start)) {
                    return Ok(Some(day));
                }
                day.extend(ahead.pop_front());
            }
            if *complete {
                return Ok((!day.is_empty()).then_some(day));
            }
            let Range { series, from, to, .. } = &self.range;
            let page = self.reader.store.buckets(series, *from, *to, *after, PAGE).await?;
            *complete = page.len() < PAGE;
            *after = page.last().map(|row| row.bucket).or(*after);
            ahead.extend(page.into_iter().filter(|row| row.bucket.end() > *from));
        }
    }

    async fn next_descending(&mut self) -> Result<Option<Vec<BucketRow>>> {
        let (low, high) = match self.state {
            State::Descending(Some(bounds)) => bounds,
            _ => match self.bounds().await? {
                Some(bounds) => bounds,
                None => return Ok(None),
            },
        };
        let Some(day) = self.last_day(low, high).await? else {
            self.state = State::Descending(Some((low, low)));
            return Ok(None);
        };
        self.state = State::Descending(Some((low, day)));
        let mut rows = self.all_in(day).await?;
        rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.bucket.end(), row.bucket.width)));
        Ok(Some(rows))
    }

    /// Midnight before the first bucket, and midnight after the newest value: nothing is outside.
    async fn bounds(&self) -> Result<Option<(i64, i64)>> {
        let Some(first) = self.first_in(self.range.from, self.range.to).await? else { return Ok(None) };
        let cells = self.reader.store.latest(&self.range.series).await?;
        let newest = cells.iter().map(|cell| cell.ts.as_micros().saturating_add(1)).max();
        let high = newest.map_or(self.range.to.as_micros(), |newest| newest.min(self.range.to.as_micros()));
        Ok(Some((
            day_of(first.start),
            day_of(Timestamp::from_micros(high.saturating_sub(1))).saturating_add(DAY),
        )))
    }

    /// The last day in [low, high) that has a bucket: probes back in windows that double, then halves the one that has it,
    /// so that a gap of years costs some twenty reads.
    async fn last_day(&self, low: i64, high: i64) -> Result<Option<i64>> {
        let (mut end, mut days) = (high, 1_i64);
        let mut start = loop {
            if end <= low {
                return Ok(None);
            }
            let start = end.saturating_sub(days.saturating_mul(DAY)).max(low);
            if self.any_in(start, end).await? {
                break start;
            }
            (end, days) = (start, days.saturating_mul(2));
        };
        while end.saturating_sub(start) > DAY {
            let middle = start + end.saturating_sub(start) / DAY / 2 * DAY;
            if self.any_in(middle, end).await? {
                start = middle;
            } else {
                end = middle;
            }
        }
        Ok(Some(start))
    }

    async fn any_in(&self, from: i64, to: i64) -> Result<bool> {
        let from = Timestamp::from_micros(from).max(self.range.from);
        let to = Timestamp::from_micros(to).min(self.range.to);
        Ok(from < to && self.first_in(from, to).await?.is_some())
    }

    async fn first_in(&self, from: Timestamp, to: Timestamp) -> Result<Option<BucketId>> {
        let mut after = None;
        loop {
            let page = self.reader.store.buckets(&self.range.series, from, to, after, PROBE).await?;
            if let Some(row) = page.iter().find(|row| row.bucket.end() > from) {
                return Ok(Some(row.bucket));
            }
            if page.len() < PROBE {
                return Ok(None);
            }
            after = page.last().map(|row| row.bucket);
        }
    }

    async fn all_in(&self, day: i64) -> Result<Vec<BucketRow>> {
        let from = Timestamp::from_micros(day).max(self.range.from);
        let to = Timestamp::from_micros(day.saturating_add(DAY)).min(self.range.to);
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = self.reader.store.buckets(&self.range.series, from, to, after, PAGE).await?;
            let complete = page.len() < PAGE;
            after = page.last().map(|row| row.bucket);
            rows.extend(page.into_iter().filter(|row| row.bucket.end() > from));
            if complete {
                return Ok(rows);
            }
        }
    }
}

fn day_of(ts: Timestamp) -> i64 {
    BucketId::containing(ts, Width::Day).start.as_micros()
}

/// This release reads hot rows alone: a bucket that a newer one has sealed is refused, not read in part.
fn readable(row: BucketRow) -> Result<BucketId> {
    match (row.seal_generation, row.sealed_through) {
        (0, None) => Ok(row.bucket),
        _ => Err(Error::not_built(
            "buckets",
            format!("reading the sealed bucket that begins at {}", row.bucket.start),
        )),
    }
}
