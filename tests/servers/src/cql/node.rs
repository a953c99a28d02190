//! One node: its files, its process.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{CQL_PORT, CommitLog};

const STORAGE_PORT: u16 = 7000;
/// A seed that does not answer a joining node three times is not there.
const STARTS_MAX: u32 = 3;
/// Ten times what a start takes on two idle cores.
const START_WAIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// What Cassandra 5 reaches into on Java 17 (its `conf/jvm17-server.options`).
const EXPORTS: [&str; 9] = [
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "java.base/java.lang.ref",
    "jdk.unsupported/sun.misc",
];
const OPENS: [&str; 15] = [
    "java.base/java.lang.module",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar",
    "jdk.management/com.sun.management.internal",
    "java.base/sun.nio.ch",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/java.lang",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
];
/// Runs the command that it is given until that ends or its own standard input does: the pipe to the process that started
/// it closes however that process ends, so no node outlives its test.
const WATCHED: &str = r#"exec 3<&0
"$@" </dev/null 3<&- & child=$!
echo $child > pid
(cat <&3 >/dev/null; kill -9 $child 2>/dev/null) & watch=$!
exec 3<&-
wait $child
kill $watch 2>/dev/null"#;

pub(super) struct Node {
    pub(super) dir: PathBuf,
    pub(super) address: Ipv4Addr,
    jars: PathBuf,
    watched: Option<Child>,
}

impl Node {
    pub(super) fn new(
        dir: PathBuf,
        address: Ipv4Addr,
        seed: Ipv4Addr,
        commit_log: CommitLog,
        jars: PathBuf,
    ) -> Result<Self, String> {
        let write = |name: &str, text: String| {
            fs::write(dir.join(name), text)
                .map_err(|error| format!("cannot write in {}: {error}", dir.display()))
        };
        fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        write("cassandra.yaml", settings(&dir, address, seed, commit_log))?;
        write("logback.xml", logging(&dir))?;
        Ok(Self { dir, address, jars, watched: None })
    }

    /// Starts it and waits until it accepts connections. On a busy machine a seed may take longer to answer than the second
    /// that a joining node waits for it (`ring_delay_ms`, short so that every start is): then it is started again.
    pub(super) fn start(&mut self) -> Result<(), String> {
        let mut started = self.start_once();
        for _ in 1..STARTS_MAX {
            match &started {
                Err(why) if why.contains("Unable to contact any seeds") => started = self.start_once(),
                _ => break,
            }
        }
        started
    }

    fn start_once(&mut self) -> Result<(), String> {
        let output = File::create(self.dir.join("out.log"))
            .map_err(|error| format!("cannot write in {}: {error}", self.dir.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new("sh");
        command.current_dir(&self.dir).args(["-c", WATCHED, "sh", "java"]).args(self.arguments()?);
        command.stdin(Stdio::piped()).stdout(output).stderr(errors);
        let mut watched = command.spawn().map_err(|error| format!("cannot run sh: {error}"))?;
        let until = Instant::now() + START_WAIT;
        let address = SocketAddr::from((self.address, CQL_PORT));
        loop {
            if TcpStream::connect_timeout(&address, POLL).is_ok() {
                self.watched = Some(watched);
                return Ok(());
            }
            let ended = watched.try_wait().is_ok_and(|status| status.is_some());
            if ended || Instant::now() > until {
                self.watched = Some(watched);
                self.kill();
                return Err(format!("Cassandra at {address} does not start: {}", self.last_words()));
            }
            thread::sleep(POLL);
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.watched.as_ref()?;
        fs::read_to_string(self.dir.join("pid")).ok()?.trim().parse().ok()
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        if let Some(pid) = pid {
            // It may have ended by itself: then there is nothing to signal.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it and waits until it is gone.
    pub(super) fn kill(&mut self) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        self.signal(Signal::KILL);
        if let Some(mut watched) = self.watched.take() {
            drop(watched.stdin.take());
            let _ = watched.wait();
        }
        while pid.is_some_and(|pid| test_kill_process(pid).is_ok()) {
            thread::sleep(POLL);
        }
    }

    fn arguments(&self) -> Result<Vec<String>, String> {
        let agent = fs::read_dir(&self.jars)
            .map_err(|error| format!("cannot read {}: {error}", self.jars.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("jamm-")))
            .ok_or_else(|| format!("{} has no jamm", self.jars.display()))?;
        let dir = self.dir.display();
        // Half a gigabyte of heap holds every test; serial collection and the first compiler tier start fastest.
        let mut arguments: Vec<String> =
            ["-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
                .map(str::to_owned)
                .to_vec();
        arguments.extend([
            "-XX:-UsePerfData".to_owned(),
            format!("-javaagent:{}", agent.display()),
            "-Djdk.attach.allowAttachSelf=true".to_owned(),
        ]);
        for export in EXPORTS {
            arguments.extend(["--add-exports".to_owned(), format!("{export}=ALL-UNNAMED")]);
        }
        for open in OPENS {
            arguments.extend(["--add-opens".to_owned(), format!("{open}=ALL-UNNAMED")]);
        }
        arguments.extend([
            format!("-Dcassandra.config=file://{dir}/cassandra.yaml"),
            format!("-Dcassandra.storagedir={dir}"),
            "-Dcassandra-foreground=yes".to_owned(),
            // A ring of three on one machine need not wait for gossip to reach other continents.
            "-Dcassandra.skip_wait_for_gossip_to_settle=0".to_owned(),
            "-Dcassandra.ring_delay_ms=1000".to_owned(),
            "-Dcassandra.consistent.rangemovement=false".to_owned(),
            "-cp".to_owned(),
            format!("{dir}:{}/*", self.jars.display()),
            "org.apache.cassandra.service.CassandraDaemon".to_owned(),
        ]);
        Ok(arguments)
    }

    fn last_words(&self) -> String {
        let mut words = String::new();
        for name in ["out.log", "system.log"] {
            let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let _ = write!(words, "{name}: {} ", lines[lines.len().saturating_sub(10)..].join(" | "));
        }
        words
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn settings(dir: &Path, address: Ipv4Addr, seed: Ipv4Addr, commit_log: CommitLog) -> String {
    let sync = match commit_log {
        CommitLog::Batch => "commitlog_sync: batch".to_owned(),
        CommitLog::Periodic(period) => {
            format!("commitlog_sync: periodic\ncommitlog_sync_period: {}ms", period.as_millis())
        }
    };
    let dir = dir.display();
    format!(
        "cluster_name: weir-test\nnum_tokens: 4\npartitioner: org.apache.cassandra.dht.Murmur3Partitioner\n\
         endpoint_snitch: SimpleSnitch\nlisten_address: {address}\nrpc_address: {address}\n\
         native_transport_port: {CQL_PORT}\nstorage_port: {STORAGE_PORT}\n\
         seed_provider: [{{class_name: org.apache.cassandra.locator.SimpleSeedProvider, \
         parameters: [{{seeds: \"{seed}:{STORAGE_PORT}\"}}]}}]\n\
         data_file_directories: [{dir}/data]\ncommitlog_directory: {dir}/commitlog\n\
         saved_caches_directory: {dir}/caches\nhints_directory: {dir}/hints\ncdc_raw_directory: {dir}/cdc\n\
         auto_snapshot: false\n{sync}\n"
    )
}

fn logging(dir: &Path) -> String {
    format!(
        "<configuration><appender name=\"F\" class=\"ch.qos.logback.core.FileAppender\">\
         <file>{}/system.log</file><encoder><pattern>%d %-5level %logger{{0}} %msg%n</pattern></encoder></appender>\
         <root level=\"INFO\"><appender-ref ref=\"F\"/></root></configuration>\n",
        dir.display()
    )
}
