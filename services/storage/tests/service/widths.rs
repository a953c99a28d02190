//! Buckets of adaptive width.

use std::collections::BTreeSet;

use weir_config::ByteSize;
use weir_core::{
    Timestamp, Value,
    port::{SeriesKey, Width},
};

use crate::harness::{World, config, message, micros, query_of, tenant, uid};

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_device_fills_wide_buckets_and_is_read_across_all_widths() {
    let dir = tempfile::tempdir().unwrap();
    let mut tight = config();
    tight.writer.bucket = ByteSize::kib(2);
    let world = World::open(dir.path(), tight).await;
    world.devices.add("fast", &[]);
    // 2,000 readings in two seconds, the even ones before the odd ones.
    let start = 1_700_000_000_000_000;
    let mut positions = vec![];
    for odd in 0..2 {
        for frame in 0..10 {
            let mut made = message("fast", &[]);
            for n in 0..100_i64 {
                let ts = start + (frame * 100 + n) * 2_000 + odd * 1_000;
                made.readings.extend(message("fast", &[(ts, &[("v", Value::Int64(ts))])]).readings);
            }
            positions.push(world.publish(&[made]).await);
        }
    }
    world.written(&positions).await;
    let series = SeriesKey { tenant: tenant(), uid: uid("fast") };
    let buckets = world.store.buckets(&series, Timestamp::MIN, Timestamp::MAX, None, 1_000).await.unwrap();
    let widths: BTreeSet<Width> = buckets.iter().map(|bucket| bucket.bucket.width).collect();
    assert_eq!(widths.len(), 5, "{widths:?}");

    let expected: Vec<i64> = (0..2_000).map(|n| start + n * 1_000).collect();
    let found: Vec<i64> =
        world.query(query_of(&["fast"])).await.unwrap().iter().map(|point| micros(&point.ts)).collect();
    assert_eq!(found, expected);
    let descending = weir_proto::storage::v1::QueryRequest { order: 2, limit: 700, ..query_of(&["fast"]) };
    let found: Vec<i64> =
        world.query(descending).await.unwrap().iter().map(|point| micros(&point.ts)).collect();
    assert_eq!(found, expected.iter().rev().take(700).copied().collect::<Vec<_>>());
    world.end().await;
}
