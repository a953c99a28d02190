//! Runs scenarios until the time is up, each on a cluster of its own.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use weir_core::{Error, Result};
use weir_drive::random::{Random, mix};

use super::{
    faults::Injector,
    raw::Publisher,
    report::Row,
    scenario::{Engines, SCENARIOS, Scenario},
    workload::Workload,
};
use crate::{
    clock,
    cluster::{Cluster, Shape},
    disk::Disk,
    network::Partition,
};

/// Under load before the first fault: something must be there to be lost.
const WARM_UP: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long in all, reading back not counted.
    pub length: Duration,
    /// One seed gives one schedule.
    pub seed: u64,
    /// Only these scenarios; all that suit the engines if empty.
    pub scenarios: Vec<String>,
    /// On which engines.
    pub engines: Vec<Engines>,
    /// The binary under test.
    pub binary: PathBuf,
    /// Where every cluster's data and logs go, each in a directory of its own.
    pub dir: PathBuf,
    /// Additional environment of every process of Weir.
    pub env: Vec<(String, String)>,
    /// NATS syncs when it likes (its default), not before each answer.
    pub nats_default_sync: bool,
    /// How long after everything is healed what was acknowledged may take to be readable.
    pub patience: Duration,
    /// Neither rules nor commands beside the load.
    pub readings_only: bool,
}

impl Options {
    /// The scenarios that these options ask for, each with engines that it makes sense on.
    ///
    /// # Errors
    /// `SCENARIO_UNKNOWN` that names those there are.
    pub fn chosen(&self) -> Result<Vec<(Engines, &'static Scenario)>> {
        let on = |engines: Engines| {
            SCENARIOS
                .iter()
                .filter(move |known| known.on.contains(&engines))
                .map(move |known| (engines, known))
        };
        let suiting: Vec<_> = self.engines.iter().copied().flat_map(on).collect();
        if self.scenarios.is_empty() {
            return Ok(suiting.into_iter().filter(|(_, scenario)| scenario.name != "calm").collect());
        }
        if let Some(name) =
            self.scenarios.iter().find(|name| suiting.iter().all(|(_, known)| known.name != **name))
        {
            let mut names: Vec<_> = suiting.iter().map(|(_, known)| known.name).collect();
            names.sort_unstable();
            names.dedup();
            let message =
                format!("there is no scenario {name} on these engines; there are {}", names.join(", "));
            return Err(Error::invalid("scenario", "SCENARIO_UNKNOWN", message));
        }
        let asked = |known: &Scenario| self.scenarios.iter().any(|name| known.name == name);
        Ok(suiting.into_iter().filter(|(_, known)| asked(known)).collect())
    }
}

/// What became of one scenario.
#[derive(Debug, Clone)]
pub enum Ran {
    /// It ran; what it found.
    Row(Box<Row>),
    /// It cannot run here, and why.
    Skipped(&'static str, String),
}

/// Runs one scenario for `length` on a new cluster. A failure to carry it through is in its row.
pub async fn one(
    options: &Options,
    (engines, scenario): (Engines, &'static Scenario),
    number: u64,
    length: Duration,
) -> Ran {
    let needs = scenario.needs;
    let possible = [
        (needs.disks, Disk::possible as fn() -> _),
        (needs.network, Partition::possible),
        (needs.clocks, clock::possible),
    ];
    for (needed, possible) in possible {
        if needed && let Err(why) = possible() {
            return Ran::Skipped(scenario.name, why);
        }
    }
    let dir = options.dir.join(format!("{number:03}-{}", scenario.name));
    let name = format!("{} {}", engines.name(), scenario.name);
    let mut row = Row { scenario: name, length, ..Row::default() };
    match start(options, engines, scenario, &dir).await {
        Err(error) => row.failure = Some(format!("{error}; see {}", dir.display())),
        Ok(mut cluster) => {
            let seed = mix(options.seed ^ mix(number));
            if let Err(error) = play(options, &mut cluster, scenario, seed, length, &mut row).await {
                row.failure = Some(format!("{error}; see {}\n{}", dir.display(), cluster.tails(5)));
            }
        }
    }
    Ran::Row(Box::new(row))
}

async fn start(options: &Options, engines: Engines, scenario: &Scenario, dir: &Path) -> Result<Cluster> {
    let failed =
        |source: std::io::Error| Error::unavailable(format!("cannot make {}: {source}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut env = options.env.clone();
    env.extend(scenario.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    match engines {
        Engines::Embedded => {
            let needs = scenario.needs;
            Cluster::embedded(dir, &options.binary, needs.disks, needs.clocks, &env).await
        }
        Engines::NatsCql => {
            let needs = scenario.needs;
            let shape = Shape {
                nats: needs.nats,
                cql: needs.cql,
                replicas: needs.replicas,
                edges: needs.replicas,
                disks: needs.disks,
                clocks: needs.clocks,
                sync_always: !options.nats_default_sync,
            };
            Cluster::shared(dir, &options.binary, &shape, &env).await
        }
    }
}

async fn play(
    options: &Options,
    cluster: &mut Cluster,
    scenario: &Scenario,
    seed: u64,
    length: Duration,
    row: &mut Row,
) -> Result<()> {
    let mut plan = (scenario.plan)();
    plan.rules &= !options.readings_only;
    plan.commands &= !options.readings_only;
    let setting_up = Instant::now(); // from here on the load counts its gaps
    let workload = Workload::start(cluster, &plan, seed).await?;
    let begin = Instant::now();
    let mut random = Random::new(seed);
    tokio::time::sleep(WARM_UP.min(length)).await;
    let mut injector = Injector::default();
    if scenario.needs.raw {
        injector.raw = Some(Publisher::start(cluster, setting_up).await?);
    }
    let mut number = 0;
    while begin.elapsed() < length {
        let step = (scenario.step)(number, &mut random);
        injector.inject(cluster, &step, &mut random).await?;
        number += 1;
    }
    cluster.start_all().await?;
    let Injector { done, junk, raw } = injector;
    row.length = begin.elapsed();
    row.injected = done;
    let raw = match raw {
        Some(raw) => raw.finish().await,
        None => None,
    };
    row.outcome = workload.finish(options.patience).await?;
    row.outcome.raw = raw;
    row.outcome.poison = junk.finish(cluster, &options.binary).await?;
    Ok(())
}
