//! Buckets of histograms: few, since each is a series for every set of labels.

/// Seconds of what should take milliseconds: a write to a disk or a bus, a call, an acknowledgement.
pub const LATENCY: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];
/// Seconds until something can be seen elsewhere: freshness, lag.
pub const FRESHNESS: [f64; 11] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0];
/// Seconds of what waits for a device or a person: commands, up to their longest time to live.
pub const LIFE: [f64; 11] = [0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3_600.0, 86_400.0, 604_800.0];
/// Bytes of what ends at a frame's limit, 768 KiB.
pub const BYTES: [f64; 9] =
    [256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 131_072.0, 262_144.0, 524_288.0, 1_048_576.0];
/// Things in one frame or batch.
pub const COUNT: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0];
