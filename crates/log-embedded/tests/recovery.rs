//! What a crash, a damaged disk or a full one leaves behind, and what open makes of it. Works on the bytes that
//! `format.rs` describes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in the helpers too, a panic is the report

#[path = "recovery/crash.rs"]
mod crash;
#[path = "recovery/damage.rs"]
mod damage;
#[path = "recovery/full.rs"]
mod full;
#[path = "recovery/harness.rs"]
mod harness;
#[path = "recovery/restart.rs"]
mod restart;
