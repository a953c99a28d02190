//! The tables, as steps that build on each other. A step that was released is never changed; what changes is a new step.

use weir_core::Uid;

use crate::config::Config;

/// The last step that this release knows: it reads and writes exactly this schema.
pub(crate) const CURRENT: u32 = 3;

/// What the name of the one row group of `schema_version` is.
pub(crate) const SCOPE: &str = "weir";

/// How long, in seconds, the servers keep the mark of a deleted record at least: three hours, for which both engines keep
/// hints for a node that is away by default (`max_hint_window`), so a node that was away for less learns of every deletion.
/// One that was away for longer may bring deleted records back, unless it is repaired before it serves. The servers' own ten
/// days leave time for that, but would fail reads: whoever reads a partition from its beginning (the commands of a tenant
/// that have not ended, the changes that rules wait for) steps over each mark there, and Cassandra refuses to after 100,000.
/// That is one command in nine seconds for ten days, and nine a second for three hours.
const TOMBSTONES_KEPT: u32 = 3 * 60 * 60;

/// One step of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Counts from 1.
    pub number: u32,
    /// What it is about.
    pub name: &'static str,
    /// Its CQL, in order. Every statement may be run again.
    pub statements: Vec<String>,
}

/// Every step. `tablets_off`: the server would put the keyspace on tablets, and has no lightweight transactions there.
pub(crate) fn steps(config: &Config, tablets_off: bool) -> Vec<Step> {
    let keyspace = &config.keyspace;
    vec![
        Step { number: 1, name: "keyspace", statements: keyspace_step(config, tablets_off) },
        Step {
            number: 2,
            name: "records",
            statements: vec![
                format!(
                    "CREATE TABLE IF NOT EXISTS {keyspace}.records (tbl text, part blob, key blob, \
                     commit_id blob static, fence tinyint static, noop set<tinyint>, version bigint, value blob, \
                     PRIMARY KEY ((tbl, part), key)) WITH gc_grace_seconds = {TOMBSTONES_KEPT} AND compaction = \
                     {{'class': 'SizeTieredCompactionStrategy', 'tombstone_compaction_interval': {TOMBSTONES_KEPT}}}"
                ),
                format!(
                    "CREATE TABLE IF NOT EXISTS {keyspace}.record_partitions (tbl text, shard tinyint, part blob, \
                     PRIMARY KEY ((tbl, shard), part))"
                ),
            ],
        },
        Step {
            number: 3,
            name: "telemetry",
            statements: vec![
                format!(
                    "CREATE TABLE IF NOT EXISTS {keyspace}.readings (tenant text, uid blob, bucket bigint, \
                     width tinyint, ts bigint, position blob, body blob, \
                     PRIMARY KEY ((tenant, uid, bucket, width), ts, position)) WITH compaction = \
                     {{'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', \
                     'compaction_window_size': 7}}"
                ),
                format!(
                    "CREATE TABLE IF NOT EXISTS {keyspace}.latest (tenant text, uid blob, metric text, value blob, \
                     PRIMARY KEY ((tenant, uid), metric))"
                ),
                format!(
                    "CREATE TABLE IF NOT EXISTS {keyspace}.buckets (tenant text, uid blob, class tinyint, \
                     period int, start bigint, width tinyint, bytes bigint, seal_generation bigint, \
                     sealed_through blob, PRIMARY KEY ((tenant, uid, class, period), start, width))"
                ),
                format!(
                    "CREATE TABLE IF NOT EXISTS {keyspace}.bucket_periods (tenant text, uid blob, class tinyint, \
                     period int, PRIMARY KEY ((tenant, uid), class, period))"
                ),
            ],
        },
    ]
}

fn keyspace_step(config: &Config, tablets_off: bool) -> Vec<String> {
    let Config { keyspace, replication_factor, .. } = config;
    let replication = match &config.data_center {
        Some(name) => format!("{{'class': 'NetworkTopologyStrategy', '{name}': {replication_factor}}}"),
        None => format!("{{'class': 'SimpleStrategy', 'replication_factor': {replication_factor}}}"),
    };
    let tablets = if tablets_off { " AND tablets = {'enabled': false}" } else { "" };
    // These two come before there is anything to take turns by. Two runners that make a table at once give it two ids,
    // which Cassandra does not survive well: so it is made with an id that both know.
    let id = |table: &str| uuid(Uid::hash(&[b"weir", keyspace.as_bytes(), table.as_bytes()]));
    vec![
        format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}{tablets}"),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.schema_version (scope text, step int, name text, \
             PRIMARY KEY (scope, step)) WITH id = {}",
            id("schema_version")
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.schema_lease (scope text PRIMARY KEY, holder blob) WITH id = {}",
            id("schema_lease")
        ),
    ]
}

/// As CQL writes a UUID; of version 8 (RFC 9562: made as its maker likes).
fn uuid(of: Uid) -> String {
    let version = of.as_u128() & !(0xF << 76) & !(0b11 << 62) | 8 << 76 | 0b10 << 62;
    let digits = Uid::from_u128(version).to_string();
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_count_from_one_to_the_current() {
        let numbers: Vec<u32> = steps(&Config::default(), false).iter().map(|step| step.number).collect();
        assert_eq!(numbers, (1..=CURRENT).collect::<Vec<_>>());
    }

    #[test]
    fn replication_follows_the_configuration() {
        let first = |config: &Config, tablets_off| steps(config, tablets_off)[0].statements[0].clone();
        let simple = first(&Config::default(), false);
        assert!(simple.contains("'SimpleStrategy', 'replication_factor': 3") && !simple.contains("tablets"));
        let config =
            Config { data_center: Some("dc1".to_owned()), replication_factor: 2, ..Config::default() };
        let topology = first(&config, true);
        assert!(topology.contains("'NetworkTopologyStrategy', 'dc1': 2"), "{topology}");
        assert!(topology.ends_with("AND tablets = {'enabled': false}"), "{topology}");
    }

    #[test]
    fn an_id_is_a_uuid() {
        let text = uuid(Uid::from_u128(u128::MAX));
        assert_eq!(text, "ffffffff-ffff-8fff-bfff-ffffffffffff");
    }
}
