//! Load over MQTT, HTTP and gRPC, and the ledger.
