//! gRPC clients: connection, credentials, typed stubs.
