//! The series that both servers hold: gaps, resets, lone samples, jitter, truth values, huge and tiny numbers.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use weir_core::{Timestamp, Value};
use weir_drive::{Edge, Reading, Via, edge, provision};
use weir_tests::{Weir, eventually};

use super::client::Client;

/// 2015-02-04T12:00:00Z, in milliseconds.
pub(super) const START: i64 = 1_423_051_200_000;
/// How long most series go on, in milliseconds.
pub(super) const LENGTH: i64 = 3 * 3_600_000;

/// One metric of one device.
pub(super) struct Line {
    pub(super) metric: &'static str,
    pub(super) device: &'static str,
    /// Milliseconds since the Unix epoch, and values.
    pub(super) samples: Vec<(i64, Value)>,
}

/// Devices with their labels, as Weir has them.
const DEVICES: [(&str, &[(&str, &str)]); 6] = [
    ("room-1", &[("type", "room"), ("floor", "1"), ("weir.io/site", "north")]),
    ("room-2", &[("type", "room"), ("floor", "1"), ("weir.io/site", "south")]),
    ("room-3", &[("type", "room"), ("floor", "2"), ("weir.io/site", "north")]),
    ("engine-1", &[("type", "engine"), ("weir.io/site", "north")]),
    ("engine-2", &[("type", "engine"), ("weir.io/site", "south"), ("spare", "")]),
    ("lone", &[]),
];

/// Numbers that are the same on each run (xorshift, Marsaglia 2003).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }

    pub(super) fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// Instants every `every` milliseconds, give or take `jitter`, without those in `gap`.
fn times(random: &mut Random, every: i64, jitter: i64, gap: std::ops::Range<i64>) -> Vec<i64> {
    let at = |n: i64| n * every;
    (0..LENGTH / every)
        .map(at)
        .filter(|at| !gap.contains(at))
        .map(|at| START + at + if jitter > 0 { random.below(jitter as usize) as i64 } else { 0 })
        .collect()
}

pub(super) fn all() -> Vec<Line> {
    let mut random = Random(0x5eed);
    let mut lines = vec![];
    for (device, base, gap) in
        [("room-1", 20.0, 0..0), ("room-2", 25.5, 3_000_000..4_500_000), ("room-3", -3.0, 0..600_000)]
    {
        let mut value: f64 = base;
        let samples = times(&mut random, 30_000, 4_000, gap).into_iter().map(|at| {
            value += random.part() - 0.5;
            (at, Value::Double((value * 100.0).round() / 100.0))
        });
        lines.push(Line { metric: "temp", device, samples: samples.collect() });
        let co2 = times(&mut random, 60_000, 0, 0..0).into_iter();
        let co2 = co2.map(|at| (at, Value::Int64(400 + random.below(900) as i64))).collect();
        lines.push(Line { metric: "CO2", device, samples: co2 });
        let open = times(&mut random, 300_000, 100, 0..0).into_iter();
        let open = open.map(|at| (at, Value::Bool(random.below(2) == 1))).collect();
        lines.push(Line { metric: "open", device, samples: open });
    }
    for (device, every) in [("engine-1", 15_000), ("engine-2", 45_000)] {
        let mut count = 0.0;
        let samples = times(&mut random, every, 900, 6_000_000..7_000_000).into_iter().map(|at| {
            count = if random.below(60) == 0 { random.part() * 5.0 } else { count + random.part() * 40.0 };
            (at, Value::Double(count))
        });
        lines.push(Line { metric: "revolutions", device, samples: samples.collect() });
        let load = times(&mut random, 120_000, 0, 0..0).into_iter();
        let load = load.map(|at| (at, Value::Double((random.part() - 0.5) * 1e-9))).collect();
        lines.push(Line { metric: "load", device, samples: load });
        let huge = times(&mut random, 600_000, 0, 0..0).into_iter();
        let huge = huge.map(|at| (at, Value::Double(random.part() * 1e300))).collect();
        lines.push(Line { metric: "huge", device, samples: huge });
    }
    let lone = |metric, at, value| Line { metric, device: "lone", samples: vec![(START + at, value)] };
    lines.push(lone("temp", 5_400_000, Value::Double(21.125)));
    lines.push(lone("CO2", 5_400_001, Value::Int64(-7)));
    let steady =
        times(&mut random, 60_000, 0, 0..0).into_iter().map(|at| (at, Value::Double(4.25))).collect();
    lines.push(Line { metric: "steady", device: "lone", samples: steady });
    lines
}

fn labels(device: &str) -> &'static [(&'static str, &'static str)] {
    DEVICES.iter().find(|(known, _)| *known == device).map_or(&[], |(_, labels)| labels)
}

/// As `promtool` takes them; the labels are named as Weir names them.
pub(super) fn openmetrics(lines: &[Line]) -> String {
    let mut text = String::new();
    let mut sorted: Vec<&Line> = lines.iter().collect();
    sorted.sort_by_key(|line| line.metric);
    for line in sorted {
        let own = labels(line.device).iter().filter(|(_, value)| !value.is_empty());
        let own: String =
            own.map(|(key, value)| format!(",{}=\"{value}\"", key.replace(['.', '/'], "_"))).collect();
        for (at, value) in &line.samples {
            let value = value.as_f64().unwrap();
            let at = *at as f64 / 1_000.0;
            writeln!(text, "{}{{device=\"{}\"{own}}} {value:?} {at:.3}", line.metric, line.device).unwrap();
        }
    }
    text + "# EOF\n"
}

/// Sends them to Weir, and waits until all of them are answered.
pub(super) fn send(weir: &Weir, client: &Client, lines: &[Line]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let place = weir.place().await;
        for (device, labels) in DEVICES {
            let labels: HashMap<String, String> =
                labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            provision::create(&place, &[device.to_owned()], &labels).await.unwrap();
        }
    });
    for (device, _) in DEVICES {
        let token = weir.device(device);
        let readings: Vec<Reading> = lines
            .iter()
            .filter(|line| line.device == device)
            .flat_map(|line| {
                line.samples.iter().map(|(at, value)| Reading {
                    ts: Timestamp::from_millis(*at),
                    values: vec![(line.metric.to_owned(), value.clone())],
                })
            })
            .collect();
        runtime.block_on(async {
            let edge = Edge::open(&weir.place().await, Via::Grpc, device, &token).await.unwrap();
            let mut pending = vec![];
            for message in readings.chunks(500) {
                pending.push(edge.send(message).await.unwrap());
            }
            for mut answer in pending {
                assert!(edge::answer(&mut answer).await.unwrap().is_empty());
            }
        });
    }
    let end = (START + LENGTH) / 1_000;
    let mut sent: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        *sent.entry(line.metric).or_default() += line.samples.len();
    }
    for (metric, count) in sent {
        eventually("every sample is answered", || {
            let found = client.query(&format!("sum(count_over_time({metric}[6h] @ {end}))"), START);
            (found["data"]["result"][0]["value"][1].as_str() == Some(count.to_string().as_str()))
                .then_some(())
        });
    }
}
