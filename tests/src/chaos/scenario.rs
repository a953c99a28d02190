//! The scenarios, as data: a name, what it needs, how much load, and what happens, by a seed.

use std::time::Duration;

use weir_drive::random::Random;

use super::{
    faults::{Machines, Step, Who},
    workload::Plan,
};

/// Which cluster a scenario runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engines {
    /// One process, embedded engines.
    Embedded,
    /// Separate services on NATS and CQL.
    NatsCql,
}

impl Engines {
    /// What tables and `--engine` call them.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::NatsCql => "nats-cql",
        }
    }
}

/// What a scenario needs beyond processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Disks whose power can be cut.
    pub disks: bool,
    /// NATS servers.
    pub nats: u8,
    /// CQL servers.
    pub cql: u8,
    /// Replicas of each service.
    pub replicas: u8,
    /// A network that can be cut.
    pub network: bool,
    /// Clocks that can jump.
    pub clocks: bool,
    /// A plain client of NATS beside the load, as the yardstick for gaps.
    pub raw: bool,
}

/// One scenario.
#[derive(Clone)]
pub struct Scenario {
    /// What `--scenario` calls it.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// On which engines it makes sense.
    pub on: &'static [Engines],
    /// What it needs.
    pub needs: Needs,
    /// Environment of every process of Weir.
    pub env: &'static [(&'static str, &'static str)],
    /// The load.
    pub plan: fn() -> Plan,
    /// The step with this number; it goes on until the time is up.
    pub step: fn(u64, &mut Random) -> Step,
}

const BOTH: &[Engines] = &[Engines::Embedded, Engines::NatsCql];
const SEPARATE: &[Engines] = &[Engines::NatsCql];
const ONE: Needs =
    Needs { disks: false, nats: 1, cql: 1, replicas: 1, network: false, clocks: false, raw: false };
const THREE: Needs = Needs { nats: 3, replicas: 2, ..ONE };
const DISKS: Needs = Needs { disks: true, ..ONE };

/// How far a clock jumps: two hours, as where somebody has mistaken the time zone.
const JUMP_S: i64 = 7_200;

fn millis(random: &mut Random, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + random.below(to.saturating_sub(from)))
}

/// Every other step is a pause, so that something is acknowledged between faults.
fn between(
    number: u64,
    random: &mut Random,
    pause: (u64, u64),
    fault: impl FnOnce(&mut Random) -> Step,
) -> Step {
    if number.is_multiple_of(2) { Step::Calm(millis(random, pause.0, pause.1)) } else { fault(random) }
}

fn kill_of(service: &'static str) -> impl Fn(u64, &mut Random) -> Step {
    move |number, random| {
        between(number, random, (300, 2_500), |random| {
            Step::Kill(Who::Service(service), millis(random, 0, 500))
        })
    }
}

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "calm",
        about: "no fault at all: what the load is without one",
        on: BOTH,
        needs: ONE,
        env: &[],
        plan: Plan::default,
        step: |_, random| Step::Calm(millis(random, 500, 1_000)),
    },
    Scenario {
        name: "kill-any",
        about: "kill -9 of any process of Weir, again and again",
        on: BOTH,
        needs: ONE,
        env: &[],
        plan: Plan::default,
        step: |number, random| {
            between(number, random, (300, 2_500), |random| {
                Step::Kill(Who::AnyService, millis(random, 0, 500))
            })
        },
    },
    Scenario {
        name: "kill-registry",
        about: "kill -9 of the registry",
        on: SEPARATE,
        needs: ONE,
        env: &[],
        plan: Plan::default,
        step: |number, random| kill_of("registry")(number, random),
    },
    Scenario {
        name: "kill-ingest",
        about: "kill -9 of ingest",
        on: SEPARATE,
        needs: ONE,
        env: &[],
        plan: Plan::default,
        step: |number, random| kill_of("ingest")(number, random),
    },
    Scenario {
        name: "kill-storage",
        about: "kill -9 of storage",
        on: SEPARATE,
        needs: ONE,
        env: &[],
        plan: Plan::default,
        step: |number, random| kill_of("storage")(number, random),
    },
    Scenario {
        name: "kill-analytics",
        about: "kill -9 of analytics",
        on: SEPARATE,
        needs: ONE,
        env: &[],
        plan: Plan::default,
        step: |number, random| kill_of("analytics")(number, random),
    },
    Scenario {
        name: "kill-commands",
        about: "kill -9 of commands",
        on: SEPARATE,
        needs: ONE,
        env: &[],
        plan: Plan::default,
        step: |number, random| kill_of("commands")(number, random),
    },
    Scenario {
        name: "freeze",
        about: "SIGSTOP of any process of Weir for 20 s, then it wakes",
        on: BOTH,
        needs: THREE,
        env: &[],
        plan: Plan::default,
        step: |number, random| {
            between(number, random, (2_000, 5_000), |_| {
                Step::Freeze(Who::AnyService, Duration::from_secs(20))
            })
        },
    },
    Scenario {
        name: "rolling",
        about: "SIGTERM to each process in turn, twice and on",
        on: BOTH,
        needs: THREE,
        env: &[],
        plan: Plan::default,
        step: |number, random| between(number, random, (1_000, 3_000), |_| Step::Rolling),
    },
    Scenario {
        name: "power-cut",
        about: "the power of every machine that keeps data is cut at one moment",
        on: BOTH,
        needs: DISKS,
        env: &[],
        plan: Plan::default,
        step: |number, random| between(number, random, (2_000, 6_000), |_| Step::PowerCut(Machines::All)),
    },
    Scenario {
        name: "power-cut-nats",
        about: "the power of every NATS server is cut",
        on: SEPARATE,
        needs: Needs { nats: 3, ..DISKS },
        env: &[],
        plan: Plan::default,
        step: |number, random| between(number, random, (2_000, 6_000), |_| Step::PowerCut(Machines::Nats)),
    },
    Scenario {
        name: "power-cut-cql",
        about: "the power of every CQL server is cut",
        on: SEPARATE,
        needs: DISKS,
        env: &[],
        plan: Plan::default,
        step: |number, random| between(number, random, (5_000, 15_000), |_| Step::PowerCut(Machines::Cql)),
    },
    Scenario {
        name: "kill-nats-leader",
        about: "kill -9 of the NATS server that leads the stream of readings",
        on: SEPARATE,
        needs: Needs { raw: true, ..THREE },
        env: &[],
        plan: Plan::default,
        step: |number, random| {
            between(number, random, (3_000, 8_000), |random| {
                Step::Kill(Who::NatsLeader, millis(random, 0, 5_000))
            })
        },
    },
    Scenario {
        name: "freeze-nats",
        about: "SIGSTOP of one of three NATS servers for 20 s: to the others it is as a partition, but its sockets stay open",
        on: SEPARATE,
        needs: THREE,
        env: &[],
        plan: Plan::default,
        step: |number, random| {
            between(number, random, (3_000, 8_000), |_| Step::Freeze(Who::Nats, Duration::from_secs(20)))
        },
    },
    Scenario {
        name: "nats-partition",
        about: "one of three NATS servers is cut off by the network: the leader of the readings, or any",
        on: SEPARATE,
        needs: Needs { network: true, raw: true, ..THREE },
        env: &[],
        plan: Plan::default,
        step: |number, random| {
            between(number, random, (3_000, 8_000), |random| {
                let who = if random.once_in(2) { Who::NatsLeader } else { Who::Nats };
                Step::CutOff(who, millis(random, 3_000, 15_000))
            })
        },
    },
    Scenario {
        name: "poison",
        about: "junk on the stream of readings, several times, and kills while it is read",
        on: SEPARATE,
        needs: ONE,
        env: &[],
        plan: Plan::default,
        step: |number, random| {
            // A kill comes right after the junk: it is read again, and kept once.
            let reader = if random.once_in(2) { "storage" } else { "analytics" };
            match number % 3 {
                0 => Step::Calm(millis(random, 500, 2_500)),
                1 => Step::Poison(1 + random.below(8)),
                _ => Step::Kill(Who::Service(reader), millis(random, 0, 500)),
            }
        },
    },
    Scenario {
        name: "rule-edits",
        about: "rules are edited and deleted, alarms acknowledged and cleared by hand, while any process is killed",
        on: BOTH,
        needs: ONE,
        env: &[],
        plan: || Plan { edits: true, ..Plan::default() },
        step: |number, random| {
            between(number, random, (1_000, 4_000), |random| {
                let services = ["analytics", "analytics", "storage", "registry", "commands", "ingest"];
                let service = services.get(random.below(6) as usize).copied().unwrap_or("analytics");
                Step::Kill(Who::Service(service), millis(random, 0, 500))
            })
        },
    },
    Scenario {
        name: "clock-jumps",
        about: "the clock of a process jumps two hours ahead or back, and returns",
        on: BOTH,
        needs: Needs { clocks: true, replicas: 2, ..ONE },
        env: &[],
        // How long a command may wait is a matter of the clock, so that it may rightly expire.
        plan: || Plan { commands: false, ..Plan::default() },
        step: |number, random| {
            between(number, random, (2_000, 5_000), |random| {
                let seconds = if random.once_in(2) { JUMP_S } else { -JUMP_S };
                Step::Jump(Who::AnyService, seconds, millis(random, 4_000, 10_000))
            })
        },
    },
    Scenario {
        name: "cql-1-of-3",
        about: "one of three CQL servers is away",
        on: SEPARATE,
        needs: Needs { cql: 3, ..ONE },
        env: &[],
        plan: Plan::default,
        step: |number, random| {
            between(number, random, (5_000, 10_000), |_| Step::KillSome(Who::Cql, 1, Duration::from_secs(15)))
        },
    },
    Scenario {
        name: "cql-2-of-3",
        about: "two of three CQL servers are away: nothing can be stored, everything is accepted, nothing is lost",
        on: SEPARATE,
        needs: Needs { cql: 3, ..ONE },
        env: &[],
        plan: Plan::default,
        step: |number, random| {
            between(number, random, (5_000, 10_000), |_| Step::KillSome(Who::Cql, 2, Duration::from_secs(15)))
        },
    },
    Scenario {
        name: "bus-full",
        about: "the store is away until the bus is at its limit and refuses; then it comes back",
        on: SEPARATE,
        needs: ONE,
        env: &[("WEIR__LOG__MAX_BYTES", "4MiB"), ("WEIR__LOG__KEEP", "5s")],
        plan: Plan::default,
        step: |number, random| {
            between(number, random, (5_000, 10_000), |_| Step::KillSome(Who::Cql, 1, Duration::from_secs(40)))
        },
    },
    Scenario {
        name: "scale",
        about: "each service in turn is scaled from three processes to one and back",
        on: SEPARATE,
        needs: Needs { replicas: 3, ..ONE },
        env: &[],
        plan: Plan::default,
        step: |number, random| {
            between(number, random, (2_000, 5_000), |random| {
                let services = ["registry", "commands", "storage", "analytics", "ingest"];
                let service = services.get(random.below(5) as usize).copied().unwrap_or("ingest");
                Step::Scale(service, millis(random, 2_000, 8_000))
            })
        },
    },
    Scenario {
        name: "reconnect",
        about: "5,000 devices reconnect at once, after a kill of the edge",
        on: BOTH,
        needs: ONE,
        env: &[],
        plan: || Plan { mqtt: 2_500, http: 0, grpc: 0, rate: 0.1, ..Plan::default() },
        step: |number, random| {
            between(number, random, (8_000, 12_000), |random| {
                Step::Kill(Who::Service("ingest"), millis(random, 0, 500))
            })
        },
    },
    Scenario {
        name: "overload",
        about: "ten times what the devices may expect to get through, and a kill now and then",
        on: BOTH,
        needs: ONE,
        env: &[],
        plan: || Plan { grpc: 16, rate: 100.0, batch: 100, ..Plan::default() },
        step: |number, random| {
            between(number, random, (10_000, 20_000), |random| {
                Step::Kill(Who::AnyService, millis(random, 0, 500))
            })
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_schedule_and_names_are_unique() {
        for scenario in SCENARIOS {
            let steps = |seed| {
                let mut random = Random::new(seed);
                (0..50).map(|number| (scenario.step)(number, &mut random)).collect::<Vec<_>>()
            };
            assert_eq!(steps(3), steps(3), "{}", scenario.name);
            assert_ne!(steps(3), steps(4), "{}", scenario.name);
            assert_eq!(SCENARIOS.iter().filter(|other| other.name == scenario.name).count(), 1);
        }
    }
}
