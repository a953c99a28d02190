//! The harness: a namespace of its own in the cluster under test, and the tools that are used on it.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use weir_tests::binary;

use crate::tools::{has, root, told};

/// Longer than a start or a roll-out takes on two busy cores; what is past it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
/// How often the cluster is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// The releases that the image is imported as: an upgrade is from one to the other.
pub(crate) const TAGS: [&str; 2] = ["0.1.0", "0.1.1"];

/// One test at a time: two Weirs on one small node are slow, and one that is slow is not ready in time.
static TURN: Mutex<()> = Mutex::new(());

/// A namespace under the restricted Pod Security standard. Dropping it removes it.
pub(crate) struct Kube {
    pub(crate) namespace: String,
    pub(crate) home: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Kube {
    /// A namespace for the test `name`; the image is on the nodes.
    ///
    /// # Errors
    /// Why there is no cluster here, in words.
    pub(crate) fn start(name: &str) -> Result<Self, String> {
        if std::env::var_os("KUBECONFIG").is_none() {
            return Err("no cluster: KUBECONFIG is not set".to_owned());
        }
        if let Some(missing) = ["kubectl", "helm"].into_iter().find(|tool| !has(tool)) {
            return Err(format!("a cluster needs {missing} on PATH"));
        }
        // Before anything is touched: whoever has a cluster in their shell may not want it tested on.
        let image = std::env::var("WEIR_TEST_IMAGE")
            .map_err(|_| "no image: WEIR_TEST_IMAGE is not set".to_owned())?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        enter_network()?;
        let namespace = format!("weir-{name}-{}", std::process::id());
        let home = tempfile::tempdir().expect("a directory for the test");
        let kube = Self { namespace, home, _turn: turn };
        kube.try_run("kubectl", &["get", "--raw", "/readyz"])
            .map_err(|why| format!("KUBECONFIG names no cluster that answers: {why}"))?;
        import(Path::new(&image))?;
        kube.run("kubectl", &["create", "namespace", &kube.namespace]);
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        kube.run("kubectl", &["label", "namespace", &kube.namespace, enforce]);
        Ok(kube)
    }

    /// Runs a tool; its output, or what it complains about.
    pub(crate) fn try_run(&self, tool: &str, args: &[&str]) -> Result<String, String> {
        let output = self.command(tool, args).output().map_err(|error| format!("{tool}: {error}"))?;
        told(&format!("{tool} {}", args.join(" ")), output)
    }

    /// Runs a tool that must succeed.
    pub(crate) fn run(&self, tool: &str, args: &[&str]) -> String {
        self.try_run(tool, args).unwrap_or_else(|why| panic!("{why}"))
    }

    /// `kubectl` in the namespace.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        self.run("kubectl", &[&["--namespace", &self.namespace], args].concat())
    }

    /// `helm` in the namespace.
    pub(crate) fn helm(&self, args: &[&str]) -> Result<String, String> {
        self.try_run("helm", &[&["--namespace", &self.namespace], args].concat())
    }

    /// An object.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])).expect("JSON")
    }

    /// The names of all objects of a kind in the namespace.
    pub(crate) fn names(&self, kind: &str) -> Vec<String> {
        let told = self.kubectl(&["get", kind, "-o", "name", "--ignore-not-found"]);
        told.lines().map(str::to_owned).collect()
    }

    /// Waits until `condition` gives something; on time-out says what never came, and what the namespace looks like.
    pub(crate) fn until<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        self.within(PATIENCE, what, condition)
    }

    /// As [`Kube::until`], for what takes its time.
    pub(crate) fn within<T>(
        &self,
        patience: Duration,
        what: &str,
        mut condition: impl FnMut() -> Option<T>,
    ) -> T {
        let end = Instant::now() + patience;
        loop {
            if let Some(found) = condition() {
                return found;
            }
            assert!(Instant::now() < end, "it never came true within {patience:?}: {what}");
            std::thread::park_timeout(LOOK);
        }
    }

    /// Applies an object.
    pub(crate) fn apply(&self, object: &Value) {
        let file = self.home.path().join("object.json");
        std::fs::write(&file, object.to_string()).expect("the object");
        self.kubectl(&["apply", "--filename", &file.display().to_string()]);
    }

    /// Everything in the namespace but what every namespace has, and what only tells of the past.
    pub(crate) fn everything(&self) -> Vec<String> {
        let kinds = self.run("kubectl", &["api-resources", "--verbs=list", "--namespaced", "-o", "name"]);
        let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
        let mut names = self.names(&kinds.join(","));
        names.retain(|name| {
            !["configmap/kube-root-ca.crt", "serviceaccount/default"].contains(&name.as_str())
        });
        names
    }

    /// How a pod runs under the restricted standard.
    pub(crate) fn pod_security(&self) -> Value {
        json!({"runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}})
    }

    /// How a container runs under the restricted standard.
    pub(crate) fn container_security(&self) -> Value {
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
    }

    /// The first token.
    pub(crate) fn token(&self) -> String {
        self.kubectl(&["get", "secret", "weir-secrets", "-o", "go-template={{.data.token|base64decode}}"])
            .trim()
            .to_owned()
    }

    /// Where a Service is.
    pub(crate) fn address(&self, service: &str) -> String {
        let found = self.get("service", service);
        let spec = &found["spec"];
        format!("{}:{}", spec["clusterIP"].as_str().expect("its address"), spec["ports"][0]["port"])
    }

    /// Waits until the cluster says that it is ready, of what its spec says now.
    pub(crate) fn ready(&self) {
        self.until("the WeirCluster is ready", || {
            let cluster = self.get("weircluster", "weir");
            let conditions = cluster["status"]["conditions"].as_array()?.clone();
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
            let is_now = ready["observedGeneration"] == cluster["metadata"]["generation"];
            (ready["status"] == "True" && is_now).then_some(())
        });
    }

    /// The client as a person uses it, with a context for the Weir of this namespace.
    pub(crate) fn client(&self) -> Client<'_> {
        Client { kube: self }
    }

    fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut command = Command::new(tool);
        // Nothing of the person who runs the tests is read or written.
        command.args(args).current_dir(self.home.path()).env("HOME", self.home.path());
        command
    }

    /// What a person would look at first.
    fn describe(&self) -> String {
        let looks: [&[&str]; 4] = [
            &["get", "all,weirclusters,persistentvolumeclaims,secrets"],
            &["get", "weirclusters", "-o", "yaml"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &["logs", "--selector=app.kubernetes.io/component=operator", "--tail=40", "--prefix"],
        ];
        let look = |args: &&[&str]| {
            let args = [&["--namespace", self.namespace.as_str()], *args].concat();
            self.try_run("kubectl", &args).unwrap_or_else(|why| why)
        };
        looks.iter().map(look).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Kube {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(writeln!(std::io::stderr(), "{}", self.describe()));
        }
        // The namespace takes all of it along; helm's own order is only nicer.
        drop(self.helm(&["uninstall", "weir", "--ignore-not-found", "--wait"]));
        drop(self.try_run("kubectl", &["delete", "namespace", &self.namespace, "--timeout=60s"]));
    }
}

/// `weir`, typed at the Weir of a namespace.
pub(crate) struct Client<'a> {
    kube: &'a Kube,
}

impl Client<'_> {
    /// Runs it; its output, or what it complains about.
    pub(crate) fn try_run(&self, args: &[&str]) -> Result<String, String> {
        let output = self.command(args).output().expect("the binary runs");
        told(&format!("weir {}", args.join(" ")), output)
    }

    /// Runs it; it must succeed.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        self.try_run(args).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts it, with its output kept.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.kube.command(&binary().display().to_string(), args);
        for name in ["WEIR_ADDR", "WEIR_TOKEN", "WEIR_CONTEXT", "WEIR_CA_FILE"] {
            command.env_remove(name);
        }
        command.env("XDG_CONFIG_HOME", self.kube.home.path().join("config"));
        command
    }
}

/// Installs the chart, with the values of an example, and waits.
pub(crate) fn install(kube: &Kube, example: &str, more: &[&str]) {
    roll(kube, "install", example, TAGS[0], more);
}

/// Upgrades to another release, and waits; afterwards that is the one that runs.
pub(crate) fn upgrade(kube: &Kube, example: &str, tag: &str, more: &[&str]) {
    roll(kube, "upgrade", example, tag, more);
    let cluster = kube.get("weircluster", "weir");
    assert_eq!(cluster["status"]["lastGood"]["version"], tag, "{cluster:#}");
}

fn roll(kube: &Kube, verb: &str, example: &str, tag: &str, more: &[&str]) {
    let (chart, example) = (root().join("charts/weir"), root().join(example));
    let (chart, example, tag) =
        (chart.display().to_string(), example.display().to_string(), format!("image.tag={tag}"));
    let args = [
        verb,
        "weir",
        &chart,
        "--values",
        &example,
        "--set",
        &tag,
        "--set",
        "image.pullPolicy=Never",
        "--wait",
    ];
    kube.helm(&[&args, more].concat()).unwrap_or_else(|why| panic!("{why}"));
}

/// A proof that was started must have ended well; what it says is shown.
pub(crate) fn without_loss(output: Output) {
    say(&told("weir prove", output).unwrap_or_else(|why| panic!("{why}")));
}

/// A line for whoever reads the log of the tests.
pub(crate) fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// The network in which pods and Services are reached: from here on it is that of this thread, and of what it starts.
///
/// # Errors
/// Where there is no such network, or it may not be entered.
fn enter_network() -> Result<(), String> {
    let Some(name) = std::env::var_os("WEIR_TEST_NETNS") else { return Ok(()) };
    let path = Path::new("/run/netns").join(name);
    let network = std::fs::File::open(&path)
        .map_err(|error| format!("WEIR_TEST_NETNS: {}: {error}", path.display()))?;
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), kind)
        .map_err(|error| format!("WEIR_TEST_NETNS: {}: {error}", path.display()))
}

/// Brings the image under test to the nodes, once.
fn import(tar: &Path) -> Result<(), String> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if *done {
        return Ok(());
    }
    import_tar(tar)?;
    *done = true;
    Ok(())
}

/// Brings an image to the nodes.
///
/// # Errors
/// Where nobody says how.
pub(crate) fn import_tar(tar: &Path) -> Result<(), String> {
    shell("WEIR_TEST_IMAGE_IMPORT", &[&tar.display().to_string()])
}

/// Runs a command that the environment names, with further arguments.
///
/// # Errors
/// Where it names none, or what the command complains about.
pub(crate) fn shell(variable: &str, args: &[&str]) -> Result<(), String> {
    let command = std::env::var(variable).map_err(|_| format!("{variable} is not set"))?;
    let output = Command::new("sh").args(["-c", &format!("{command} \"$@\""), "sh"]).args(args).output();
    told(&format!("{command} {}", args.join(" ")), output.map_err(|error| format!("sh: {error}"))?).map(drop)
}
