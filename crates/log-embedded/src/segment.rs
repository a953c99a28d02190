//! Sealed segments: what is known of each without its file, and the few whose file and index are at hand.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use weir_core::{Partition, Result, Timestamp, port::Record};

use crate::{
    error,
    format::{Kind, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader},
    index::Index,
};

/// Readers that are behind walk the same segments at about the same time; each index has at most 0.5 MiB.
const OPEN_MAX: usize = 4;

/// A segment that takes no more records.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) path: PathBuf,
    /// The sequence of the first record.
    pub(crate) base: u64,
    /// The sequence of the last record.
    pub(crate) last: u64,
    pub(crate) bytes: u64,
    /// When the first and the last record were stored.
    pub(crate) stored: (Timestamp, Timestamp),
    /// The last sequence of each partition that has a record here.
    pub(crate) lasts: Vec<(Partition, u64)>,
}

impl Sealed {
    /// Of a segment with these records; `None` where it has none.
    pub(crate) fn of(
        path: &Path,
        index: &Index,
        bytes: u64,
        stored: Option<(Timestamp, Timestamp)>,
    ) -> Option<Self> {
        Some(Self {
            path: path.to_path_buf(),
            base: index.base(),
            last: index.next() - 1,
            bytes,
            stored: stored?,
            lasts: index.lasts().collect(),
        })
    }
}

/// A segment's file, to be read.
#[derive(Debug, Clone)]
pub(crate) struct SegmentReader {
    pub(crate) path: Arc<Path>,
    pub(crate) file: Arc<File>,
    pub(crate) seed: u32,
}

impl SegmentReader {
    /// The record at an offset that the index gave.
    ///
    /// # Errors
    /// `LOG_DAMAGED` where it is no longer what was written.
    pub(crate) fn record(&self, offset: u64) -> Result<Record> {
        let (bytes, header) = self.header_bytes(offset)?;
        let mut body = vec![0; header.len as usize];
        self.read_exact(&mut body, offset + RECORD_HEADER as u64)?;
        if !header.is_whole(&bytes, &body, self.seed) {
            return Err(error::damaged(&self.path, offset, "the record there is not what was written"));
        }
        Ok(Record {
            sequence: header.sequence,
            id: header.id,
            stored_at: header.stored_at,
            bytes: Bytes::from(body),
        })
    }

    /// Its header alone, unchecked: it was checked at open or written by this process.
    ///
    /// # Errors
    /// `LOG_DAMAGED` where there is none.
    pub(crate) fn header(&self, offset: u64) -> Result<RecordHeader> {
        Ok(self.header_bytes(offset)?.1)
    }

    fn header_bytes(&self, offset: u64) -> Result<([u8; RECORD_HEADER], RecordHeader)> {
        let mut bytes = [0; RECORD_HEADER];
        self.read_exact(&mut bytes, offset)?;
        let header = RecordHeader::from_bytes(&bytes)
            .ok_or_else(|| error::damaged(&self.path, offset, "the header there is not that of a record"))?;
        Ok((bytes, header))
    }

    fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => error::damaged(&self.path, offset, "the file ends"),
            _ => error::io(&self.path, "read", source),
        })
    }
}

/// A sealed segment at hand.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) reader: SegmentReader,
    pub(crate) index: Index,
}

/// The sealed segments at hand, the one used last at the end. At the bound the one that was not used for longest goes,
/// and is read again when it is wanted.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Vec<Arc<Open>>>);

impl Cache {
    /// The segment, from its file where it is not at hand; `None` where the file was trimmed meanwhile. Blocks.
    ///
    /// # Errors
    /// `Unavailable` or `DataLoss` of the file.
    pub(crate) fn get(&self, segment: &Sealed) -> Result<Option<Arc<Open>>> {
        // Held while the file is read, so that sixteen readers that arrive together read it once.
        let mut open = self.0.lock();
        let known = open.iter().position(|known| known.index.base() == segment.base);
        let found = match known {
            Some(place) => open.remove(place),
            None => match load(segment) {
                Ok(loaded) => Arc::new(loaded),
                Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(error::io(&segment.path, "read", source)),
            },
        };
        if open.len() >= OPEN_MAX {
            open.remove(0);
        }
        open.push(Arc::clone(&found));
        Ok(Some(found))
    }

    pub(crate) fn forget(&self, base: u64) {
        self.0.lock().retain(|known| known.index.base() != base);
    }
}

/// Builds the index from the record headers; the bodies are stepped over.
fn load(segment: &Sealed) -> io::Result<Open> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is not the segment that it was");
    let file = Arc::new(File::open(&segment.path)?);
    let mut read = BufReader::new(&*file);
    let mut bytes = [0; SEGMENT_HEADER];
    read.read_exact(&mut bytes)?;
    let header = SegmentHeader::from_bytes(&bytes).filter(|header| header.base == segment.base);
    let seed = header.ok_or_else(damaged)?.seed();
    let mut index = Index::new(segment.base);
    let mut at = SEGMENT_HEADER as u64;
    while at < segment.bytes {
        let mut bytes = [0; RECORD_HEADER];
        read.read_exact(&mut bytes)?;
        let record = RecordHeader::from_bytes(&bytes).ok_or_else(damaged)?;
        read.seek_relative(i64::from(record.len))?;
        if record.kind == Kind::Record {
            index.push(record.partition, at);
        }
        at += record.size();
    }
    drop(read);
    Ok(Open { reader: SegmentReader { path: segment.path.as_path().into(), file, seed }, index })
}
