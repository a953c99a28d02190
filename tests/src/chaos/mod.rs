//! Chaos: load over every edge, faults by a seed, and a ledger that tells what they cost.
//!
//! A run is: a cluster, tenants and devices of its own, the load ([`weir_drive::open_loop`]), rules whose alarms follow from
//! the data ([`alarms`]), commands that devices answer ([`commands`]), in one scenario people who edit rules ([`edits`]), and the steps of a [`scenario`]. Then everything is
//! healed, what nobody answered is sent again, and everything is read back. The ledger lives in this process, outside of
//! everything that is hurt. One seed gives one schedule of faults.

pub mod alarms;
pub mod commands;
pub mod control;
pub mod edits;
pub mod faults;
pub mod poison;
pub mod raw;
pub mod report;
pub mod run;
pub mod scenario;
pub mod workload;
