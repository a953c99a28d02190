//! The harness: starts the real binary on ports of its own, types commands at it, kills it, and reads what it says.
//!
//! Each [`Weir`] has a directory and a context of its own, and ends only the process that it started.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a harness reports by panicking, as its tests do

pub mod chaos;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod guard;
pub mod network;
pub mod process;
pub mod streams;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use weir_clients::Connection;
use weir_core::TenantId;
use weir_drive::Place;

/// Longer than anything here takes on a busy machine; what is past it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running `weir dev` with a directory of its own.
pub struct Weir {
    home: TempDir,
    process: Option<Child>,
    /// Its configuration, beside what `weir dev` has by itself.
    environment: Vec<(String, String)>,
    /// Where it listens, by listener: mqtt, http, grpc, admin.
    pub addresses: BTreeMap<String, String>,
    /// What it said when it was ready.
    pub greeting: String,
}

impl Weir {
    /// Starts one on an empty directory.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one on an empty directory, with keys of the configuration as the environment gives them.
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        let mut weir = Self {
            home: tempfile::tempdir().expect("a directory for the test"),
            process: None,
            environment: environment
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            addresses: BTreeMap::new(),
            greeting: String::new(),
        };
        weir.boot();
        weir
    }

    /// Starts it again on the same directory and, after the first time, the same ports.
    pub fn boot(&mut self) {
        let failure = self.try_boot();
        assert!(failure.is_none(), "weir did not start: {}", failure.unwrap_or_default());
    }

    /// Starts it again; what it complained about where it does not start.
    pub fn try_boot(&mut self) -> Option<String> {
        assert!(self.process.is_none(), "it runs already");
        let mut command = self.command(&["dev", "--data-dir", "data"]);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        for listener in ["mqtt", "http", "grpc", "admin"] {
            let port =
                self.addresses.get(listener).and_then(|address| address.rsplit(':').next()).unwrap_or("0");
            command.args([format!("--{listener}-port"), port.to_owned()]);
        }
        let stderr = std::fs::File::create(self.home.path().join("stderr.log")).expect("a log file");
        let mut process = command.stdout(Stdio::piped()).stderr(stderr).spawn().expect("the binary starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let greeting = lines.find_map(|line| line.ok().filter(|line| line.starts_with("Weir is ready")));
        let Some(greeting) = greeting else {
            drop(process.wait());
            return Some(self.complaints());
        };
        std::thread::spawn(move || lines.for_each(drop)); // keeps its pipe from filling
        let words: Vec<&str> = greeting.split_whitespace().collect();
        for pair in words.windows(2) {
            if let [name @ ("mqtt" | "http" | "grpc" | "admin"), address] = pair {
                self.addresses.insert((*name).to_owned(), (*address).to_owned());
            }
        }
        self.greeting = greeting;
        self.process = Some(process);
        None
    }

    /// What it wrote to standard error since its last start.
    pub fn complaints(&self) -> String {
        std::fs::read_to_string(self.home.path().join("stderr.log")).unwrap_or_default()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("it can be killed");
        process.wait().expect("it is gone");
    }

    /// SIGTERM, and waits for its end; how long it took.
    pub fn terminate(&mut self) -> Duration {
        let mut process = self.process.take().expect("it runs");
        let pid = rustix::process::Pid::from_raw(i32::try_from(process.id()).expect("a pid")).expect("a pid");
        let begin = Instant::now();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it can be told");
        let status = process.wait().expect("it ends");
        assert!(status.success(), "it ended with {status}: {}", self.complaints());
        begin.elapsed()
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let pid = self.process.as_ref().expect("it runs").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its resident size");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1_024
    }

    /// Its directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The binary with this instance's directory and context.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .current_dir(self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path().join("config"));
        for name in ["WEIR_ADDR", "WEIR_TOKEN", "WEIR_CONTEXT"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a client command; its output whatever its exit code.
    pub fn try_run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// Runs a client command that must succeed; its standard output.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.try_run(args);
        assert!(output.status.success(), "weir {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a client command with `-o csv`; its rows by column name.
    pub fn rows(&self, args: &[&str]) -> Vec<BTreeMap<String, String>> {
        let text = self.run(&[args, &["-o", "csv"]].concat());
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        reader.deserialize().map(|row| row.expect("a row")).collect()
    }

    /// A token for a device, made if it is not there.
    pub fn device(&self, id: &str) -> String {
        drop(self.try_run(&["device", "create", id])); // it may be there
        self.run(&["device", "credential", "issue", id]).trim().to_owned()
    }

    /// This instance as a load driver sees it.
    pub async fn place(&self) -> Place {
        let config =
            std::fs::read_to_string(self.home.path().join("config/weir/config.toml")).expect("a context");
        let token =
            config.lines().find_map(|line| line.strip_prefix("token = ")).expect("a token").trim_matches('"');
        let connection = Connection::open(self.addresses.get("grpc").expect("its address"), token).await;
        Place {
            connection: connection.expect("a connection"),
            tenant: TenantId::new("default").expect("a tenant"),
            mqtt: self.addresses.get("mqtt").cloned(),
            http: self.addresses.get("http").cloned(),
        }
    }

    /// The address of the HTTP device API with a path.
    pub fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.get("http").expect("its address"))
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
        if std::thread::panicking() {
            let complaints = self.complaints();
            let tail: Vec<_> = complaints.lines().rev().take(20).collect();
            for line in tail.iter().rev() {
                drop(std::io::Write::write_all(&mut std::io::stderr(), format!("weir: {line}\n").as_bytes()));
            }
        }
    }
}

/// The binary under test: `WEIR_BIN`, as `cargo xtask test` sets it, else the newest that cargo has built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("this test has a path");
    let found = test.ancestors().map(|dir| dir.join("weir")).find(|path| path.is_file());
    found.expect("no weir binary: run `cargo xtask test`, or build one and set WEIR_BIN")
}

/// Waits until `condition` gives something; on time-out says what never came.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < until, "it never came true within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
