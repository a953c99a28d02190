//! One operating-system process of a cluster under test: started on the same arguments again and again, signalled, and ended
//! with the harness. What it writes to standard error and output is appended to one file.

use std::{
    fs::{File, OpenOptions},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep};
use weir_core::{Error, Result};

use crate::guard::Guard;

/// How often a condition is looked at: far below what is waited for, far above what looking costs.
const LOOK: Duration = Duration::from_millis(20);

/// How a process is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file.
    pub file: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its additional environment.
    pub env: Vec<(String, String)>,
}

/// A process that can be killed and started again.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: Program,
    log: PathBuf,
    child: Option<(Child, Guard)>,
}

impl Process {
    /// A process that does not run yet; its log is `NAME.log` in `dir`.
    pub fn new(name: &str, program: Program, dir: &Path) -> Self {
        Self { name: name.to_owned(), program, log: dir.join(format!("{name}.log")), child: None }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is started from the next time on.
    pub fn program_mut(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Starts it; nothing where it runs.
    ///
    /// # Errors
    /// `Unavailable` where the program or its log cannot be opened.
    pub fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let failed = |source: std::io::Error| {
            Error::unavailable(format!("cannot start {}: {source}", self.name)).with_source(source)
        };
        let log = OpenOptions::new().create(true).append(true).open(&self.log).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        let child = Command::new(&self.program.file)
            .args(&self.program.args)
            .envs(self.program.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0) // Ctrl-C is the harness's: it ends them in its own order
            .spawn()
            .map_err(failed)?;
        let guard = Guard::set("kill -9 \"$1\"", &[&child.id().to_string()]).map_err(failed)?;
        self.child = Some((child, guard));
        Ok(())
    }

    /// Whether it runs, or is stopped; a process that has ended by itself does not.
    pub fn is_running(&mut self) -> bool {
        let Some((child, _)) = &mut self.child else { return false };
        let runs = matches!(child.try_wait(), Ok(None));
        if let Some((_, guard)) = self.child.take_if(|_| !runs) {
            guard.dismiss(); // the number may be a stranger's by now
        }
        runs
    }

    /// Sends a signal; false where there is nobody to send it to.
    pub fn signal(&self, signal: Signal) -> bool {
        let pid =
            self.child.as_ref().and_then(|(child, _)| i32::try_from(child.id()).ok()).and_then(Pid::from_raw);
        pid.is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
    }

    /// SIGSTOP: it neither answers nor dies.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn wake(&self) {
        self.signal(Signal::CONT);
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some((mut child, guard)) = self.child.take() {
            guard.dismiss();
            drop(child.kill()); // it may have ended by itself
            drop(child.wait());
        }
    }

    /// SIGTERM, and waits for its end; how long it took.
    ///
    /// # Errors
    /// `DataLoss` where it does not end in time, or ends with an error: a drain that fails is a finding.
    pub async fn terminate(&mut self, patience: Duration) -> Result<Duration> {
        let begin = Instant::now();
        self.signal(Signal::TERM);
        let Some((mut child, guard)) = self.child.take() else { return Ok(Duration::ZERO) };
        guard.dismiss();
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(begin.elapsed()),
                Ok(Some(status)) => {
                    return Err(Error::data_loss(format!("{} ended with {status} at SIGTERM", self.name)));
                }
                Ok(None) if begin.elapsed() < patience => sleep(LOOK).await,
                Ok(None) | Err(_) => {
                    drop(child.kill());
                    drop(child.wait());
                    return Err(Error::data_loss(format!("{} did not end within {patience:?}", self.name)));
                }
            }
        }
    }

    /// The last lines that it wrote.
    pub fn tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all.iter().skip(all.len().saturating_sub(lines)).copied().collect::<Vec<_>>().join("\n")
    }

    /// A note between its own lines, so that faults can be seen where they fell.
    pub fn note(&self, text: &str) {
        if let Ok(mut log) = File::options().append(true).open(&self.log) {
            drop(std::io::Write::write_all(&mut log, format!("-- chaos: {text}\n").as_bytes()));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill(); // SIGKILL ends a stopped process too
    }
}

/// Waits until `condition` gives something.
///
/// # Errors
/// `DeadlineExceeded` that says what never came.
pub async fn until<T>(
    what: &str,
    patience: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = condition().await {
            return Ok(found);
        }
        if Instant::now() > end {
            let message = format!("it never came true within {patience:?}: {what}");
            return Err(Error::new(weir_core::ErrorKind::DeadlineExceeded, "NEVER_CAME_TRUE", message));
        }
        sleep(LOOK).await;
    }
}
