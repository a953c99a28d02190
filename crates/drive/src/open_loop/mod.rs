//! An open-loop generator: messages leave by a schedule, whatever the answers do, and each is in the ledger before it leaves.
//!
//! What it does as a documented client does: a bounded window of messages under way, reconnection with backoff and jitter (to
//! the next address, where there are several), and the same message with the same `ts` again where no answer came. Where the
//! window is full a message leaves late; how late is reported, and nothing is left out of the schedule for it. Some readings
//! are held back and sent late, some acknowledged ones are corrected, and some unanswered ones are given up, so that the
//! ledger has readings of which nobody knows.

mod device;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use weir_core::{Error, Result};

use crate::{
    Place, Tally, Via,
    ledger::{Account, Gaps},
};

/// What each device does.
#[derive(Debug, Clone)]
pub struct Options {
    /// Messages a second of each device.
    pub rate: f64,
    /// Readings in one message.
    pub batch: u32,
    /// Messages of one device under way at most.
    pub window: usize,
    /// One acknowledged reading in so many is corrected; 0 for none.
    pub correct_one_in: u64,
    /// One message in so many is held back and sent late; 0 for none.
    pub late_one_in: u64,
    /// One unanswered message in so many is given up; 0 for none.
    pub abandon_one_in: u64,
    /// After the end of the schedule, how long unanswered messages are tried again.
    pub settle: Duration,
    /// Everything random follows from it.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rate: 10.0,
            batch: 1,
            window: 64, // what the server's frames take from one connection
            correct_one_in: 50,
            late_one_in: 25,
            abandon_one_in: 8,
            settle: Duration::from_secs(60),
            seed: 1,
        }
    }
}

/// A device that sends.
#[derive(Clone)]
pub struct Sender {
    /// Its account in the ledger.
    pub account: Arc<Account>,
    /// Where it may connect, each for its tenant; the next one is tried after a failure.
    pub places: Vec<Place>,
    /// Over what.
    pub via: Via,
    /// Its token (not used over gRPC).
    pub token: String,
}

/// What the load has felt so far; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Felt {
    /// Acknowledged readings and reasons of refusals.
    pub tally: Tally,
    late: AtomicU64,
    latest_us: AtomicU64,
    reconnects: AtomicU64,
    behind: AtomicU64,
    complaints: Mutex<Vec<String>>,
}

/// Complaints of the servers that are kept in words.
const COMPLAINTS_MAX: usize = 20;

impl Felt {
    /// Messages that left more than a second after they were due.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// How late the latest message left.
    pub fn latest(&self) -> Duration {
        Duration::from_micros(self.latest_us.load(Ordering::Relaxed))
    }

    /// Connections that were opened again.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// Messages that were due before the end and never left, because the window was full until then.
    pub fn behind(&self) -> u64 {
        self.behind.load(Ordering::Relaxed)
    }

    /// The first reasons for which a connection or message failed, each once.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn left(&self, lateness: Duration) {
        self.late.fetch_add(u64::from(lateness > Duration::from_secs(1)), Ordering::Relaxed);
        let micros = u64::try_from(lateness.as_micros()).unwrap_or(u64::MAX);
        self.latest_us.fetch_max(micros, Ordering::Relaxed);
    }

    fn complain(&self, error: &Error) {
        let text = format!("{} ({})", error.message(), error.reason());
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() < COMPLAINTS_MAX && !complaints.contains(&text) {
            complaints.push(text);
        }
    }
}

/// Devices under way.
pub struct Load {
    stop: CancellationToken,
    devices: Vec<JoinHandle<()>>,
    gaps: Arc<Gaps>,
    /// What they feel.
    pub felt: Arc<Felt>,
}

impl Load {
    /// Starts every device; their schedules are spread over one period.
    pub fn start(senders: Vec<Sender>, options: &Options, gaps: Arc<Gaps>) -> Self {
        let (stop, felt) = (CancellationToken::new(), Arc::new(Felt::default()));
        let begin = Instant::now();
        let count = senders.len().max(1) as f64;
        let period = Duration::from_secs_f64(1.0 / options.rate.max(0.001));
        let devices = senders.into_iter().enumerate().map(|(number, sender)| {
            let offset = period.mul_f64(number as f64 / count);
            let shared =
                device::Shared { felt: Arc::clone(&felt), gaps: Arc::clone(&gaps), stop: stop.clone() };
            tokio::spawn(
                device::Runner::new(sender, options.clone(), number as u64, begin + offset, shared).run(),
            )
        });
        Self { devices: devices.collect(), stop, gaps, felt }
    }

    /// Ends the schedule, and waits until every message is answered, given up, or `settle` is over.
    ///
    /// # Errors
    /// `Internal` where a device has panicked: then the ledger is worth nothing.
    pub async fn stop(self) -> Result<Arc<Felt>> {
        self.gaps.end();
        self.stop.cancel();
        for device in self.devices {
            device
                .await
                .map_err(|source| Error::internal("a device of the load panicked").with_source(source))?;
        }
        Ok(self.felt)
    }
}
