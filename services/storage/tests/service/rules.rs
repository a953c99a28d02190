//! Rows for rules: in position order, without late values.

use futures::TryStreamExt as _;
use weir_config::ByteSize;
use weir_core::{
    Position, Timestamp, Value,
    event_clock::EventClock,
    port::{RuleRow, RuleScan, TelemetryReader as _},
};

use crate::harness::{Dice, World, config, message, tenant, uid};

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
    let scan = |after: Option<Position>, through: Option<Position>, from: i64, to: i64| RuleScan {
        tenant: tenant(),
        uid: uid("d"),
        after,
        through,
        from: Timestamp::from_micros(from),
        to: Timestamp::from_micros(to),
    };
    // It waits for the writer by itself.
    let through = ends.last().copied();
    let rows = world.service.scan_for_rules(scan(None, through, i64::MIN, i64::MAX)).await.unwrap();
    assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap(), expected);
    assert!(expected.len() < 400, "some were late");

    let (after, through) = (ends[100], ends[300]);
    let rows =
        world.service.scan_for_rules(scan(Some(after), Some(through), i64::MIN, i64::MAX)).await.unwrap();
    let part: Vec<_> =
        expected.iter().filter(|row| row.position > after && row.position <= through).cloned().collect();
    assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap(), part);

    let (from, to) = (expected[50].ts, expected[90].ts);
    let rows =
        world.service.scan_for_rules(scan(None, None, from.as_micros(), to.as_micros())).await.unwrap();
    let part: Vec<_> = expected.iter().filter(|row| row.ts >= from && row.ts < to).cloned().collect();
    assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap(), part);
    world.end().await;
}
