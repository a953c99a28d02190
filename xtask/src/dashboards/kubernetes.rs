//! The processes, and the operator that keeps them.

use super::{
    Bounds::{High, Low, None},
    Dashboard, series, stat,
};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "weir-kubernetes",
    title: "Weir / Kubernetes and operator",
    description: "Which processes run, at which release, at what cost, and how the operator fares.",
    rows: &[
        ("Processes", &[
            series("By release", "Processes of each release and revision.", "short",
                &[("count by (version, revision) (weir_build_info{$N})", "{{version}} {{revision}}")], None),
            series("Up since", "How long each process runs.", "s",
                &[("time() - process_start_time_seconds{$N}", "{{instance}}")], None),
            series("Open files", "Of those that a process may open.", "percentunit",
                &[("process_open_fds{$N} / process_max_fds{$N}", "{{instance}}")], High(0.7, 0.9)),
            series("Threads", "Of each process.", "short", &[("process_threads{$N}", "{{instance}}")], None),
            series("CPU", "Cores that a process uses.", "none",
                &[("rate(weir_process_cpu_seconds_total{$N}[$R])", "{{instance}}")], None),
            series("Memory", "Resident.", "bytes", &[("process_resident_memory_bytes{$N}", "{{instance}}")], None),
            series("gRPC connections", "Open, of those that may be.", "percentunit",
                &[("weir_grpc_connections{$N} / weir_grpc_connections_max{$N}", "{{instance}}")], High(0.7, 0.9)),
            series("gRPC connections refused", "Or closed before their first call, because too many were open; a second.", "cps",
                &[("sum by (instance) (rate(weir_grpc_connections_refused_total{$N}[$R]))", "{{instance}}")], High(0.1, 1.0)),
            series("Certificates", "Days until they end.", "d",
                &[("(weir_tls_certificate_expiry_seconds{$N} - time()) / 86400", "{{instance}} {{certificate}}")], Low(14.0, 3.0))
                .only("with TLS"),
        ]),
        ("Shares", &[
            series("Partitions", "That each replica works at.", "short", &[
                ("sum by (instance) (weir_storage_partition_owned{$N})", "storage {{instance}}"),
                ("sum by (instance) (weir_analytics_partition_owned{$N})", "analytics {{instance}}"),
                ("sum by (instance) (weir_commands_partition_owned{$N})", "commands {{instance}}"),
            ], None),
            series("Window", "What waits for the log at each replica of ingest, of what may: what scaling looks at.", "percentunit",
                &[("weir_ingest_window_used_ratio{$N}", "{{instance}}")], High(0.5, 0.9)),
        ]),
        ("Operator", &[
            stat("Leader", "1: some operator holds the lease.", "none", &[("max(weir_operator_leader{$N})", "")], Low(1.0, 1.0))
                .only("with an operator"),
            series("Reconciliations", "A second, by outcome.", "cps",
                &[("sum by (outcome) (rate(weir_operator_reconciliations_total{$N}[$R]))", "{{outcome}}")], None)
                .only("with an operator"),
            series("A reconciliation, p99", "How long it took.", "s",
                &[("histogram_quantile(0.99, sum by (le) (rate(weir_operator_reconciliation_seconds_bucket{$N}[$R])))", "p99")], High(5.0, 30.0))
                .only("with an operator"),
        ]),
    ],
};
