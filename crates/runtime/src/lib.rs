//! What runs services: the trait they share, readiness, the admin listener, an orderly end, and the trimming of streams.
//!
//! Not here: which services there are and how they are wired; that is `services/weir`.

mod admin;
mod brief;
mod drain;
mod service;
pub mod trim;

pub use admin::Admin;
pub use drain::drain;
pub use service::Service;
