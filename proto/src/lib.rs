//! The gRPC contracts of Weir and the code generated from them; nothing else.
//!
//! The contracts are the files below `weir/`: public ones, and `internal.proto` where services ask each other; conventions are those of buf's STANDARD lint and, where it is silent, of
//! Google's AIPs. Conversions to the domain are in `weir-grpc`.

#![allow(missing_docs, unreachable_pub, clippy::all)] // generated code

/// Values, readings, and the status of one item of a batch.
pub mod common {
    pub mod v1 {
        tonic::include_proto!("weir.common.v1");
    }
}
/// Tenants, tokens, profiles, devices, credentials.
pub mod registry {
    pub mod v1 {
        tonic::include_proto!("weir.registry.v1");
    }
}
/// The device edge.
pub mod ingest {
    pub mod v1 {
        tonic::include_proto!("weir.ingest.v1");
    }
}
/// Stored telemetry.
pub mod storage {
    pub mod v1 {
        tonic::include_proto!("weir.storage.v1");
    }
}
/// Rules and alarms.
pub mod analytics {
    pub mod v1 {
        tonic::include_proto!("weir.analytics.v1");
    }
}
/// Commands to devices.
pub mod commands {
    pub mod v1 {
        tonic::include_proto!("weir.commands.v1");
    }
}

/// Every descriptor, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The full names of the services that only services of Weir may call: those of every `internal.proto`.
pub const INTERNAL: &[&str] = include!(concat!(env!("OUT_DIR"), "/internal.rs"));
