//! `cargo bench -p weir-frame`: encoding and decoding a frame of 100 readings.
#![allow(missing_docs, clippy::unwrap_used)] // a bench's panic is its report

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir_core::{DeviceId, Message, Reading, TenantId, Timestamp, Uid, Value};
use weir_frame::{
    Encoder, Frame,
    row::{RowView, decode_row, encode_row},
};

const READINGS: u64 = 100;

/// One reading each of 100 devices that take turns between two sets of five metrics: no two neighbours have one shape.
fn messages() -> Vec<Message> {
    let tenant = TenantId::new("default").unwrap();
    let name = |set: u64, n: u64| -> Arc<str> { format!("room.{set}.temperature.{n}").into() };
    let reading = |device: u64| Reading {
        ts: Timestamp::from_micros(1_700_000_000_000_000 + device as i64),
        received_at: Timestamp::from_micros(1_700_000_000_500_000),
        claimed_ts: None,
        values: (0..5).map(|n| (name(device % 2, n), Value::Double(20.0 + n as f64))).collect(),
    };
    (0..READINGS)
        .map(|device| Message {
            tenant: tenant.clone(),
            device: DeviceId::new(format!("device-{device}")).unwrap(),
            uid: Uid::from_u128(u128::from(device) + 1),
            readings: vec![reading(device)],
            trace_context: None,
        })
        .collect()
}

fn codec(c: &mut Criterion) {
    let messages = messages();
    let encode = || {
        let mut encoder = Encoder::new();
        for message in &messages {
            encoder.push(message).unwrap();
        }
        encoder.finish()
    };
    let frame = encode();
    let mut group = c.benchmark_group("frame_of_100_readings");
    group.throughput(Throughput::Elements(READINGS));
    group.bench_function("encode", |b| b.iter(encode));
    group.bench_function("decode", |b| {
        b.iter(|| {
            let frame = Frame::decode(frame.clone()).unwrap();
            for message in frame.messages() {
                for reading in message.readings() {
                    black_box(reading);
                }
            }
        });
    });
    group.bench_function("decode_devices_only", |b| {
        b.iter(|| {
            Frame::decode(frame.clone()).unwrap().messages().map(|message| message.uid().as_u128()).max()
        });
    });
    group.finish();

    let reading = messages.first().unwrap().readings.first().unwrap();
    let body = encode_row(reading, |_| false);
    let mut group = c.benchmark_group("row");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |b| b.iter(|| encode_row(black_box(reading), |_| false)));
    group.bench_function("decode", |b| b.iter(|| decode_row(black_box(&body)).unwrap()));
    group.bench_function("find_one_metric", |b| {
        b.iter(|| {
            RowView::parse(black_box(&body))
                .unwrap()
                .fields()
                .flatten()
                .find(|field| field.metric.ends_with('4'))
                .and_then(|field| field.value.as_f64())
        });
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
