//! Compiles the contracts with `protox`, so that no `protoc` is needed, and keeps the descriptors for reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

const FILES: [&str; 16] = [
    "weir/common/v1/common.proto",
    "weir/registry/v1/tenant.proto",
    "weir/registry/v1/token.proto",
    "weir/registry/v1/profile.proto",
    "weir/registry/v1/device.proto",
    "weir/registry/v1/credential.proto",
    "weir/ingest/v1/ingest.proto",
    "weir/ingest/v1/session.proto",
    "weir/ingest/v1/dead_letter.proto",
    "weir/storage/v1/telemetry.proto",
    "weir/storage/v1/poison_frame.proto",
    "weir/analytics/v1/rule.proto",
    "weir/commands/v1/command.proto",
    "weir/registry/v1/internal.proto",
    "weir/commands/v1/internal.proto",
    "weir/storage/v1/internal.proto",
];
/// The name of the files with what services ask of each other: so nothing internal can be forgotten where it is guarded.
const INTERNAL: &str = "/internal.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=weir");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    fs::write(out.join("internal.rs"), format!("&{:?}", internal(&descriptors)))?;
    tonic_prost_build::configure()
        .bytes(".weir.common.v1")
        .bytes(".weir.commands.v1.SendRequest.payload")
        .bytes(".weir.commands.v1.QueuedCommand.payload")
        .bytes(".weir.commands.v1.DeviceAnswer.payload")
        .compile_fds(descriptors)?;
    Ok(())
}

/// The full names of the internal services.
fn internal(descriptors: &FileDescriptorSet) -> Vec<String> {
    let files = descriptors.file.iter().filter(|file| file.name().ends_with(INTERNAL));
    files
        .flat_map(|file| file.service.iter().map(|service| format!("{}.{}", file.package(), service.name())))
        .collect()
}
