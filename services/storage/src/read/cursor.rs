//! Rows of one bucket, a page at a time.

use weir_core::{
    Position, Result, Timestamp,
    port::{BucketId, Row, RowScan},
};

use super::{Range, Reader};

/// Rows of the first page, when nothing is known of their size yet.
const PAGE_FIRST: usize = 64;
/// Rows of a page at most: beyond it a read is no cheaper a row.
const PAGE_MAX: usize = 4_096;
/// Bytes that a page aims at: five cursors of a series hold little more than 1 MiB.
const PAGE_BYTES: usize = 256 << 10;
/// What a row weighs beside its body: its key.
const ROW_OVERHEAD: usize = 64;

/// The rows of one bucket that are still to come.
pub(super) struct Cursor {
    bucket: BucketId,
    page: std::iter::Peekable<std::vec::IntoIter<Row>>,
    limit: usize,
    after: Option<(Timestamp, Position)>,
    complete: bool,
}

impl Cursor {
    /// A cursor that stands before its first row.
    pub(super) async fn open(reader: &Reader, range: &Range, bucket: BucketId) -> Result<Self> {
        let mut cursor = Self {
            bucket,
            page: vec![].into_iter().peekable(),
            limit: PAGE_FIRST,
            after: None,
            complete: false,
        };
        cursor.fill(reader, range).await?;
        Ok(cursor)
    }

    /// The next row's place; none where the bucket is read to its end.
    pub(super) fn head(&mut self) -> Option<(Timestamp, Position)> {
        self.page.peek().map(|row| (row.ts, row.position))
    }

    /// Takes the next row, and reads the next page where this was the last of one.
    pub(super) async fn take(&mut self, reader: &Reader, range: &Range) -> Result<Option<Row>> {
        let row = self.page.next();
        if self.page.peek().is_none() && !self.complete {
            self.fill(reader, range).await?;
        }
        Ok(row)
    }

    async fn fill(&mut self, reader: &Reader, range: &Range) -> Result<()> {
        let scan = RowScan {
            from: range.from,
            to: range.to,
            after: self.after,
            order: range.order,
            limit: self.limit,
        };
        let page = reader.store.rows(&range.series, self.bucket, scan).await?;
        let bytes = page.iter().map(|row| row.body.len() + ROW_OVERHEAD).sum::<usize>();
        reader.read.add(page.len(), bytes);
        self.complete = page.len() < self.limit;
        self.after = page.last().map(|row| (row.ts, row.position)).or(self.after);
        let average = bytes.checked_div(page.len()).unwrap_or(PAGE_BYTES).max(1);
        self.limit = (PAGE_BYTES / average).clamp(1, PAGE_MAX);
        self.page = page.into_iter().peekable();
        Ok(())
    }
}
