//! NATS servers with JetStream.
