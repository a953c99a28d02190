//! The container image, without Docker: a static binary, certificates of public authorities, and two directories.
//!
//! The tar is an OCI image layout that also carries the `manifest.json` of `docker save`, for tools that read only one of
//! them; the tests of the chart use `ctr images import`. Times and order are fixed: the same binary gives the same image, byte
//! for byte.

use std::{
    fs,
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::{
    run::{cargo_path, complain, output, root, set, target_dir},
    sbom,
};

/// What cargo builds for the image: TLS to CQL servers is a feature because only an installation off loopback needs it.
pub(crate) const FEATURES: &str = "cql-tls";
/// The user of the image: nobody's, by the custom of distroless images.
const USER: u64 = 65_532;
/// Where the distributions keep the certificates of public authorities; webhooks over https are checked by them.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
/// Where the binary looks for them.
const AUTHORITIES_IN_IMAGE: &str = "etc/ssl/certs/ca-certificates.crt";

/// `cargo xtask image`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the image is called; may be given more than once
    #[arg(long, value_name = "NAME:TAG", default_value = concat!("localhost/weir:", env!("CARGO_PKG_VERSION")))]
    tag: Vec<String>,
    /// Where the tar is written; the SBOM goes beside it. Without it: weir-image.tar in cargo's target directory
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The profile that is built; `release` builds faster and is bigger
    #[arg(long, value_name = "PROFILE", default_value = "dist")]
    profile: String,
}

/// Builds the binary, the image and its SBOM, and says how big they are.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let tags = args.tag.iter().map(|tag| split(tag)).collect::<Result<Vec<_>, _>>()?;
    let target = host()?;
    let binary = build(&args.profile, &target)?;
    let out = args.out.clone().map_or_else(|| target_dir().map(|dir| dir.join("weir-image.tar")), Ok)?;
    let layer = layer(&binary, &authorities()?)?;
    let packed = pack(&layer)?;
    let config = config(&target, &layer)?;
    let image = archive(&tags, &config, &packed)?;
    write(&out, &image)?;
    let bill = out.with_extension("cdx.json");
    let components = sbom::write(&bill, &target)?;
    let told = [
        ("binary", size(&binary)?, binary.display().to_string()),
        ("image, unpacked", layer.len() as u64, args.tag.join(" ")),
        ("image, as it is stored and pulled", image.len() as u64, out.display().to_string()),
        ("SBOM, CycloneDX", size(&bill)?, format!("{} ({components} components)", bill.display())),
    ];
    for (what, bytes, place) in told {
        complain(&format!("{what:<34} {:>6.2} MB  {place}", mb(bytes)));
    }
    Ok(())
}

/// The static binary of this machine's kind.
fn build(profile: &str, target: &str) -> Result<PathBuf, String> {
    let mut command = Command::new(cargo_path());
    command
        .args(["build", "--locked", "--package", "weir", "--features", FEATURES])
        .args(["--profile", profile, "--target", target])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("WEIR_REVISION", revision().unwrap_or_else(|| "unknown".to_owned()))
        .current_dir(root());
    crate::run::finish(&mut command)?;
    Ok(target_dir()?.join(target).join(profile).join("weir"))
}

/// The file system of the image: nothing but what the binary needs.
fn layer(binary: &Path, authorities: &Path) -> Result<Vec<u8>, String> {
    let mut tar = Builder::new(Vec::new());
    for (path, owner) in [
        ("etc", 0),
        ("etc/ssl", 0),
        ("etc/ssl/certs", 0),
        // Owned by the user that runs it, so that a volume that is mounted there is writable.
        ("etc/weir", USER),
        ("var", 0),
        ("var/lib", 0),
        ("var/lib/weir", USER),
    ] {
        append(&mut tar, &format!("{path}/"), EntryType::Directory, 0o755, owner, &[])?;
    }
    append(&mut tar, AUTHORITIES_IN_IMAGE, EntryType::Regular, 0o644, 0, &read(authorities)?)?;
    append(&mut tar, "weir", EntryType::Regular, 0o755, 0, &read(binary)?)?;
    tar.into_inner().map_err(|error| error.to_string())
}

/// The image's configuration.
fn config(target: &str, layer: &[u8]) -> Result<Vec<u8>, String> {
    let architecture = match target.split('-').next() {
        Some("x86_64") => "amd64",
        Some("aarch64") => "arm64",
        other => return Err(format!("no image for {other:?}: it is made for x86_64 and aarch64")),
    };
    let mut labels = json!({
        "org.opencontainers.image.title": "Weir",
        "org.opencontainers.image.description": "A self-hosted IoT platform",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
    });
    if let Some(revision) = revision() {
        set(&mut labels, "org.opencontainers.image.revision", json!(revision));
    }
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "Env": ["PATH=/"],
            "Entrypoint": ["/weir"],
            "ExposedPorts": {"1883/tcp": {}, "8080/tcp": {}, "8081/tcp": {}, "8082/tcp": {}},
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        "history": [{"created_by": "cargo xtask image"}],
    });
    text(&config)
}

/// The tar with blobs, and both kinds of table of contents.
fn archive(tags: &[(&str, &str)], config: &[u8], layer: &[u8]) -> Result<Vec<u8>, String> {
    let blob =
        |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let manifest = text(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("application/vnd.oci.image.config.v1+json", config),
        "layers": [blob("application/vnd.oci.image.layer.v1.tar+gzip", layer)],
    }))?;
    let entry = |(name, tag): &(&str, &str)| {
        let mut entry = blob("application/vnd.oci.image.manifest.v1+json", &manifest);
        // containerd reads the whole name from the first, everybody else the tag from the second.
        let annotations = json!({
            "io.containerd.image.name": format!("{name}:{tag}"),
            "org.opencontainers.image.ref.name": tag,
        });
        set(&mut entry, "annotations", annotations);
        entry
    };
    let index = text(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": tags.iter().map(entry).collect::<Vec<_>>(),
    }))?;
    let docker = text(&json!([{
        "Config": blob_path(config),
        "RepoTags": tags.iter().map(|(name, tag)| format!("{name}:{tag}")).collect::<Vec<_>>(),
        "Layers": [blob_path(layer)],
    }]))?;
    let mut tar = Builder::new(Vec::new());
    for (path, bytes) in [
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice()),
        ("index.json".to_owned(), &index),
        ("manifest.json".to_owned(), &docker),
        (blob_path(&manifest), &manifest),
        (blob_path(config), config),
        (blob_path(layer), layer),
    ] {
        append(&mut tar, &path, EntryType::Regular, 0o644, 0, bytes)?;
    }
    tar.into_inner().map_err(|error| error.to_string())
}

fn append(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    owner: u64,
    bytes: &[u8],
) -> Result<(), String> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).map_err(|error| format!("{path}: {error}"))
}

fn pack(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(bytes).and_then(|()| packed.finish()).map_err(|error| error.to_string())
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn blob_path(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn text(value: &Value) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|error| error.to_string())
}

/// The name and the tag; a colon may also stand before a port.
fn split(tag: &str) -> Result<(&str, &str), String> {
    tag.rsplit_once(':')
        .filter(|(name, tag)| !name.is_empty() && !tag.is_empty() && !tag.contains('/'))
        .ok_or_else(|| format!("--tag {tag:?} must be NAME:TAG, such as registry.example.com/weir:1.2.3"))
}

fn authorities() -> Result<PathBuf, String> {
    AUTHORITIES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
        "this machine has no certificates of public authorities (apt-get install ca-certificates)".to_owned()
    })
}

/// The kind of this machine, as the compiler calls it.
fn host() -> Result<String, String> {
    let told = output(Command::new("rustc").arg("-vV"))?;
    told.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or_else(|| "rustc does not tell its host".to_owned())
}

/// The commit; none where this is no checkout.
fn revision() -> Option<String> {
    let told = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root()).output().ok()?;
    told.status.success().then(|| String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn size(path: &Path) -> Result<u64, String> {
    fs::metadata(path).map(|known| known.len()).map_err(|error| format!("{}: {error}", path.display()))
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_a_port_and_must_have_a_tag() {
        assert_eq!(split("localhost:5000/weir:1.0"), Ok(("localhost:5000/weir", "1.0")));
        for wrong in ["weir", "localhost:5000/weir", ":1", "weir:"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_same_binary_gives_the_same_image_and_its_tables_name_blobs_that_are_there() {
        let dir = std::env::temp_dir().join(format!("weir-image-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("file");
        fs::write(&file, b"a binary").unwrap();
        let made = || {
            let layer = layer(&file, &file).unwrap();
            let config = config("x86_64-unknown-linux-gnu", &layer).unwrap();
            archive(&[("weir", "1"), ("weir", "2")], &config, &pack(&layer).unwrap()).unwrap()
        };
        let image = made();
        assert_eq!(image, made());
        fs::remove_dir_all(&dir).unwrap();
        let mut tar = tar::Archive::new(image.as_slice());
        let mut files = std::collections::BTreeMap::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let (path, mut bytes) = (entry.path().unwrap().display().to_string(), Vec::new());
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(path, bytes);
        }
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
        let manifest: Value = serde_json::from_slice(&files[&format!("blobs/{digest}")]).unwrap();
        for blob in [&manifest["config"], &manifest["layers"][0]] {
            let bytes = &files[&format!("blobs/{}", blob["digest"].as_str().unwrap().replace(':', "/"))];
            assert_eq!(blob["size"], bytes.len());
        }
        let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert!(files.contains_key(docker[0]["Config"].as_str().unwrap()));
        assert!(files.contains_key(docker[0]["Layers"][0].as_str().unwrap()));
    }
}
