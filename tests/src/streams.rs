//! As many readings as the edge takes: gRPC streams whose windows are always full. What a benchmark needs; the ledger's load
//! keeps to a schedule instead.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weir_core::{Timestamp, Value, name};
use weir_drive::{Place, Reading, edge::as_proto};
use weir_proto::ingest::v1::PublishStreamRequest;

/// The event time of reading 0; those that follow are a millisecond apart.
pub const EPOCH: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// How a stream is filled.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Readings in an item.
    pub readings: usize,
    /// Items that wait for their answer.
    pub window: usize,
}

/// The reading with this number: two numbers and a short text.
pub fn reading(n: usize) -> Reading {
    Reading {
        ts: Some(Timestamp::from_micros(EPOCH.as_micros() + n as i64 * 1_000)),
        values: vec![
            ("temperature".to_owned(), Value::Double(20.125 + (n % 10) as f64)),
            ("humidity".to_owned(), Value::Double(40.25)),
            ("state".to_owned(), Value::String("running at nominal speed".into())),
        ],
    }
}

/// Keeps a stream of each device full for `length`, each from the item on that it has come to (`next`, which moves on).
/// Readings that were acknowledged.
///
/// # Panics
/// Where anything is refused: a benchmark with refusals measures nothing.
pub async fn full(
    place: &Place,
    devices: &[String],
    shape: Shape,
    length: Duration,
    next: &mut [usize],
) -> usize {
    let until = Instant::now() + length;
    let streams = devices.iter().zip(next.iter()).map(|(device, next)| {
        let device = name::child(&place.tenant, "devices", device);
        tokio::spawn(one(place.clone(), device, shape, until, *next))
    });
    let acknowledged: Vec<usize> =
        join_all(streams).await.into_iter().map(|items| items.expect("a stream does not panic")).collect();
    next.iter_mut().zip(&acknowledged).for_each(|(next, items)| *next += items);
    acknowledged.iter().sum::<usize>() * shape.readings
}

async fn one(place: Place, device: String, shape: Shape, until: Instant, first: usize) -> usize {
    let item = |number: usize| PublishStreamRequest {
        item: number as u64,
        device: device.clone(),
        readings: (number * shape.readings..(number + 1) * shape.readings)
            .map(|n| as_proto(&reading(n)))
            .collect(),
        ..Default::default()
    };
    let (sender, receiver) = mpsc::channel(shape.window);
    let answers = place.connection.ingest().publish_stream(ReceiverStream::new(receiver)).await;
    let mut answers = answers.expect("a stream is taken").into_inner();
    let (mut sent, mut answered) = (0, 0);
    while Instant::now() < until || answered < sent {
        while Instant::now() < until && sent - answered < shape.window {
            sender.send(item(first + sent)).await.expect("the stream is open");
            sent += 1;
        }
        let answer = answers.message().await.expect("a stream does not end").expect("each item is answered");
        let accepted = answer.status.as_ref().is_none_or(|status| status.code == 0);
        assert!(accepted && answer.statuses.is_empty(), "refused: {answer:?}");
        answered += 1;
    }
    answered
}
