//! The embedded log: append-only segment files; Signals in process.
