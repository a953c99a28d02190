//! A whole Weir under test: its servers and its `weir` processes, each of which can be killed, stopped, cut from power and
//! started again by name. Everything has a loopback address of its own, so that ports stay the same over restarts and several
//! clusters run beside one another.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use weir_clients::Connection;
use weir_core::{Error, Result, TenantId};
use weir_drive::Place;

use crate::{
    disk::Disk,
    process::{Process, Program, until},
};

/// How long a process may take until it is ready: an embedded log of gigabytes is read through within it.
pub const READY: Duration = Duration::from_secs(90);
/// How long a drain may take: `drain.deadline` and a little.
const DRAIN: Duration = Duration::from_secs(30);
/// A power cut of a machine with this much on its disk (MiB) is what a scenario needs; sparse, so only what is written is taken.
const DISK_MIB: u32 = 4_096;

/// What a member is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A process of `weir serve` with these targets.
    Service(&'static str),
    /// A NATS server.
    Nats,
    /// A CQL server.
    Cql,
}

/// One process, and what belongs to it.
#[derive(Debug)]
pub struct Member {
    /// What it is.
    pub role: Role,
    /// The process.
    pub process: Process,
    /// Its loopback address.
    pub address: String,
    disk: Option<Disk>,
}

impl Member {
    /// Whether it takes connections of devices.
    fn is_edge(&self) -> bool {
        matches!(self.role, Role::Service("all" | "ingest"))
    }

    /// Whether it says that it is ready.
    pub async fn is_ready(&self) -> bool {
        let answer = reqwest::get(format!("http://{}:8082/readyz", self.address)).await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

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
    /// One process with everything, on embedded engines; with a disk of its own where its power is to be cut.
    ///
    /// # Errors
    /// What does not start says why; the logs are in `dir`.
    pub async fn embedded(
        dir: &Path,
        binary: &Path,
        with_disk: bool,
        env: &[(String, String)],
    ) -> Result<Self> {
        let disk = if with_disk { Some(Disk::make(dir, "disk", DISK_MIB)?) } else { None };
        let data = disk.as_ref().map_or_else(|| dir.join("data"), |disk| disk.path().join("data"));
        let token = init(binary, dir, &data)?;
        let address = address()?;
        let config = dir.join("weir.toml").display().to_string();
        let args = ["serve", "--target", "all", "--config", &config, "--listen", &address];
        let program =
            Program { file: binary.to_owned(), args: args.map(str::to_owned).to_vec(), env: env.to_vec() };
        let process = Process::new("weir", program, dir);
        let member = Member { role: Role::Service("all"), process, address, disk };
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
        self.members
            .iter()
            .filter(|member| member.role == role)
            .map(|member| member.process.name().to_owned())
            .collect()
    }

    /// The names of all processes of Weir.
    pub fn services(&self) -> Vec<String> {
        let is_service = |member: &&Member| matches!(member.role, Role::Service(_));
        self.members.iter().filter(is_service).map(|member| member.process.name().to_owned()).collect()
    }

    /// A member by name.
    ///
    /// # Errors
    /// `Internal` for a name that is none.
    pub fn member(&mut self, name: &str) -> Result<&mut Member> {
        self.members
            .iter_mut()
            .find(|member| member.process.name() == name)
            .ok_or_else(|| Error::internal(format!("the cluster has no {name}")))
    }

    /// Starts what does not run, wakes what is stopped, and waits until everything is ready.
    ///
    /// # Errors
    /// What is not ready in time, with the end of its log.
    pub async fn start_all(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.process.start()?;
            member.process.wake();
        }
        for member in &mut self.members {
            ready(member).await?;
        }
        Ok(())
    }

    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// As [`Cluster::start_all`].
    pub async fn start(&mut self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        member.process.start()?;
        ready(member).await
    }

    /// SIGTERM, waits for the end of its drain, and starts it again.
    ///
    /// # Errors
    /// `DataLoss` where the drain fails; else as [`Cluster::start`].
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        self.member(name)?.process.terminate(DRAIN).await?;
        self.start(name).await
    }

    /// Cuts the power of machines at one moment: what is durable on their disks then is what they find when they start again.
    ///
    /// # Errors
    /// `FailedPrecondition` where one has no disk of its own; else what mounting and starting say.
    pub async fn power_cut(&mut self, names: &[String]) -> Result<()> {
        let mut struck: Vec<&mut Member> = self
            .members
            .iter_mut()
            .filter(|member| names.iter().any(|name| name == member.process.name()))
            .collect();
        struck.iter().for_each(|member| member.process.freeze());
        let mut copies = Vec::new();
        for member in &mut struck {
            let disk = member.disk.as_mut().ok_or_else(|| {
                Error::internal(format!("{} has no disk whose power can be cut", member.process.name()))
            })?;
            copies.push(disk.cut()?);
        }
        for (member, copy) in struck.iter_mut().zip(copies) {
            member.process.kill();
            member.process.note("power cut");
            if let Some(disk) = member.disk.as_mut() {
                disk.power_on(copy)?;
            }
        }
        for member in struck {
            member.process.start()?;
            ready(member).await?;
        }
        Ok(())
    }

    /// The name of the NATS server that leads the stream of readings.
    ///
    /// # Errors
    /// `Internal` where the cluster has no NATS.
    pub async fn nats_leader(&self) -> Result<String> {
        Err(Error::internal("this cluster has no NATS"))
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
        let tail =
            |member: &Member| format!("== {}\n{}\n", member.process.name(), member.process.tail(lines));
        self.members.iter().map(tail).collect()
    }
}

async fn ready(member: &mut Member) -> Result<()> {
    let what = format!("{} is ready", member.process.name());
    let ready = until(&what, READY, async || {
        if !member.process.is_running() {
            return Some(false);
        }
        member.is_ready().await.then_some(true)
    })
    .await;
    match ready {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::unavailable(format!(
            "{} ended at its start:\n{}",
            member.process.name(),
            member.process.tail(5)
        ))),
        Err(error) => Err(error.context(member.process.tail(5))),
    }
}

/// `weir init`; the first token.
fn init(binary: &Path, dir: &Path, data: &Path) -> Result<String> {
    let output =
        Command::new(binary)
            .args(["init", "--dir"])
            .arg(dir)
            .arg("--data-dir")
            .arg(data)
            .output()
            .map_err(|source| Error::unavailable(format!("cannot run {}: {source}", binary.display())))?;
    if !output.status.success() {
        return Err(Error::unavailable(format!(
            "weir init: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
