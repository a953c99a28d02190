//! The frame codec: many messages of many devices as one log record; and the bodies of stored rows ([`row`]).
//!
//! A frame is what the edge publishes and what every reader of the `readings` stream decodes: a versioned header, a
//! dictionary of devices and metric names, an offset table, typed columns, columns that only some members have (trace
//! context, claimed time), and one CRC32C over all of it. A reading names its *shape* (the list of its metrics and their
//! types) instead of its metrics, so that a reader steps over the readings of a device that it does not want without
//! looking at one value.
//!
//! It is not a storage format: values are not compressed, because a frame lives for an hour and its reader wants it at
//! once; sealed chunks compress. It knows nothing of the log or of partitions.
//!
//! Frames come from a log, so decoding treats them as untrusted: it never panics, checks everything once in
//! [`Frame::decode`] (so that reading cannot fail later), and allocates in proportion to the bytes at hand.
//!
//! Layout, all integers little-endian:
//!
//! ```text
//! "WF"  version u8  sections u8  crc32c u32 (of all but itself)  messages u32  readings u32
//! (tag u8, 3 zero bytes, length u32) for each section, ascending by tag; then the sections, in that order
//! ```
//!
//! The sections are named in [`section`]. Tags from 128 are optional columns: a reader that does not know one ignores it,
//! so that a newer release can add one beside an older reader. Any other unknown tag refuses the frame.
//!
//! Rejected: protobuf and Arrow IPC. The first decodes everything or nothing and repeats each name; the second has
//! hundreds of bytes of schema in each message and a nesting of lists for what a shape says in four bytes.
//!
//! Sources: CRC32C (RFC 3720, appendix B.4); varints as in Protocol Buffers (LEB128); shapes after the hidden classes
//! of Self (Chambers, Ungar, Lee 1989).

mod decode;
mod dictionary;
mod encode;
pub mod row;
pub mod section;
mod view;
mod wire;

pub use decode::Frame;
pub use encode::{Encoder, check, encoded_len};
pub use view::{MessageView, Messages, Readings};

/// A frame of at least this many bytes takes no more messages: large enough that one fsync carries thousands of
/// readings, small enough that a slow link sends it within a retry's patience.
pub const FRAME_CLOSE: usize = 256 * 1024;

/// A message that encodes above this is refused by name: twice the largest packet (256 KiB), since a value that JSON
/// writes in five bytes takes eight here.
pub const MESSAGE_MAX: usize = 512 * 1024;

/// No frame is larger: an almost closed frame and one largest message. Below the 1 MiB at which NATS refuses.
pub const FRAME_MAX: usize = FRAME_CLOSE + MESSAGE_MAX;
