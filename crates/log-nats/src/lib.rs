//! The engine of the Log, Signals and Leases ports on NATS JetStream.
