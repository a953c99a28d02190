//! A partition of the network: packets over loopback to and from some ports are dropped, silently, as by a cable that is pulled.
//!
//! The rules stand in a chain of this process, and name ports of servers that it started and nothing else. They are removed
//! when the partition is healed, dropped, or this process ends in whatever way.
//!
//! It needs root and `iptables`; [`Partition::possible`] says which is missing.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use weir_core::{Error, Result};

use crate::guard::Guard;

/// Partitions that this process has made: each has a chain of its own.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Takes the chain out of the way of packets, then away.
const REMOVE: &str =
    "iptables -w -D INPUT -i lo -p tcp -j \"$1\"; iptables -w -F \"$1\"; iptables -w -X \"$1\"";

/// Which packets are lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// All from and to these ports,
    pub ports: Vec<u16>,
    /// except those of connections whose other end has one of these.
    pub except: Vec<u16>,
}

/// A network that is cut, until this is dropped.
#[derive(Debug)]
pub struct Partition(#[expect(dead_code, reason = "it is there to be dropped")] Guard);

impl Partition {
    /// Why there can be none here; nothing where there can be.
    pub fn possible() -> std::result::Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("a partition of the network needs root, to drop packets".to_owned());
        }
        let list = Command::new("iptables").args(["-w", "-S", "INPUT"]).output();
        match list {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(format!("a partition of the network needs iptables, which says: {said}"))
            }
            Err(error) => Err(format!("a partition of the network needs iptables: {error}")),
        }
    }

    /// Cuts the network.
    ///
    /// # Errors
    /// What iptables says; then nothing is cut.
    pub fn cut(cut: &Cut) -> Result<Self> {
        let chain = format!("WEIR-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        iptables(&["-N", &chain])?;
        let guard = Guard::set(REMOVE, &[&chain])
            .map_err(|source| Error::unavailable(format!("cannot run sh: {source}")).with_source(source))?;
        for (ports, target) in [(&cut.except, "RETURN"), (&cut.ports, "DROP")] {
            for port in ports {
                for side in ["--sport", "--dport"] {
                    iptables(&["-A", &chain, "-p", "tcp", side, &port.to_string(), "-j", target])?;
                }
            }
        }
        iptables(&["-I", "INPUT", "-i", "lo", "-p", "tcp", "-j", &chain])?;
        Ok(Self(guard))
    }
}

fn iptables(args: &[&str]) -> Result<()> {
    let failed = |why: String| Error::unavailable(format!("iptables {}: {why}", args.join(" ")));
    let output = Command::new("iptables").arg("-w").args(args).output();
    let output = output.map_err(|source| failed(source.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        time::Duration,
    };

    use super::*;

    /// Far above what loopback needs, far below what anybody waits for.
    const SOON: Duration = Duration::from_secs(1);

    fn echo(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(SOON)).unwrap();
        (client, server)
    }

    #[test]
    fn what_is_cut_passes_nothing_until_it_is_healed_and_what_is_excepted_goes_on() {
        if let Err(why) = Partition::possible() {
            assert!(std::env::var_os("CI").is_none(), "needed in CI: {why}");
            drop(writeln!(std::io::stderr(), "SKIPPED: {why}"));
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ((mut lost, mut deaf), (mut kept, mut hearing)) = (echo(&listener), echo(&listener));
        let partition = Partition::cut(&Cut {
            ports: vec![listener.local_addr().unwrap().port()],
            except: vec![kept.local_addr().unwrap().port()],
        })
        .unwrap();
        let mut letter = [0];
        lost.write_all(b"a").unwrap();
        kept.write_all(b"b").unwrap();
        hearing.read_exact(&mut letter).unwrap();
        assert_eq!(&letter, b"b");
        assert!(deaf.read_exact(&mut letter).is_err(), "it was cut off");
        drop(partition);
        deaf.set_read_timeout(None).unwrap();
        deaf.read_exact(&mut letter).unwrap(); // TCP sends it again
        assert_eq!(&letter, b"a");
    }
}
