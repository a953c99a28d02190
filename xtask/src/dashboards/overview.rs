//! Is it healthy? What is promised, how fast the budget burns, and the few levels that tell most.

use super::{
    Bounds::{High, Low, None},
    Dashboard, series, stat,
};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "weir-overview",
    title: "Weir / Overview",
    description: "Whether Weir keeps what it promises, how fast it spends what it may fail, and where to look next.",
    rows: &[
        (
            "What is promised",
            &[
                stat(
                    "Acknowledgements",
                    "Messages of the last day that were not refused for a fault of Weir. Promised: 99.9 %.",
                    "percentunit",
                    &[("1 - weir:ack_availability_errors:ratio_rate1d{$N}", "{{namespace}}")],
                    Low(0.9995, 0.999),
                ),
                stat(
                    "Acknowledged within 0.25 s",
                    "Of the messages of the last day. Promised: 99 %.",
                    "percentunit",
                    &[("1 - weir:ack_latency_errors:ratio_rate1d{$N}", "{{namespace}}")],
                    Low(0.995, 0.99),
                ),
                stat(
                    "Found within 5 s",
                    "Messages of the last day that a query found 5 s after their arrival. Promised: 99 %.",
                    "percentunit",
                    &[("1 - weir:freshness_errors:ratio_rate1d{$N}", "{{namespace}}")],
                    Low(0.995, 0.99),
                ),
                stat(
                    "Commands delivered",
                    "Commands of the last day that reached their device in their time. Promised: 99 %.",
                    "percentunit",
                    &[("1 - weir:command_delivery_errors:ratio_rate1d{$N}", "{{namespace}}")],
                    Low(0.995, 0.99),
                ),
                series(
                    "Burn rate, 1 h",
                    "How many times faster than allowed the budget of 30 days is spent: 1 spends it in 30 days, 14.4 wakes somebody.",
                    "none",
                    &[
                        ("weir:ack_availability_errors:ratio_rate1h{$N} / 0.001", "acknowledgements"),
                        ("weir:ack_latency_errors:ratio_rate1h{$N} / 0.01", "latency"),
                        ("weir:freshness_errors:ratio_rate1h{$N} / 0.01", "freshness"),
                        ("weir:command_delivery_errors:ratio_rate1h{$N} / 0.01", "commands"),
                    ],
                    High(6.0, 14.4),
                ),
                series(
                    "Burn rate, 6 h",
                    "The same over six hours; 6 wakes somebody.",
                    "none",
                    &[
                        ("weir:ack_availability_errors:ratio_rate6h{$N} / 0.001", "acknowledgements"),
                        ("weir:ack_latency_errors:ratio_rate6h{$N} / 0.01", "latency"),
                        ("weir:freshness_errors:ratio_rate6h{$N} / 0.01", "freshness"),
                        ("weir:command_delivery_errors:ratio_rate6h{$N} / 0.01", "commands"),
                    ],
                    High(1.0, 6.0),
                ),
            ],
        ),
        (
            "Now",
            &[
                stat(
                    "Readings",
                    "Readings that the log takes, a second.",
                    "cps",
                    &[("sum(rate(weir_ingest_readings_total{$N}[$R]))", "")],
                    None,
                ),
                stat(
                    "Connections",
                    "Open connections of devices.",
                    "short",
                    &[("sum(weir_ingest_connections{$N})", "")],
                    None,
                ),
                stat(
                    "Open alarms",
                    "Alarms that are open, as of the last checkpoints.",
                    "short",
                    &[("sum(weir_analytics_alarms_open{$N})", "")],
                    None,
                ),
                stat(
                    "Behind",
                    "How long the oldest frame that storage has not written is in the log.",
                    "s",
                    &[("max(weir_storage_lag_seconds{$N})", "")],
                    High(5.0, 30.0),
                ),
                stat(
                    "Log",
                    "1: every process finds that the log takes records.",
                    "none",
                    &[("min(weir_log_up{$N})", "")],
                    Low(1.0, 1.0),
                ),
                stat(
                    "Durable",
                    "1: every process finds the log as durable as configured.",
                    "none",
                    &[("min(weir_log_durable{$N})", "")],
                    Low(1.0, 1.0),
                ),
                stat(
                    "Store",
                    "1: every process finds that the store answers.",
                    "none",
                    &[("min(weir_store_up{$N})", "")],
                    Low(1.0, 1.0),
                ),
                stat(
                    "Log used",
                    "The fullest stream of the log, of what it may hold.",
                    "percentunit",
                    &[("max(weir_log_used_ratio{$N})", "{{stream}}")],
                    High(0.8, 0.95),
                ),
            ],
        ),
        (
            "Traffic",
            &[
                series(
                    "Readings by protocol",
                    "Readings that the log takes, a second.",
                    "cps",
                    &[("sum by (protocol) (rate(weir_ingest_readings_total{$N}[$R]))", "{{protocol}}")],
                    None,
                ),
                series(
                    "Refused by reason",
                    "Messages and readings that were refused, a second; those for faults of clients too.",
                    "cps",
                    &[("sum by (reason) (rate(weir_ingest_refused_total{$N}[$R]))", "{{reason}}")],
                    None,
                ),
                series(
                    "Acknowledgement, p99",
                    "From taking a message in until it is acknowledged.",
                    "s",
                    &[(
                        "histogram_quantile(0.99, sum by (le, protocol) (rate(weir_ingest_ack_seconds_bucket{$N}[$R])))",
                        "{{protocol}}",
                    )],
                    High(0.1, 0.25),
                ),
                series(
                    "Calls of the gRPC API",
                    "Calls that ended, a second, by code.",
                    "reqps",
                    &[("sum by (code) (rate(weir_grpc_requests_total{$N}[$R]))", "{{code}}")],
                    None,
                ),
            ],
        ),
    ],
};
