//! What must be undone even when the harness is killed: a shell that waits for the end of its input, which comes with the end
//! of this process, however that is.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

/// A waiting shell. Dropped, it does what it waits with.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Runs `script` with `args` when this process ends, or when the guard is dropped.
    ///
    /// # Errors
    /// Where there is no `sh`.
    pub fn set(script: &str, args: &[&str]) -> io::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", &format!("read -r _; {script}"), "guard"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C is not for it
            .spawn()?;
        Ok(Self(child))
    }

    /// Does nothing any more.
    pub fn dismiss(mut self) {
        drop(self.0.kill()); // its input ends only after it is gone
        drop(self.0.wait());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_acts_when_it_is_dropped_and_not_when_it_is_dismissed() {
        let dir = tempfile::tempdir().unwrap();
        let (acted, dismissed) = (dir.path().join("acted"), dir.path().join("dismissed"));
        let set = |path: &std::path::Path| Guard::set(": > \"$1\"", &[&path.display().to_string()]).unwrap();
        drop(set(&acted));
        set(&dismissed).dismiss();
        assert!(acted.exists() && !dismissed.exists());
    }
}
