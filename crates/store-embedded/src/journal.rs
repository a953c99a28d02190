//! What fjall's recovery leaves to us: pages of the journal that a power cut kept from the disk.
//!
//! A journal file is reserved as zeros and written from its start. Until it is synced, its pages reach the disk in any
//! order, so a power cut can leave a page of zeros with written ones behind it. fjall cuts what is torn at the end, but
//! takes a page of zeros inside a value for damage, and refuses. Such a page was never synced, so nothing from it on was
//! ever answered as durable: the journal is cut there. Written data has no such page, because values of 4 KiB and more
//! are compressed there; a flipped bit makes none, and stays damage.

use std::{
    fs::{self, File},
    io::{self, BufReader, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

/// The page of every file system that we know of, and the least that reaches the disk as one.
const PAGE: usize = 4 << 10;

/// Journal files of a database.
pub(crate) fn files(database: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Drops the journal from the page cache: after a failed sync the cache may hold what the disk does not have, and
/// recovery must read what is there. Best effort.
pub(crate) fn forget_cached(database: &Path) {
    for path in files(database).unwrap_or_default() {
        if let Ok(file) = File::open(path) {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
}

/// Cuts the newest journal file where a page that was never written has written ones behind it. Older files were synced
/// when they were closed. True if it cut something.
pub(crate) fn cut_at_unwritten_page(database: &Path) -> io::Result<bool> {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let Some(path) = files(database)?.into_iter().max_by_key(number) else { return Ok(false) };
    let Some(offset) = unwritten_page(&path)? else { return Ok(false) };
    tracing::warn!(file = %path.display(), offset, "cutting the journal at a page that was never written");
    let file = File::options().write(true).open(&path)?;
    file.set_len(offset)?;
    file.sync_all()?;
    Ok(true)
}

/// The offset of the first page of zeros, if anything but zeros follows it.
fn unwritten_page(path: &Path) -> io::Result<Option<u64>> {
    let mut reader = BufReader::with_capacity(64 * PAGE, File::open(path)?);
    let mut page = [0; PAGE];
    let mut unwritten = None;
    for offset in (0..).step_by(PAGE) {
        match reader.read_exact(&mut page) {
            Ok(()) if page.iter().all(|byte| *byte == 0) => unwritten = unwritten.or(Some(offset)),
            Ok(()) if unwritten.is_some() => return Ok(unwritten),
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
