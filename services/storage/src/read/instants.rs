//! One value for each (metric, ts): the one accepted last.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use weir_core::{Position, Result, Timestamp, Value, port::Row};
use weir_frame::row::RowView;

use super::{Range, Reader, Rows};

/// Names kept to be shared between values; a series with more of them allocates some anew.
const NAMES_MAX: usize = 4_096;

/// The value that counts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Winner {
    pub(crate) value: Value,
    pub(crate) received_at: Timestamp,
    pub(crate) position: Position,
}

/// Everything of a series at one ts, by metric.
pub(crate) type Instant = (Timestamp, BTreeMap<Arc<str>, Winner>);

/// Instants in the order of their range; ones without a wanted metric are left out. Holds one instant, however many rows
/// a device has sent for it.
pub(crate) struct Instants {
    rows: Rows,
    wanted: Option<Arc<HashSet<Arc<str>>>>,
    names: HashSet<Arc<str>>,
    ahead: Option<Row>,
}

impl Instants {
    /// `wanted`: only these metrics; all if none.
    pub(crate) fn new(reader: Reader, range: Range, wanted: Option<Arc<HashSet<Arc<str>>>>) -> Self {
        Self { rows: Rows::new(reader, range), wanted, names: HashSet::new(), ahead: None }
    }

    /// The next instant; none at the end of the range.
    pub(crate) async fn next(&mut self) -> Result<Option<Instant>> {
        loop {
            let first = match self.ahead.take() {
                Some(row) => row,
                None => match self.rows.next().await? {
                    Some(row) => row,
                    None => return Ok(None),
                },
            };
            let ts = first.ts;
            let mut winners = BTreeMap::new();
            self.take_in(&mut winners, &first)?;
            while let Some(row) = self.rows.next().await? {
                if row.ts != ts {
                    self.ahead = Some(row);
                    break;
                }
                self.take_in(&mut winners, &row)?;
            }
            if !winners.is_empty() {
                return Ok(Some((ts, winners)));
            }
        }
    }

    fn take_in(&mut self, winners: &mut BTreeMap<Arc<str>, Winner>, row: &Row) -> Result<()> {
        let view = RowView::parse(&row.body)?;
        for field in view.fields() {
            let field = field?;
            if self.wanted.as_ref().is_some_and(|wanted| !wanted.contains(field.metric)) {
                continue;
            }
            if winners.get(field.metric).is_some_and(|known| known.position >= row.position) {
                continue;
            }
            let winner = Winner {
                value: field.value.to_value(),
                received_at: view.received_at,
                position: row.position,
            };
            winners.insert(self.name(field.metric), winner);
        }
        Ok(())
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(name);
        if self.names.len() < NAMES_MAX {
            self.names.insert(Arc::clone(&name));
        }
        name
    }
}
