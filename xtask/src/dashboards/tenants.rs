//! Whose traffic it is, and what it costs.

use super::{
    Bounds::{High, None},
    Dashboard, series, stat,
};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    uid: "weir-tenants",
    title: "Weir / Tenants and cost",
    description: "Who sends how much, and what the processes use. The first 100 tenants of a process by name; all others are other.",
    rows: &[
        (
            "Tenants",
            &[
                series(
                    "Readings",
                    "That the log has, a second: the ten tenants with most.",
                    "cps",
                    &[(
                        "topk(10, sum by (tenant) (rate(weir_ingest_tenant_readings_total{$N}[$R])))",
                        "{{tenant}}",
                    )],
                    None,
                ),
                series(
                    "Bytes",
                    "Of payloads as they came, a second: the ten tenants with most.",
                    "Bps",
                    &[(
                        "topk(10, sum by (tenant) (rate(weir_ingest_tenant_bytes_total{$N}[$R])))",
                        "{{tenant}}",
                    )],
                    None,
                ),
                series(
                    "Refused",
                    "Messages and readings, a second: the ten tenants with most.",
                    "cps",
                    &[(
                        "topk(10, sum by (tenant) (rate(weir_ingest_tenant_refused_total{$N}[$R])))",
                        "{{tenant}}",
                    )],
                    None,
                ),
                series(
                    "Bytes a reading",
                    "Of payloads as they came.",
                    "bytes",
                    &[(
                        "sum by (tenant) (rate(weir_ingest_tenant_bytes_total{$N}[$R])) / sum by (tenant) (rate(weir_ingest_tenant_readings_total{$N}[$R]))",
                        "{{tenant}}",
                    )],
                    None,
                ),
            ],
        ),
        (
            "Who is who",
            &[
                series(
                    "Authentications",
                    "Tokens shown, a second, by result.",
                    "cps",
                    &[("sum by (result) (rate(weir_registry_authentications_total{$N}[$R]))", "{{result}}")],
                    None,
                ),
                series(
                    "Lookups",
                    "Of devices and profiles, a second, by where they were answered.",
                    "cps",
                    &[("sum by (from) (rate(weir_registry_lookups_total{$N}[$R]))", "{{from}}")],
                    None,
                ),
                series(
                    "Caches of registry",
                    "Entries, of those that may be.",
                    "percentunit",
                    &[(
                        "weir_registry_cache_entries{$N} / weir_registry_cache_entries_max{$N}",
                        "{{instance}} {{cache}}",
                    )],
                    None,
                ),
            ],
        ),
        (
            "Cost",
            &[
                series(
                    "CPU",
                    "Cores that a process uses.",
                    "none",
                    &[("rate(weir_process_cpu_seconds_total{$N}[$R])", "{{instance}}")],
                    None,
                ),
                series(
                    "Memory",
                    "Resident.",
                    "bytes",
                    &[("process_resident_memory_bytes{$N}", "{{instance}}")],
                    None,
                ),
                stat(
                    "Readings a core",
                    "That the log takes, for each core that Weir uses.",
                    "cps",
                    &[(
                        "sum(rate(weir_ingest_readings_total{$N}[$R])) / sum(rate(weir_process_cpu_seconds_total{$N}[$R]))",
                        "",
                    )],
                    None,
                ),
                series(
                    "Bytes published a reading",
                    "What a reading takes in the log.",
                    "bytes",
                    &[(
                        "sum(rate(weir_log_published_bytes_total{$N,stream=\"readings\"}[$R])) / sum(rate(weir_ingest_frame_readings_total{$N}[$R]))",
                        "bytes",
                    )],
                    High(500.0, 2000.0),
                ),
            ],
        ),
    ],
};
