//! Reading alarms: by name, and newest first from an index of every partition.

use futures::future::try_join_all;
use weir_core::{
    DeviceId, Error, Partition, Result, TenantId, Uid, json, name,
    port::{KeyRange, Stored},
};

use super::{ALARMS, Alarm, Alarms, Counter, State, key};

/// Index entries that one page looks at; past it the page is short, and its token goes on.
const LOOKED_AT_MAX: usize = 10_000;
/// Alarms of a rule that are counted as open in one partition; more are as good as this many.
const COUNTED_MAX: usize = 10_000;

/// Which alarms.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) device: Option<DeviceId>,
    pub(crate) rule: Option<String>,
    pub(crate) states: States,
}

/// In which states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum States {
    #[default]
    Any,
    Open,
    Only(State),
}

impl States {
    fn has(self, state: State) -> bool {
        match self {
            Self::Any => true,
            Self::Open => state != State::Cleared,
            Self::Only(only) => state == only,
        }
    }
}

impl Filter {
    pub(crate) fn matches(&self, alarm: &Alarm) -> bool {
        self.device.as_ref().is_none_or(|device| alarm.device.device == *device)
            && self.rule.as_ref().is_none_or(|rule| alarm.rule.as_str() == rule)
            && self.states.has(alarm.state)
    }

    /// The index with the fewest entries that has all of them.
    fn index(&self) -> Vec<u8> {
        let open = !self.states.has(State::Cleared);
        match (&self.device, &self.rule, open) {
            (Some(device), ..) => key::of_device(device),
            (None, Some(rule), true) => key::open_of_rule(rule),
            (None, Some(rule), false) => key::of_rule(rule),
            (None, None, true) => key::OPEN.to_vec(),
            (None, None, false) => key::ALL.to_vec(),
        }
    }
}

impl Alarms {
    /// An alarm and where it is.
    pub(crate) async fn find(&self, tenant: &TenantId, uid: Uid) -> Result<(Partition, Alarm)> {
        let looks = self.every_partition().map(|partition| async move {
            Ok::<_, Error>(self.get(partition, tenant, uid).await?.map(|alarm| (partition, alarm)))
        });
        let found = try_join_all(looks).await?.into_iter().flatten().next();
        found.ok_or_else(|| Error::not_found(name::child(tenant, "alarms", uid)))
    }

    pub(crate) async fn get(
        &self,
        partition: Partition,
        tenant: &TenantId,
        uid: Uid,
    ) -> Result<Option<Alarm>> {
        let place = key::place(partition, tenant);
        let stored = self.records.get(ALARMS, place.as_bytes(), &key::alarm(uid)).await?;
        stored.as_ref().map(json::from_stored).transpose()
    }

    /// At most `limit` alarms, newest first, after the index entry `after`; and the entry to go on after, if there is more.
    pub(crate) async fn page(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<(Vec<Alarm>, Option<Vec<u8>>)> {
        let (mut found, mut after, mut looked_at) = (Vec::new(), after, 0);
        loop {
            let entries = self.entries(tenant, &filter.index(), after.as_deref(), limit + 1).await?;
            let last = entries.len() <= limit;
            for (partition, suffix) in entries {
                if found.len() == limit || looked_at == LOOKED_AT_MAX {
                    return Ok((found, after));
                }
                looked_at += 1;
                let uid = key::uid_of(&suffix).ok_or_else(damaged)?;
                // One that was forgotten meanwhile is not there any more.
                let alarm = self.get(partition, tenant, uid).await?;
                found.extend(alarm.filter(|alarm| filter.matches(alarm)));
                after = Some(suffix);
            }
            if last {
                return Ok((found, None));
            }
        }
    }

    /// The newest `limit` entries of an index over all partitions, newest first: (partition, time and uid).
    async fn entries(
        &self,
        tenant: &TenantId,
        index: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Partition, Vec<u8>)>> {
        let scans = self.every_partition().map(|partition| async move {
            let mut range = KeyRange::prefix(index).reversed();
            if let Some(after) = after {
                range = range.before(&[index, after].concat());
            }
            let place = key::place(partition, tenant);
            let entries = self.records.scan(ALARMS, place.as_bytes(), range, limit).await?;
            let suffix = |stored: &Stored| Some((partition, stored.key.strip_prefix(index)?.to_vec()));
            Ok::<_, Error>(entries.iter().filter_map(suffix).collect::<Vec<_>>())
        });
        let mut entries: Vec<_> = try_join_all(scans).await?.into_iter().flatten().collect();
        entries.sort_unstable_by(|(_, a), (_, b)| b.cmp(a));
        entries.truncate(limit);
        Ok(entries)
    }

    /// How many alarms of a rule are open.
    pub(crate) async fn open_of_rule(&self, tenant: &TenantId, rule: &str) -> Result<usize> {
        let index = key::open_of_rule(rule);
        let scans = self.every_partition().map(|partition| {
            let (range, place) = (KeyRange::prefix(&index), key::place(partition, tenant));
            async move { self.records.scan(ALARMS, place.as_bytes(), range, COUNTED_MAX).await }
        });
        Ok(try_join_all(scans).await?.iter().map(Vec::len).sum())
    }

    /// How many changes a record partition has had.
    pub(crate) async fn changes(&self, partition: Partition, tenant: &TenantId) -> Result<u64> {
        Ok(self.counter(partition, tenant).await?.change)
    }

    /// What a record partition counts.
    pub(crate) async fn counter(&self, partition: Partition, tenant: &TenantId) -> Result<Counter> {
        let stored = self.records.get(ALARMS, key::place(partition, tenant).as_bytes(), key::COUNTER).await?;
        Ok(stored.as_ref().map(json::from_stored).transpose()?.unwrap_or_default())
    }

    /// Alarms that changed after a change, in order, at most `limit`: (change, alarm).
    pub(crate) async fn changed(
        &self,
        partition: Partition,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Alarm)>> {
        let range = KeyRange::prefix(key::CHANGES).after(&key::change(after));
        let place = key::place(partition, tenant);
        let mut found = Vec::new();
        for stored in self.records.scan(ALARMS, place.as_bytes(), range, limit).await? {
            let change = stored.key.last_chunk().copied().map(u64::from_be_bytes).ok_or_else(damaged)?;
            let uid = key::uid_of(&stored.value).ok_or_else(damaged)?;
            // One that changed again meanwhile stands further on as well: it is told then.
            if let Some(alarm) =
                self.get(partition, tenant, uid).await?.filter(|alarm| alarm.change == change)
            {
                found.push((change, alarm));
            }
        }
        Ok(found)
    }
}

fn damaged() -> Error {
    Error::data_loss("an index entry of the alarms cannot be read")
}
