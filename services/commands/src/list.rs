//! Lists of commands, newest first.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use weir_core::{
    Error, Position, Result, TenantId,
    command::{Command, DeviceKey, State},
    port::KeyRange,
};

use crate::{
    Service,
    store::{Entry, OPEN, TENANTS, day_of, day_place, position_key},
};

/// Commands that one page reads at most, whatever its filter leaves out.
const READS_MAX: usize = 2_000;
/// Reads under way at once.
const WIDTH: usize = 32;
/// A command is listed for its time to live (30 d at most) and the retention; this many more days for clocks that differ.
const DAYS_SLACK: i64 = 1;
const TTL_MAX_DAYS: i64 = 30;
/// The longest time to live, with the same slack.
pub(crate) const TTL_MAX: Duration = Duration::from_secs((TTL_MAX_DAYS + DAYS_SLACK) as u64 * 86_400);

/// Which commands.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub(crate) tenant: TenantId,
    pub(crate) device: Option<DeviceKey>,
    pub(crate) state: Option<State>,
}

/// Where a page ends: the day and position of the last command that it looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) day: i64,
    pub(crate) position: Position,
}

impl Cursor {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        self.day.to_be_bytes().into_iter().chain(self.position.to_bytes()).collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let invalid =
            || Error::invalid("page_token", "PAGE_TOKEN_INVALID", "page_token is not one that a page gave");
        let (day, position) = bytes.split_first_chunk::<8>().ok_or_else(invalid)?;
        let position = Position::from_bytes(position).map_err(|_| invalid())?;
        Ok(Self { day: i64::from_be_bytes(*day), position })
    }
}

/// A page of commands; `next` continues after it, also where the page is not full.
pub(crate) struct CommandPage {
    pub(crate) commands: Vec<Command>,
    pub(crate) next: Option<Cursor>,
}

impl Service {
    /// At most `limit` commands, newest first, before `before`.
    pub(crate) async fn list(
        &self,
        filter: &Filter,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<CommandPage> {
        let (mut commands, mut before, mut read) = (Vec::new(), before, 0);
        while read < READS_MAX {
            let entries = self.entries(filter, before, limit).await?;
            let Some(last) = entries.last() else { return Ok(CommandPage { commands, next: None }) };
            before = Some(Cursor { day: day_of(last.created_at), position: last.position });
            read += entries.len();
            for (entry, command) in self.load(entries).await? {
                if !filter.state.is_none_or(|state| command.state == state) {
                    continue;
                }
                commands.push(command);
                if commands.len() == limit {
                    let next = Cursor { day: day_of(entry.created_at), position: entry.position };
                    return Ok(CommandPage { commands, next: Some(next) });
                }
            }
        }
        Ok(CommandPage { commands, next: before })
    }

    async fn entries(&self, filter: &Filter, before: Option<Cursor>, limit: usize) -> Result<Vec<Entry>> {
        let position = before.map(|cursor| cursor.position);
        match (&filter.device, filter.state) {
            (Some(device), _) => self.store.listed(device, position, limit).await,
            (None, Some(state)) if !state.is_final() => {
                self.open_entries(&filter.tenant, position, limit).await
            }
            (None, _) => self.daily_entries(&filter.tenant, before, None, limit).await,
        }
    }

    async fn open_entries(
        &self,
        tenant: &TenantId,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let mut range = KeyRange::all().reversed();
        if let Some(before) = before {
            range = range.before(&position_key(before));
        }
        let found = self.store.scan(OPEN, tenant.as_str().as_bytes(), range, limit).await?;
        Ok(found.into_iter().map(|(_, entry)| entry).collect())
    }

    /// From the newest day that has any, day by day, down to the day `since`, if any.
    pub(crate) async fn daily_entries(
        &self,
        tenant: &TenantId,
        before: Option<Cursor>,
        since: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let today = day_of(self.clock.now());
        let retention = i64::try_from(self.config.retention.as_secs() / 86_400).unwrap_or(i64::MAX);
        let newest = before.map_or(today + DAYS_SLACK, |cursor| cursor.day);
        let oldest = today.saturating_sub(retention).saturating_sub(TTL_MAX_DAYS + DAYS_SLACK);
        let oldest = since.map_or(oldest, |since| since.max(oldest));
        for day in (oldest..=newest).rev() {
            let mut range = KeyRange::all().reversed();
            if let Some(cursor) = before.filter(|cursor| cursor.day == day) {
                range = range.before(&position_key(cursor.position));
            }
            let found = self.store.scan(TENANTS, &day_place(tenant, day), range, limit).await?;
            if !found.is_empty() {
                return Ok(found.into_iter().map(|(_, entry)| entry).collect());
            }
        }
        Ok(Vec::new())
    }

    /// The commands of these entries; one that leads nowhere, or to a command that stands elsewhere, was left by a crash.
    pub(crate) async fn load(&self, entries: Vec<Entry>) -> Result<Vec<(Entry, Command)>> {
        let loads = entries.into_iter().map(async |entry| {
            let found = self.store.command(&entry.to, entry.id).await?;
            let found = found.map(|found| found.value).filter(|found| found.position == entry.position);
            Ok::<_, Error>(found.map(|found| (entry, found)))
        });
        stream::iter(loads).buffered(WIDTH).try_filter_map(async |found| Ok(found)).try_collect().await
    }
}
