//! Separate services over NATS JetStream and CQL: the servers, the configuration, and the processes.

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use weir_core::{Error, Result};
use weir_test_servers::{cql, nats};

use super::{
    Cluster, DISK_MIB, address, init,
    member::{Body, Member, Role},
};
use crate::{
    clock,
    disk::Disk,
    process::{Process, Program},
};

/// The services, each after those that it calls.
const SERVICES: [&str; 5] = ["registry", "commands", "storage", "analytics", "ingest"];

/// How a cluster of separate services is made.
#[derive(Debug, Clone)]
pub struct Shape {
    /// NATS servers: 1 or 3.
    pub nats: u8,
    /// CQL servers: 1 or 3.
    pub cql: u8,
    /// Processes of each service but ingest.
    pub replicas: u8,
    /// Processes of ingest.
    pub edges: u8,
    /// Whether servers have disks whose power can be cut.
    pub disks: bool,
    /// Whether processes of Weir have clocks that can jump.
    pub clocks: bool,
    /// Whether NATS syncs before it answers, and so declares it to Weir.
    pub sync_always: bool,
}

impl Cluster {
    /// Starts servers and services.
    ///
    /// # Errors
    /// Which server cannot be had, or what does not start; the logs are in `dir`.
    pub async fn shared(dir: &Path, binary: &Path, shape: &Shape, env: &[(String, String)]) -> Result<Self> {
        let mut members = Vec::new();
        let bus = start_nats(dir, shape, &mut members)?;
        let store = start_cql(dir, shape, &mut members)?;
        let mut arguments = vec![
            format!("--nats={}", bus.join(",")),
            format!("--nats-replicas={}", shape.nats),
            format!("--cql={}", store.join(",")),
            format!("--cql-replicas={}", shape.cql),
        ];
        arguments.extend(shape.sync_always.then(|| "--nats-sync-always".to_owned()));
        let mut command = Command::new(binary);
        command.args(["init", "--dir"]).arg(dir).args(&arguments).envs(env.iter().cloned());
        let token = init(&mut command)?;
        let config = dir.join("weir.toml");
        let mut addresses = Vec::new();
        for service in SERVICES {
            let count = if service == "ingest" { shape.edges } else { shape.replicas };
            for number in 1..=count {
                addresses.push((service, number, address()?));
            }
        }
        write_peers(&config, &addresses)?;
        for (service, number, address) in addresses {
            let name = format!("{service}-{number}");
            let config = config.display().to_string();
            let args = ["serve", "--target", service, "--config", &config, "--listen", &address];
            let mut env = env.to_vec();
            if shape.clocks {
                env.extend(clock::environment(dir, &name)?);
            }
            let program = Program { file: binary.to_owned(), args: args.map(str::to_owned).to_vec(), env };
            let body = Body::Weir(Box::new(Process::new(&name, program, dir)));
            members.push(Member { role: Role::Service(service), name, address, body, disk: None });
        }
        let mut cluster = Self { dir: dir.to_owned(), token, members };
        cluster.start_all().await?;
        cluster.settle_disks()?;
        Ok(cluster)
    }
}

fn start_nats(dir: &Path, shape: &Shape, members: &mut Vec<Member>) -> Result<Vec<String>> {
    let store = dir.join("nats");
    make(&store)?;
    let mut disks = disks(shape, &store, shape.nats, |number| format!("n{number}"))?.into_iter();
    let options = nats::Options {
        nodes: usize::from(shape.nats),
        sync: if shape.sync_always { nats::Sync::Always } else { nats::Sync::Default },
        store: Some(store),
        ..nats::Options::default()
    };
    let bus =
        Arc::new(nats::Bus::start(&options).map_err(|why| Error::unavailable(format!("no NATS: {why}")))?);
    for number in 0..bus.nodes() {
        members.push(Member {
            role: Role::Nats,
            name: format!("nats-{}", number + 1),
            address: String::new(),
            body: Body::Nats(Arc::clone(&bus), number),
            disk: disks.next(),
        });
    }
    Ok(bus.servers())
}

fn start_cql(dir: &Path, shape: &Shape, members: &mut Vec<Member>) -> Result<Vec<String>> {
    let base = dir.join("cql");
    make(&base)?;
    let mut disks = disks(shape, &base, shape.cql, |number| number.to_string())?.into_iter();
    let store = cql::Cluster::start(shape.cql, cql::CommitLog::Batch, Some(&base))
        .map_err(|why| Error::unavailable(format!("no CQL: {why}")))?;
    let hosts = store.hosts();
    let store = Arc::new(Mutex::new(store));
    for number in 0..usize::from(shape.cql) {
        members.push(Member {
            role: Role::Cql,
            name: format!("cql-{}", number + 1),
            address: String::new(),
            body: Body::Cql(Arc::clone(&store), number, true),
            disk: disks.next(),
        });
    }
    Ok(hosts)
}

fn disks(shape: &Shape, dir: &Path, count: u8, name: impl Fn(u8) -> String) -> Result<Vec<Disk>> {
    if !shape.disks {
        return Ok(Vec::new());
    }
    (1..=count).map(|number| Disk::make(dir, &name(number), DISK_MIB)).collect()
}

fn make(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)
        .map_err(|source| Error::unavailable(format!("cannot make {}: {source}", dir.display())))
}

/// Puts the addresses of all processes in place of the section `[peers]`, which `weir init` writes last.
fn write_peers(config: &Path, addresses: &[(&'static str, u8, String)]) -> Result<()> {
    let failed = |source| Error::unavailable(format!("cannot change {}: {source}", config.display()));
    let text = std::fs::read_to_string(config).map_err(failed)?;
    let kept = text.split("[peers]").next().unwrap_or_default();
    let mut text = format!("{kept}[peers]\n");
    for service in SERVICES {
        let of = addresses.iter().filter(|(name, ..)| *name == service);
        let urls: Vec<String> = of.map(|(.., address)| format!("http://{address}:8081")).collect();
        text.push_str(&format!("{service} = {urls:?}\n"));
    }
    std::fs::write(config, text).map_err(failed)
}
