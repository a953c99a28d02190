//! Rows of a series over all its buckets, ordered by (ts, position).

use std::collections::VecDeque;

use weir_core::{
    Position, Result, Timestamp,
    port::{BucketId, Row, ScanOrder},
};

use super::{Range, Reader, cursor::Cursor, days::Days};

/// A merge of the cursors of overlapping buckets; each opens only when its span is reached.
pub(crate) struct Rows {
    reader: Reader,
    range: Range,
    days: Days,
    /// Buckets of the current day that are not open yet.
    pending: VecDeque<BucketId>,
    /// Cursors that have a next row.
    open: Vec<Cursor>,
}

impl Rows {
    pub(crate) fn new(reader: Reader, range: Range) -> Self {
        let days = Days::new(reader.clone(), range.clone());
        Self { reader, range, days, pending: VecDeque::new(), open: Vec::new() }
    }

    /// The next row; none at the end of the range.
    pub(crate) async fn next(&mut self) -> Result<Option<Row>> {
        if self.range.from >= self.range.to {
            return Ok(None);
        }
        loop {
            let head = self.head();
            if let Some(bucket) = self.pending.front().copied()
                && head.is_none_or(|(_, (ts, _))| self.may_precede(bucket, ts))
            {
                self.pending.pop_front();
                let mut cursor = Cursor::open(&self.reader, &self.range, bucket).await?;
                if cursor.head().is_some() {
                    self.open.push(cursor);
                }
                continue;
            }
            if let Some((index, _)) = head
                && let Some(cursor) = self.open.get_mut(index)
            {
                let row = cursor.take(&self.reader, &self.range).await?;
                if cursor.head().is_none() {
                    self.open.swap_remove(index);
                }
                return Ok(row);
            }
            match self.days.next().await? {
                Some(buckets) => self.pending.extend(buckets),
                None => return Ok(None),
            }
        }
    }

    /// The cursor whose row is next, and that row's place.
    fn head(&mut self) -> Option<(usize, (Timestamp, Position))> {
        let heads =
            self.open.iter_mut().enumerate().filter_map(|(index, cursor)| Some((index, cursor.head()?)));
        match self.range.order {
            ScanOrder::Ascending => heads.min_by_key(|(_, place)| *place),
            ScanOrder::Descending => heads.max_by_key(|(_, place)| *place),
        }
    }

    /// Whether a bucket may hold a row that comes before one at `ts`, or beside it.
    fn may_precede(&self, bucket: BucketId, ts: Timestamp) -> bool {
        match self.range.order {
            ScanOrder::Ascending => bucket.start <= ts,
            ScanOrder::Descending => bucket.end() > ts,
        }
    }
}
