//! The sections of a frame: which column lives under which tag.

/// Tenant ids: length u8, text.
pub const TENANTS: u8 = 1;
/// Devices: uid 16 bytes big-endian, tenant (varint index), length u8, device id.
pub const DEVICES: u8 = 2;
/// Metric names: length (varint), text.
pub const NAMES: u8 = 3;
/// Shapes: number of fields (varint), then for each field a varint of name index × 8 + type.
pub const SHAPES: u8 = 4;
/// Messages: device index u32, number of readings u32.
pub const MESSAGES: u8 = 5;
/// Event times of the readings: i64 µs.
pub const TIMES: u8 = 6;
/// Arrival times of the readings: i64 µs.
pub const RECEIVED: u8 = 7;
/// Shapes of the readings: index u32.
pub const READING_SHAPES: u8 = 8;
/// Doubles: binary64.
pub const DOUBLES: u8 = 9;
/// Integers: i64.
pub const INTS: u8 = 10;
/// Truth values: 0 or 1.
pub const BOOLS: u8 = 11;
/// Where each string ends in the heap: u32.
pub const STRING_ENDS: u8 = 12;
/// The strings, one after the other.
pub const STRING_HEAP: u8 = 13;
/// Where each byte string ends in the heap: u32.
pub const BYTES_ENDS: u8 = 14;
/// The byte strings, one after the other.
pub const BYTES_HEAP: u8 = 15;
/// Optional, by message: index u32, length u8, W3C `traceparent`.
pub const TRACES: u8 = 128;
/// Optional, by reading: index u32, claimed event time i64 µs.
pub const CLAIMS: u8 = 129;

/// The first tag that a reader may ignore.
pub(crate) const OPTIONAL: u8 = 128;
/// Every tag of this release, ascending.
pub(crate) const ALL: [u8; 17] = [
    TENANTS,
    DEVICES,
    NAMES,
    SHAPES,
    MESSAGES,
    TIMES,
    RECEIVED,
    READING_SHAPES,
    DOUBLES,
    INTS,
    BOOLS,
    STRING_ENDS,
    STRING_HEAP,
    BYTES_ENDS,
    BYTES_HEAP,
    TRACES,
    CLAIMS,
];
