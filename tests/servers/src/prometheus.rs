//! A Prometheus on a loopback port of its own, that holds the series it was given.
//!
//! The binaries `prometheus` and `promtool` are those on PATH (Debian: `apt-get install prometheus`), or those in the
//! directory that `WEIR_TEST_PROMETHEUS` names.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::nats::{free_ports, http_get, run};

/// The environment variable that names the directory of the binaries.
pub const ENDPOINT: &str = "WEIR_TEST_PROMETHEUS";
/// Windows that are closed on both sides, which is what Weir's are: from 3 on they are not.
const MAJOR: &str = "2";
/// It is up within a second; a slow machine gets this.
const UP_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// A running server. Dropping it ends it.
pub struct Server {
    port: u16,
    server: Child,
    /// Ends the server when this process ends in whatever way: it waits for the end of its input.
    guard: Child,
    _dir: TempDir,
}

impl Server {
    /// Starts one on the series of an `OpenMetrics` text with timestamps.
    ///
    /// # Errors
    /// Why there is no server, why it does not take the text, or why it did not come up.
    pub fn start(openmetrics: &str) -> Result<Self, String> {
        let binary = binary("prometheus")?;
        let promtool = binary_beside(&binary);
        check_version(&binary)?;
        let dir = TempDir::with_prefix("weir-prometheus-").map_err(|error| error.to_string())?;
        let [text, data, config] = ["series.txt", "data", "prometheus.yml"].map(|name| dir.path().join(name));
        fs::write(&text, openmetrics).map_err(|error| error.to_string())?;
        fs::write(&config, "global: {}\n").map_err(|error| error.to_string())?;
        run(Command::new(&promtool)
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .arg(&text)
            .arg(&data))?;
        let port = free_ports(1)?.first().copied().ok_or("no port is free")?;
        let log = fs::File::create(dir.path().join("log")).map_err(|error| error.to_string())?;
        let server = Command::new(&binary)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--storage.tsdb.retention.time=100y")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let guard = Command::new("sh")
            .args(["-c", "read -r _; kill -9 \"$1\"; rm -rf \"$2\"", "guard"])
            .arg(server.id().to_string())
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("sh: {error}"))?;
        let server = Self { port, server, guard, _dir: dir };
        server.wait_up()?;
        Ok(server)
    }

    /// Where its API is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn wait_up(&self) -> Result<(), String> {
        let until = Instant::now() + UP_MAX;
        loop {
            let is_up = TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && http_get(self.port, "/-/ready").is_ok_and(|answer| answer.contains("Ready"));
            if is_up {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("prometheus is not up within {UP_MAX:?}"));
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First the guard, so that it never ends a stranger that got the number.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn binary(name: &str) -> Result<PathBuf, String> {
    let given = std::env::var_os(ENDPOINT).map(|dir| vec![PathBuf::from(dir)]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = given.unwrap_or_else(|| std::env::split_paths(&path).collect());
    let found = dirs.into_iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        format!("no {name} on PATH: `apt-get install prometheus`, or name its directory in {ENDPOINT}")
    })
}

fn binary_beside(server: &Path) -> PathBuf {
    server.with_file_name("promtool")
}

fn check_version(binary: &Path) -> Result<(), String> {
    let told = Command::new(binary).arg("--version").output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
    let version = told.split_whitespace().skip_while(|word| *word != "version").nth(1).unwrap_or_default();
    match version.split('.').next() {
        Some(MAJOR) => Ok(()),
        _ => Err(format!("{} is {version}; its results are compared with release {MAJOR}", binary.display())),
    }
}
