//! The file with the peppers.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use weir_core::{Error, ErrorKind, Result};
use weir_registry::Peppers;

/// Reads the peppers.
///
/// # Errors
/// `PEPPER_MISSING` that says how to make one.
pub(crate) fn read(file: &Path) -> Result<Peppers> {
    let text = fs::read_to_string(file).map_err(|source| {
        let message =
            format!("cannot read the pepper file {}: {source}; `weir init` makes one", file.display());
        Error::new(ErrorKind::FailedPrecondition, "PEPPER_MISSING", message).with_field("auth.pepper_file")
    })?;
    Peppers::parse(&text)
}

/// Makes a pepper file, readable by this user alone; one that is there already stays.
///
/// # Errors
/// `Unavailable` where it cannot be written.
pub(crate) fn make(file: &Path) -> Result<Peppers> {
    let line = Peppers::generate()?;
    write_secret(
        file,
        &format!(
            "# peppers of Weir: one a line, the first for new tokens; keep apart from the data\n{line}\n"
        ),
    )?;
    read(file)
}

/// Writes a new file that only this user can read; one that is there already stays as it is.
///
/// # Errors
/// `Unavailable` where it cannot be written.
pub(crate) fn write_secret(file: &Path, text: &str) -> Result<()> {
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = match opened {
        Ok(mut opened) => opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    written.map_err(|source| Error::unavailable(format!("cannot write {}: {source}", file.display())))
}
