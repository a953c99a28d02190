//! The ledger: what was sent, what the server said about it, and whether what can be read afterwards agrees.
//!
//! It lives with whoever sends, never in the system under test. Each message is known by run, tenant, device and sequence
//! number; its event time and values follow from these ([`values`]), so that the ledger needs two bytes a reading
//! ([`entry`]). A reading may be sent again with the same values (a resend) or with others (a correction, the next version).
//!
//! What must hold after everything is healed and drained:
//!
//! | what was said about a reading                          | what must be found                                               |
//! | ------------------------------------------------------ | ---------------------------------------------------------------- |
//! | a version is acknowledged                              | once; that version, or a newer one that was sent                 |
//! | only attempts without an answer (connection broke, or the answer was "try again") | nothing, or one version that was sent |
//! | refused for good, every attempt answered               | nothing of that version                                          |
//! | never sent                                             | nothing                                                          |
//!
//! - **lost**: acknowledged and absent, or stored with a version older than the last acknowledged one
//! - **duplicated**: one (device, metric, ts) given twice
//! - **phantom**: an event time, metric or version that was never sent, or was refused for good
//! - **corrupt**: sent, and found with another value or type, in part, or out of order
//! - **leaked**: found by, or with the values of, another tenant
//!
//! A correction is sent only when every attempt of the version before was answered, because an attempt without an answer
//! may still arrive, and "the one accepted last" would then be either.

mod account;
pub mod audit;
mod check;
mod entry;
mod gap;
mod values;

pub use account::Account;
pub use check::{Check, Verdict};
pub use entry::{Counts, Entry, VERSION_MAX};
pub use gap::{Gap, Gaps};
pub use values::Source;

use std::sync::Arc;

use weir_core::Timestamp;

/// Everything that one run sends.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: Vec<Arc<Account>>,
    /// Times without an acknowledgement.
    pub gaps: Arc<Gaps>,
}

impl Ledger {
    /// Opens the account of one more device, which sends from `epoch` on.
    pub fn open(&mut self, source: Source, device: &str, epoch: Timestamp) -> Arc<Account> {
        let account = Arc::new(Account::new(source, device.to_owned(), epoch));
        self.accounts.push(Arc::clone(&account));
        account
    }

    /// Every account.
    pub fn accounts(&self) -> &[Arc<Account>] {
        &self.accounts
    }

    /// All accounts counted together.
    pub fn counts(&self) -> Counts {
        self.accounts.iter().map(|account| account.counts()).fold(Counts::default(), Counts::plus)
    }
}
