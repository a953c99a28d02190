//! To the wire.

use weir_grpc::convert::{from_timestamp, from_value};
use weir_proto::{common::v1 as common, storage::v1 as pb};

use crate::{
    query::{AggregatePage, AggregateRow, PageToken, Point, PointPage, Stats},
    tail::{Event, Message},
};

pub(super) fn query_response(page: PointPage) -> pb::QueryResponse {
    pb::QueryResponse { points: points(page.points), cursor: page.cursor, stats: page.stats.map(stats) }
}

pub(super) fn aggregate_response(page: AggregatePage) -> pb::AggregateResponse {
    pb::AggregateResponse { rows: page.rows.into_iter().map(row).collect(), stats: page.stats.map(stats) }
}

pub(super) fn latest_response((found, next): (Vec<Point>, Option<PageToken>)) -> pb::LatestResponse {
    let next_page_token = next.map(|token| token.to_text()).unwrap_or_default();
    pb::LatestResponse { points: points(found), next_page_token }
}

pub(super) fn tail_response(message: Message) -> pb::TailResponse {
    let (event, found) = match message.event {
        Event::Points(found) => (pb::TailEvent::Points, found),
        Event::Synced => (pb::TailEvent::Synced, vec![]),
        Event::Heartbeat => (pb::TailEvent::Heartbeat, vec![]),
    };
    pb::TailResponse { event: event.into(), points: points(found), cursor: message.cursor }
}

fn points(points: Vec<Point>) -> Vec<pb::Point> {
    let convert = |point: Point| pb::Point {
        device: point.device.to_string(),
        ts: Some(from_timestamp(point.ts)),
        metric: point.metric.to_string(),
        value: Some(from_value(point.value)),
        receive_time: Some(from_timestamp(point.received_at)),
        position: point.position.to_string(),
    };
    points.into_iter().map(convert).collect()
}

fn row(row: AggregateRow) -> pb::AggregateRow {
    let values = row.values.into_iter().map(|value| value.map_or(common::Value { kind: None }, from_value));
    pb::AggregateRow {
        device: row.device.to_string(),
        metric: row.metric.to_string(),
        start_time: Some(from_timestamp(row.start)),
        end_time: Some(from_timestamp(row.end)),
        values: values.collect(),
        percentiles: row.percentiles,
    }
}

fn stats(stats: Stats) -> pb::QueryStats {
    let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
    pb::QueryStats {
        rows_read: number(stats.rows_read),
        bytes_read: number(stats.bytes_read),
        points: number(stats.points),
    }
}
