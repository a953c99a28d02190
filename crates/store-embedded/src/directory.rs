//! The data directory: who has it, of which version it is, and how much room its disk has.
//!
//! ```text
//! lock      held (flock) by the process that has the directory open
//! version   `weir-store 1`, or `weir-store 1 creating` until the database was made
//! db/       the database
//! ```

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind as IoKind, Write as _},
    path::{Path, PathBuf},
};

use weir_core::{Error, ErrorKind, Result};

use crate::failure;

/// What this release reads and writes.
const VERSION: &str = "weir-store 1";
/// Follows the version until the database was made: what is there then was never used, and is removed.
const CREATING: &str = " creating";

/// An open data directory.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory where there is none, takes its lock and checks its version.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|source| failure::io(path, "make the directory", source))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(|source| failure::io(path, "open the lock file", source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(failure::in_use(path)),
            Err(TryLockError::Error(source)) => return Err(failure::io(path, "take the lock", source)),
        }
        let directory = Self { path: path.to_owned(), _lock: lock };
        directory.check_version()?;
        Ok(directory)
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database is.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    /// Says that the database was made: from now on nothing of it is removed.
    pub(crate) fn created(&self) -> Result<()> {
        self.write_version(VERSION)
    }

    /// Bytes that an unprivileged process can still write. Where the file system cannot tell, none is missing.
    pub(crate) fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.path)
            .map_or(u64::MAX, |found| found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn check_version(&self) -> Result<()> {
        let found = match fs::read_to_string(self.path.join("version")) {
            Ok(text) => text,
            Err(error) if error.kind() == IoKind::NotFound => return self.begin(),
            Err(source) => return Err(failure::io(&self.path, "read the version file", source)),
        };
        match found.trim() {
            VERSION => Ok(()),
            text if text.strip_suffix(CREATING) == Some(VERSION) => {
                match fs::remove_dir_all(self.database()) {
                    Err(source) if source.kind() != IoKind::NotFound => {
                        Err(failure::io(&self.path, "remove a half-made database", source))
                    }
                    _ => Ok(()),
                }
            }
            other => {
                let shown: String = other.chars().take(40).collect();
                Err(version(&self.path, &format!("is of version {shown:?}")))
            }
        }
    }

    fn begin(&self) -> Result<()> {
        if self.database().exists() {
            return Err(version(&self.path, "holds a database but no version file"));
        }
        self.write_version(&format!("{VERSION}{CREATING}"))
    }

    fn write_version(&self, text: &str) -> Result<()> {
        let write = || {
            let new = self.path.join("version.new");
            let mut file = File::create(&new)?;
            file.write_all(format!("{text}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, self.path.join("version"))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| failure::io(&self.path, "write the version file", source))
    }
}

fn version(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        "DATA_DIR_VERSION",
        format!("data directory {} {what}; this release reads {VERSION:?}", path.display()),
    )
}
