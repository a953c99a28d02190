//! Running other programs.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// The version of buf that lints the contracts.
const BUF: &str = "@bufbuild/buf@1";

/// Every test. The binaries are built first, for the system tests; `release` so that they see what users run.
pub(crate) fn test(rest: &[String]) -> Result<(), String> {
    let (weir, sabotaged) = binaries()?;
    let mut command = Command::new(cargo_path());
    command.args(["test", "--workspace", "--locked", "--no-fail-fast"]).args(rest);
    finish(command.env("WEIR_BIN", weir).env("WEIR_SABOTAGED_BIN", sabotaged))
}

/// The fault harness, on the release binary.
pub(crate) fn chaos(rest: &[String]) -> Result<(), String> {
    let (weir, sabotaged) = binaries()?;
    cargo(&["build", "--locked", "--release", "--package", "weir-tests", "--bins"])?;
    let harness = weir.with_file_name("chaos");
    finish(Command::new(harness).args(rest).env("WEIR_BIN", weir).env("WEIR_SABOTAGED_BIN", sabotaged))
}

/// A benchmark of the harness, on the release binary.
pub(crate) fn perf(bench: &str) -> Result<(), String> {
    cargo(&["build", "--locked", "--release", "--package", "weir"])?;
    let mut command = Command::new(cargo_path());
    command.args(["bench", "--locked", "--package", "weir-tests", "--bench", bench]).current_dir(root());
    finish(command.env("WEIR_BIN", binary()?))
}

/// The release binary, and the one that breaks promises on purpose, which must turn the fault harness red.
fn binaries() -> Result<(PathBuf, PathBuf), String> {
    let weir = binary()?;
    let sabotaged = weir.with_file_name("weir-sabotaged");
    cargo(&["build", "--locked", "--release", "--package", "weir", "--features", "sabotage"])?;
    std::fs::copy(&weir, &sabotaged).map_err(|error| format!("{}: {error}", sabotaged.display()))?;
    cargo(&["build", "--locked", "--release", "--package", "weir"])?;
    Ok((weir, sabotaged))
}

/// Lints `proto/` with buf.
pub(crate) fn lint_proto() -> Result<(), String> {
    finish(Command::new("npx").args(["--yes", "--package", BUF, "buf", "lint", "proto"]).current_dir(root()))
}

/// Runs cargo.
pub(crate) fn cargo(args: &[&str]) -> Result<(), String> {
    finish(Command::new(cargo_path()).args(args).current_dir(root()))
}

/// What a program prints.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let done = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if !done.status.success() {
        return Err(format!("{command:?} failed: {}", done.status));
    }
    String::from_utf8(done.stdout).map_err(|error| format!("{command:?} printed no text: {error}"))
}

/// The release binary, where cargo puts it.
pub(crate) fn binary() -> Result<PathBuf, String> {
    Ok(target_dir()?.join("release").join("weir"))
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf, String> {
    let metadata =
        output(Command::new(cargo_path()).args(["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
    let target = metadata
        .get("target_directory")
        .and_then(|dir| dir.as_str())
        .ok_or("cargo tells no target directory")?;
    Ok(PathBuf::from(target))
}

/// Sets a field of an object.
pub(crate) fn set(object: &mut serde_json::Value, key: &str, value: serde_json::Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

/// One step of a longer run, with its time.
pub(crate) fn step(name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let begin = Instant::now();
    complain(&format!("== {name}"));
    work().map_err(|error| format!("{name}: {error}"))?;
    complain(&format!("== {name}: ok, {} s", begin.elapsed().as_secs()));
    Ok(())
}

/// A line to standard error.
pub(crate) fn complain(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}")); // a closed terminal has nobody to tell
}

/// The root of the repository. Cargo tells it at run time; what it told when this was built may be another checkout that
/// shares the target directory.
pub(crate) fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().unwrap_or(Path::new(".")).to_path_buf()
}

pub(crate) fn cargo_path() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Runs a program to its end.
pub(crate) fn finish(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}")) }
}
