//! Faults as data, and how each is done to a cluster. Every fault that is begun is also ended here: after a step everything
//! runs again and is ready.

use std::time::Duration;

use tokio::time::sleep;
use weir_core::{Error, Result};
use weir_drive::random::Random;

use crate::cluster::{Cluster, Role};

/// Whom a fault strikes. Where everything is one process, every service is that process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Any process of Weir.
    AnyService,
    /// One process of this service.
    Service(&'static str),
    /// One NATS server.
    Nats,
    /// The NATS server that leads the stream of readings.
    NatsLeader,
    /// One CQL server.
    Cql,
}

/// Machines that lose power at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machines {
    /// All that keep data in this cluster: the single process, or every NATS and CQL server.
    All,
    /// Every NATS server.
    Nats,
    /// Every CQL server.
    Cql,
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, for a while.
    Calm(Duration),
    /// kill -9; it stays away for a while and is started again.
    Kill(Who, Duration),
    /// SIGSTOP for a while; then it goes on as if nothing had been.
    Freeze(Who, Duration),
    /// Several at once are killed and stay away for a while.
    KillSome(Who, usize, Duration),
    /// SIGTERM to each process of Weir, one after the other, each ready again before the next.
    Rolling,
    /// A service is scaled down to one process (SIGTERM), and after a while up again.
    Scale(&'static str, Duration),
    /// The power of machines is cut, and they start on what their disks hold.
    PowerCut(Machines),
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Injected {
    /// kill -9.
    pub kills: u64,
    /// SIGSTOP.
    pub freezes: u64,
    /// SIGTERM.
    pub restarts: u64,
    /// Machines whose power was cut count as one cut where it was at one moment.
    pub power_cuts: u64,
}

impl Injected {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            kills: self.kills + other.kills,
            freezes: self.freezes + other.freezes,
            restarts: self.restarts + other.restarts,
            power_cuts: self.power_cuts + other.power_cuts,
        }
    }
}

/// Does one step, and ends it.
///
/// # Errors
/// Where something does not come back: that is a finding about the system, told with its log.
pub async fn inject(
    cluster: &mut Cluster,
    step: &Step,
    random: &mut Random,
    done: &mut Injected,
) -> Result<()> {
    match step {
        Step::Calm(length) => sleep(*length).await,
        Step::Kill(who, away) => {
            let name = choose(cluster, *who, random).await?;
            done.kills += 1;
            kill(cluster, &name)?;
            sleep(*away).await;
            cluster.start(&name).await?;
        }
        Step::KillSome(who, count, away) => {
            let mut names = candidates(cluster, *who);
            while names.len() > *count {
                names.remove(random.below(names.len() as u64) as usize);
            }
            for name in &names {
                done.kills += 1;
                kill(cluster, name)?;
            }
            sleep(*away).await;
            cluster.start_all().await?;
        }
        Step::Freeze(who, length) => {
            let name = choose(cluster, *who, random).await?;
            done.freezes += 1;
            let member = cluster.member(&name)?;
            member.note("SIGSTOP");
            member.freeze();
            sleep(*length).await;
            let member = cluster.member(&name)?;
            member.wake();
            member.note("SIGCONT");
            cluster.start(&name).await?;
        }
        Step::Rolling => {
            for name in cluster.services() {
                done.restarts += 1;
                cluster.restart(&name).await?;
            }
        }
        Step::Scale(service, away) => {
            for name in candidates(cluster, Who::Service(service)).into_iter().skip(1) {
                done.restarts += 1;
                cluster.drain(&name).await?;
            }
            sleep(*away).await;
            cluster.start_all().await?;
        }
        Step::PowerCut(machines) => {
            let names = powered(cluster, *machines);
            done.power_cuts += 1;
            cluster.power_cut(&names).await?;
        }
    }
    Ok(())
}

fn kill(cluster: &mut Cluster, name: &str) -> Result<()> {
    let member = cluster.member(name)?;
    member.kill();
    member.note("kill -9");
    Ok(())
}

fn candidates(cluster: &Cluster, who: Who) -> Vec<String> {
    match who {
        Who::AnyService => cluster.services(),
        Who::Service(service) => {
            let own = cluster.names(Role::Service(service));
            if own.is_empty() { cluster.names(Role::Service("all")) } else { own }
        }
        Who::Nats | Who::NatsLeader => cluster.names(Role::Nats),
        Who::Cql => cluster.names(Role::Cql),
    }
}

async fn choose(cluster: &Cluster, who: Who, random: &mut Random) -> Result<String> {
    if who == Who::NatsLeader {
        return cluster.nats_leader().await;
    }
    let names = candidates(cluster, who);
    let index = random.below(names.len() as u64) as usize;
    names.get(index).cloned().ok_or_else(|| Error::internal(format!("this cluster has no {who:?}")))
}

fn powered(cluster: &Cluster, machines: Machines) -> Vec<String> {
    let (nats, cql) = (cluster.names(Role::Nats), cluster.names(Role::Cql));
    match machines {
        Machines::Nats => nats,
        Machines::Cql => cql,
        Machines::All if nats.is_empty() => cluster.services(),
        Machines::All => [nats, cql].concat(),
    }
}
