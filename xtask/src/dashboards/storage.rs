//! Writing and reading telemetry, and the store below.

use super::{
    Bounds::{High, Low, None},
    Dashboard, series, stat,
};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "weir-storage",
    title: "Weir / Storage",
    description: "How readings become rows, how they are asked for, and the store that both stand on.",
    rows: &[
        (
            "Writing",
            &[
                series(
                    "Rows",
                    "Rows written, a second; what is read again counts again.",
                    "cps",
                    &[("sum by (instance) (rate(weir_storage_rows_written_total{$N}[$R]))", "{{instance}}")],
                    None,
                ),
                series(
                    "Freshness",
                    "From the arrival of a message until a query finds it.",
                    "s",
                    &[
                        (
                            "histogram_quantile(0.5, sum by (le) (rate(weir_storage_freshness_seconds_bucket{$N}[$R])))",
                            "p50",
                        ),
                        (
                            "histogram_quantile(0.99, sum by (le) (rate(weir_storage_freshness_seconds_bucket{$N}[$R])))",
                            "p99",
                        ),
                    ],
                    High(2.0, 5.0),
                ),
                series(
                    "Checkpoints, p99",
                    "From the freeze of a checkpoint until it is recorded.",
                    "s",
                    &[(
                        "histogram_quantile(0.99, sum by (le) (rate(weir_storage_checkpoint_seconds_bucket{$N}[$R])))",
                        "p99",
                    )],
                    High(15.0, 60.0),
                ),
                series(
                    "Writer slots",
                    "Batches that are decoded or written, of those that may be.",
                    "percentunit",
                    &[(
                        "weir_storage_writer_slots_used{$N} / weir_storage_writer_slots_max{$N}",
                        "{{instance}}",
                    )],
                    High(0.9, 1.0),
                ),
                series(
                    "Devices in memory",
                    "Of a partition, of those that may be; what is not is read from the store.",
                    "percentunit",
                    &[(
                        "weir_storage_devices_cached{$N} / on (instance) group_left () weir_storage_devices_cached_max{$N}",
                        "{{partition}}",
                    )],
                    None,
                ),
                stat(
                    "Poison frames",
                    "Frames in the last day that could not be decoded and were kept aside.",
                    "short",
                    &[("sum(increase(weir_storage_poison_frames_total{$N}[1d]))", "")],
                    High(1.0, 1.0),
                ),
            ],
        ),
        (
            "Reading",
            &[
                series(
                    "Queries",
                    "Calls a second, by method.",
                    "cps",
                    &[("sum by (method) (rate(weir_storage_queries_total{$N}[$R]))", "{{method}}")],
                    None,
                ),
                series(
                    "Queries, p99",
                    "How long calls take; of those that stream: until their answers begin.",
                    "s",
                    &[(
                        "histogram_quantile(0.99, sum by (le, method) (rate(weir_grpc_request_seconds_bucket{$N,method=~\"weir.storage.*\"}[$R])))",
                        "{{method}}",
                    )],
                    High(1.0, 5.0),
                ),
                series(
                    "Rows read",
                    "By queries, a second.",
                    "cps",
                    &[("sum(rate(weir_storage_query_rows_read_total{$N}[$R]))", "rows")],
                    None,
                ),
                series(
                    "Bytes read",
                    "By queries, a second.",
                    "Bps",
                    &[("sum(rate(weir_storage_query_bytes_read_total{$N}[$R]))", "bytes")],
                    None,
                ),
                series(
                    "Under way",
                    "Queries and live tails.",
                    "short",
                    &[
                        ("sum(weir_storage_queries_running{$N})", "queries"),
                        ("sum(weir_storage_tails{$N})", "tails"),
                    ],
                    None,
                ),
                series(
                    "Refused or let go",
                    "Queries and tails beyond what a tenant may have, and tails whose reader was slow; a second.",
                    "cps",
                    &[
                        ("sum(rate(weir_storage_queries_refused_total{$N}[$R]))", "refused"),
                        ("sum(rate(weir_storage_tails_slow_total{$N}[$R]))", "slow"),
                    ],
                    High(0.1, 1.0),
                ),
            ],
        ),
        (
            "The store",
            &[
                stat(
                    "Answers",
                    "1: every process finds that the store answers.",
                    "none",
                    &[("min(weir_store_up{$N})", "")],
                    Low(1.0, 1.0),
                ),
                stat(
                    "Failed",
                    "Statements that failed, a second.",
                    "cps",
                    &[("sum(rate(weir_store_statements_total{$N,result=\"failed\"}[$R]))", "")],
                    High(0.1, 1.0),
                ),
                series(
                    "Statements",
                    "A second, by operation and result.",
                    "cps",
                    &[(
                        "sum by (operation, result) (rate(weir_store_statements_total{$N}[$R]))",
                        "{{operation}} {{result}}",
                    )],
                    None,
                ),
                series(
                    "Statements, p99",
                    "How long the store takes, by operation.",
                    "s",
                    &[(
                        "histogram_quantile(0.99, sum by (le, operation) (rate(weir_store_statement_seconds_bucket{$N}[$R])))",
                        "{{operation}}",
                    )],
                    High(0.1, 1.0),
                ),
                series(
                    "Written",
                    "Bytes of values that the store took, a second.",
                    "Bps",
                    &[("sum by (operation) (rate(weir_store_written_bytes_total{$N}[$R]))", "{{operation}}")],
                    None,
                ),
                series(
                    "Read",
                    "Bytes of values that the store gave, a second.",
                    "Bps",
                    &[("sum by (operation) (rate(weir_store_read_bytes_total{$N}[$R]))", "{{operation}}")],
                    None,
                ),
                series(
                    "Retries",
                    "Requests to a server that were made again, a second.",
                    "cps",
                    &[("sum by (instance) (rate(weir_store_retries_total{$N}[$R]))", "{{instance}}")],
                    High(1.0, 10.0),
                ),
            ],
        ),
    ],
};
