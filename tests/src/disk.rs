//! A disk whose power can be cut: an ext4 file system in an image file, mounted through a loop device.
//!
//! What the file system has been told to make durable is in the image file; what is only in the page cache of the mount is
//! not. So a copy of the image, taken while the process is stopped, is what a machine would find after a power cut at that
//! moment. A SIGKILL alone proves nothing about durability: the page cache survives it.
//!
//! It needs root, `mkfs.ext4`, `mount` and loop devices; [`Disk::possible`] says which is missing.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use weir_core::{Error, Result};

use crate::process::until;

/// How long a disk may stay busy after its last user was killed.
const FREE: Duration = Duration::from_secs(10);
/// The programs that it needs.
const TOOLS: [&str; 4] = ["mkfs.ext4", "mount", "umount", "cp"];

/// A mounted image.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    copies: u32,
}

impl Disk {
    /// Why there can be none here; nothing where there can be.
    pub fn possible() -> std::result::Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("a power cut needs root, to mount a loop device".to_owned());
        }
        if !Path::new("/dev/loop-control").exists() {
            return Err("a power cut needs loop devices (/dev/loop-control)".to_owned());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let missing =
            TOOLS.iter().find(|tool| !std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()));
        missing.map_or(Ok(()), |tool| Err(format!("a power cut needs {tool}")))
    }

    /// Makes an image of `mib` MiB in `dir` and mounts it at `dir/NAME`.
    ///
    /// # Errors
    /// What the first failing program says.
    pub fn make(dir: &Path, name: &str, mib: u32) -> Result<Self> {
        let (image, mount) = (dir.join(format!("{name}.ext4")), dir.join(name));
        let failed = |source: std::io::Error| Error::unavailable(format!("cannot make a disk: {source}"));
        std::fs::create_dir_all(&mount).map_err(failed)?;
        let file = std::fs::File::create(&image).map_err(failed)?;
        file.set_len(u64::from(mib) << 20).map_err(failed)?;
        // Without lazy initialisation nothing but the test's own data is written later.
        let format = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        run(Command::new("mkfs.ext4").args(format).arg(&image))?;
        let disk = Self { image, mount, copies: 0 };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Copies what is durable now. Whoever writes to it must be stopped (SIGSTOP) and killed before [`Disk::power_on`].
    ///
    /// # Errors
    /// Where the copy does not fit.
    pub fn cut(&mut self) -> Result<PathBuf> {
        self.copies += 1;
        let copy = self.image.with_extension(format!("{}.ext4", self.copies));
        run(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&copy))?;
        Ok(copy)
    }

    /// Mounts a copy in place of the old image, which is thrown away.
    ///
    /// # Errors
    /// Where the old one is still in use, or the new one cannot be mounted.
    pub async fn power_on(&mut self, copy: PathBuf) -> Result<()> {
        // Whoever had a file open may take a moment to be gone, after its end was told.
        until("the disk is no longer used", FREE, async || run(Command::new("umount").arg(&self.mount)).ok())
            .await?;
        drop(std::fs::remove_file(&self.image)); // space is all that is lost
        self.image = copy;
        self.mount()
    }

    /// Makes everything that is written by now durable.
    ///
    /// # Errors
    /// What the file system says.
    pub fn settle(&self) -> Result<()> {
        let failed = |source: std::io::Error| Error::unavailable(format!("cannot sync a disk: {source}"));
        let dir = std::fs::File::open(&self.mount).map_err(failed)?;
        rustix::fs::syncfs(&dir).map_err(|error| failed(error.into()))
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let clean = run(Command::new("umount").arg(&self.mount));
        if clean.is_err() {
            drop(run(Command::new("umount").arg("-l").arg(&self.mount))); // goes when its last user does
        }
        drop(std::fs::remove_file(&self.image));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output =
        command.output().map_err(|source| Error::unavailable(format!("cannot run {command:?}: {source}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::unavailable(format!("{command:?} failed: {said}")))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    #[tokio::test]
    async fn after_a_power_cut_what_was_synced_is_there_and_what_was_not_is_gone() {
        if let Err(why) = Disk::possible() {
            assert!(std::env::var_os("CI").is_none(), "needed in CI: {why}");
            drop(writeln!(std::io::stderr(), "SKIPPED: {why}"));
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Disk::make(dir.path(), "disk", 64).unwrap();
        let mut kept = fs::File::create(disk.path().join("synced")).unwrap();
        kept.write_all(b"kept").unwrap();
        kept.sync_all().unwrap();
        fs::write(disk.path().join("cached"), b"gone").unwrap();
        let copy = disk.cut().unwrap();
        drop(kept);
        disk.power_on(copy).await.unwrap();
        assert_eq!(fs::read(disk.path().join("synced")).unwrap(), b"kept");
        let cached = fs::read(disk.path().join("cached")).unwrap_or_default();
        assert_ne!(cached, b"gone", "it was never made durable");
    }
}
