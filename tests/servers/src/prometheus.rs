//! A Prometheus server that scrapes what it is told, on a loopback port of its own. `prometheus` on PATH (Debian:
//! `apt-get install prometheus`), or the one that `WEIR_TEST_PROMETHEUS_BIN` names.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::local::{free_ports, guard, http_get};

/// It is up within a second; a slow machine gets this.
const UP_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// A query over seconds of data takes milliseconds.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What it scrapes.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Addresses that answer `GET /metrics`.
    pub targets: Vec<String>,
    /// How often they are asked, and rules are evaluated: every second where it is zero.
    pub interval: Duration,
    /// Rule files.
    pub rules: Vec<PathBuf>,
}

/// A running server. Dropping it ends it.
pub struct Prometheus {
    port: u16,
    server: Child,
    /// Ends the server when this process ends in whatever way: it waits for the end of its input.
    guard: Child,
    dir: TempDir,
}

impl Prometheus {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// Why there is none, or why it did not come up.
    pub fn start(options: &Options) -> Result<Self, String> {
        let binary = binary("prometheus")?;
        let dir = TempDir::with_prefix("weir-prometheus-").map_err(|error| error.to_string())?;
        let config = dir.path().join("prometheus.json");
        fs::write(&config, configuration(options)).map_err(|error| error.to_string())?;
        let port = free_ports(1)?[0];
        let log = fs::File::create(dir.path().join("prometheus.log")).map_err(|error| error.to_string())?;
        let server = Command::new(&binary)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let guard = guard(&server, Some(dir.path()))?;
        let this = Self { port, server, guard, dir };
        this.wait_ready()?;
        Ok(this)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The result of an instant query (`data.result`): one entry for each series.
    ///
    /// # Errors
    /// What the server says of the query.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let answer = self.get(&format!("/api/v1/query?query={}", encode(expression)))?;
        let answer: Value = serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
        match answer["data"]["result"].as_array() {
            Some(result) => Ok(result.clone()),
            None => Err(answer["error"].as_str().unwrap_or("it gave no result").to_owned()),
        }
    }

    fn get(&self, path: &str) -> Result<String, String> {
        http_get(self.port, path, ANSWER_MAX).map_err(|error| error.to_string())
    }

    fn wait_ready(&self) -> Result<(), String> {
        let until = Instant::now() + UP_MAX;
        while !self.get("/-/ready").is_ok_and(|answer| answer.contains("Ready")) {
            if Instant::now() > until {
                let log = fs::read_to_string(self.dir.path().join("prometheus.log")).unwrap_or_default();
                return Err(format!("prometheus is not ready within {UP_MAX:?}: {log}"));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // First the guard, so that it never ends a stranger that got the number.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// JSON is YAML.
fn configuration(options: &Options) -> String {
    let interval = if options.interval.is_zero() { Duration::from_secs(1) } else { options.interval };
    let interval = format!("{}ms", interval.as_millis());
    serde_json::json!({
        "global": { "scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval },
        "rule_files": options.rules,
        "scrape_configs": [{
            "job_name": "weir",
            "static_configs": [{ "targets": options.targets }],
        }],
    })
    .to_string()
}

/// `prometheus` or `promtool`: beside the one that `WEIR_TEST_PROMETHEUS_BIN` names, else on PATH.
///
/// # Errors
/// What to do where it is not there.
pub fn binary(name: &str) -> Result<PathBuf, String> {
    let named = std::env::var_os("WEIR_TEST_PROMETHEUS_BIN").map(PathBuf::from);
    let binary = named.as_deref().and_then(Path::parent).map_or_else(|| name.into(), |dir| dir.join(name));
    let told = Command::new(&binary).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match told {
        Ok(status) if status.success() => Ok(binary),
        _ => Err(format!("there is no {name}: apt-get install prometheus, or set WEIR_TEST_PROMETHEUS_BIN")),
    }
}

/// Percent-encoding of everything that is not unreserved (RFC 3986, 2.3).
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
