//! A whole Weir under test: its servers and its `weir` processes, each of which can be killed, stopped, cut from power and
//! started again by name. Everything has a loopback address of its own, so that ports stay the same over restarts and several
//! clusters run beside one another.

mod member;
mod shared;

pub use member::{Member, Role};
pub use shared::Shape;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use futures::future::join_all;
use member::Body;
use weir_clients::Connection;
use weir_core::{Error, Result, TenantId};
use weir_drive::Place;
use weir_test_servers::nats;

use crate::{
    clock,
    disk::Disk,
    network::{Cut, Partition},
    process::{Process, Program, until},
};

/// How long a drain may take: `drain.deadline` and a little.
const DRAIN: Duration = Duration::from_secs(30);
/// How long three NATS servers may be without a leader before that is told.
const LEADER: Duration = Duration::from_secs(30);
/// A power cut of a machine with this much on its disk (MiB) is what a scenario needs; sparse, so only what is written is taken.
const DISK_MIB: u32 = 4_096;

/// The cluster.
pub struct Cluster {
    dir: PathBuf,
    token: String,
    /// Everything that runs, in the order in which it is started.
    pub members: Vec<Member>,
}

/// The next free host number of this process's loopback network.
static NEXT: AtomicU8 = AtomicU8::new(1);

/// A loopback address of its own: the network is this process's (by its id), the host is counted.
fn address() -> Result<String> {
    let (pid, host) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    if host == u8::MAX {
        return Err(Error::internal("this process has used up its loopback addresses"));
    }
    Ok(format!("127.{}.{}.{host}", 32 + (pid >> 8) % 200, pid & 255))
}

impl Cluster {
    /// One process with everything, on embedded engines; with a disk of its own where its power is to be cut, and a clock of
    /// its own where that is to jump.
    ///
    /// # Errors
    /// What does not start says why; the logs are in `dir`.
    pub async fn embedded(
        dir: &Path,
        binary: &Path,
        with_disk: bool,
        with_clock: bool,
        env: &[(String, String)],
    ) -> Result<Self> {
        let mut env = env.to_vec();
        if with_clock {
            env.extend(clock::environment(dir, "weir")?);
        }
        let disk = if with_disk { Some(Disk::make(dir, "disk", DISK_MIB)?) } else { None };
        let data = disk.as_ref().map_or_else(|| dir.join("data"), |disk| disk.path().join("data"));
        let token = init(Command::new(binary).args(["init", "--dir"]).arg(dir).arg("--data-dir").arg(&data))?;
        let address = address()?;
        let config = dir.join("weir.toml").display().to_string();
        let args = ["serve", "--target", "all", "--config", &config, "--listen", &address];
        let program = Program { file: binary.to_owned(), args: args.map(str::to_owned).to_vec(), env };
        let body = Body::Weir(Box::new(Process::new("weir", program, dir)));
        let member = Member { role: Role::Service("all"), name: "weir".to_owned(), address, body, disk };
        let mut cluster = Self { dir: dir.to_owned(), token, members: vec![member] };
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Where logs and data are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first token, with scopes platform and admin.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The names of the members of a role.
    pub fn names(&self, role: Role) -> Vec<String> {
        self.members.iter().filter(|member| member.role == role).map(|member| member.name.clone()).collect()
    }

    /// The names of all processes of Weir.
    pub fn services(&self) -> Vec<String> {
        let is_service = |member: &&Member| matches!(member.role, Role::Service(_));
        self.members.iter().filter(is_service).map(|member| member.name.clone()).collect()
    }

    /// A member by name.
    ///
    /// # Errors
    /// `Internal` for a name that is none.
    pub fn member(&mut self, name: &str) -> Result<&mut Member> {
        self.members
            .iter_mut()
            .find(|member| member.name == name)
            .ok_or_else(|| Error::internal(format!("the cluster has no {name}")))
    }

    /// Starts what does not run, wakes what is stopped, and waits until everything is ready.
    ///
    /// # Errors
    /// What is not ready in time, with the end of its log.
    pub async fn start_all(&mut self) -> Result<()> {
        self.members.iter().for_each(Member::wake);
        let (servers, services): (Vec<_>, Vec<_>) =
            self.members.iter_mut().partition(|member| !matches!(member.role, Role::Service(_)));
        start_together(servers).await?;
        start_together(services).await
    }

    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// As [`Cluster::start_all`].
    pub async fn start(&mut self, name: &str) -> Result<()> {
        self.member(name)?.start().await
    }

    /// SIGTERM, waits for the end of its drain, and starts it again.
    ///
    /// # Errors
    /// `DataLoss` where the drain fails; else as [`Cluster::start`].
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        self.drain(name).await?;
        self.start(name).await
    }

    /// SIGTERM, and waits for the end of its drain.
    ///
    /// # Errors
    /// `DataLoss` where the drain fails.
    pub async fn drain(&mut self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        member.note("SIGTERM");
        member.terminate(DRAIN).await
    }

    /// Cuts the power of machines at one moment: what is durable on their disks then is what they find when they start again.
    ///
    /// # Errors
    /// `FailedPrecondition` where one has no disk of its own; else what mounting and starting say.
    pub async fn power_cut(&mut self, names: &[String]) -> Result<()> {
        let mut struck: Vec<&mut Member> =
            self.members.iter_mut().filter(|member| names.contains(&member.name)).collect();
        struck.iter().for_each(|member| member.freeze());
        let mut copies = Vec::new();
        for member in &mut struck {
            let missing = || Error::internal(format!("{} has no disk whose power can be cut", member.name));
            copies.push(member.disk.as_mut().ok_or_else(missing)?.cut()?);
        }
        // All of them are down before the first is up again.
        for member in &mut struck {
            member.kill();
            member.note("power cut");
        }
        for (member, copy) in struck.iter_mut().zip(copies) {
            if let Some(disk) = member.disk.as_mut() {
                disk.power_on(copy).await?;
            }
        }
        start_together(struck).await
    }

    /// Makes durable what the servers needed to start (their configuration, empty streams): a power cut strikes machines that
    /// have been set up.
    fn settle_disks(&self) -> Result<()> {
        self.members.iter().filter_map(|member| member.disk.as_ref()).try_for_each(Disk::settle)
    }

    /// The name of the NATS server that leads the stream of readings.
    ///
    /// # Errors
    /// `Internal` where the cluster has no NATS.
    pub async fn nats_leader(&self) -> Result<String> {
        let bus = self.bus()?;
        let leader = until("the stream of readings has a leader", LEADER, async || bus.leader_of("readings"));
        Ok(format!("nats-{}", leader.await? + 1))
    }

    /// The NATS servers.
    ///
    /// # Errors
    /// `Internal` where the cluster has none.
    pub fn bus(&self) -> Result<&nats::Bus> {
        let bus = self.members.iter().find_map(|member| match &member.body {
            Body::Nats(bus, _) => Some(bus.as_ref()),
            Body::Weir(_) | Body::Cql(..) => None,
        });
        bus.ok_or_else(|| Error::internal("this cluster has no NATS"))
    }

    /// Cuts a NATS server off from the other two and from clients, until what this gives is dropped. The connections between
    /// the other two go on; should one of them break, it is opened again only afterwards.
    ///
    /// # Errors
    /// Where the cluster has no such server, or the network cannot be cut.
    pub fn cut_off(&self, name: &str) -> Result<Partition> {
        let bus = self.bus()?;
        let number = self.members.iter().find_map(|member| match &member.body {
            Body::Nats(_, number) if member.name == name => Some(*number),
            _ => None,
        });
        let number = number.ok_or_else(|| Error::internal(format!("{name} is no NATS server")))?;
        let [clients, own_routes] = bus.ports_of(number);
        let others = (0..bus.nodes()).filter(|other| *other != number);
        let mut ports = vec![clients, own_routes];
        ports.extend(others.map(|other| bus.ports_of(other)[1]));
        let except = bus.routes_without(number).map_err(Error::unavailable)?;
        Partition::cut(&Cut { ports, except })
    }

    /// The address of the gRPC API at the first edge.
    ///
    /// # Errors
    /// `Internal` where there is no edge.
    pub fn api(&self) -> Result<String> {
        let edge = self.members.iter().find(|member| member.is_edge());
        edge.map(|edge| format!("{}:8081", edge.address))
            .ok_or_else(|| Error::internal("this cluster has no edge"))
    }

    /// A tenant's place at every edge, as the holder of `token`.
    ///
    /// # Errors
    /// `Unavailable` where an edge does not answer.
    pub async fn places(&self, tenant: &TenantId, token: &str) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for member in self.members.iter().filter(|member| member.is_edge()) {
            places.push(Place {
                connection: Connection::open(&format!("{}:8081", member.address), token).await?,
                tenant: tenant.clone(),
                mqtt: Some(format!("{}:1883", member.address)),
                http: Some(format!("{}:8080", member.address)),
            });
        }
        Ok(places)
    }

    /// The end of every log, for a person.
    pub fn tails(&self, lines: usize) -> String {
        let tail = |member: &Member| format!("== {}\n{}\n", member.name, member.tail(lines));
        self.members.iter().map(tail).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(Member::kill); // before their disks go
    }
}

/// Starts members at the same time: servers of one cluster are ready only together.
async fn start_together(members: Vec<&mut Member>) -> Result<()> {
    join_all(members.into_iter().map(Member::start)).await.into_iter().collect()
}

/// Runs `weir init`; the first token.
fn init(command: &mut Command) -> Result<String> {
    let output =
        command.output().map_err(|source| Error::unavailable(format!("cannot run {command:?}: {source}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::unavailable(format!("weir init: {said}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
