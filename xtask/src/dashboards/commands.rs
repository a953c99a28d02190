//! Commands to devices.

use super::{
    Bounds::{High, Low, None},
    Dashboard, series, stat,
};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "weir-commands",
    title: "Weir / Commands",
    description: "How commands move, how long they take, and where they end.",
    rows: &[
        (
            "Delivery",
            &[
                stat(
                    "Delivered",
                    "Commands of the last day that reached their device in their time.",
                    "percentunit",
                    &[("1 - weir:command_delivery_errors:ratio_rate1d{$N}", "{{namespace}}")],
                    Low(0.995, 0.99),
                ),
                stat(
                    "Refused",
                    "Sends in the last hour that were refused because their device has too many pending.",
                    "short",
                    &[("sum(increase(weir_commands_backlog_full_total{$N}[1h]))", "")],
                    High(1.0, 100.0),
                ),
                stat(
                    "Undecodable",
                    "Records of the stream in the last day that are no command.",
                    "short",
                    &[("sum(increase(weir_commands_undecodable_total{$N}[1d]))", "")],
                    High(1.0, 1.0),
                ),
                series(
                    "What came of them",
                    "Commands by the end of their delivery, a second.",
                    "cps",
                    &[("sum by (outcome) (rate(weir_commands_outcomes_total{$N}[$R]))", "{{outcome}}")],
                    None,
                ),
                series(
                    "Time to deliver",
                    "From accepting a command until its device has it.",
                    "s",
                    &[
                        (
                            "histogram_quantile(0.5, sum by (le) (rate(weir_commands_delivery_seconds_bucket{$N}[$R])))",
                            "p50",
                        ),
                        (
                            "histogram_quantile(0.95, sum by (le) (rate(weir_commands_delivery_seconds_bucket{$N}[$R])))",
                            "p95",
                        ),
                    ],
                    None,
                ),
            ],
        ),
        (
            "States",
            &[
                series(
                    "Into a state",
                    "Commands that came into it, a second.",
                    "cps",
                    &[("sum by (state) (rate(weir_commands_transitions_total{$N}[$R]))", "{{state}}")],
                    None,
                ),
                series(
                    "Time in a state, p95",
                    "Of those that left it.",
                    "s",
                    &[(
                        "histogram_quantile(0.95, sum by (le, state) (rate(weir_commands_state_seconds_bucket{$N}[$R])))",
                        "{{state}}",
                    )],
                    None,
                ),
            ],
        ),
        (
            "Service",
            &[
                series(
                    "Calls, p99",
                    "Of the methods of commands.",
                    "s",
                    &[(
                        "histogram_quantile(0.99, sum by (le, method) (rate(weir_grpc_request_seconds_bucket{$N,method=~\"weir.commands.*\"}[$R])))",
                        "{{method}}",
                    )],
                    High(0.5, 2.0),
                ),
                series(
                    "Partitions",
                    "That a replica copies.",
                    "short",
                    &[("sum by (instance) (weir_commands_partition_owned{$N})", "{{instance}}")],
                    None,
                ),
            ],
        ),
    ],
};
