//! Opening a stream's directory: checks every record, cuts a torn tail, refuses what is damaged.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::warn;
use weir_core::{Result, Stream, Uid};

use crate::{
    Durability,
    dedup::Dedup,
    disk::{self, Disk, SegmentFile},
    error,
    format::SegmentHeader,
    options::Options,
    scan::{self, Expected, Scanned},
    segment::{Sealed, SegmentReader},
    state::{Active, Shared, State},
    writer::Writer,
};

/// The end of a segment's name; before it stands the first sequence in twenty digits, so that names sort.
const SEGMENT_SUFFIX: &str = "log";
/// One step of writing the unproven tail again.
const REWRITE_BYTES: usize = 1024 * 1024;
/// What file systems write as a whole.
const PAGE: u64 = 4_096;

/// `<dir>/00000000000000000001.log`.
pub(crate) fn segment_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.{SEGMENT_SUFFIX}"))
}

/// Opens a stream below the log's directory, making it where there is none.
///
/// # Errors
/// `LOG_DAMAGED` where what was durable is not what was written; `Unavailable` where a file cannot be read or written.
pub(crate) fn open(root: &Path, stream: Stream, options: &Options, disk: &Disk) -> Result<Writer> {
    let dir = root.join(stream.as_str());
    fs::create_dir_all(&dir)
        .and_then(|()| disk::sync_dir(&dir))
        .map_err(|source| error::io(&dir, "create", source))?;
    let (identity, is_new) = identity(&dir, disk)?;
    let mut dedup = Dedup::default();
    let paths = segments(&dir)?;
    let mut sealed = VecDeque::new();
    let mut newest = None;
    for (place, (base, path)) in paths.iter().enumerate() {
        let expected = Expected { stream, identity, newest: place + 1 == paths.len() };
        let found = scan::scan(path, expected, |record| {
            dedup.insert(record.stored_at, record.id, record.sequence);
        })?;
        check_order(path, *base, newest.as_ref(), &found)?;
        if let Some((path, found)) = newest.replace((path.clone(), found)) {
            sealed.extend(Sealed::of(&path, &found.index, found.end, found.stored));
        }
    }
    let (path, found) = match newest {
        Some(newest) => newest,
        None => create_first(&dir, stream, identity, disk)?,
    };
    if !is_new {
        check_floor(&path, stream, &found, options)?;
    }
    let file = disk.open(&path).map_err(|source| error::io(&path, "open", source))?;
    repair(&path, &file, &found)?;
    let reader = SegmentReader { path: path.into(), file: file.reader(), seed: found.header.seed() };
    let (end, next_sequence) = (found.end, found.index.next());
    let active = Active { reader, index: found.index, end, stored: found.stored };
    let state = State::new(sealed, active);
    let shared = Shared::new(stream, dir, identity, options.clone(), disk.clone(), state);
    Ok(Writer {
        shared: Arc::new(shared),
        file,
        header: found.header,
        end,
        synced: end,
        len: end,
        next_sequence,
        dedup,
        marked: found.marked,
        buffer: Vec::new(),
    })
}

/// The stream's identity, and whether it was made just now.
fn identity(dir: &Path, disk: &Disk) -> Result<(Uid, bool)> {
    let path = dir.join("IDENTITY");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim_end().parse() {
            Ok(identity) => Ok((identity, false)),
            Err(_) => Err(error::damaged(&path, 0, "it is not an identity of 32 hexadecimal digits")),
        },
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let identity = Uid::random();
            disk.create(&path, format!("{identity}\n").as_bytes())
                .map_err(|source| error::io(&path, "create", source))?;
            Ok((identity, true))
        }
        Err(source) => Err(error::io(&path, "read", source)),
    }
}

/// The segments in order. What a crash left half made is removed.
fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let read = |source| error::io(dir, "read", source);
    let mut found = vec![];
    for entry in fs::read_dir(dir).map_err(read)? {
        let path = entry.map_err(read)?.path();
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("tmp") => fs::remove_file(&path).map_err(|source| error::io(&path, "remove", source))?,
            Some(SEGMENT_SUFFIX) => {
                let base = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
                let base = base.ok_or_else(|| error::damaged(&path, 0, "its name is not a sequence"))?;
                found.push((base, path));
            }
            _ => {}
        }
    }
    found.sort();
    Ok(found)
}

/// A segment begins with the sequence in its name, which follows the last one of its predecessor.
fn check_order(path: &Path, base: u64, before: Option<&(PathBuf, Scanned)>, found: &Scanned) -> Result<()> {
    if found.header.base != base {
        let text = format!("it begins with sequence {}", found.header.base);
        return Err(error::damaged(path, 0, &text));
    }
    if let Some((before, scanned)) = before
        && scanned.index.next() != base
    {
        let text = format!(
            "it ends with sequence {}, and the next segment begins with {base}",
            scanned.index.next() - 1
        );
        return Err(error::damaged(before, scanned.end, &text));
    }
    Ok(())
}

fn create_first(dir: &Path, stream: Stream, identity: Uid, disk: &Disk) -> Result<(PathBuf, Scanned)> {
    let path = segment_path(dir, 1);
    let header = SegmentHeader { id: Uid::random(), identity, base: 1, stream };
    disk.create(&path, &header.to_bytes()).map_err(|source| error::io(&path, "create", source))?;
    let found = scan::scan(&path, Expected { stream, identity, newest: true }, |_| {})?;
    Ok((path, found))
}

/// A stream that ends below what was dealt with has lost what was durable.
fn check_floor(path: &Path, stream: Stream, found: &Scanned, options: &Options) -> Result<()> {
    let floor = options.progress_floor.get(&stream).copied().unwrap_or_default();
    let last = found.index.next() - 1;
    if options.durability == Durability::Process || last >= floor {
        return Ok(());
    }
    let text = format!("the log ends there with sequence {last}, and was read up to sequence {floor}");
    Err(error::damaged(path, found.end, &text))
}

/// Cuts what is behind the last whole record, and writes what no record proves to be durable once more: after a sync
/// that failed, the page cache calls pages clean that the disk never got.
fn repair(path: &Path, file: &SegmentFile, found: &Scanned) -> Result<()> {
    if found.torn {
        warn!(
            file = %path.display(), offset = found.end, bytes = found.rest,
            "cut a torn record at the end of the log: its write was never acknowledged"
        );
    }
    let mut buffer = vec![0; REWRITE_BYTES];
    let mut at = found.synced_through / PAGE * PAGE;
    let mut write = || -> io::Result<()> {
        file.set_len(found.end)?;
        while at < found.end {
            let len = usize::try_from(found.end - at).unwrap_or(usize::MAX).min(REWRITE_BYTES);
            let part = buffer.split_at_mut(len).0;
            file.reader().read_exact_at(part, at)?;
            file.write_all_at(part, at)?;
            at += len as u64;
        }
        file.sync()
    };
    write().map_err(|source| error::io(path, "repair", source))
}
