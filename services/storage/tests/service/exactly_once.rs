//! Shuffled, resent and corrected readings come back once each, with the value accepted last.

use std::collections::BTreeMap;

use weir_core::{Message, Value};
use weir_proto::{common::v1::value::Kind, storage::v1 as pb};

use crate::harness::{Dice, World, as_reader, config, devices, message, micros, query_of};

const DEVICES: [&str; 3] = ["room-1", "room-2", "hall"];

type Model = BTreeMap<(String, i64, String), Kind>;

fn any_value(dice: &mut Dice) -> (Value, Kind) {
    let number = dice.below(1_000);
    match dice.below(5) {
        0 => (Value::Double(number as f64 / 8.0), Kind::DoubleValue(number as f64 / 8.0)),
        1 => (Value::Int64(-(number as i64)), Kind::Int64Value(-(number as i64))),
        2 => (Value::Bool(number > 500), Kind::BoolValue(number > 500)),
        3 => (Value::String(format!("ä{number}")), Kind::StringValue(format!("ä{number}"))),
        _ => (Value::Bytes(vec![number as u8; 3].into()), Kind::BytesValue(vec![number as u8; 3].into())),
    }
}

/// Readings at few distinct times over several days, so that most are sent again, some with another value.
async fn publish(world: &World, dice: &mut Dice, frames: usize) -> Model {
    let (mut model, mut sent, mut positions) = (Model::new(), Vec::<Message>::new(), vec![]);
    for _ in 0..frames {
        if dice.below(4) == 0 && !sent.is_empty() {
            let again = sent[dice.below(sent.len() as u64) as usize].clone();
            note(&mut model, &again);
            positions.push(world.publish(&[again]).await);
            continue;
        }
        let id = DEVICES[dice.below(3) as usize];
        let mut made = message(id, &[]);
        for _ in 0..=dice.below(20) {
            let ts = 1_700_000_000_000_000 + dice.below(40) as i64 * 7_200_000_000 + dice.below(3) as i64;
            let (metric, value) = (["co2", "temp", "open"][dice.below(3) as usize], any_value(dice).0);
            made.readings.extend(message(id, &[(ts, &[(metric, value)])]).readings);
        }
        note(&mut model, &made);
        positions.push(world.publish(std::slice::from_ref(&made)).await);
        sent.push(made);
    }
    world.written(&positions).await;
    model
}

fn note(model: &mut Model, message: &Message) {
    for reading in &message.readings {
        for (metric, value) in &reading.values {
            let kind = match value.clone() {
                Value::Double(value) => Kind::DoubleValue(value),
                Value::Int64(value) => Kind::Int64Value(value),
                Value::Bool(value) => Kind::BoolValue(value),
                Value::String(value) => Kind::StringValue(value),
                Value::Bytes(value) => Kind::BytesValue(value),
            };
            model.insert((message.device.to_string(), reading.ts.as_micros(), metric.to_string()), kind);
        }
    }
}

fn keyed(points: Vec<pb::Point>) -> Vec<((String, i64, String), Kind)> {
    let key = |point: pb::Point| {
        ((point.device, micros(&point.ts), point.metric), point.value.unwrap().kind.unwrap())
    };
    points.into_iter().map(key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reading_comes_back_once_with_its_last_value() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    DEVICES.iter().for_each(|id| world.devices.add(id, &[("kind", "room")]));
    let model = publish(&world, &mut Dice(42), 300).await;
    let expected: Vec<_> = model.clone().into_iter().collect();

    assert_eq!(keyed(world.query(query_of(&DEVICES)).await.unwrap()), expected);
    let by_label = pb::DeviceFilter { devices: vec![], label_selector: "kind=room".to_owned() };
    let by_label = pb::QueryRequest { filter: Some(by_label), ..query_of(&[]) };
    assert_eq!(keyed(world.query(by_label).await.unwrap()), expected);

    let newest_first = pb::QueryRequest { order: pb::Order::Descending.into(), ..query_of(&["hall"]) };
    let mut of_hall: Vec<_> = expected.iter().filter(|((device, ..), _)| device == "hall").cloned().collect();
    of_hall.sort_by(|a, b| b.0.1.cmp(&a.0.1).then(a.0.2.cmp(&b.0.2)));
    assert_eq!(keyed(world.query(newest_first).await.unwrap()), of_hall);

    let one_metric = pb::QueryRequest { metrics: vec!["co2".to_owned()], limit: 7, ..query_of(&DEVICES) };
    let of_co2: Vec<_> =
        expected.iter().filter(|((_, _, metric), _)| metric == "co2").take(7).cloned().collect();
    assert_eq!(keyed(world.query(one_metric).await.unwrap()), of_co2);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_is_the_newest_by_event_time_with_its_last_value() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    DEVICES.iter().for_each(|id| world.devices.add(id, &[]));
    let model = publish(&world, &mut Dice(7), 200).await;
    let mut expected: BTreeMap<(String, String), (i64, Kind)> = BTreeMap::new();
    for ((device, ts, metric), value) in model {
        expected.insert((device, metric), (ts, value)); // ascending by ts within a device
    }
    let expected: Vec<_> =
        expected.into_iter().map(|((device, metric), (ts, value))| ((device, ts, metric), value)).collect();

    let (mut found, mut page_token) = (vec![], String::new());
    loop {
        let request = pb::LatestRequest {
            parent: "tenants/acme".to_owned(),
            filter: devices(&DEVICES),
            page_size: 2,
            page_token,
            ..Default::default()
        };
        let page = world.client.clone().latest(as_reader(request)).await.unwrap().into_inner();
        found.extend(page.points);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(keyed(found), expected);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_counts_a_corrected_value_once() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    world.devices.add("hall", &[]);
    let at = 1_700_000_000_000_000;
    let double = |number| [("temp", Value::Double(number))];
    let first = world.publish(&[message("hall", &[(at, &double(1.0)), (at + 1, &double(2.0))])]).await;
    let corrected = world.publish(&[message("hall", &[(at, &double(10.0))])]).await;
    world.written(&[first, corrected]).await;
    let ts =
        |micros: i64| Some(weir_grpc::convert::from_timestamp(weir_core::Timestamp::from_micros(micros)));
    let request = pb::AggregateRequest {
        parent: "tenants/acme".to_owned(),
        filter: devices(&["hall"]),
        start_time: ts(at),
        end_time: ts(at + 60_000_000),
        functions: vec![pb::Function::Count.into(), pb::Function::Sum.into(), pb::Function::Rate.into()],
        percentiles: vec![100.0],
        ..Default::default()
    };
    let mut pages = world.client.clone().aggregate(as_reader(request)).await.unwrap().into_inner();
    let page = pages.message().await.unwrap().unwrap();
    let kinds: Vec<_> = page.rows[0].values.iter().map(|value| value.kind.clone().unwrap()).collect();
    // 10 and then 2: a counter that began again.
    assert_eq!(kinds, [Kind::Int64Value(2), Kind::DoubleValue(12.0), Kind::DoubleValue(2e6)]);
    assert!((page.rows[0].percentiles[0] - 10.0).abs() <= 0.1);
    world.end().await;
}
