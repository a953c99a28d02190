//! The pure part: what is desired, and that it converges.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "desired/network.rs"]
mod network;
#[path = "desired/objects.rs"]
mod objects;
#[path = "desired/rollout.rs"]
mod rollout;
#[path = "desired/world.rs"]
mod world;
