//! What runs services: the trait they share, readiness, the admin listener, an orderly end, the sharing out of partitions
//! among replicas, what replicas tell each other of their progress, and the trimming of streams.
//!
//! Not here: which services there are and how they are wired; that is `services/weir`.

mod admin;
mod brief;
mod drain;
pub mod marks;
pub mod ownership;
mod service;
pub mod trim;

pub use admin::Admin;
pub use drain::drain;
pub use service::Service;
