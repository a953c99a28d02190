//! The port suites: one for each engine port, run against every engine; and the call ports over the network, for theirs.

pub mod calls;
pub mod leases;
pub mod log;
pub mod progress;
pub mod records;
pub mod signals;
pub mod telemetry;

/// What a suite's `$open` gives: an engine with its guard, or none where the server it needs cannot be had, which has then
/// been told (and is a failure in CI).
pub trait Opened<T, G> {
    /// The engine and its guard.
    fn opened(self) -> Option<(T, G)>;
}

impl<T, G> Opened<T, G> for (T, G) {
    fn opened(self) -> Option<(T, G)> {
        Some(self)
    }
}

impl<T, G> Opened<T, G> for Option<(T, G)> {
    fn opened(self) -> Option<(T, G)> {
        self
    }
}
