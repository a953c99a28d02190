//! The fixed header, read before anything else is: what it announces is refused here, without its body.
//!
//! Source: MQTT 5.0, sections 2.1 (fixed header, reserved flags) and 1.5.5 (variable byte integer); the same in 3.1.1.

/// Why a fixed header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It announces a packet of this many bytes, more than the limit.
    TooLarge(usize),
    /// Its flags or its length are not MQTT.
    Malformed,
}

/// The length of the whole packet that `bytes` begin with, once its fixed header is there.
///
/// # Errors
/// Where no body could make it an acceptable packet.
pub(super) fn packet_len(bytes: &[u8], packet_max: usize) -> Result<Option<usize>, Refused> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    if !flags_allowed(first) {
        return Err(Refused::Malformed);
    }
    let mut remaining = 0_usize;
    // Four bytes of seven bits: 268,435,455 at most.
    for (index, &byte) in rest.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let len = 1 + index + 1 + remaining;
            return if len > packet_max { Err(Refused::TooLarge(len)) } else { Ok(Some(len)) };
        }
    }
    if rest.len() >= 4 { Err(Refused::Malformed) } else { Ok(None) }
}

/// Whether the low four bits of the first byte are those that the packet's type has.
fn flags_allowed(first: u8) -> bool {
    let flags = first & 0x0f;
    match first >> 4 {
        0 => false,
        3 => flags & 0b0110 != 0b0110,
        6 | 8 | 10 => flags == 0b0010,
        _ => flags == 0,
    }
}

/// The protocol level in the first bytes of a CONNECT, once they are there.
pub(super) fn connect_level(packet: &[u8]) -> Option<u8> {
    after_name(packet)?.first().copied()
}

/// The flags of a CONNECT.
pub(super) fn connect_flags(packet: &[u8]) -> Option<u8> {
    after_name(packet)?.get(1).copied()
}

/// What of a CONNECT follows the protocol's name.
fn after_name(packet: &[u8]) -> Option<&[u8]> {
    let (_, mut rest) = packet.split_first()?;
    for _ in 0..4 {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (&high, rest) = rest.split_first()?;
    let (&low, rest) = rest.split_first()?;
    rest.get(usize::from(u16::from_be_bytes([high, low]))..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_over_the_limit_is_refused_before_the_body_is_there() {
        assert_eq!(packet_len(&[0x10, 0xff, 0xff, 0xff, 0x7f], 262_144), Err(Refused::TooLarge(268_435_460)));
        assert_eq!(packet_len(&[0x30, 0x80, 0x80, 0x10], 262_144), Err(Refused::TooLarge(262_148)));
        assert_eq!(packet_len(&[0x30, 0xfc, 0xff, 0x0f], 262_144), Ok(Some(262_144)));
    }

    #[test]
    fn a_header_that_is_not_whole_yet_asks_for_more() {
        for partial in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x80, 0x80, 0x80]] {
            assert_eq!(packet_len(partial, 1_000_000_000), Ok(None));
        }
    }

    #[test]
    fn a_fifth_length_byte_and_reserved_flags_are_malformed() {
        assert_eq!(packet_len(&[0x30, 0x80, 0x80, 0x80, 0x80], usize::MAX), Err(Refused::Malformed));
        for first in [0x00, 0x36, 0x11, 0x80, 0x60, 0xa0, 0xc1] {
            assert_eq!(packet_len(&[first, 0], usize::MAX), Err(Refused::Malformed), "{first:#x}");
        }
    }

    #[test]
    fn the_level_is_found_behind_any_length_and_name() {
        assert_eq!(connect_level(b"\x10\x0c\x00\x04MQTT\x05"), Some(5));
        assert_eq!(connect_level(b"\x10\xff\xff\xff\x7f\x00\x04MQTT\x04"), Some(4));
        assert_eq!(connect_level(b"\x10\x0c\x00\x06MQIsdp\x03"), Some(3));
        assert_eq!(connect_level(b"\x10\x0c\x00\x04MQT"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_length_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..12), max in 0_usize..1_000_000) {
            if let Ok(Some(len)) = packet_len(&bytes, max) {
                prop_assert!((2..=max).contains(&len));
            }
            let _ = connect_level(&bytes);
        }
    }
}
