//! A wall clock of its own for each process of Weir, which jumps while the process runs: Debian's `faketime` (a library that
//! answers `clock_gettime`), told by a file. Clocks that only go forward are left alone, as a real jump leaves them alone.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use weir_core::{Error, Result};

/// Where the library is, on the machines that Debian runs on.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

fn library() -> Option<&'static str> {
    LIBRARIES.into_iter().find(|library| Path::new(library).exists())
}

/// Why clocks cannot jump here; nothing where they can: a program that is told so gives the time of then.
///
/// # Errors
/// What is missing.
pub fn possible() -> std::result::Result<(), String> {
    let library = library().ok_or("a jumping clock needs libfaketime (apt-get install faketime)")?;
    let date = |command: &mut Command| {
        let output =
            command.arg("+%s").output().map_err(|error| format!("a jumping clock needs date: {error}"))?;
        let seconds = String::from_utf8_lossy(&output.stdout).trim().parse::<i64>();
        seconds.map_err(|_| format!("date says {:?}", String::from_utf8_lossy(&output.stderr)))
    };
    let off = date(Command::new("date").env("LD_PRELOAD", library).env("FAKETIME", "+3600"))?
        - date(&mut Command::new("date"))?;
    if off > 3_000 { Ok(()) } else { Err(format!("{library} does not move the clock: it is {off} s off")) }
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.clock"))
}

/// The environment of a process whose clock can jump.
///
/// # Errors
/// Where the clock cannot be set.
pub fn environment(dir: &Path, name: &str) -> Result<Vec<(String, String)>> {
    let library = library().ok_or_else(|| Error::internal("there is no libfaketime"))?;
    set(dir, name, 0)?;
    let file = file(dir, name).display().to_string();
    let environment = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", &file),
        // The file is looked at once a second.
        ("FAKETIME_CACHE_DURATION", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        // Files keep their true times.
        ("NO_FAKE_STAT", "1"),
    ];
    Ok(environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
}

/// Sets a process's clock so many seconds from the true time.
///
/// # Errors
/// Where its file cannot be written.
pub fn set(dir: &Path, name: &str, seconds: i64) -> Result<()> {
    let (file, new) = (file(dir, name), dir.join(format!("{name}.clock.new")));
    let failed = |source: std::io::Error| {
        Error::unavailable(format!("cannot set a clock in {}: {source}", dir.display())).with_source(source)
    };
    // Renamed, since it is read at any moment.
    std::fs::write(&new, format!("{seconds:+}\n")).map_err(failed)?;
    std::fs::rename(&new, &file).map_err(failed)
}
