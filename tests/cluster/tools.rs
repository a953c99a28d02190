//! What every test here uses.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// The examples of the chart.
pub(crate) const EXAMPLES: [&str; 3] = ["trial", "nats-scylla", "production"];

/// Says in words why a test does not run; a failure where the environment promises what is missing.
pub(crate) fn skipped(why: &str) {
    let required = std::env::var_os("WEIR_TEST_CLUSTER").is_some_and(|how| how == "required");
    assert!(!required, "it was promised: {why}");
    drop(writeln!(std::io::stderr(), "SKIPPED: {why}"));
}

/// Whether a tool is there.
pub(crate) fn has(tool: &str) -> bool {
    let tried = Command::new(tool).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok()
}

/// Standard output, or all that went wrong.
pub(crate) fn told(what: &str, output: Output) -> Result<String, String> {
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.success() {
        true => Ok(out.into_owned()),
        false => Err(format!("{what}: {}\n{out}{errors}", output.status)),
    }
}

/// The checkout: cargo tells it at run time, since what it told when this was built may be another one that shares the target
/// directory.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo test tells where the crate is");
    Path::new(&here).join("..").canonicalize().expect("the checkout")
}
