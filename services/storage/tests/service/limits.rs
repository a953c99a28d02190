//! Who may ask, what is refused, and reading one's own write.

use std::time::Duration;

use tonic::Code;
use weir_core::{Position, Value};
use weir_proto::storage::v1 as pb;

use crate::harness::{World, as_token, config, message, query_of, soon};

const TS: i64 = 1_700_000_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_query_with_a_position_reads_its_own_write() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    world.devices.add("a", &[]);
    for n in 0..200 {
        let position = world.publish(&[message("a", &[(TS + n, &[("n", Value::Int64(n))])])]).await;
        let request = pb::QueryRequest {
            min_positions: vec![position.to_string()],
            order: pb::Order::Descending.into(),
            limit: 1,
            ..query_of(&["a"])
        };
        assert_eq!(world.query(request).await.unwrap()[0].position, position.to_string());
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_lost_or_never_comes_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    world.devices.add("a", &[]);
    let position = world.publish(&[message("a", &[(TS, &[("n", Value::Int64(1))])])]).await;
    let query = |position: Position| pb::QueryRequest {
        min_positions: vec![position.to_string()],
        ..query_of(&["a"])
    };
    let lost = world.query(query(Position { generation: 0, ..position })).await.unwrap_err();
    assert_eq!(lost.code(), Code::FailedPrecondition);

    let mut request =
        crate::harness::as_reader(query(Position { sequence: position.sequence + 1_000, ..position }));
    request.set_timeout(Duration::from_millis(300));
    let late = soon("a refusal at the deadline", world.client.clone().query(request)).await.unwrap_err();
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");

    let foreign = Position { partition: weir_core::Partition(99), ..position };
    assert_eq!(world.query(query(foreign)).await.unwrap_err().code(), Code::InvalidArgument);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_reader_of_the_tenant_may_ask_and_before_anything_is_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    world.devices.add("a", &[]);
    let mut client = world.client.clone();
    for (token, code) in [
        ("acme/read", None),
        ("acme/admin", None),
        ("acme/write", Some(Code::PermissionDenied)),
        ("other/read", Some(Code::PermissionDenied)),
        ("nobody", Some(Code::Unauthenticated)),
    ] {
        let asked = client.query(as_token(token, query_of(&["a"]))).await;
        assert_eq!(asked.err().map(|status| status.code()), code, "{token}");
        let missing = client.query(as_token(token, query_of(&["missing"]))).await;
        assert_eq!(missing.unwrap_err().code(), code.unwrap_or(Code::NotFound), "{token}");
    }
    let anonymous = client.latest(pb::LatestRequest::default()).await.unwrap_err();
    assert_eq!(anonymous.code(), Code::Unauthenticated);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_names_field_and_limit() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    world.devices.add("a", &[]);
    let asked = |request: pb::QueryRequest| world.query(request);
    let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    for (request, text) in [
        (pb::QueryRequest { filter: None, ..query_of(&[]) }, "label_selector"),
        (pb::QueryRequest { metrics: many(257), ..query_of(&["a"]) }, "256"),
        (
            pb::QueryRequest {
                filter: crate::harness::devices(&many(1_001).iter().map(String::as_str).collect::<Vec<_>>()),
                ..query_of(&[])
            },
            "1000",
        ),
        (pb::QueryRequest { limit: -1, ..query_of(&["a"]) }, "limit"),
        (pb::QueryRequest { order: 9, ..query_of(&["a"]) }, "order"),
        (pb::QueryRequest { resume_cursor: "x".to_owned(), ..query_of(&["a"]) }, "resume_cursor"),
        (pb::QueryRequest { min_positions: many(17), ..query_of(&["a"]) }, "position"),
    ] {
        let status = asked(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(text), "{status:?}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_over_its_queries_at_once_is_told_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut narrow = config();
    narrow.query.tails_per_tenant = 1;
    let world = World::open(dir.path(), narrow).await;
    world.devices.add("a", &[]);
    let request = || {
        let filter = crate::harness::devices(&["a"]);
        crate::harness::as_reader(pb::TailRequest {
            parent: "tenants/acme".to_owned(),
            filter,
            ..Default::default()
        })
    };
    let first = world.client.clone().tail(request()).await.unwrap();
    let status = world.client.clone().tail(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("limit is 1"), "{status:?}");
    drop(first);
    crate::harness::eventually("a place is free again", async || {
        world.client.clone().tail(request()).await.is_ok()
    })
    .await;
    world.end().await;
}
