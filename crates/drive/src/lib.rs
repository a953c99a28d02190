//! Load over MQTT, HTTP and gRPC as real devices make it: replay of files, a simulated fleet, and benchmarks; and the
//! ledger, which proves that nothing acknowledged is lost.
//!
//! Everything goes through the public edges with public clients: what this crate measures or proves is what a device gets.
//! Not here: any shortcut into the server, faults, and the printing of results (that is the CLI's and the harness's).

pub mod bench;
pub mod edge;
pub mod lane;
pub mod ledger;
pub mod mqtt;
pub mod open_loop;
pub mod prove;
pub mod provision;
pub mod random;
pub mod replay;
pub mod simulate;
pub mod source;
mod tally;

pub use edge::{Edge, Place, Reading, Via};
pub use tally::{Refusals, Tally};
