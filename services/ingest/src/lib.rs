//! Ingest: the device edge over MQTT, HTTP and gRPC.
