//! Where a reading or a command stands in its log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Partition, Result};

/// The streams of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Stream {
    /// Frames of readings; read by storage and analytics.
    Readings = 1,
    /// Commands as they were sent; read by commands.
    Commands = 2,
}

impl Stream {
    /// Every stream.
    pub const ALL: [Self; 2] = [Self::Readings, Self::Commands];

    /// `readings` or `commands`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Commands => "commands",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a stream, ordered as things were accepted.
///
/// On the wire: 19 bytes, big-endian, fields in this order (stream, generation, sequence, index, partition), so that byte
/// order is acceptance order for a device even where its partition changed; as text: those bytes in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The stream.
    pub stream: Stream,
    /// Raised when the log fell back or was made anew.
    pub generation: u32,
    /// The frame's sequence in the stream; rises over all partitions.
    pub sequence: u64,
    /// The reading's place in its frame, from 0.
    pub index: u32,
    /// The partition that holds it.
    pub partition: Partition,
}

impl Position {
    /// Bytes on the wire.
    pub const LEN: usize = 19;

    /// The wire form.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let [g0, g1, g2, g3] = self.generation.to_be_bytes();
        let [s0, s1, s2, s3, s4, s5, s6, s7] = self.sequence.to_be_bytes();
        let [i0, i1, i2, i3] = self.index.to_be_bytes();
        let [p0, p1] = self.partition.0.to_be_bytes();
        [self.stream as u8, g0, g1, g2, g3, s0, s1, s2, s3, s4, s5, s6, s7, i0, i1, i2, i3, p0, p1]
    }

    /// From the wire form.
    ///
    /// # Errors
    /// `POSITION_INVALID` where the length or the stream is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let [s, g0, g1, g2, g3, s0, s1, s2, s3, s4, s5, s6, s7, i0, i1, i2, i3, p0, p1] =
            <[u8; Self::LEN]>::try_from(bytes).map_err(|_| invalid(format!("{} bytes", bytes.len())))?;
        let stream = match s {
            1 => Stream::Readings,
            2 => Stream::Commands,
            other => return Err(invalid(format!("stream {other}"))),
        };
        Ok(Self {
            stream,
            generation: u32::from_be_bytes([g0, g1, g2, g3]),
            sequence: u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            partition: Partition(u16::from_be_bytes([p0, p1])),
        })
    }
}

fn invalid(what: String) -> Error {
    Error::invalid(
        "position",
        "POSITION_INVALID",
        format!("a position is 19 bytes or 38 hexadecimal digits, not {what}"),
    )
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Position {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            })
            .collect();
        Self::from_bytes(
            &bytes.ok_or_else(|| invalid(format!("{:?}", text.chars().take(50).collect::<String>())))?,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_position() -> impl Strategy<Value = Position> {
        (any::<bool>(), any::<u32>(), any::<u64>(), any::<u32>(), any::<u16>()).prop_map(
            |(readings, generation, sequence, index, partition)| Position {
                stream: if readings { Stream::Readings } else { Stream::Commands },
                generation,
                sequence,
                index,
                partition: Partition(partition),
            },
        )
    }

    proptest! {
        #[test]
        fn byte_order_is_position_order(a in any_position(), b in any_position()) {
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
        }

        #[test]
        fn text_and_bytes_give_the_position_back(a in any_position()) {
            prop_assert_eq!(a.to_string().parse::<Position>().unwrap(), a);
            prop_assert_eq!(Position::from_bytes(&a.to_bytes()).unwrap(), a);
        }

        #[test]
        fn any_text_is_a_position_or_an_error(text in ".{0,80}") {
            let _ = text.parse::<Position>();
        }
    }
}
