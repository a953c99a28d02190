//! The bytes of a segment file, all integers little-endian.
//!
//! ```text
//! segment: magic[8] id[16] identity[16] base u64, stream u8, zeros[11], crc32c u32 (of all before)      64 bytes
//! record:  crc32c u32, length u32, kind u8, zero u8, partition u16, sequence u64, synced_through u64,
//!          stored_at i64, id[16]                                                    52 bytes, then the body
//! ```
//!
//! A record's checksum is over the rest of its header and its body, and begins with the segment's random id: a payload
//! whose author does not know the id cannot look like a record. `synced_through` is the offset in this file up to which
//! all was durable when the record was written. A *marker* is a record without a body or a sequence of its own, written
//! when the log falls idle or closes, for its `synced_through`: it proves that what stands before it was durable.

use weir_core::{Partition, Stream, Timestamp, Uid};

/// The format's version is the last character.
pub(crate) const MAGIC: [u8; 8] = *b"WEIRLOG1";
pub(crate) const SEGMENT_HEADER: usize = 64;
pub(crate) const RECORD_HEADER: usize = 52;

/// As NATS refuses by default, and above the largest frame.
pub(crate) const RECORD_MAX: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Random, new for each file.
    pub(crate) id: Uid,
    /// Of the stream.
    pub(crate) identity: Uid,
    /// The sequence of the first record.
    pub(crate) base: u64,
    pub(crate) stream: Stream,
}

impl SegmentHeader {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.id.to_bytes());
        out.extend_from_slice(&self.identity.to_bytes());
        out.extend_from_slice(&self.base.to_le_bytes());
        out.push(self.stream as u8);
        out.extend_from_slice(&[0; 11]);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// `None` where it is damaged or of another format.
    pub(crate) fn from_bytes(bytes: &[u8; SEGMENT_HEADER]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let (magic, rest) = body.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (identity, rest) = rest.split_first_chunk::<16>()?;
        let (base, rest) = rest.split_first_chunk::<8>()?;
        let stream = Stream::ALL.into_iter().find(|stream| Some(&(*stream as u8)) == rest.first())?;
        (*magic == MAGIC && u32::from_le_bytes(*crc) == crc32c::crc32c(body)).then_some(Self {
            id: Uid::from_bytes(*id),
            identity: Uid::from_bytes(*identity),
            base: u64::from_le_bytes(*base),
            stream,
        })
    }

    /// Where the checksums of this segment's records begin.
    pub(crate) fn seed(&self) -> u32 {
        crc32c::crc32c(&self.id.to_bytes())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Record = 1,
    /// Its sequence is that of the record before it.
    Marker = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) crc: u32,
    pub(crate) len: u32,
    pub(crate) kind: Kind,
    pub(crate) partition: Partition,
    pub(crate) sequence: u64,
    pub(crate) synced_through: u64,
    pub(crate) stored_at: Timestamp,
    pub(crate) id: Uid,
}

impl RecordHeader {
    /// Appends header and body, with the checksum that they have under `seed`.
    pub(crate) fn put(&self, out: &mut Vec<u8>, seed: u32, body: &[u8]) {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&[self.kind as u8, 0]);
        out.extend_from_slice(&self.partition.0.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.synced_through.to_le_bytes());
        out.extend_from_slice(&self.stored_at.as_micros().to_le_bytes());
        out.extend_from_slice(&self.id.to_bytes());
        out.extend_from_slice(body);
        let crc = crc32c::crc32c_append(seed, out.get(at + 4..).unwrap_or_default());
        if let Some(place) = out.get_mut(at..at + 4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// Whether it could be a header at all; the checksum is a second question.
    pub(crate) fn from_bytes(bytes: &[u8; RECORD_HEADER]) -> Option<Self> {
        let (crc, rest) = bytes.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<2>()?;
        let (partition, rest) = rest.split_first_chunk::<2>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (synced, rest) = rest.split_first_chunk::<8>()?;
        let (stored_at, id) = rest.split_first_chunk::<8>()?;
        let kind = match kind {
            [1, 0] => Kind::Record,
            [2, 0] => Kind::Marker,
            _ => return None,
        };
        let len = u32::from_le_bytes(*len);
        (len as usize <= RECORD_MAX).then_some(Self {
            crc: u32::from_le_bytes(*crc),
            len,
            kind,
            partition: Partition(u16::from_le_bytes(*partition)),
            sequence: u64::from_le_bytes(*sequence),
            synced_through: u64::from_le_bytes(*synced),
            stored_at: Timestamp::from_micros(i64::from_le_bytes(*stored_at)),
            id: Uid::from_bytes(*id.first_chunk()?),
        })
    }

    /// Whether header and body are what was written under `seed`.
    pub(crate) fn is_whole(&self, header: &[u8; RECORD_HEADER], body: &[u8], seed: u32) -> bool {
        let (_, checked) = header.split_at(4);
        self.len as usize == body.len()
            && crc32c::crc32c_append(crc32c::crc32c_append(seed, checked), body) == self.crc
    }

    /// Bytes of header and body.
    pub(crate) const fn size(&self) -> u64 {
        RECORD_HEADER as u64 + self.len as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_put_and_only_under_their_own_segment() {
        let segment =
            SegmentHeader { id: Uid::random(), identity: Uid::random(), base: 7, stream: Stream::Commands };
        assert_eq!(SegmentHeader::from_bytes(segment.to_bytes().first_chunk().unwrap()), Some(segment));

        let header = RecordHeader {
            crc: 0,
            len: 3,
            kind: Kind::Record,
            partition: Partition(3),
            sequence: 9,
            synced_through: 64,
            stored_at: Timestamp::from_micros(-5),
            id: Uid::random(),
        };
        let mut bytes = vec![];
        header.put(&mut bytes, segment.seed(), b"abc");
        let (head, body) = bytes.split_first_chunk().unwrap();
        let read = RecordHeader::from_bytes(head).unwrap();
        assert_eq!(RecordHeader { crc: 0, ..read }, header);
        assert!(read.is_whole(head, body, segment.seed()));
        assert!(!read.is_whole(head, body, segment.seed() ^ 1));
    }
}
