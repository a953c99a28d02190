//! People at work during chaos: rules are created, edited and deleted, alarms acknowledged and cleared by hand, through the
//! public API, while processes are killed.
//!
//! Each of a few [`Desk`]s has a device and does one thing after the other: a reading only after the one before is
//! acknowledged, a change only after every reading before it is seen to be evaluated (by a second rule at the device that
//! is never changed). A reading that is sent after a change was acknowledged is judged under that change, so which alarms
//! there are follows from the desk's own doing alone ([`Model`]). What must hold, each alarm compared by all of it:
//!
//! - every acknowledged creation, edit and deletion is there, with its revision (one more for each edit, also where the
//!   request went out several times), and counts for the next reading;
//! - an alarm keeps the revision that raised it; an edit while it is open neither closes nor doubles it, and it clears when
//!   the new condition is false;
//! - an acknowledgement stays with its alarm;
//! - an alarm that was cleared by hand stays cleared as MANUAL, and none is raised again until the condition was false once;
//! - every alarm that was open when its rule was deleted is cleared as RULE_REMOVED, and nothing is raised afterwards;
//! - at no look is more than one alarm of a (rule, device) open;
//! - `TestRule` from the start of the rules that are left gives what fired.

mod desk;
mod model;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_core::{Error, Result};
use weir_drive::{Place, lane::patiently, provision, random::Random};

use desk::Desk;

/// Enough to lie in several partitions.
const DESKS: u32 = 6;
/// How long one thing is tried or waited for: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(180);

/// Desks under way.
pub struct Edits {
    stop: CancellationToken,
    desks: Vec<JoinHandle<Outcome>>,
}

/// How people's work fared.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Changes that were acknowledged: of rules and of alarms.
    pub changes: u64,
    /// Changes or alarms that are not as they must be.
    pub wrong: u64,
    /// In words.
    pub examples: Vec<String>,
}

impl Outcome {
    fn wrong(&mut self, what: String) {
        self.wrong += 1;
        if self.examples.len() < 20 {
            self.examples.push(what);
        }
    }
}

impl Edits {
    /// Makes devices in the place's tenant, and starts the desks.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn start(places: Vec<Place>, seed: u64) -> Result<Self> {
        let place = places.first().cloned().ok_or_else(|| Error::internal("there is no edge"))?;
        let places = Arc::new(places);
        let stop = CancellationToken::new();
        let mut desks = Vec::new();
        for number in 0..DESKS {
            let device = format!("desk-{number}");
            let labels = HashMap::from([("desk".to_owned(), number.to_string())]);
            let made = std::slice::from_ref(&device);
            patiently(PATIENCE, async || provision::create(&place, made, &labels).await).await?;
            let random = Random::fork(seed, u64::from(number));
            desks.push(tokio::spawn(Desk::new(Arc::clone(&places), number, random).work(stop.clone())));
        }
        Ok(Self { stop, desks })
    }

    /// Ends the work, and judges.
    ///
    /// # Errors
    /// Where a desk has panicked.
    pub async fn finish(self) -> Result<Outcome> {
        self.stop.cancel();
        let mut outcome = Outcome::default();
        for desk in self.desks {
            let found =
                desk.await.map_err(|source| Error::internal("a desk panicked").with_source(source))?;
            outcome.changes += found.changes;
            outcome.wrong += found.wrong;
            outcome.examples.extend(found.examples);
        }
        Ok(outcome)
    }
}
