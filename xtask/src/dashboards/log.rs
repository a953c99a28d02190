//! The log, and how far its readers are.

use super::{
    Bounds::{High, Low, None},
    Dashboard, series, stat,
};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "weir-log",
    title: "Weir / Log and lag",
    description: "How full the log is and what holds it, how fast it is, and how far its readers are behind.",
    rows: &[
        (
            "The log",
            &[
                stat(
                    "Takes records",
                    "1: every process finds that a publish would be accepted.",
                    "none",
                    &[("min(weir_log_up{$N})", "")],
                    Low(1.0, 1.0),
                ),
                stat(
                    "Durable as configured",
                    "1: as far as any process can ask.",
                    "none",
                    &[("min(weir_log_durable{$N})", "")],
                    Low(1.0, 1.0),
                ),
                stat(
                    "Losses",
                    "Times in the last day that storage found the log to lack what it had accepted.",
                    "short",
                    &[("sum(increase(weir_storage_log_losses_total{$N}[1d]))", "")],
                    High(1.0, 1.0),
                ),
                stat("Partitions", "Of each stream.", "short", &[("max(weir_log_partitions{$N})", "")], None),
                series(
                    "Used",
                    "What a stream holds, of what it may. At 1 everything is refused.",
                    "percentunit",
                    &[("max by (stream) (weir_log_used_ratio{$N})", "{{stream}}")],
                    High(0.8, 0.95),
                ),
                series(
                    "Bytes left",
                    "What a stream still takes.",
                    "bytes",
                    &[("min by (stream) (weir_log_left_bytes{$N})", "{{stream}}")],
                    None,
                ),
                series(
                    "Published",
                    "Bytes that the log made durable, a second.",
                    "Bps",
                    &[("sum by (stream) (rate(weir_log_published_bytes_total{$N}[$R]))", "{{stream}}")],
                    None,
                ),
                series(
                    "Read",
                    "Bytes that readers took, a second; each of them reads everything.",
                    "Bps",
                    &[("sum by (stream) (rate(weir_log_read_bytes_total{$N}[$R]))", "{{stream}}")],
                    None,
                ),
                series(
                    "Publish",
                    "How long the log takes to make one record durable.",
                    "s",
                    &[
                        (
                            "histogram_quantile(0.5, sum by (le) (rate(weir_log_publish_seconds_bucket{$N}[$R])))",
                            "p50",
                        ),
                        (
                            "histogram_quantile(0.99, sum by (le) (rate(weir_log_publish_seconds_bucket{$N}[$R])))",
                            "p99",
                        ),
                    ],
                    High(0.05, 0.25),
                ),
                series(
                    "Failures",
                    "Operations of the log that failed, a second.",
                    "cps",
                    &[("sum by (operation) (rate(weir_log_failures_total{$N}[$R]))", "{{operation}}")],
                    High(0.1, 1.0),
                ),
            ],
        ),
        (
            "Trimming",
            &[
                series(
                    "Trimmed through",
                    "Up to which sequence the readings were trimmed, and what the log holds.",
                    "none",
                    &[
                        ("max(weir_storage_trimmed_sequence{$N})", "trimmed"),
                        ("max(weir_log_first_sequence{$N,stream=\"readings\"})", "first"),
                        ("max(weir_log_last_sequence{$N,stream=\"readings\"})", "last"),
                    ],
                    None,
                ),
                series(
                    "What blocks trimming",
                    "1: this reader at this partition; keep: only that the log keeps an hour.",
                    "none",
                    &[
                        (
                            "max by (by, partition) (weir_storage_trim_blocker{$N})",
                            "readings: {{by}} {{partition}}",
                        ),
                        (
                            "max by (by, partition) (weir_commands_trim_blocker{$N})",
                            "commands: {{by}} {{partition}}",
                        ),
                    ],
                    None,
                ),
            ],
        ),
        (
            "Readers",
            &[
                series(
                    "Storage behind, in time",
                    "How long the oldest frame that is not written is in the log.",
                    "s",
                    &[("max by (partition) (weir_storage_lag_seconds{$N})", "{{partition}}")],
                    High(5.0, 30.0),
                ),
                series(
                    "Analytics behind, in time",
                    "How long the oldest frame that rules have not seen is in the log.",
                    "s",
                    &[("max by (partition) (weir_analytics_lag_seconds{$N})", "{{partition}}")],
                    High(5.0, 30.0),
                ),
                series(
                    "Storage behind, in frames",
                    "Frames of the stream that a partition's owner has not reached.",
                    "short",
                    &[("max by (partition) (weir_storage_lag_frames{$N})", "{{partition}}")],
                    High(1000.0, 10000.0),
                ),
                series(
                    "Analytics behind, in frames",
                    "Frames of the stream that a partition's owner has not reached.",
                    "short",
                    &[("max by (partition) (weir_analytics_lag_frames{$N})", "{{partition}}")],
                    High(1000.0, 10000.0),
                ),
                series(
                    "Storage behind, in event time",
                    "The newest event time that the log has, less the newest that is written.",
                    "s",
                    &[("weir:storage_event_time_lag:seconds{$N}", "{{partition}}")],
                    High(5.0, 30.0),
                ),
                series(
                    "Analytics behind, in event time",
                    "The newest event time that the log has, less the newest that rules saw.",
                    "s",
                    &[("weir:analytics_event_time_lag:seconds{$N}", "{{partition}}")],
                    High(5.0, 30.0),
                ),
                series(
                    "Owners",
                    "Replicas that work at each partition: 1, also while it moves.",
                    "none",
                    &[
                        ("sum by (partition) (weir_storage_partition_owned{$N})", "storage {{partition}}"),
                        (
                            "sum by (partition) (weir_analytics_partition_owned{$N})",
                            "analytics {{partition}}",
                        ),
                        ("sum by (partition) (weir_commands_partition_owned{$N})", "commands {{partition}}"),
                    ],
                    Low(1.0, 1.0),
                ),
                series(
                    "Owners that began anew",
                    "After a failure, in the last 15 minutes.",
                    "short",
                    &[
                        ("sum(increase(weir_storage_owner_restarts_total{$N}[15m]))", "storage"),
                        ("sum(increase(weir_analytics_owner_restarts_total{$N}[15m]))", "analytics"),
                        ("sum(increase(weir_commands_owner_restarts_total{$N}[15m]))", "commands"),
                    ],
                    High(1.0, 5.0),
                ),
            ],
        ),
    ],
};
