//! Live tails.

use tonic::{Code, Streaming};
use weir_config::ByteSize;
use weir_core::{Position, Value};
use weir_proto::storage::v1 as pb;

use crate::harness::{World, as_reader, config, devices, message, micros, soon};

const START: i64 = 1_700_000_000_000_000;

async fn open(world: &World, ids: &[&str], resume_cursor: &str) -> Streaming<pb::TailResponse> {
    let request = pb::TailRequest {
        parent: "tenants/acme".to_owned(),
        filter: devices(ids),
        resume_cursor: resume_cursor.to_owned(),
        ..Default::default()
    };
    world.client.clone().tail(as_reader(request)).await.unwrap().into_inner()
}

async fn next(tail: &mut Streaming<pb::TailResponse>) -> pb::TailResponse {
    soon("the next message of a tail", tail.message()).await.unwrap().expect("a tail does not end")
}

/// Publishes one reading a message: `n` counts.
async fn publish(world: &World, id: &str, numbers: std::ops::Range<i64>) -> Vec<Position> {
    let mut positions = vec![];
    for n in numbers {
        positions.push(world.publish(&[message(id, &[(START + n, &[("n", Value::Int64(n))])])]).await);
    }
    positions
}

/// Takes points until `last` is among them.
async fn until(tail: &mut Streaming<pb::TailResponse>, last: i64) -> (Vec<i64>, String) {
    let mut found = vec![];
    loop {
        let message = next(tail).await;
        found.extend(message.points.iter().map(|point| micros(&point.ts) - START));
        if found.contains(&last) {
            return (found, message.cursor);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_gives_the_newest_values_then_synced_then_everything_that_follows() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    ["a", "b", "other"].iter().for_each(|id| world.devices.add(id, &[]));
    let positions = publish(&world, "a", 0..5).await;
    world.written(&positions).await;
    let mut tail = open(&world, &["a", "b"], "").await;
    let snapshot = next(&mut tail).await;
    assert_eq!((snapshot.event(), snapshot.points.len()), (pb::TailEvent::Points, 1));
    assert_eq!(micros(&snapshot.points[0].ts) - START, 4);
    assert_eq!(next(&mut tail).await.event(), pb::TailEvent::Synced);
    publish(&world, "other", 50..60).await;
    publish(&world, "b", 10..30).await;
    let (found, _) = until(&mut tail, 29).await;
    assert_eq!(found, (10..30).collect::<Vec<_>>());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_goes_on_after_any_cursor_misses_nothing_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    ["a", "b"].iter().for_each(|id| world.devices.add(id, &[]));
    let mut tail = open(&world, &["a"], "").await;
    assert_eq!(next(&mut tail).await.event(), pb::TailEvent::Synced);
    let (mut given, mut sent) = (vec![], 0);
    for round in 0..6 {
        publish(&world, "a", sent..sent + 40).await;
        publish(&world, "b", 0..3).await;
        sent += 40;
        // Breaks off after the first message of the round: the rest comes by the log, or live.
        let message = next(&mut tail).await;
        given.extend(message.points.iter().map(|point| micros(&point.ts) - START));
        drop(tail);
        if round % 2 == 0 {
            let positions = publish(&world, "a", sent..sent + 7).await;
            sent += 7;
            world.written(&positions).await;
        }
        tail = open(&world, &["a"], &message.cursor).await;
    }
    given.extend(until(&mut tail, sent - 1).await.0);
    assert_eq!(given, (0..sent).collect::<Vec<_>>());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_a_page_is_cut_and_its_cursor_points_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    world.devices.add("a", &[]);
    let mut tail = open(&world, &["a"], "").await;
    next(&mut tail).await;
    let mut large = message("a", &[]);
    large.readings =
        (0..1_200).flat_map(|n| message("a", &[(START + n, &[("n", Value::Int64(n))])]).readings).collect();
    world.publish(&[large]).await;
    let mut given = vec![];
    while given.len() < 1_200 {
        let message = next(&mut tail).await;
        assert!(message.points.len() <= 500);
        given.extend(message.points.iter().map(|point| micros(&point.ts) - START));
        tail = open(&world, &["a"], &message.cursor).await;
    }
    assert_eq!(given, (0..1_200).collect::<Vec<_>>());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_follows_a_device_that_appears_later() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    let filter = pb::DeviceFilter { devices: vec![], label_selector: "kind=room".to_owned() };
    let request =
        pb::TailRequest { parent: "tenants/acme".to_owned(), filter: Some(filter), ..Default::default() };
    let mut tail = world.client.clone().tail(as_reader(request)).await.unwrap().into_inner();
    assert_eq!(next(&mut tail).await.event(), pb::TailEvent::Synced);
    world.devices.add("new", &[("kind", "room")]);
    world.devices.add("door", &[("kind", "door")]);
    publish(&world, "door", 0..3).await;
    publish(&world, "new", 7..9).await;
    assert_eq!(until(&mut tail, 8).await.0, [7, 8]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_slow_is_told_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut narrow = config();
    narrow.query.tail_buffer = ByteSize(1);
    let world = World::open(dir.path(), narrow).await;
    world.devices.add("a", &[]);
    let mut tail = open(&world, &["a"], "").await;
    assert_eq!(next(&mut tail).await.event(), pb::TailEvent::Synced);
    // Larger than what a connection holds for a reader that does not read.
    let text = "x".repeat(100_000);
    let mut positions = vec![];
    for n in 0..60 {
        positions.push(
            world.publish(&[message("a", &[(START + n, &[("s", Value::String(text.clone()))])])]).await,
        );
    }
    world.written(&positions).await;
    let refused = loop {
        match soon("the end of a slow tail", tail.message()).await {
            Ok(message) => assert!(message.is_some(), "a slow tail ends with an error"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("resume_cursor"), "{refused:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_was_not_given_out_or_has_been_trimmed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    world.devices.add("a", &[]);
    let request = |resume_cursor: &str| pb::TailRequest {
        parent: "tenants/acme".to_owned(),
        filter: devices(&["a"]),
        resume_cursor: resume_cursor.to_owned(),
        ..Default::default()
    };
    let made_up = world.client.clone().tail(as_reader(request("nonsense"))).await.unwrap_err();
    assert_eq!(made_up.code(), Code::InvalidArgument);

    let mut tail = open(&world, &["a"], "").await;
    let cursor = next(&mut tail).await.cursor;
    let mut positions = vec![];
    for n in 0..10 {
        let text = Value::String("x".repeat(60_000));
        positions.push(world.publish(&[message("a", &[(START + n, &[("s", text)])])]).await);
    }
    world.written(&positions).await;
    world.log.trim(weir_core::Stream::Readings, positions[8].sequence).await.unwrap();
    let mut tail = world.client.clone().tail(as_reader(request(&cursor))).await.unwrap().into_inner();
    let too_old = soon("a refusal", tail.message()).await.unwrap_err();
    assert_eq!(too_old.code(), Code::OutOfRange, "{too_old:?}");
    world.end().await;
}
