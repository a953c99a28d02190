//! What the system lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A shell's usual soft limit is 1,024 open files, for programs that still use `select`; a server takes what it may.
/// Returns how many files may be open.
pub(crate) fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current, // some systems forbid it: the limit stays what it was
    };
    now.unwrap_or(u64::MAX)
}
