//! The file system as the log uses it: one place for every call whose failure matters, so that tests can make it fail.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

#[cfg(test)]
pub(crate) use faults::Faults;

/// Opens and makes files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) faults: Arc<Faults>,
}

/// A segment file that is being written.
#[derive(Debug, Clone)]
pub(crate) struct SegmentFile {
    file: Arc<File>,
    #[cfg(test)]
    faults: Arc<Faults>,
}

impl Disk {
    /// A file of this content under this name, whole or not at all: written beside it, synced, renamed, and the directory
    /// synced.
    pub(crate) fn create(&self, path: &Path, content: &[u8]) -> io::Result<SegmentFile> {
        #[cfg(test)]
        self.faults.before_write(content.len())?;
        let beside = temporary(path);
        let make = || -> io::Result<File> {
            let mut file =
                File::options().read(true).write(true).create(true).truncate(true).open(&beside)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
            Ok(file)
        };
        let made = make();
        if made.is_err() {
            let _ = fs::remove_file(&beside); // what is left of it is removed at the next start
        }
        let file = made?;
        sync_dir(path)?;
        Ok(self.wrap(file))
    }

    /// An existing segment file, to be written.
    pub(crate) fn open(&self, path: &Path) -> io::Result<SegmentFile> {
        Ok(self.wrap(File::options().read(true).write(true).open(path)?))
    }

    fn wrap(&self, file: File) -> SegmentFile {
        SegmentFile {
            file: Arc::new(file),
            #[cfg(test)]
            faults: Arc::clone(&self.faults),
        }
    }

    /// Removes a file for good. One that is gone already, as after a removal whose sync failed, still needs that sync.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_remove()?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        sync_dir(path)
    }

    /// Bytes that a user other than root may still write.
    pub(crate) fn free(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

impl SegmentFile {
    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Err(error) = self.faults.before_write(bytes.len()) {
            let half = bytes.split_at(bytes.len() / 2).0; // as a disk does that fills up on the way
            self.file.write_all_at(half, offset)?;
            return Err(error);
        }
        self.file.write_all_at(bytes, offset)
    }

    /// Returns when data and length are on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_sync()?;
        self.file.sync_data()
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// The file, to be read.
    pub(crate) fn reader(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

/// Where a file stands until it is whole.
fn temporary(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

/// Makes what was created, renamed or removed beside `path` durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

#[cfg(test)]
mod faults {
    use std::{
        io,
        sync::atomic::{AtomicBool, AtomicU64, Ordering},
    };

    /// What the disk does next.
    #[derive(Debug)]
    pub(crate) struct Faults {
        pub(crate) sync_fails: AtomicBool,
        /// A write of more bytes than this finds no room after its first half.
        pub(crate) room: AtomicU64,
        pub(crate) syncs: AtomicU64,
        /// A sync waits as long as it is set.
        pub(crate) sync_held: AtomicBool,
        /// So many removals fail.
        pub(crate) removals_fail: AtomicU64,
    }

    impl Default for Faults {
        fn default() -> Self {
            Self {
                sync_fails: AtomicBool::new(false),
                room: AtomicU64::new(u64::MAX),
                syncs: AtomicU64::new(0),
                sync_held: AtomicBool::new(false),
                removals_fail: AtomicU64::new(0),
            }
        }
    }

    impl Faults {
        pub(super) fn before_write(&self, len: usize) -> io::Result<()> {
            if (len as u64) > self.room.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }

        pub(super) fn before_remove(&self) -> io::Result<()> {
            let left = &self.removals_fail;
            match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
                Ok(_) => Err(io::Error::other("injected")),
                Err(_) => Ok(()),
            }
        }

        pub(super) fn before_sync(&self) -> io::Result<()> {
            self.syncs.fetch_add(1, Ordering::SeqCst);
            while self.sync_held.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            if self.sync_fails.load(Ordering::SeqCst) {
                return Err(io::Error::other("injected"));
            }
            Ok(())
        }
    }
}
