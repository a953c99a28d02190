//! Live tails: points as they are stored.
//!
//! The writer hands every message to the tails that want it ([`fan_out`]), through a bounded queue each; where the writer is
//! another replica, a follower reads the log in its stead ([`follow`]). A tail that goes on
//! after a cursor first reads the log from there ([`catch_up`]), then joins the live ones; [`cursor`] says per partition
//! what was given, so that nothing is missed or given twice.

mod catch_up;
mod cursor;
mod fan_out;
mod follow;
mod session;

pub(crate) use fan_out::FanOut;
pub(crate) use follow::Follower;
pub(crate) use session::{Event, Message, Sources, Tail, TailRequest};
