//! What one reading costs: `cargo bench -p weir-rules`.
#![allow(missing_docs)] // the macros of criterion make public functions

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use weir_core::{
    DeviceId, Partition, Position, Stream, TenantId, Timestamp, Uid, Value, device::Device, id::ResourceId,
    port::RuleRow,
};
use weir_rules::{Compiled, DeviceState, Rule, RuleSet};

fn device() -> Option<Device> {
    Some(Device {
        tenant: TenantId::new("default").ok()?,
        id: DeviceId::new("room-1").ok()?,
        uid: Uid::from_u128(7),
        profile: "default".to_owned(),
        labels: Default::default(),
        attributes: Default::default(),
        enabled: true,
        gateway: false,
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
    })
}

/// One rule on a device that sends a reading a second, alarms rare.
fn bench(criterion: &mut Criterion) {
    let Some(device) = device() else { return };
    for (name, condition) in [
        ("threshold", "temp > 1000"),
        ("three metrics", "temp > 1000 && humidity < 20 || co2 >= 3000"),
        ("avg 5m", "avg(temp, \"5m\") > 1000"),
        (
            "all windows 1h",
            "avg(temp, \"1h\") + min(temp, \"1h\") + max(temp, \"1h\") + stddev(temp, \"1h\") > 1e9",
        ),
        ("text", "device.id.startsWith(\"hall\") && temp > 1"),
    ] {
        let Ok(id) = ResourceId::new("bench") else { return };
        let Ok(compiled) = Compiled::new(&Rule::new(id, Uid::from_u128(1), condition), None) else { return };
        let rules = RuleSet::new([Arc::new(compiled)]);
        let mut state = DeviceState::default();
        let names: [Arc<str>; 3] = ["temp".into(), "humidity".into(), "co2".into()];
        let mut sequence = 0_i64;
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                sequence += 1;
                let ts = Timestamp::from_micros(sequence * 1_000_000);
                let value = |name: &Arc<str>| (Arc::clone(name), Value::Double((sequence % 97) as f64));
                let row = RuleRow {
                    position: Position {
                        stream: Stream::Readings,
                        generation: 1,
                        sequence: sequence.unsigned_abs(),
                        index: 0,
                        partition: Partition(0),
                    },
                    ts,
                    received_at: ts,
                    values: names.iter().map(value).collect(),
                };
                black_box(state.apply(&rules, &device, &row))
            });
        });
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
