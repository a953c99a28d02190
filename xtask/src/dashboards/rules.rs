//! Rules, alarms and what follows from them.

use super::{
    Bounds::{High, None},
    Dashboard, series, stat,
};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "weir-rules",
    title: "Weir / Rules and alarms",
    description: "What rules look at, what they find, and what becomes of their actions.",
    rows: &[
        (
            "Rules",
            &[
                stat(
                    "Open alarms",
                    "As of the last checkpoints.",
                    "short",
                    &[("sum(weir_analytics_alarms_open{$N})", "")],
                    None,
                ),
                stat(
                    "Devices followed",
                    "As of the last checkpoints.",
                    "short",
                    &[("sum(weir_analytics_devices{$N})", "")],
                    None,
                ),
                stat(
                    "Unknown",
                    "Of the evaluations: those without a result, such as for want of a metric.",
                    "percentunit",
                    &[(
                        "sum(rate(weir_analytics_evaluations_unknown_total{$N}[$R])) / sum(rate(weir_analytics_evaluations_total{$N}[$R]))",
                        "",
                    )],
                    High(0.5, 0.9),
                ),
                stat(
                    "Poison frames",
                    "Frames in the last day that rules passed over because they could not be decoded.",
                    "short",
                    &[("sum(increase(weir_analytics_poison_frames_total{$N}[1d]))", "")],
                    High(1.0, 1.0),
                ),
                series(
                    "Evaluations",
                    "Of conditions, a second.",
                    "cps",
                    &[
                        ("sum(rate(weir_analytics_evaluations_total{$N}[$R]))", "all"),
                        ("sum(rate(weir_analytics_evaluations_unknown_total{$N}[$R]))", "unknown"),
                    ],
                    None,
                ),
                series(
                    "Readings",
                    "That rules saw, a second.",
                    "cps",
                    &[("sum by (instance) (rate(weir_analytics_readings_total{$N}[$R]))", "{{instance}}")],
                    None,
                ),
                series(
                    "Alarms",
                    "What happened with them, a second.",
                    "cps",
                    &[("sum by (kind) (rate(weir_analytics_transitions_total{$N}[$R]))", "{{kind}}")],
                    None,
                ),
                series(
                    "Behind",
                    "How long the oldest frame that rules have not seen is in the log.",
                    "s",
                    &[("max(weir_analytics_lag_seconds{$N})", "behind")],
                    High(5.0, 30.0),
                ),
            ],
        ),
        (
            "Actions",
            &[
                series(
                    "Tries",
                    "A second, by kind and result; failed: given up.",
                    "cps",
                    &[(
                        "sum by (kind, result) (rate(weir_analytics_action_attempts_total{$N}[$R]))",
                        "{{kind}} {{result}}",
                    )],
                    None,
                ),
                series(
                    "A try, p99",
                    "How long it took, by kind.",
                    "s",
                    &[(
                        "histogram_quantile(0.99, sum by (le, kind) (rate(weir_analytics_action_seconds_bucket{$N}[$R])))",
                        "{{kind}}",
                    )],
                    High(1.0, 5.0),
                ),
                series(
                    "Waiting",
                    "Actions that wait for their turn or their next try.",
                    "short",
                    &[("sum by (instance) (weir_analytics_actions_waiting{$N})", "{{instance}}")],
                    High(100.0, 10000.0),
                ),
                series(
                    "Under way",
                    "Of the tries that may be, by kind.",
                    "percentunit",
                    &[(
                        "weir_analytics_actions_running{$N} / on (instance) group_left () weir_analytics_actions_running_max{$N}",
                        "{{instance}} {{kind}}",
                    )],
                    High(0.7, 0.95),
                ),
            ],
        ),
        (
            "State",
            &[
                series(
                    "Checkpoints, p99",
                    "Time to record the state of a partition's rules.",
                    "s",
                    &[(
                        "histogram_quantile(0.99, sum by (le) (rate(weir_analytics_checkpoint_seconds_bucket{$N}[$R])))",
                        "p99",
                    )],
                    High(1.0, 5.0),
                ),
                series(
                    "Owners",
                    "Partitions of each replica.",
                    "short",
                    &[("sum by (instance) (weir_analytics_partition_owned{$N})", "{{instance}}")],
                    None,
                ),
            ],
        ),
    ],
};
