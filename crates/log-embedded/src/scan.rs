//! Reading a segment file that nobody vouches for, at open: every record is checked, and a bad one is told from a torn
//! tail.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use weir_core::{Result, Stream, Timestamp, Uid};

use crate::{
    error,
    format::{Kind, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader},
    index::Index,
};

/// One read of the file; several of the records that the edge makes.
const READ_BYTES: usize = 256 * 1024;

/// What a segment file holds.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) header: SegmentHeader,
    pub(crate) index: Index,
    /// The offset after the last whole record.
    pub(crate) end: u64,
    /// Up to here the records themselves say that they were durable.
    pub(crate) synced_through: u64,
    /// Whether it ends with a marker.
    pub(crate) marked: bool,
    /// Bytes behind `end`, and whether they are more than the zeros that are written ahead.
    pub(crate) rest: u64,
    pub(crate) torn: bool,
    /// When the first and the last record were stored.
    pub(crate) stored: Option<(Timestamp, Timestamp)>,
}

/// Whose segment it must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) stream: Stream,
    pub(crate) identity: Uid,
    /// Only the newest segment can have a torn tail: the others were synced whole before their successor was made.
    pub(crate) newest: bool,
}

/// Reads a segment from its beginning and calls `visit` for each record.
///
/// # Errors
/// `LOG_DAMAGED` with file and offset where bytes that were durable are not what was written.
pub(crate) fn scan(path: &Path, expected: Expected, mut visit: impl FnMut(&RecordHeader)) -> Result<Scanned> {
    let read = |source| error::io(path, "read", source);
    let file = File::open(path).map_err(read)?;
    let len = file.metadata().map_err(read)?.len();
    let mut file = BufReader::with_capacity(READ_BYTES, file);
    let header = segment_header(path, &mut file, expected)?;
    let (base, seed) = (header.base, header.seed());
    let start = SEGMENT_HEADER as u64;
    let index = Index::new(base);
    let mut found = Scanned {
        header,
        index,
        end: start,
        synced_through: start,
        marked: false,
        rest: 0,
        torn: false,
        stored: None,
    };
    let mut body = Vec::new();
    while let Some(record) = next(&mut file, len, &found, seed, &mut body).map_err(read)? {
        found.synced_through = found.synced_through.max(record.synced_through);
        found.marked = record.kind == Kind::Marker;
        if !found.marked {
            found.index.push(record.partition, found.end);
            let first = found.stored.map_or(record.stored_at, |(first, _)| first);
            found.stored = Some((first, record.stored_at));
            visit(&record);
        }
        found.end += record.size();
    }
    found.rest = len - found.end;
    if found.rest > 0 {
        if !expected.newest {
            return Err(error::damaged(path, found.end, "the record there is not what was written"));
        }
        judge_rest(path, &mut file, &mut found)?;
    }
    Ok(found)
}

fn segment_header(path: &Path, file: &mut BufReader<File>, expected: Expected) -> Result<SegmentHeader> {
    let mut bytes = [0; SEGMENT_HEADER];
    let header = match file.read_exact(&mut bytes) {
        Ok(()) => SegmentHeader::from_bytes(&bytes),
        Err(cut) if cut.kind() == io::ErrorKind::UnexpectedEof => None,
        Err(source) => return Err(error::io(path, "read", source)),
    };
    let header = header.ok_or_else(|| error::damaged(path, 0, "the header is not that of a segment"))?;
    if header.identity != expected.identity || header.stream != expected.stream {
        let text = format!("the segment belongs to stream {} of log {}", header.stream, header.identity);
        return Err(error::damaged(path, 0, &text));
    }
    Ok(header)
}

/// The record at `found.end`; `None` where there is none or it is not whole.
fn next(
    file: &mut BufReader<File>,
    len: u64,
    found: &Scanned,
    seed: u32,
    body: &mut Vec<u8>,
) -> io::Result<Option<RecordHeader>> {
    let left = len - found.end;
    if left < RECORD_HEADER as u64 {
        return Ok(None);
    }
    let mut bytes = [0; RECORD_HEADER];
    file.read_exact(&mut bytes)?;
    let Some(header) = RecordHeader::from_bytes(&bytes) else { return Ok(None) };
    let sequence = match header.kind {
        Kind::Record => found.index.next(),
        Kind::Marker => found.index.next() - 1,
    };
    if header.sequence != sequence || header.size() > left || header.synced_through > found.end {
        return Ok(None);
    }
    body.resize(header.len as usize, 0);
    file.read_exact(body)?;
    Ok(header.is_whole(&bytes, body, seed).then_some(header))
}

/// Decides whether what stands behind the last whole record is a torn tail: it is not if a record further behind says
/// that this place was durable.
fn judge_rest(path: &Path, file: &mut BufReader<File>, found: &mut Scanned) -> Result<()> {
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(found.end))
        .and_then(|_| file.read_to_end(&mut rest))
        .map_err(|source| error::io(path, "read", source))?;
    found.torn = rest.iter().any(|byte| *byte != 0);
    let seed = found.header.seed();
    let mut at = 1;
    while let Some((bytes, after)) = rest.get(at..).and_then(<[u8]>::split_first_chunk::<RECORD_HEADER>) {
        let whole = RecordHeader::from_bytes(bytes).filter(|header| {
            header.sequence >= found.index.next() - 1
                && header.synced_through <= found.end + at as u64
                && after.get(..header.len as usize).is_some_and(|body| header.is_whole(bytes, body, seed))
        });
        match whole {
            Some(header) if header.synced_through > found.end => {
                return Err(error::damaged(path, found.end, "the record there is not what was written"));
            }
            Some(header) => at += header.size() as usize,
            None => at += 1,
        }
    }
    Ok(())
}
