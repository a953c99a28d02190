//! Internal messages: what the domain has survives the wire, and whatever the wire has is read or refused by its field.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use prost::Message;
use weir_core::{
    DeviceId, Error, ErrorKind, Partition, Position, Stream, TenantId, Timestamp, Uid, Value, ValueType,
    command::{Answer, Command, DeviceKey, Order, Request, State},
    device::{Device, Metric, OnBadTime, Profile},
    port::{Queued, RuleRow, RuleScan, SESSION_ENDED, SendCommand},
    principal::{Principal, Scope},
};
use weir_grpc::{from_status, internal, to_status};
use weir_proto::{commands::v1 as commands, registry::v1 as registry, storage::v1 as storage};

/// Over the wire: encoded and decoded.
fn wire<T: Message + Default>(message: T) -> T {
    T::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn tenant() -> impl Strategy<Value = TenantId> {
    "[a-z][a-z0-9]{0,20}".prop_map(|text| TenantId::new(text).unwrap())
}

fn device_id() -> impl Strategy<Value = DeviceId> {
    "[a-zA-Z0-9]{1,30}".prop_map(|text| DeviceId::new(text).unwrap())
}

fn uid() -> impl Strategy<Value = Uid> {
    any::<u128>().prop_map(Uid::from_u128)
}

/// Every instant that both the domain and google.protobuf.Timestamp have.
fn instant() -> impl Strategy<Value = Timestamp> {
    (-62_135_596_800_000_000_i64..253_402_300_800_000_000).prop_map(Timestamp::from_micros)
}

fn any_instant() -> impl Strategy<Value = Timestamp> {
    prop_oneof![Just(Timestamp::MIN), Just(Timestamp::MAX), any::<i64>().prop_map(Timestamp::from_micros)]
}

fn position() -> impl Strategy<Value = Position> {
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

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..4)
}

fn span() -> impl Strategy<Value = Duration> {
    (0..2_592_000_u64, 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn device() -> impl Strategy<Value = Device> {
    let ids = (tenant(), device_id(), uid(), "[a-z0-9-]{1,20}");
    (ids, texts(), texts(), any::<bool>(), any::<bool>(), instant(), instant()).prop_map(
        |((tenant, id, uid, profile), labels, attributes, enabled, gateway, created_at, updated_at)| Device {
            tenant,
            id,
            uid,
            profile,
            labels,
            attributes,
            enabled,
            gateway,
            created_at,
            updated_at,
        },
    )
}

fn profile() -> impl Strategy<Value = Profile> {
    let kind = prop::sample::select(vec![
        ValueType::Double,
        ValueType::Int64,
        ValueType::Bool,
        ValueType::String,
        ValueType::Bytes,
    ]);
    let metric = (kind, ".{0,8}", ".{0,8}").prop_map(|(value_type, unit, description)| Metric {
        value_type,
        unit,
        description,
    });
    let metrics = proptest::collection::btree_map(".{1,8}".prop_map(Arc::<str>::from), metric, 0..5);
    ("[a-z0-9-]{1,20}", metrics, any::<bool>(), option::of(span()), span(), any::<bool>()).prop_map(
        |(id, metrics, gateway, past, future, refuse)| Profile {
            id,
            metrics,
            gateway,
            past,
            future,
            on_bad_time: if refuse { OnBadTime::Refuse } else { OnBadTime::Arrival },
        },
    )
}

fn principal() -> impl Strategy<Value = Principal> {
    let scopes = prop::sample::subsequence(Scope::ALL.to_vec(), 0..=Scope::ALL.len());
    prop_oneof![
        ("[a-z0-9]{1,9}", option::of(tenant()), scopes).prop_map(|(id, tenant, scopes)| Principal::Token {
            id,
            tenant,
            scopes
        }),
        (tenant(), device_id(), uid(), "[a-z0-9]{1,9}").prop_map(|(tenant, device, uid, credential)| {
            Principal::Device { tenant, device, uid, credential }
        }),
    ]
}

fn key() -> impl Strategy<Value = DeviceKey> {
    (tenant(), device_id(), uid()).prop_map(|(tenant, device, uid)| DeviceKey { tenant, device, uid })
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::OnDelivery), Just(Order::OnResponse)]
}

fn answer() -> impl Strategy<Value = Answer> {
    (any::<bool>(), vec(any::<u8>(), 0..20), ".{0,20}", instant()).prop_map(
        |(ok, payload, error, received_at)| Answer { ok, payload: payload.into(), error, received_at },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let state = prop::sample::select(vec![
        State::Queued,
        State::Sent,
        State::Delivered,
        State::Succeeded,
        State::Failed,
        State::Expired,
        State::Canceled,
    ]);
    let request = (uid(), key(), ".{0,9}", ".{0,20}", order(), instant(), instant(), ".{0,9}", ".{0,9}");
    let times = (option::of(instant()), option::of(instant()), option::of(instant()));
    (request, position(), state, times, option::of(answer()), any::<bool>()).prop_map(
        |(request, position, state, times, answer, delivery_unknown)| {
            let (id, to, name, payload, order, created_at, expires_at, request_id, actor) = request;
            let payload = Bytes::from(payload);
            let request = Request { id, to, name, payload, order, created_at, expires_at, request_id, actor };
            let (sent_at, delivered_at, finished_at) = times;
            Command { request, position, state, sent_at, delivered_at, finished_at, answer, delivery_unknown }
        },
    )
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Int64),
        (-1e300..1e300_f64).prop_map(Value::Double),
        any::<bool>().prop_map(Value::Bool),
        ".{0,20}".prop_map(Value::String),
        vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Bytes(bytes.into())),
    ]
}

/// Reads messages of a type from any bytes that are one, and whatever comes of it must not be the fault of the reader.
fn read<T: Message + Default, R>(bytes: &[u8], read: impl Fn(T) -> Result<R, Error>) {
    if let Ok(message) = T::decode(bytes)
        && let Err(error) = read(message)
    {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
        assert!(error.field().is_some() || error.reason() == "VALUE_MISSING", "{error:?}");
    }
}

/// Each field of a message in turn is taken away, or given what cannot be.
fn spoiled(bytes: &[u8], at: usize, with: u8, len: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if !bytes.is_empty() {
        let at = at % bytes.len();
        bytes[at] = with;
        bytes.truncate(if len.is_multiple_of(3) { len % (bytes.len() + 1) } else { bytes.len() });
    }
    bytes
}

proptest! {
    #[test]
    fn devices_profiles_and_holders_survive_the_wire(
        device in device(), profile in profile(), tenant in tenant(), holder in principal(),
    ) {
        use internal::registry::*;
        prop_assert_eq!(to_device(wire(from_device(&device))).unwrap(), device);
        prop_assert_eq!(to_profile(wire(from_profile(&tenant, &profile))).unwrap(), profile);
        let answer = from_authenticated(Ok(holder.clone())).unwrap();
        prop_assert_eq!(to_authenticated(wire(answer)).unwrap(), holder);
    }

    #[test]
    fn commands_survive_the_wire(
        command in command(), again in any::<bool>(), order in order(), ttl in span(), answer in answer(),
    ) {
        use internal::commands::*;
        let queued = Some(Queued { command: command.clone(), again });
        prop_assert_eq!(to_queued(wire(from_queued(queued.clone()))).unwrap(), queued);
        prop_assert_eq!(to_queued(wire(from_queued(None))).unwrap(), None);
        prop_assert_eq!(to_answer(wire(from_answer(answer.clone()))).unwrap(), answer);
        let Request { to, name, payload, request_id, actor, .. } = command.request;
        let send = SendCommand { to, name, payload, ttl, order, request_id, actor };
        prop_assert_eq!(to_send(wire(from_send(send.clone()))).unwrap(), send);
    }

    #[test]
    fn scans_and_their_rows_survive_the_wire(
        tenant in tenant(), uid in uid(), after in option::of(position()), through in option::of(position()),
        from in any_instant(), to in any_instant(), at in position(),
        values in vec((".{1,9}".prop_map(Arc::<str>::from), value()), 0..5),
    ) {
        use internal::storage::*;
        let scan = RuleScan { tenant, uid, after, through, from, to };
        prop_assert_eq!(to_scan(&wire(from_scan(&scan))).unwrap(), scan);
        let row = RuleRow { position: at, ts: from, received_at: to, values };
        prop_assert_eq!(to_row(wire(from_row(row.clone()))).unwrap(), row);
    }

    #[test]
    fn whatever_a_message_holds_is_read_or_refused_by_its_field(
        device in device(), profile in profile(), command in command(), tenant in tenant(), at in position(),
        values in vec((".{1,9}".prop_map(Arc::<str>::from), value()), 1..3),
        (place, with, len) in (any::<usize>(), any::<u8>(), any::<usize>()),
        noise in vec(any::<u8>(), 0..60),
    ) {
        let row = RuleRow {
            position: at, ts: Timestamp::MIN, received_at: Timestamp::MAX, values,
        };
        let queued = internal::commands::from_command(command);
        let messages = [
            internal::registry::from_device(&device).encode_to_vec(),
            internal::registry::from_profile(&tenant, &profile).encode_to_vec(),
            queued.encode_to_vec(),
            internal::storage::from_row(row).encode_to_vec(),
            noise,
        ];
        for bytes in messages {
            let bytes = spoiled(&bytes, place, with, len);
            read(&bytes, internal::registry::to_device);
            read(&bytes, internal::registry::to_profile);
            read(&bytes, internal::commands::to_command);
            read(&bytes, internal::commands::to_queued);
            read(&bytes, internal::commands::to_send);
            read(&bytes, internal::commands::to_answer);
            read(&bytes, |key: commands::DeviceKey| internal::commands::to_key("device", Some(key)));
            read(&bytes, internal::storage::to_row);
            read(&bytes, |scan: storage::ScanForRulesRequest| internal::storage::to_scan(&scan));
        }
    }
}

#[test]
fn a_refused_token_is_told_from_a_call_that_failed() {
    use internal::registry::*;
    let refused = Error::unauthenticated("the credential is not valid");
    let answer = from_authenticated(Err(refused.clone())).unwrap();
    let back = to_authenticated(wire(answer)).unwrap_err();
    assert_eq!(
        (back.kind(), back.reason(), back.message()),
        (refused.kind(), refused.reason(), refused.message())
    );
    for failed in [Error::unavailable("the store is away"), Error::internal("a defect")] {
        assert_eq!(from_authenticated(Err(failed.clone())).unwrap_err().kind(), failed.kind());
    }
    for nonsense in [
        registry::AuthenticateResponse { result: None },
        registry::AuthenticateResponse {
            result: Some(registry::authenticate_response::Result::Refused(Default::default())),
        },
        registry::AuthenticateResponse {
            result: Some(registry::authenticate_response::Result::Token(registry::TokenHolder {
                scopes: vec![0],
                ..Default::default()
            })),
        },
    ] {
        assert_eq!(to_authenticated(nonsense).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn what_a_caller_acts_on_survives_as_a_status() {
    let ended = Error::new(ErrorKind::Aborted, SESSION_ENDED, "the newer session is gone");
    let full = Error::new(ErrorKind::ResourceExhausted, "TOO_MANY_PENDING", "at most 10")
        .with_field("device")
        .with_limit(10)
        .with_retry_after(Duration::from_secs(30));
    let over = Error::new(ErrorKind::FailedPrecondition, "COMMAND_ENDED", "has ended as EXPIRED");
    for error in [ended, full, over, Error::not_found("tenants/a/devices/b")] {
        let back = from_status(to_status(error.clone()));
        assert_eq!(
            (back.kind(), back.reason(), back.message()),
            (error.kind(), error.reason(), error.message())
        );
        assert_eq!((back.field(), back.limit()), (error.field(), error.limit()));
        assert_eq!(back.retry_after(), error.retry_after());
    }
}
