//! Faults as data, and how each is done to a cluster. Every fault that is begun is also ended here: after a step everything
//! runs again and is ready.

use std::time::Duration;

use tokio::time::sleep;
use weir_core::{Error, Result};
use weir_drive::random::Random;

use super::{poison::Junk, raw::Publisher};
use crate::{
    clock,
    cluster::{Cluster, Role},
};

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
    /// A NATS server is cut off by the network from the others and from clients, for a while.
    CutOff(Who, Duration),
    /// So many records that are no frames are put onto the stream of readings.
    Poison(u64),
    /// The wall clock of a process jumps by so many seconds, and back after a while.
    Jump(Who, i64, Duration),
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
    /// Servers cut off by the network.
    pub cut_offs: u64,
    /// Jumps of clocks, there and back.
    pub jumps: u64,
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
            cut_offs: self.cut_offs + other.cut_offs,
            jumps: self.jumps + other.jumps,
        }
    }
}

/// Who injects.
#[derive(Default)]
pub struct Injector {
    /// What was done so far.
    pub done: Injected,
    /// What was put onto the stream of readings.
    pub junk: Junk,
    /// A plain client of the bus, whose stream must be led where the struck one is.
    pub raw: Option<Publisher>,
}

impl Injector {
    /// Does one step, and ends it.
    ///
    /// # Errors
    /// Where something does not come back: that is a finding about the system, told with its log.
    pub async fn inject(&mut self, cluster: &mut Cluster, step: &Step, random: &mut Random) -> Result<()> {
        match step {
            Step::Calm(length) => sleep(*length).await,
            Step::Kill(who, away) => {
                let name = self.choose(cluster, *who, random).await?;
                self.kill(cluster, &name)?;
                sleep(*away).await;
                cluster.start(&name).await?;
            }
            Step::KillSome(who, count, away) => {
                let mut names = candidates(cluster, *who);
                while names.len() > *count {
                    names.remove(random.below(names.len() as u64) as usize);
                }
                for name in &names {
                    self.kill(cluster, name)?;
                }
                sleep(*away).await;
                cluster.start_all().await?;
            }
            Step::Freeze(who, length) => {
                let name = self.choose(cluster, *who, random).await?;
                self.freeze(cluster, &name, *length).await?;
            }
            Step::Rolling => {
                for name in cluster.services() {
                    self.done.restarts += 1;
                    cluster.restart(&name).await?;
                }
            }
            Step::Scale(service, away) => {
                for name in candidates(cluster, Who::Service(service)).into_iter().skip(1) {
                    self.done.restarts += 1;
                    cluster.drain(&name).await?;
                }
                sleep(*away).await;
                cluster.start_all().await?;
            }
            Step::PowerCut(machines) => {
                let names = powered(cluster, *machines);
                self.done.power_cuts += 1;
                cluster.power_cut(&names).await?;
            }
            Step::CutOff(who, length) => {
                let name = self.choose(cluster, *who, random).await?;
                let partition = cluster.cut_off(&name)?;
                self.done.cut_offs += 1;
                sleep(*length).await;
                drop(partition);
                cluster.start(&name).await?;
            }
            Step::Poison(count) => self.junk.put(cluster, *count, random).await?,
            Step::Jump(who, seconds, length) => {
                let name = self.choose(cluster, *who, random).await?;
                self.jump(cluster, &name, *seconds)?;
                sleep(*length).await;
                self.jump(cluster, &name, 0)?;
                cluster.start(&name).await?;
            }
        }
        Ok(())
    }

    fn kill(&mut self, cluster: &mut Cluster, name: &str) -> Result<()> {
        self.done.kills += 1;
        let member = cluster.member(name)?;
        member.kill();
        member.note("kill -9");
        Ok(())
    }

    async fn freeze(&mut self, cluster: &mut Cluster, name: &str, length: Duration) -> Result<()> {
        self.done.freezes += 1;
        let member = cluster.member(name)?;
        member.note("SIGSTOP");
        member.freeze();
        sleep(length).await;
        let member = cluster.member(name)?;
        member.wake();
        member.note("SIGCONT");
        cluster.start(name).await
    }

    fn jump(&mut self, cluster: &mut Cluster, name: &str, seconds: i64) -> Result<()> {
        self.done.jumps += 1;
        clock::set(cluster.dir(), name, seconds)?;
        cluster.member(name)?.note(&format!("its clock is {seconds:+} s off"));
        Ok(())
    }

    async fn choose(&self, cluster: &Cluster, who: Who, random: &mut Random) -> Result<String> {
        if who == Who::NatsLeader {
            let leader = cluster.nats_leader().await?;
            if let Some(raw) = &self.raw {
                raw.follow(cluster, &leader).await?;
            }
            return Ok(leader);
        }
        let names = candidates(cluster, who);
        let index = random.below(names.len() as u64) as usize;
        names.get(index).cloned().ok_or_else(|| Error::internal(format!("this cluster has no {who:?}")))
    }
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

fn powered(cluster: &Cluster, machines: Machines) -> Vec<String> {
    let (nats, cql) = (cluster.names(Role::Nats), cluster.names(Role::Cql));
    match machines {
        Machines::Nats => nats,
        Machines::Cql => cql,
        Machines::All if nats.is_empty() => cluster.services(),
        Machines::All => [nats, cql].concat(),
    }
}
