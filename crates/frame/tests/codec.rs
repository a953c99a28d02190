//! The codec at its boundary: bytes that it wrote, and bytes that it did not.
#![allow(clippy::unwrap_used)] // in the helpers too, a panic is the report

use std::sync::Arc;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use weir_core::{DeviceId, ErrorKind, Message, Reading, TenantId, Timestamp, Uid, Value};
use weir_frame::{
    Encoder, FRAME_CLOSE, FRAME_MAX, Frame, MESSAGE_MAX, encoded_len,
    row::{RowView, decode_latest, decode_row, encode_latest, encode_row},
};

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(Value::Double),
        2 => any::<i64>().prop_map(Value::Int64),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => "\\PC{0,12}".prop_map(Value::String),
        1 => vec(any::<u8>(), 0..12).prop_map(|bytes| Value::Bytes(bytes.into())),
    ]
}

prop_compose! {
    fn any_reading()(
        ts: i64,
        received_at: i64,
        claimed_ts in proptest::option::weighted(0.2, any::<i64>()),
        values in vec(("[a-e]{1,2}|ü.x", any_value()), 0..6),
    ) -> Reading {
        Reading {
            ts: Timestamp::from_micros(ts),
            received_at: Timestamp::from_micros(received_at),
            claimed_ts: claimed_ts.map(Timestamp::from_micros),
            values: values.into_iter().map(|(name, value)| (Arc::from(name), value)).collect(),
        }
    }
}

prop_compose! {
    fn any_message()(
        tenant in "[ab]", device in "[x-z]", uid in 0_u128..4,
        readings in vec(any_reading(), 0..5),
        trace in proptest::option::weighted(0.3, "[0-9a-f]{0,55}"),
    ) -> Message {
        Message {
            tenant: TenantId::new(tenant).unwrap(),
            device: DeviceId::new(device).unwrap(),
            uid: Uid::from_u128(uid),
            readings,
            trace_context: trace.map(Arc::from),
        }
    }
}

fn encode(messages: &[Message]) -> Bytes {
    let mut encoder = Encoder::new();
    for message in messages {
        encoder.push(message).unwrap();
    }
    let size = encoder.size();
    let frame = encoder.finish();
    assert_eq!(size, frame.len());
    frame
}

/// Decodes whatever can be decoded; that nothing panics is what counts.
fn walk(bytes: Bytes) -> bool {
    let Ok(frame) = Frame::decode(bytes) else { return false };
    let mut readings = 0;
    for message in frame.messages() {
        readings += message.readings().count();
        let _ = (message.trace_context(), message.to_message());
    }
    assert_eq!(readings, frame.reading_count() as usize);
    true
}

proptest! {
    #[test]
    fn a_frame_gives_its_messages_back(messages in vec(any_message(), 0..12)) {
        let frame = Frame::decode(encode(&messages)).unwrap();
        let back: Vec<Message> = frame.messages().map(|view| view.to_message()).collect();
        prop_assert_eq!(&back, &messages);
        let indices: Vec<u32> = frame.messages().flat_map(|view| view.readings().map(|(index, _)| index)).collect();
        prop_assert_eq!(indices, (0..frame.reading_count()).collect::<Vec<_>>());
    }

    #[test]
    fn the_last_message_can_be_read_alone(messages in vec(any_message(), 1..12)) {
        let frame = Frame::decode(encode(&messages)).unwrap();
        let last = frame.messages().last().unwrap();
        prop_assert_eq!(&last.to_message(), messages.last().unwrap());
        prop_assert_eq!(last.first_reading() + last.reading_count(), frame.reading_count());
    }

    #[test]
    fn a_frame_that_is_cut_or_flipped_anywhere_is_refused(messages in vec(any_message(), 1..5), at: prop::sample::Index, bit in 0_u8..8) {
        let bytes = encode(&messages);
        prop_assert!(!walk(bytes.slice(..at.index(bytes.len()))));
        let mut flipped = bytes.to_vec();
        flipped[at.index(bytes.len())] ^= 1_u8 << bit;
        prop_assert!(!walk(flipped.into()));
        let mut longer = bytes.to_vec();
        longer.push(0);
        prop_assert!(!walk(longer.into()));
    }

    #[test]
    fn random_bytes_are_refused(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(!walk(bytes.into()));
    }

    /// Behind a checksum that is right, anything may stand: only then is the rest of the decoder tried.
    #[test]
    fn a_forged_frame_is_refused_or_whole(
        messages in vec(any_message(), 1..5), edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(&messages).to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        walk(bytes.into());
    }

    #[test]
    fn a_row_gives_its_reading_back(reading in any_reading(), late: u64) {
        let is_late = |index: usize| late >> (index % 64) & 1 == 1;
        let body = encode_row(&reading, is_late);
        let row = decode_row(&body).unwrap();
        prop_assert_eq!((row.received_at, row.claimed_ts), (reading.received_at, reading.claimed_ts));
        let expected: Vec<_> = reading.values.iter().enumerate()
            .map(|(index, (name, value))| (Arc::clone(name), value.clone(), is_late(index))).collect();
        prop_assert_eq!(row.values, expected);
        let names: Vec<String> = RowView::parse(&body).unwrap().fields().map(|f| f.unwrap().metric.to_owned()).collect();
        prop_assert_eq!(names, reading.values.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_row_that_is_cut_or_grown_is_refused_and_a_changed_one_never_panics(
        reading in any_reading(), at: prop::sample::Index, byte: u8,
    ) {
        let body = encode_row(&reading, |_| false).to_vec();
        prop_assert!(decode_row(&body[..at.index(body.len())]).is_err());
        let mut longer = body.clone();
        longer.push(byte);
        prop_assert!(decode_row(&longer).is_err());
        let mut changed = body;
        let at = at.index(changed.len());
        changed[at] = byte;
        let _ = decode_row(&changed);
    }

    #[test]
    fn a_latest_value_comes_back_and_a_cut_one_is_refused(value in any_value(), ts: i64, at: prop::sample::Index) {
        let body = encode_latest(&value, Timestamp::from_micros(ts));
        let latest = decode_latest(&body).unwrap();
        prop_assert_eq!((latest.value, latest.received_at), (value, Timestamp::from_micros(ts)));
        prop_assert!(decode_latest(&body[..at.index(body.len())]).is_err());
    }

    #[test]
    fn random_bytes_are_no_row(bytes in vec(any::<u8>(), 0..100)) {
        let _ = (decode_row(&bytes), decode_latest(&bytes));
    }
}

fn message(readings: usize, values: usize) -> Message {
    let names: Vec<Arc<str>> = (0..values).map(|n| format!("m{n}").into()).collect();
    let reading = |n| Reading {
        ts: Timestamp::from_micros(n as i64),
        received_at: Timestamp::from_micros(0),
        claimed_ts: None,
        values: names.iter().map(|name| (Arc::clone(name), Value::Double(n as f64))).collect(),
    };
    Message {
        tenant: TenantId::new("default").unwrap(),
        device: DeviceId::new("d").unwrap(),
        uid: Uid::from_u128(1),
        readings: (0..readings).map(reading).collect(),
        trace_context: None,
    }
}

#[test]
fn a_message_above_its_limit_is_refused_by_name_and_leaves_the_frame_as_it_was() {
    let large = message(1_000, 256);
    assert!(encoded_len(&large) > MESSAGE_MAX);
    let mut encoder = Encoder::new();
    encoder.push(&message(1, 1)).unwrap();
    let before = encoder.size();
    let error = encoder.push(&large).unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::InvalidArgument, "MESSAGE_TOO_LARGE"));
    assert_eq!(error.limit(), Some("524288"));
    assert!(error.message().contains("524288"), "{error}");
    assert_eq!(encoder.size(), before);
}

#[test]
fn a_frame_closes_and_never_passes_its_maximum() {
    let largest = (1..)
        .map(|readings| message(readings, 64))
        .take_while(|m| encoded_len(m) <= MESSAGE_MAX)
        .last()
        .unwrap();
    let mut encoder = Encoder::new();
    while encoder.size() + 10_000 < FRAME_CLOSE {
        encoder.push(&message(10, 64)).unwrap();
    }
    encoder.push(&largest).unwrap();
    assert!(encoder.is_full());
    assert_eq!(encoder.push(&message(1, 1)).unwrap_err().reason(), "FRAME_FULL");
    let bytes = encoder.finish();
    assert!(bytes.len() <= FRAME_MAX);
    Frame::decode(bytes).unwrap();
}

#[test]
fn a_frame_of_a_newer_release_is_told_from_a_damaged_one() {
    let mut bytes = encode(&[message(1, 1)]).to_vec();
    bytes[2] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    let error = Frame::decode(bytes.into()).unwrap_err();
    assert_eq!(error.reason(), "FRAME_VERSION_UNKNOWN");
    assert_eq!(decode_row(&[9, 0]).unwrap_err().reason(), "ROW_VERSION_UNKNOWN");
}

#[test]
fn metric_names_are_shared_by_every_reading_of_a_frame() {
    let frame = Frame::decode(encode(&[message(2, 1)])).unwrap();
    let names: Vec<Arc<str>> =
        frame.messages().flat_map(|m| m.readings()).map(|(_, r)| Arc::clone(&r.values[0].0)).collect();
    assert!(Arc::ptr_eq(&names[0], &names[1]));
}

#[test]
fn an_optional_column_that_this_release_does_not_know_is_ignored() {
    let bytes = encode(&[message(1, 1)]).to_vec();
    let sections = usize::from(bytes[3]);
    let table_end = 16 + sections * 8;
    let mut newer = bytes[..table_end].to_vec();
    newer[3] += 1;
    newer.extend_from_slice(&[200, 0, 0, 0, 3, 0, 0, 0]);
    newer.extend_from_slice(&bytes[table_end..]);
    newer.extend_from_slice(b"new");
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..4]), &newer[8..]);
    newer[4..8].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Frame::decode(newer.into()).unwrap().reading_count(), 1);
}
