//! Reading, page by page.

use std::ops::ControlFlow;

use scylla::{
    deserialize::row::DeserializeRow, response::PagingState, serialize::row::SerializeRow,
    statement::prepared::PreparedStatement,
};
use weir_core::{
    Position, Result, Timestamp,
    port::{BucketId, BucketRow, LatestCell, Row, RowScan, ScanOrder, SeriesKey, Width},
};

use super::{period::Class, unreadable};
use crate::{
    ScyllaStore,
    client::{own, parse},
};

type FoundRow = (i64, Vec<u8>, Vec<u8>);
type FoundLatest = (String, Vec<u8>, i64);
type FoundBucket = (i64, i8, i64, i64, Option<Vec<u8>>);

impl ScyllaStore {
    pub(super) async fn read_rows(
        &self,
        series: &SeriesKey,
        bucket: BucketId,
        scan: &RowScan,
    ) -> Result<Vec<Row>> {
        let tables = &self.telemetry;
        let (tenant, uid) = names(series);
        let (start, width) = (bucket.start.as_micros(), bucket.width as i8);
        let (from, to) = (scan.from.as_micros(), scan.to.as_micros());
        let most = i32::try_from(scan.limit).unwrap_or(i32::MAX);
        let key = scan.after.map(|(ts, position)| (ts.as_micros(), position.to_bytes().to_vec()));
        let what = "read rows";
        // A key outside of [from, to) leaves the range whole, or nothing of it.
        let found: Vec<FoundRow> = match (scan.order, key) {
            (ScanOrder::Ascending, Some((ts, _))) if ts >= to => return Ok(vec![]),
            (ScanOrder::Descending, Some((ts, _))) if ts < from => return Ok(vec![]),
            (ScanOrder::Ascending, Some((ts, position))) if ts >= from => {
                let values = (tenant, uid, start, width, ts, position, to, most);
                self.every(what, &tables.rows_after, &values, scan.limit).await?
            }
            (ScanOrder::Descending, Some((ts, position))) if ts < to => {
                let values = (tenant, uid, start, width, from, ts, position, most);
                self.every(what, &tables.rows_down_before, &values, scan.limit).await?
            }
            (ScanOrder::Ascending, _) => {
                self.every(what, &tables.rows, &(tenant, uid, start, width, from, to, most), scan.limit)
                    .await?
            }
            (ScanOrder::Descending, _) => {
                let values = (tenant, uid, start, width, from, to, most);
                self.every(what, &tables.rows_down, &values, scan.limit).await?
            }
        };
        let row = |(ts, position, body): FoundRow| {
            let position = Position::from_bytes(&position).map_err(|_| unreadable("row", series))?;
            let ts = Timestamp::from_micros(ts);
            Ok(Row { series: series.clone(), bucket, ts, position, body: body.into() })
        };
        found.into_iter().map(row).collect()
    }

    pub(super) async fn read_latest(&self, series: &SeriesKey) -> Result<Vec<LatestCell>> {
        let what = "read newest values";
        let values = names(series);
        let found = self.every::<FoundLatest>(what, &self.telemetry.latest, &values, usize::MAX).await?;
        let cell = |(metric, value, ts): FoundLatest| {
            let (position, body) = value.split_at_checked(Position::LEN)?;
            Some(LatestCell {
                series: series.clone(),
                metric: metric.into(),
                ts: Timestamp::from_micros(ts),
                position: Position::from_bytes(position).ok()?,
                body: own(body),
            })
        };
        found.into_iter().map(|found| cell(found).ok_or_else(|| unreadable("newest value", series))).collect()
    }

    pub(super) async fn read_buckets(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        after: Option<BucketId>,
        limit: usize,
    ) -> Result<Vec<BucketRow>> {
        // A bucket that overlaps begins at most the widest width before. No bucket has that start and width -1.
        let least = (from.as_micros().saturating_sub(Width::Day.micros()), -1);
        let after = after.map_or(least, |after| (after.start.as_micros(), after.width as i8).max(least));
        let mut found = vec![];
        for class in Class::ALL {
            found.extend(self.of_class(class, series, after, to, limit).await?);
        }
        found.sort_unstable_by_key(|(start, width, ..)| (*start, *width));
        found.truncate(limit);
        let row = |(start, width, bytes, seal_generation, sealed): FoundBucket| {
            let sealed_through = match sealed {
                None => None,
                Some(position) => Some(Position::from_bytes(&position).ok()?),
            };
            let width = Width::from_u8(width.cast_unsigned())?;
            Some(BucketRow {
                series: series.clone(),
                bucket: BucketId { start: Timestamp::from_micros(start), width },
                bytes: bytes.cast_unsigned(),
                seal_generation: seal_generation.cast_unsigned(),
                sealed_through,
            })
        };
        found.into_iter().map(|found| row(found).ok_or_else(|| unreadable("bucket", series))).collect()
    }

    /// The first buckets of a class: period after period, of those that there are.
    async fn of_class(
        &self,
        class: Class,
        series: &SeriesKey,
        after: (i64, i8),
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<FoundBucket>> {
        let (tenant, uid) = names(series);
        let first = class.period(Timestamp::from_micros(after.0));
        let values = (tenant, &uid, class as i8, first, class.period(to));
        let what = "read buckets";
        let periods = self.every::<(i32,)>(what, &self.telemetry.periods, &values, usize::MAX).await?;
        let mut found = vec![];
        for (period,) in periods {
            let left = limit - found.len();
            let most = i32::try_from(left).unwrap_or(i32::MAX);
            let values = (tenant, &uid, class as i8, period, after.0, after.1, to.as_micros(), most);
            found.extend(self.every::<FoundBucket>(what, &self.telemetry.buckets, &values, left).await?);
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// Every row of an answer, page by page, up to `limit`.
    async fn every<R>(
        &self,
        what: &str,
        statement: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
        limit: usize,
    ) -> Result<Vec<R>>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let mut found = Vec::new();
        let mut from = PagingState::start();
        while found.len() < limit {
            let (page, next) = self.client.page(what, statement, values, &from).await?;
            found.extend(parse::<R>(what, page)?);
            match next.into_paging_control_flow() {
                ControlFlow::Continue(next) => from = next,
                ControlFlow::Break(()) => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}

fn names(series: &SeriesKey) -> (&str, Vec<u8>) {
    (series.tenant.as_str(), series.uid.to_bytes().to_vec())
}
