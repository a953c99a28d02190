//! One resource in every format, letter by letter: scripts rely on it.

use std::collections::HashMap;

use weir_proto::registry::v1::Device;

use super::*;

fn device() -> Device {
    Device {
        name: "tenants/acme/devices/room-1".to_owned(),
        uid: "01a206564fa375c089212b7e789441ae".to_owned(),
        profile: "tenants/acme/profiles/default".to_owned(),
        labels: HashMap::from([("type".to_owned(), "room".to_owned()), ("floor".to_owned(), "2".to_owned())]),
        attributes: HashMap::from([("note".to_owned(), "say \"hi\"".to_owned())]),
        etag: "36".to_owned(),
        create_time: Some(prost_types::Timestamp { seconds: 1_423_072_260, nanos: 0 }),
        ..Default::default()
    }
}

fn printed(format: Format) -> (String, String) {
    let (mut listed, mut shown) = (Vec::new(), Vec::new());
    write_list(&mut listed, format, &[device()]).unwrap();
    write_one(&mut shown, format, &device()).unwrap();
    (String::from_utf8(listed).unwrap(), String::from_utf8(shown).unwrap())
}

const CSV: &str = "\
id,profile,labels,attributes,disabled,gateway,created
room-1,default,\"floor=2,type=room\",\"note=say \"\"hi\"\"\",false,false,2015-02-04T17:51:00Z
";

const JSON: &str = r#"{
  "attributes": {
    "note": "say \"hi\""
  },
  "create_time": "2015-02-04T17:51:00Z",
  "disabled": false,
  "etag": "36",
  "gateway": false,
  "id": "room-1",
  "labels": {
    "floor": "2",
    "type": "room"
  },
  "name": "tenants/acme/devices/room-1",
  "profile": "default",
  "uid": "01a206564fa375c089212b7e789441ae",
  "update_time": null
}
"#;

const LIST_TABLE: &str = "\
ID      PROFILE  LABELS             ATTRIBUTES     DISABLED  GATEWAY  CREATED
room-1  default  floor=2,type=room  note=say \"hi\"  false     false    2015-02-04T17:51:00Z
";

const ONE_TABLE: &str = "\
id           room-1
attributes   note=say \"hi\"
create_time  2015-02-04T17:51:00Z
disabled     false
etag         36
gateway      false
labels       floor=2
             type=room
name         tenants/acme/devices/room-1
profile      default
uid          01a206564fa375c089212b7e789441ae
";

const YAML: &str = "\
attributes:
  note: say \"hi\"
create_time: 2015-02-04T17:51:00Z
disabled: false
etag: '36'
gateway: false
id: room-1
labels:
  floor: '2'
  type: room
name: tenants/acme/devices/room-1
profile: default
uid: 01a206564fa375c089212b7e789441ae
update_time: null
";

#[test]
fn a_table_is_aligned_and_puts_the_id_first() {
    assert_eq!(printed(Format::Table), (LIST_TABLE.to_owned(), ONE_TABLE.to_owned()));
}

#[test]
fn csv_quotes_and_begins_with_the_id_for_one_and_for_a_list() {
    assert_eq!(printed(Format::Csv), (CSV.to_owned(), CSV.to_owned()));
}

#[test]
fn a_list_is_a_json_array_of_what_one_is() {
    let (listed, shown) = printed(Format::Json);
    assert_eq!(shown, JSON);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed, Value::Array(vec![serde_json::from_str(JSON).unwrap()]));
}

#[test]
fn yaml_says_what_json_says() {
    let (listed, shown) = printed(Format::Yaml);
    assert_eq!(shown, YAML);
    let listed: Value = serde_yaml_ng::from_str(&listed).unwrap();
    assert_eq!(listed, Value::Array(vec![serde_json::from_str(JSON).unwrap()]));
}

#[test]
fn an_empty_list_is_empty_in_every_format() {
    for (format, expected) in [
        (Format::Table, ""),
        (Format::Json, "[]\n"),
        (Format::Yaml, "[]\n"),
        (Format::Csv, "id,profile,labels,attributes,disabled,gateway,created\n"),
    ] {
        let mut out = Vec::new();
        write_list::<Device>(&mut out, format, &[]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{format:?}");
    }
}

#[test]
fn what_a_device_sent_cannot_drive_the_terminal() {
    assert_eq!(visible("a\u{1b}[31m\r\tb\nc"), "a\\u{1b}[31m\\r\\tb\nc");
    assert_eq!(visible("Zürich ☂"), "Zürich ☂");
}

#[test]
fn every_list_begins_with_the_id() {
    use weir_proto::{analytics, commands, ingest, registry};
    fn first<T: Show>() -> &'static str {
        T::COLUMNS[0]
    }
    for first in [
        first::<registry::v1::Tenant>(),
        first::<registry::v1::Token>(),
        first::<registry::v1::Profile>(),
        first::<registry::v1::Device>(),
        first::<registry::v1::Credential>(),
        first::<analytics::v1::Rule>(),
        first::<analytics::v1::Alarm>(),
        first::<commands::v1::Command>(),
        first::<ingest::v1::Session>(),
        first::<ingest::v1::DeadLetter>(),
    ] {
        assert_eq!(first, "id");
    }
}
