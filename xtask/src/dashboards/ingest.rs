//! The device edge.

use super::{
    Bounds::{High, None},
    Dashboard, series, stat,
};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "weir-ingest",
    title: "Weir / Ingest",
    description: "What devices send, what becomes of it, and how full the edge is.",
    rows: &[
        (
            "Messages",
            &[
                series(
                    "Acknowledged",
                    "Messages that the log has, a second, by what their acknowledgement survives.",
                    "cps",
                    &[(
                        "sum by (protocol, durability) (rate(weir_ingest_acks_total{$N}[$R]))",
                        "{{protocol}} {{durability}}",
                    )],
                    None,
                ),
                series(
                    "Refused",
                    "By reason, a second, and whose fault it was.",
                    "cps",
                    &[(
                        "sum by (protocol, reason, fault) (rate(weir_ingest_refused_total{$N}[$R]))",
                        "{{protocol}} {{reason}} ({{fault}})",
                    )],
                    None,
                ),
                series(
                    "Refused for faults of Weir",
                    "Messages that could have been taken, a second.",
                    "cps",
                    &[(
                        "sum by (protocol, reason) (rate(weir_ingest_refused_total{$N,fault=\"weir\"}[$R]))",
                        "{{protocol}} {{reason}}",
                    )],
                    High(0.1, 1.0),
                )
                .only("while the log is away or full, or the window is"),
                series(
                    "Time to acknowledge",
                    "From taking a message in until it is acknowledged.",
                    "s",
                    &[
                        (
                            "histogram_quantile(0.5, sum by (le) (rate(weir_ingest_ack_seconds_bucket{$N}[$R])))",
                            "p50",
                        ),
                        (
                            "histogram_quantile(0.99, sum by (le) (rate(weir_ingest_ack_seconds_bucket{$N}[$R])))",
                            "p99",
                        ),
                    ],
                    High(0.1, 0.25),
                ),
                stat(
                    "Dead letters",
                    "Payloads in the last hour that were refused where the wire could not say so, and kept.",
                    "short",
                    &[("sum(increase(weir_ingest_dead_letters_total{$N}[1h]))", "")],
                    High(1.0, 100.0),
                ),
                stat(
                    "Connections not let in",
                    "Connections that were closed before they authenticated, to make room; in the last hour.",
                    "short",
                    &[("sum(increase(weir_ingest_unauthenticated_evicted_total{$N}[1h]))", "")],
                    High(1.0, 1000.0),
                ),
            ],
        ),
        (
            "Frames",
            &[
                series(
                    "Frames",
                    "Frames that the log has, a second.",
                    "cps",
                    &[
                        ("sum(rate(weir_ingest_frames_total{$N}[$R]))", "frames"),
                        ("sum(rate(weir_ingest_publish_retries_total{$N}[$R]))", "again"),
                    ],
                    None,
                ),
                series(
                    "Members of a frame",
                    "Messages in one frame: the batching that the log's own latency makes.",
                    "short",
                    &[
                        (
                            "histogram_quantile(0.5, sum by (le) (rate(weir_ingest_frame_members_bucket{$N}[$R])))",
                            "p50",
                        ),
                        (
                            "sum(rate(weir_ingest_frame_members_sum{$N}[$R])) / sum(rate(weir_ingest_frame_members_count{$N}[$R]))",
                            "mean",
                        ),
                    ],
                    None,
                ),
                series(
                    "Size of a frame",
                    "A frame closes at 256 KiB.",
                    "bytes",
                    &[
                        (
                            "histogram_quantile(0.5, sum by (le) (rate(weir_ingest_frame_bytes_bucket{$N}[$R])))",
                            "p50",
                        ),
                        (
                            "histogram_quantile(0.99, sum by (le) (rate(weir_ingest_frame_bytes_bucket{$N}[$R])))",
                            "p99",
                        ),
                    ],
                    None,
                ),
                series(
                    "Wait and publish, p99",
                    "How long the oldest message of a frame waited, and how long the log took.",
                    "s",
                    &[
                        (
                            "histogram_quantile(0.99, sum by (le) (rate(weir_ingest_frame_wait_seconds_bucket{$N}[$R])))",
                            "wait",
                        ),
                        (
                            "histogram_quantile(0.99, sum by (le) (rate(weir_ingest_publish_seconds_bucket{$N}[$R])))",
                            "publish",
                        ),
                    ],
                    High(0.1, 0.25),
                ),
            ],
        ),
        (
            "Protocols",
            &[
                series(
                    "MQTT packets",
                    "That clients sent, a second, by type.",
                    "cps",
                    &[("sum by (type) (rate(weir_ingest_mqtt_packets_total{$N}[$R]))", "{{type}}")],
                    None,
                ),
                series(
                    "MQTT refusals",
                    "Packets that were refused, a second, by type.",
                    "cps",
                    &[("sum by (type) (rate(weir_ingest_mqtt_refused_total{$N}[$R]))", "{{type}}")],
                    None,
                ),
                series(
                    "MQTT answers, p99",
                    "CONNECT, SUBSCRIBE and UNSUBSCRIBE until their answer.",
                    "s",
                    &[(
                        "histogram_quantile(0.99, sum by (le, type) (rate(weir_ingest_mqtt_packet_seconds_bucket{$N}[$R])))",
                        "{{type}}",
                    )],
                    High(0.5, 2.0),
                ),
                series(
                    "HTTP requests",
                    "A second, by route and code.",
                    "reqps",
                    &[(
                        "sum by (route, code) (rate(weir_ingest_http_requests_total{$N}[$R]))",
                        "{{route}} {{code}}",
                    )],
                    None,
                ),
                series(
                    "HTTP requests, p99",
                    "By route; a request for a command waits for one.",
                    "s",
                    &[(
                        "histogram_quantile(0.99, sum by (le, route) (rate(weir_ingest_http_request_seconds_bucket{$N}[$R])))",
                        "{{route}}",
                    )],
                    None,
                ),
                series(
                    "gRPC calls, p99",
                    "Of the edge's methods.",
                    "s",
                    &[(
                        "histogram_quantile(0.99, sum by (le, method) (rate(weir_grpc_request_seconds_bucket{$N,method=~\"weir.ingest.*\"}[$R])))",
                        "{{method}}",
                    )],
                    High(0.25, 1.0),
                ),
            ],
        ),
        (
            "How full",
            &[
                series(
                    "Window",
                    "What waits for the log, of what may. At 1 callers wait or are told to come back.",
                    "percentunit",
                    &[(
                        "weir_ingest_window_bytes{$N} / weir_ingest_window_capacity_bytes{$N}",
                        "{{instance}}",
                    )],
                    High(0.5, 0.9),
                ),
                series(
                    "Waits for the window",
                    "Messages that found no room and waited for it, a second.",
                    "cps",
                    &[("sum by (instance) (rate(weir_ingest_window_waits_total{$N}[$R]))", "{{instance}}")],
                    High(1.0, 100.0),
                ),
                series(
                    "Connections",
                    "Open, of those that may be.",
                    "percentunit",
                    &[(
                        "weir_ingest_connections{$N} / weir_ingest_connections_max{$N}",
                        "{{instance}} {{protocol}}",
                    )],
                    High(0.7, 0.9),
                ),
                series(
                    "Before authentication",
                    "What strangers hold in memory, of what they may.",
                    "percentunit",
                    &[(
                        "weir_ingest_unauthenticated_bytes{$N} / weir_ingest_unauthenticated_capacity_bytes{$N}",
                        "{{instance}}",
                    )],
                    High(0.7, 0.95),
                ),
                series(
                    "HTTP bodies",
                    "That are being received, of what may be.",
                    "percentunit",
                    &[(
                        "weir_ingest_http_bodies_bytes{$N} / weir_ingest_http_bodies_capacity_bytes{$N}",
                        "{{instance}}",
                    )],
                    High(0.7, 0.95),
                ),
                series(
                    "Devices remembered",
                    "Of 65,536; at the bound the oldest are asked for again.",
                    "short",
                    &[("weir_ingest_devices_cached{$N}", "{{instance}}")],
                    None,
                ),
            ],
        ),
    ],
};
