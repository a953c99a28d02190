use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_core::{
    ErrorKind, Uid, Value, ValueType,
    device::{Metric, OnBadTime, Profile},
};

use super::*;

/// 2024-05-01T00:00:00Z
const NOW: i64 = 1_714_521_600_000_000;

fn declared(metrics: &[(&str, ValueType)]) -> Profile {
    let metrics = metrics.iter().map(|(name, value_type)| {
        let metric = Metric { value_type: *value_type, unit: String::new(), description: String::new() };
        (Arc::from(*name), metric)
    });
    Profile { metrics: metrics.collect::<BTreeMap<_, _>>(), ..Profile::default() }
}

fn with(profile: &Profile, format: Format, payload: &[u8]) -> Result<Vec<Draft>> {
    parse(profile, &Limits::default(), format, payload, Timestamp::from_micros(NOW))
}

fn json(payload: &str) -> Result<Vec<Draft>> {
    with(&Profile::default(), Format::Json, payload.as_bytes())
}

fn values(payload: &str) -> Vec<(String, Value)> {
    let mut drafts = json(payload).unwrap();
    assert_eq!(drafts.len(), 1, "{payload}");
    drafts.remove(0).values.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn refused(payload: &str) -> (String, String, String) {
    told(&json(payload).unwrap_err())
}

fn told(error: &Error) -> (String, String, String) {
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    (error.reason().to_owned(), text(error.field()), text(error.limit()))
}

fn to_cbor(json: &str) -> Vec<u8> {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let mut out = Vec::new();
    ciborium::into_writer(&value, &mut out).unwrap();
    out
}

#[test]
fn a_plain_object_is_stamped_on_arrival_and_one_with_values_has_its_time() {
    let drafts = json(r#"{"temp":21.5,"on":true,"s":"x"}"#).unwrap();
    assert_eq!(drafts[0].ts, None);
    assert_eq!(
        values(r#"{"temp":21.5,"on":true,"s":"x"}"#),
        [
            ("temp".to_owned(), Value::Double(21.5)),
            ("on".to_owned(), Value::Bool(true)),
            ("s".to_owned(), Value::String("x".to_owned()))
        ]
    );
    for (ts, micros) in [
        ("1424044800000", 1_424_044_800_000_000),
        ("1424044800000.25", 1_424_044_800_000_250),
        (r#""2015-02-16T01:00:00.000001+01:00""#, 1_424_044_800_000_001),
    ] {
        for payload in
            [format!(r#"{{"ts":{ts},"values":{{"t":1}}}}"#), format!(r#"{{"values":{{"t":1}},"ts":{ts}}}"#)]
        {
            let drafts = json(&payload).unwrap();
            assert_eq!(drafts[0].ts, Some(Timestamp::from_micros(micros)), "{payload}");
        }
    }
    assert_eq!(json(r#"{"ts":null,"values":{"t":1}}"#).unwrap()[0].ts, None);
    assert_eq!(values(r#"{"values":7}"#), [("values".to_owned(), Value::Double(7.0))]);
}

#[test]
fn an_array_is_either_form_in_order() {
    let drafts = json(r#"[{"a":1},{"ts":1424044800000,"values":{"b":2}}]"#).unwrap();
    assert_eq!(drafts.len(), 2);
    assert!(drafts[0].ts.is_none() && drafts[1].ts.is_some());
}

#[test]
fn a_form_half_written_is_refused_and_the_part_named() {
    for (payload, reason, field) in [
        (r#"{"ts":1424044800000,"temp":1}"#, "TIMESTAMP_WITHOUT_VALUES", "ts"),
        (r#"{"ts":1424044800000,"values":3}"#, "TIMESTAMP_WITHOUT_VALUES", "ts"),
        (r#"{"values":{"t":1},"unit":"C"}"#, "VALUES_NOT_ALONE", "unit"),
        (r#"[{"a":1},{"unit":"C","values":{"t":1}}]"#, "VALUES_NOT_ALONE", "[1].values"),
        (r#"{"values":{"t":1},"values":{"u":1}}"#, "NAME_REPEATED", "values"),
        (r#"{"ts":1424044800000,"ts":1,"values":{"u":1}}"#, "NAME_REPEATED", "ts"),
        (r#"{"ts":true,"values":{"u":1}}"#, "TIMESTAMP_INVALID", "ts"),
        (r#"{"ts":[1],"values":{"u":1}}"#, "TIMESTAMP_INVALID", "ts"),
        (r#"[{"ts":"2015-02-16T01:00:00","values":{"u":1}}]"#, "TIMESTAMP_INVALID", "[0].ts"),
        ("7", "PAYLOAD_FORM", ""),
        ("[7]", "PAYLOAD_FORM", "[0]"),
        (r#"[{"a":1},[{"b":1}]]"#, "PAYLOAD_FORM", "[1]"),
        ("[]", "MESSAGE_EMPTY", "readings"),
        ("{}", "READING_EMPTY", "values"),
        (r#"{"a":{}}"#, "READING_EMPTY", "values"),
        (r#"[{"a":1},{"a":null}]"#, "READING_EMPTY", "[1].values"),
        ("", "PAYLOAD_INVALID", ""),
        (r#"{"a":1} x"#, "PAYLOAD_INVALID", ""),
        (r#"{"temp":NaN}"#, "PAYLOAD_INVALID", "temp"),
        (r#"{"temp":1e999}"#, "PAYLOAD_INVALID", "temp"),
    ] {
        let (found, at, _) = refused(payload);
        assert_eq!((found.as_str(), at.as_str()), (reason, field), "{payload}");
    }
}

#[test]
fn nested_objects_flatten_and_two_keys_of_one_name_are_refused() {
    assert_eq!(
        values(r#"{"room":{"temp":1,"air":{"co2":2}},"x":null}"#),
        [("room.temp".to_owned(), Value::Double(1.0)), ("room.air.co2".to_owned(), Value::Double(2.0))]
    );
    for (payload, field) in [
        (r#"{"a":{"b":1},"a.b":2}"#, "a.b"),
        (r#"{"a":1,"a":1}"#, "a"),
        (r#"[{"a":1},{"values":{"a":{"b":1},"a.b":2}}]"#, "[1].values.a.b"),
    ] {
        let (reason, at, _) = refused(payload);
        assert_eq!((reason.as_str(), at.as_str()), ("NAME_REPEATED", field), "{payload}");
    }
    let many: String = (0..40).map(|n| format!(r#""m{n}":1,"#)).collect();
    assert_eq!(refused(&format!(r#"{{{many}"m7":2}}"#)).1, "m7");
    assert_eq!(refused(r#"[{"a":1},{"b":[1,2]}]"#), ("ARRAY_REFUSED".into(), "[1].b".into(), String::new()));
}

#[test]
fn names_are_bounded_and_without_control_characters() {
    let long = "x".repeat(129);
    assert_eq!(refused(&format!(r#"{{"{long}":1}}"#)), ("NAME_INVALID".into(), long.clone(), "128".into()));
    assert!(json(&format!(r#"{{"{}":1}}"#, "x".repeat(128))).is_ok());
    assert!(
        refused(&format!(r#"{{"{}":1}}"#, "x".repeat(100_000))).1.len() < 600,
        "an error does not echo it"
    );
    for (payload, field) in [(r#"{"":1}"#, r#""""#), (r#"[{"values":{"":1}}]"#, r#"[0].values."""#)] {
        assert_eq!(refused(payload), ("NAME_INVALID".into(), field.into(), "128".into()));
    }
    let cbor = with(&Profile::default(), Format::Cbor, b"\xa1\x01\x02").unwrap_err();
    assert_eq!(told(&cbor), ("PAYLOAD_FORM".into(), r#""""#.into(), String::new()));
    assert_eq!(refused(r#"{"a\u0007":1}"#).0, "NAME_INVALID");
    assert!(json(r#"{"tëmp °C":1}"#).is_ok());
}

#[test]
fn counts_and_nesting_are_limited_by_number() {
    let limits = Limits::default();
    let readings = |n: usize| format!("[{}]", vec![r#"{"a":1}"#; n].join(","));
    assert_eq!(json(&readings(limits.readings_per_message)).unwrap().len(), 1_000);
    let (reason, field, limit) = refused(&readings(1_001));
    assert_eq!((reason.as_str(), field.as_str(), limit.as_str()), ("TOO_MANY_READINGS", "[1000]", "1000"));
    let metrics = |n: usize| {
        let pairs: Vec<_> = (0..n).map(|n| format!(r#""m{n}":1"#)).collect();
        format!("{{{}}}", pairs.join(","))
    };
    assert!(json(&metrics(256)).is_ok());
    assert_eq!(refused(&metrics(257)), ("TOO_MANY_METRICS".into(), "m256".into(), "256".into()));
    let nested = |n: usize| format!("{}1{}", r#"{"a":"#.repeat(n), "}".repeat(n));
    assert!(json(&nested(16)).is_ok());
    assert_eq!(refused(&nested(17)).2, "16");
    for bomb in [r#"{"a":"#.repeat(100_000), "[".repeat(100_000)] {
        assert!(json(&bomb).is_err());
    }
    for bomb in [&b"\x81"[..], b"\xa1\x61a", b"\xbf\x61a", b"\x9f", b"\xc1"] {
        assert!(with(&Profile::default(), Format::Cbor, &bomb.repeat(100_000)).is_err());
    }
}

#[test]
fn a_number_is_a_double_unless_the_profile_says_int64() {
    let exact = 9_007_199_254_740_992_i64; // 2^53
    assert_eq!(values(&format!(r#"{{"a":{exact}}}"#))[0].1, Value::Double(exact as f64));
    for beyond in ["9007199254740993", "-9007199254740993", "18446744073709551616", "100000000000000000000"] {
        let (reason, field, limit) = refused(&format!(r#"{{"a":{beyond}}}"#));
        assert_eq!((reason.as_str(), field.as_str()), ("INTEGER_OUT_OF_RANGE", "a"), "{beyond}");
        assert_eq!(limit.trim_start_matches('-'), "9007199254740992", "{beyond}");
    }
    assert_eq!(values(r#"{"a":1e20}"#)[0].1, Value::Double(1e20));
    let profile = declared(&[("n", ValueType::Int64)]);
    let int =
        |payload: &str| with(&profile, Format::Json, payload.as_bytes()).map(|mut d| d.remove(0).values);
    assert_eq!(int(r#"{"n":9223372036854775807}"#).unwrap()[0].1, Value::Int64(i64::MAX));
    assert_eq!(int(r#"{"n":5.0}"#).unwrap()[0].1, Value::Int64(5));
    assert_eq!(int(r#"{"n":-9223372036854775808}"#).unwrap()[0].1, Value::Int64(i64::MIN));
    for (payload, reason, limit) in [
        (r#"{"n":1.5}"#, "TYPE_MISMATCH", ""),
        (r#"{"n":"1"}"#, "TYPE_MISMATCH", ""),
        (r#"{"n":9223372036854775808}"#, "INTEGER_OUT_OF_RANGE", "9223372036854775807"),
        (r#"{"n":-9223372036854775809}"#, "INTEGER_OUT_OF_RANGE", "-9223372036854775808"),
        (r#"{"n":100000000000000000000}"#, "INTEGER_OUT_OF_RANGE", "9223372036854775807"),
        (r#"{"n":1e17}"#, "INTEGER_OUT_OF_RANGE", "9007199254740992"),
    ] {
        let error = int(payload).unwrap_err();
        assert_eq!(told(&error), (reason.into(), "n".into(), limit.into()), "{payload}");
        assert!(error.message().contains(limit), "{error}");
    }
    assert!(int(r#"{"n":1e300}"#).unwrap_err().message().len() < 200);
    assert!(json(r#"{"ts":1e300,"values":{"n":1}}"#).unwrap_err().message().len() < 200);
    let error = int(r#"[{"a":1},{"a":1},{"a":1},{"ts":1424044800000,"values":{"n":1.5}}]"#).unwrap_err();
    assert_eq!(error.field(), Some("[3].values.n"));
    assert!(error.message().contains("int64"), "{error}");
}

#[test]
fn declared_types_are_kept_to() {
    let profile = declared(&[
        ("b", ValueType::Bool),
        ("s", ValueType::String),
        ("raw", ValueType::Bytes),
        ("d", ValueType::Double),
    ]);
    let read = |payload: &str| with(&profile, Format::Json, payload.as_bytes());
    assert_eq!(read(r#"{"raw":"aGk="}"#).unwrap()[0].values[0].1, Value::Bytes("hi".into()));
    for wrong in [r#"{"b":1}"#, r#"{"s":1}"#, r#"{"raw":"?"}"#, r#"{"d":"1"}"#, r#"{"d":true}"#] {
        assert_eq!(told(&read(wrong).unwrap_err()).0, "TYPE_MISMATCH", "{wrong}");
    }
    let read = |payload: &[u8]| with(&profile, Format::Cbor, payload);
    assert_eq!(read(b"\xa1\x63raw\x42hi").unwrap()[0].values[0].1, Value::Bytes("hi".into()));
    assert!(read(b"\xa1\x63raw\x62hi").is_err(), "text is not bytes in CBOR");
}

#[test]
fn doubles_come_out_as_they_were_written() {
    for text in
        ["0.1", "21.123456789012345", "1.7976931348623157e308", "5e-324", "-0.0", "123456789.123456789"]
    {
        let (_, value) = values(&format!(r#"{{"a":{text}}}"#)).remove(0);
        let Value::Double(value) = value else { panic!("{value:?}") };
        assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
    }
}

#[test]
fn a_time_out_of_range_is_explained_or_set_aside() {
    let error = json(r#"[{"ts":1424044800,"values":{"a":1}}]"#).unwrap_err();
    assert_eq!((error.reason(), error.field()), ("TIMESTAMP_OUT_OF_RANGE", Some("[0].ts")));
    assert!(error.message().starts_with("1424044800 is 1970-01-17; ts is in milliseconds"), "{error}");
    for (ts, ok) in [
        ("946684799999", false),
        ("946684800000", true),
        (&(NOW / 1_000 + 600_000).to_string(), true),
        (&(NOW / 1_000 + 600_001).to_string(), false),
        ("1424044800000000", false),
        ("99999999999999999999", false),
        ("-1e300", false),
        (r#""1999-12-31T23:59:59Z""#, false),
    ] {
        let done = json(&format!(r#"{{"ts":{ts},"values":{{"a":1}}}}"#));
        assert_eq!(done.is_ok(), ok, "{ts}: {done:?}");
        if let Err(error) = done {
            assert_eq!(error.reason(), "TIMESTAMP_OUT_OF_RANGE", "{ts}");
            assert!(error.limit().is_some());
        }
    }
    let profile = Profile { on_bad_time: OnBadTime::Arrival, ..Profile::default() };
    let drafts = with(&profile, Format::Json, br#"{"ts":1424044800,"values":{"a":1}}"#).unwrap();
    assert_eq!((drafts[0].ts, drafts[0].claimed), (None, Some(Timestamp::from_micros(1_424_044_800_000))));
}

#[test]
fn cbor_says_what_json_says() {
    for text in [
        r#"{"temp":21.5,"n":{"a":1,"b":-7},"on":true,"s":"x","z":null}"#,
        r#"[{"a":1},{"ts":1424044800000,"values":{"b":2}}]"#,
        r#"{"ts":"2015-02-16T00:00:00Z","values":{"b":2}}"#,
        r#"{"ts":1,"values":{"b":2}}"#,
        r#"[{"a":1},{"b":[1]}]"#,
        r#"{"a":{"b":1},"a.b":2}"#,
        "[]",
        "{}",
    ] {
        let profile = Profile::default();
        let (json, cbor) = (json(text), with(&profile, Format::Cbor, &to_cbor(text)));
        match (json, cbor) {
            (Ok(json), Ok(cbor)) => {
                let sorted = |mut drafts: Vec<Draft>| {
                    drafts.iter_mut().for_each(|draft| draft.values.sort_by(|a, b| a.0.cmp(&b.0)));
                    drafts
                };
                assert_eq!(sorted(json), sorted(cbor), "{text}");
            }
            (Err(json), Err(cbor)) => assert_eq!(told(&json), told(&cbor), "{text}"),
            (json, cbor) => panic!("{text}: {json:?} {cbor:?}"),
        }
    }
}

#[test]
fn cbor_of_every_shape_is_read() {
    let read = |payload: &[u8]| with(&Profile::default(), Format::Cbor, payload);
    let one = |payload: &[u8]| read(payload).unwrap().remove(0).values.remove(0).1;
    assert_eq!(one(b"\xa1\x61a\xf9\x3c\x00"), Value::Double(1.0), "half");
    assert_eq!(one(b"\xa1\x61a\xf9\x00\x01"), Value::Double(5.960_464_477_539_063e-8), "subnormal half");
    assert_eq!(one(b"\xa1\x61a\xfa\x3f\x80\x00\x00"), Value::Double(1.0), "single");
    assert_eq!(one(b"\xbf\x7f\x61a\x61b\xff\x01\xff"), Value::Double(1.0), "indefinite lengths");
    assert_eq!(one(b"\xa1\x61a\xd8\x20\x61x"), Value::String("x".to_owned()), "a tag is stepped over");
    assert_eq!(one(b"\xa1\x61a\x42\x01\x02"), Value::Bytes(vec![1, 2].into()));
    for wrong in [
        &b"\xa1\x61a\xf9\x7e\x00"[..], // NaN
        b"\xa1\x61a\xf9\x7c\x00",      // infinity
        b"\xa1\x01\x01",               // a key that is no text
        b"\xa1\x61a",                  // cut
        b"\xa1\x61a\x01\x00",          // more follows
        b"\xa1\x61a\xff",              // a break out of place
        b"\xa1\x61\xff\x01",           // not UTF-8
        b"\xa1\x61a\xc2\x41\x01",      // a big number
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x61a\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert!(read(wrong).is_err(), "{wrong:02x?}");
    }
}

#[test]
fn the_format_is_told_by_content_type_or_first_byte() {
    assert_eq!(Format::of("", b"{}").unwrap(), Format::Json);
    assert_eq!(Format::of("", b"\xa0").unwrap(), Format::Cbor);
    assert_eq!(Format::of("", b"\x9f").unwrap(), Format::Cbor);
    assert_eq!(Format::of("Application/JSON; charset=utf-8", b"\xa0").unwrap(), Format::Json);
    assert_eq!(Format::of("application/cbor", b"{").unwrap(), Format::Cbor);
    assert_eq!(Format::of("text/plain", b"{}").unwrap_err().reason(), "CONTENT_TYPE_UNKNOWN");
}

#[test]
fn what_carries_no_time_is_stamped_in_its_order() {
    struct Still;
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(NOW)
        }
    }
    let decoder = Decoder::new(Limits::default(), Arc::new(Still));
    let from = crate::testing::device("t1", "d1", Uid::from_u128(1));
    let payload = br#"[{"a":1},{"ts":1424044800000,"values":{"a":2}},{"a":3}]"#;
    let first = decoder.decode(&from, Format::Json, payload).unwrap();
    let second = decoder.decode(&from, Format::Json, payload).unwrap();
    let ts = |message: &Message| message.readings.iter().map(|r| r.ts.as_micros()).collect::<Vec<_>>();
    assert_eq!(ts(&first), [NOW, 1_424_044_800_000_000, NOW + 1]);
    assert_eq!(ts(&second), [NOW + 2, 1_424_044_800_000_000, NOW + 3]);
    assert!(first.readings.iter().all(|reading| reading.received_at.as_micros() == NOW));
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        any::<f64>().prop_filter("JSON has no others", |f| f.is_finite()).prop_map(|f| format!("{f:?}")),
        any::<i64>().prop_map(|i| i.to_string()),
        any::<bool>().prop_map(|b| b.to_string()),
        "[a-z]{0,4}".prop_map(|s| format!("{s:?}")),
    ];
    let value = scalar.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(("(ts|values|[ab.]{0,3})", inner.clone()), 0..4).prop_map(|pairs| {
                let pairs: Vec<_> = pairs.into_iter().map(|(k, v)| format!("{k:?}:{v}")).collect();
                format!("{{{}}}", pairs.join(","))
            }),
            proptest::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    });
    value.prop_map(String::into_bytes)
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_readings_or_an_error(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in [Format::Json, Format::Cbor] {
            let _ = with(&Profile::default(), format, &payload);
        }
    }

    #[test]
    fn what_is_read_keeps_every_rule(payload in any_payload()) {
        if let Ok(drafts) = with(&Profile::default(), Format::Json, &payload) {
            prop_assert!(!drafts.is_empty());
            for draft in drafts {
                let names: std::collections::BTreeSet<_> = draft.values.iter().map(|(name, _)| name).collect();
                prop_assert!(!names.is_empty() && names.len() == draft.values.len());
                prop_assert!(names.iter().all(|name| (1..=128).contains(&name.len())));
                let finite = |value: &Value| value.as_f64().is_none_or(f64::is_finite);
                prop_assert!(draft.values.iter().all(|(_, value)| finite(value)));
            }
        }
    }

    #[test]
    fn every_double_survives(value in any::<f64>()) {
        prop_assume!(value.is_finite());
        let payload = format!(r#"{{"a":{value:e}}}"#);
        let drafts = json(&payload).unwrap();
        prop_assert_eq!(&drafts[0].values[0].1, &Value::Double(value));
    }
}
