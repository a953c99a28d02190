//! What is done for sessions beside their connections: ending those that another connection took over, telling the store
//! what it could not be told, and removing what has expired. Every replica does all of it; each change is conditional on
//! what was read, so that two that do the same do it once.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use weir_core::{
    ErrorKind, Result, Uid,
    port::{KeyRange, Signal},
};

use super::{
    Ended, Sessions, delete,
    live::Owner,
    record::{Record, SESSIONS},
};

/// Signals may be lost: within this, below the 30 s that are promised, a replica has looked at the record of each of its own
/// connections. 20,000 connections are 800 reads a second.
const CHECK_EVERY: Duration = Duration::from_secs(25);
/// Records that are read at a time.
const CHECK_PAGE: usize = 32;
/// `last_seen` of a connected session is written when it is so far behind: 20,000 connections are 67 writes a second at
/// most, and whoever asks another replica sees minutes, as of a device that says something each minute anyway.
pub(super) const REFRESH: Duration = Duration::from_secs(300);
/// Records that a sweep looks at in one step.
const SWEEP_PAGE: usize = 500;

impl Sessions {
    /// Keeps the sessions until `end`.
    pub(crate) async fn keep(&self, end: &CancellationToken) {
        let mut paced = true;
        loop {
            let began = Instant::now();
            self.tell_untold().await;
            let all = self.live.all();
            let pages = u32::try_from(all.len().div_ceil(CHECK_PAGE)).unwrap_or(u32::MAX).max(1);
            let mut hurried = false;
            for (page, at) in all.chunks(CHECK_PAGE).zip(0..pages) {
                if paced && !hurried {
                    match self.pause(began + CHECK_EVERY * at / pages, end).await {
                        Paused::Over => {}
                        Paused::Hurried => hurried = true,
                        Paused::Ended => return,
                    }
                }
                if let Err(error) = self.check_all(page).await {
                    tracing::warn!(%error, "sessions cannot be checked");
                    break;
                }
            }
            paced = !hurried;
            if hurried {
                continue; // what was checked before the hint is checked again
            }
            match self.pause(began + CHECK_EVERY, end).await {
                Paused::Over => {}
                Paused::Hurried => paced = false,
                Paused::Ended => return,
            }
        }
    }

    /// Signals may have been lost: the sessions are checked now.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Whether a session that opened elsewhere may have taken over from one here; if so call [`Sessions::check_device`].
    pub(crate) fn concerns(&self, signal: &Signal) -> Option<Uid> {
        let Signal::SessionOpened { uid, session, .. } = signal else { return None };
        let own = self.live.last_seen(*uid, *session).is_some();
        // One that is opening here may have written its record before the other did, and is not connected yet.
        let opening = || self.lock(*uid).is_ok_and(|lock| lock.try_lock().is_err());
        (!own && (!self.live.of(*uid).is_empty() || opening())).then_some(*uid)
    }

    /// Ends those sessions of a device that are no longer its own.
    ///
    /// # Errors
    /// `Unavailable` of the store: the next round finds them.
    pub(crate) async fn check_device(&self, uid: Uid) -> Result<()> {
        let _one = self.lock(uid)?.lock().await;
        self.check_all(&self.live.of(uid)).await
    }

    async fn check_all(&self, sessions: &[(Arc<Owner>, Uid)]) -> Result<()> {
        let checks = sessions.iter().map(|(owner, session)| self.check(owner, *session));
        join_all(checks).await.into_iter().collect()
    }

    /// Ends a session whose record says that it is another connection's, or that it had to make room; else writes when it was
    /// heard of, if that is long ago.
    async fn check(&self, owner: &Owner, session: Uid) -> Result<()> {
        let uid = owner.device.uid;
        match self.own(owner, session).await? {
            Some((record, _)) => {
                let Some(seen) = self.live.last_seen(uid, session) else { return Ok(()) };
                if seen.since(record.last_seen) < REFRESH {
                    return Ok(());
                }
                let change = |record: Record| {
                    let last_seen = seen.max(record.last_seen);
                    Some(Record { last_seen, ..record })
                };
                self.change(owner, session, change).await
            }
            None => {
                let why = match self.is_recorded(owner).await? {
                    true => Ended::TakenOver,
                    false => Ended::TooMany,
                };
                self.live.end(uid, session, why);
                Ok(())
            }
        }
    }

    async fn is_recorded(&self, owner: &Owner) -> Result<bool> {
        let of_device = self.of_device(&owner.device.tenant, &owner.device.device).await?;
        Ok(of_device.iter().any(|(record, _)| record.client_id == owner.client_id))
    }

    async fn tell_untold(&self) {
        let (mut left, mut again) = (self.live.take_untold(), Vec::new());
        while let Some(mut one) = left.pop() {
            match self.record_end(&one, None).await {
                Ok(()) => again.extend(std::mem::take(&mut one.again).then_some(one)),
                Err(error) => {
                    tracing::warn!(%error, "the end of a session cannot be recorded yet");
                    left.push(one);
                    break;
                }
            }
        }
        left.append(&mut again);
        self.live.remain_untold(left);
    }

    /// Removes what has expired: sessions of devices that do not come back.
    ///
    /// # Errors
    /// `Unavailable` of the store; what remains is for the next sweep.
    pub(crate) async fn sweep(&self) -> Result<()> {
        let mut shard: Option<Vec<u8>> = None;
        while let Some(next) =
            self.records.partitions(SESSIONS, shard.as_deref(), 1).await?.into_iter().next()
        {
            let mut range = KeyRange::all();
            loop {
                let page = self.records.scan(SESSIONS, &next, range, SWEEP_PAGE).await?;
                let now = self.clock.now();
                let mut writes = Vec::new();
                for stored in &page {
                    let record = Record::parse(stored)?;
                    if self.may_go(&record, now) {
                        writes.push(delete(&record, stored.version));
                    }
                }
                if !writes.is_empty() {
                    match self.records.commit(SESSIONS, &next, writes).await {
                        Err(error) if error.kind() != ErrorKind::Aborted => return Err(error),
                        _ => {}
                    }
                }
                match page.last().filter(|_| page.len() == SWEEP_PAGE) {
                    Some(last) => range = KeyRange::all().after(&last.key),
                    None => break,
                }
            }
            shard = Some(next.to_vec());
        }
        Ok(())
    }

    async fn pause(&self, until: Instant, end: &CancellationToken) -> Paused {
        tokio::select! {
            biased;
            () = end.cancelled() => Paused::Ended,
            () = self.hurry.notified() => Paused::Hurried,
            () = sleep_until(until) => Paused::Over,
        }
    }
}

/// Why a pause is over.
enum Paused {
    Over,
    Hurried,
    Ended,
}
