//! Rows for rules: in position order, without late values.

use std::sync::Arc;

use futures::TryStreamExt as _;
use tonic::Code;
use weir_clients::StorageClient;
use weir_config::ByteSize;
use weir_conformance::calls::Loopback;
use weir_core::{
    ErrorKind, Position, Timestamp, Value,
    event_clock::EventClock,
    port::{RuleRow, RuleScan, TelemetryReader},
};
use weir_grpc::from_status;
use weir_proto::storage::v1::{self as pb, rule_scan_service_client::RuleScanServiceClient};
use weir_storage::Service;

use crate::harness::{Dice, World, as_token, config, message, tenant, uid};

#[tokio::test(flavor = "multi_thread")]
async fn rules_see_what_was_on_time_in_the_order_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut tight = config();
    tight.writer.bucket = ByteSize(500);
    let world = World::open(dir.path(), tight).await;
    let (mut dice, mut clock, mut expected, mut ends) = (Dice(5), EventClock::default(), vec![], vec![]);
    for step in 0..400_i64 {
        let ts = 1_700_000_000_000_000 + step * 100_000 - dice.below(4) as i64 * 100_000;
        let (a, b) = (("a", Value::Int64(step)), ("b", Value::Int64(-step)));
        let values: &[(&str, Value)] = if dice.below(2) == 0 { &[a] } else { &[b, a] };
        let made = message("d", &[(ts, values)]);
        let position = world.publish(std::slice::from_ref(&made)).await;
        let reading = &made.readings[0];
        let mut on_time = vec![];
        clock.observe(reading.ts, reading.values.iter().map(|(metric, _)| metric), |index, late| {
            if !late {
                on_time.push(reading.values[index].clone());
            }
        });
        if !on_time.is_empty() {
            expected.push(RuleRow {
                position,
                ts: reading.ts,
                received_at: reading.received_at,
                values: on_time,
            });
        }
        ends.push(position);
    }
    for (how, reader) in readers(&world).await.ways() {
        // It waits for the writer by itself.
        let through = ends.last().copied();
        let rows = reader.scan_for_rules(scan(None, through, i64::MIN, i64::MAX)).await.unwrap();
        assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap(), expected, "{how}");
        assert!(expected.len() < 400, "some were late");

        let (after, through) = (ends[100], ends[300]);
        let rows = reader.scan_for_rules(scan(Some(after), Some(through), i64::MIN, i64::MAX)).await.unwrap();
        let part: Vec<_> =
            expected.iter().filter(|row| row.position > after && row.position <= through).cloned().collect();
        assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap(), part, "{how}");

        let (from, to) = (expected[50].ts, expected[90].ts);
        let rows = reader.scan_for_rules(scan(None, None, from.as_micros(), to.as_micros())).await.unwrap();
        let part: Vec<_> = expected.iter().filter(|row| row.ts >= from && row.ts < to).cloned().collect();
        assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap(), part, "{how}");
    }
    world.end().await;
}

fn scan(after: Option<Position>, through: Option<Position>, from: i64, to: i64) -> RuleScan {
    RuleScan {
        tenant: tenant(),
        uid: uid("d"),
        after,
        through,
        from: Timestamp::from_micros(from),
        to: Timestamp::from_micros(to),
    }
}

/// The call port in process and over gRPC.
struct Readers {
    world: Arc<Service>,
    loopback: Loopback,
}

async fn readers(world: &World) -> Readers {
    let mut routes = tonic::service::Routes::builder();
    world.service.add_routes(&mut routes);
    let loopback = Loopback::serve("storage", routes.routes(), Arc::clone(&world.devices) as _).await;
    Readers { world: Arc::clone(&world.service), loopback }
}

impl Readers {
    fn ways(&self) -> Vec<(&'static str, Arc<dyn TelemetryReader>)> {
        let mut ways = vec![("in process", Arc::clone(&self.world) as Arc<dyn TelemetryReader>)];
        for (how, peer) in self.loopback.peers() {
            ways.push((how, Arc::new(StorageClient::new(peer))));
        }
        ways
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_type_and_of_many_messages_come_whole_and_a_reader_may_leave() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    let mut expected = vec![];
    for step in 0..300_i64 {
        let values: &[(&str, Value)] = &[
            ("bool", Value::Bool(step % 2 == 0)),
            ("bytes", Value::Bytes(vec![step as u8; 20_000].into())),
            ("double", Value::Double(step as f64 / 3.0)),
            ("int", Value::Int64(i64::MIN + step)),
            ("text", Value::String("ä".repeat(step as usize))),
        ];
        let made = message("d", &[(1_700_000_000_000_000 + step, values)]);
        let position = world.publish(std::slice::from_ref(&made)).await;
        let reading = &made.readings[0];
        expected.push(RuleRow {
            position,
            ts: reading.ts,
            received_at: reading.received_at,
            values: reading.values.clone(),
        });
    }
    let through = expected.last().map(|row| row.position);
    let readers = readers(&world).await;
    for (how, reader) in readers.ways() {
        let rows = reader.scan_for_rules(scan(None, through, i64::MIN, i64::MAX)).await.unwrap();
        assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap(), expected, "{how}");
        let mut rows = reader.scan_for_rules(scan(None, through, i64::MIN, i64::MAX)).await.unwrap();
        assert_eq!(rows.try_next().await.unwrap().as_ref(), expected.first(), "{how}");
        drop(rows);
        let other = RuleScan { uid: uid("nobody"), ..scan(None, None, i64::MIN, i64::MAX) };
        let rows = reader.scan_for_rules(other).await.unwrap();
        assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap(), [], "{how}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_ends_with_an_error_where_the_service_does_and_not_as_if_it_were_whole() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    let bytes: &[(&str, Value)] = &[("bytes", Value::Bytes(vec![7; 100_000].into()))];
    let mut ends = vec![];
    for step in 0..400 {
        ends.push(world.publish(&[message("d", &[(1_700_000_000_000_000 + step, bytes)])]).await);
    }
    let readers = readers(&world).await;
    for (how, reader) in readers.ways().into_iter().skip(1) {
        let mut rows =
            reader.scan_for_rules(scan(None, ends.last().copied(), i64::MIN, i64::MAX)).await.unwrap();
        rows.try_next().await.unwrap().unwrap();
        if how.contains("TLS") {
            use weir_runtime::Service as _;
            world.service.stop_intake().await;
            let error = rows.try_collect::<Vec<_>>().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{how}: {error}");
        }
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_cannot_be_is_refused_with_its_field_and_only_services_scan() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    let readers = readers(&world).await;
    let mut client = RuleScanServiceClient::connect(readers.loopback.plain()).await.unwrap();
    let asked = || pb::ScanForRulesRequest {
        tenant: "acme".to_owned(),
        uid: vec![1; 16],
        to_micros: i64::MAX,
        ..Default::default()
    };
    for (request, field) in [
        (pb::ScanForRulesRequest { tenant: "A/b".to_owned(), ..asked() }, "tenant"),
        (pb::ScanForRulesRequest { uid: vec![1; 15], ..asked() }, "uid"),
        (pb::ScanForRulesRequest { after: vec![1; 18], ..asked() }, "after"),
        (pb::ScanForRulesRequest { through: vec![9; 19], ..asked() }, "through"),
    ] {
        let request = as_token(readers.loopback.key().reveal(), request);
        let error = from_status(client.scan_for_rules(request).await.unwrap_err());
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some(field)), "{error}");
    }
    let refused = client.scan_for_rules(as_token("acme/admin", asked())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    world.end().await;
}
