//! The public gRPC contracts.
