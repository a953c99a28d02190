//! Watching a tenant's alarms: what is open, then every change, from the store itself, so that a watcher may be slow, go
//! away and come back, or be on another replica than the owner.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::sync::broadcast::{self, error::RecvError};
use weir_core::{Error, Result, TenantId};

use super::{Alarm, Alarms, Filter, States};

/// Every replica tells of a change at once; where that is lost, it is seen this late at most.
const POLL: Duration = Duration::from_secs(1);
/// Alarms in one answer.
const BATCH: usize = 100;

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Changed {
    Alarm(Box<Alarm>),
    Synced,
}

/// A watcher of a tenant's alarms.
pub(crate) struct Watch {
    alarms: Arc<Alarms>,
    tenant: TenantId,
    filter: Filter,
    /// The last change that was told, of each partition.
    seen: Vec<u64>,
    /// Where the snapshot goes on; none once it is told.
    snapshot: Option<Option<Vec<u8>>>,
    hints: broadcast::Receiver<Option<TenantId>>,
    ready: VecDeque<Ready>,
}

/// Something to tell, and how far it is in its partition.
enum Ready {
    Tell(Changed),
    Change { partition: usize, change: u64, tell: Option<Changed> },
}

impl Watch {
    /// Begins with a snapshot, or goes on after `cursor`.
    pub(crate) async fn new(
        alarms: Arc<Alarms>,
        tenant: TenantId,
        filter: Filter,
        cursor: &str,
    ) -> Result<Self> {
        let hints = alarms.hints.subscribe();
        let resumed = decode(cursor, alarms.partitions)?;
        let snapshot = resumed.is_none().then_some(None);
        let seen = match resumed {
            Some(seen) => seen,
            None => {
                let counts = alarms.every_partition().map(|partition| alarms.changes(partition, &tenant));
                futures::future::try_join_all(counts).await?
            }
        };
        let mut ready = VecDeque::new();
        if snapshot.is_none() {
            ready.push_back(Ready::Tell(Changed::Synced));
        }
        Ok(Self { alarms, tenant, filter, seen, snapshot, hints, ready })
    }

    /// What comes next, waiting for it; dropped while it waits, it has lost nothing.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn next(&mut self) -> Result<Changed> {
        loop {
            match self.ready.pop_front() {
                Some(Ready::Tell(changed)) => return Ok(changed),
                Some(Ready::Change { partition, change, tell }) => {
                    self.seen.iter_mut().skip(partition).take(1).for_each(|seen| *seen = change);
                    match tell {
                        Some(changed) => return Ok(changed),
                        None => continue,
                    }
                }
                None => {}
            }
            if let Some(after) = self.snapshot.clone() {
                self.take_snapshot(after).await?;
            } else if !self.take_changes().await? {
                self.wait().await;
            }
        }
    }

    /// Says where a later watcher can go on: after what [`Watch::next`] gave last. A snapshot is begun again.
    pub(crate) fn cursor(&self) -> String {
        if self.snapshot.is_some()
            || self.ready.iter().any(|ready| matches!(ready, Ready::Tell(Changed::Synced)))
        {
            return String::new();
        }
        let bytes: Vec<u8> = self.seen.iter().flat_map(|seen| seen.to_be_bytes()).collect();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    async fn take_snapshot(&mut self, after: Option<Vec<u8>>) -> Result<()> {
        let open = Filter { states: States::Open, ..self.filter.clone() };
        let (found, next) = self.alarms.page(&self.tenant, &open, after, BATCH).await?;
        self.ready.extend(found.into_iter().map(|alarm| Ready::Tell(Changed::Alarm(Box::new(alarm)))));
        self.snapshot = next.map(Some);
        if self.snapshot.is_none() {
            self.ready.push_back(Ready::Tell(Changed::Synced));
        }
        Ok(())
    }

    /// Looks for changes in every partition; false where there are none.
    async fn take_changes(&mut self) -> Result<bool> {
        let looks = self.alarms.every_partition().zip(&self.seen).map(|(partition, seen)| {
            let (alarms, tenant) = (&self.alarms, &self.tenant);
            async move {
                if alarms.changes(partition, tenant).await? == *seen {
                    return Ok::<_, Error>((partition, vec![]));
                }
                Ok((partition, alarms.changed(partition, tenant, *seen, BATCH).await?))
            }
        });
        let found = futures::future::try_join_all(looks).await?;
        for (partition, changes) in found {
            for (change, alarm) in changes {
                let tell = self.filter.matches(&alarm).then(|| Changed::Alarm(Box::new(alarm)));
                self.ready.push_back(Ready::Change { partition: usize::from(partition.0), change, tell });
            }
        }
        Ok(!self.ready.is_empty())
    }

    async fn wait(&mut self) {
        let heard = async {
            loop {
                match self.hints.recv().await {
                    Ok(Some(tenant)) if tenant != self.tenant => {}
                    Ok(_) | Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                }
            }
        };
        let _ = tokio::time::timeout(POLL, heard).await; // either way: look again
    }
}

fn decode(cursor: &str, partitions: u16) -> Result<Option<Vec<u64>>> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let invalid =
        || Error::invalid("resume_cursor", "CURSOR_INVALID", "resume_cursor is not one that a stream gave");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|source| invalid().with_source(source))?;
    let (seen, []) = bytes.as_chunks::<8>() else { return Err(invalid()) };
    if seen.len() != usize::from(partitions) {
        return Err(invalid());
    }
    Ok(Some(seen.iter().map(|seen| u64::from_be_bytes(*seen)).collect()))
}
