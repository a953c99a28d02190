//! One process of a cluster, whatever it is: a Weir, a NATS server or a CQL server.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use weir_core::{Error, Result};
use weir_test_servers::{cql, nats};

use crate::{
    disk::Disk,
    process::{Process, until},
};

/// How long a process may take until it is ready: an embedded log of gigabytes is read through within it.
const READY: Duration = Duration::from_secs(90);

/// What a member is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A process of `weir serve` with these targets.
    Service(&'static str),
    /// A NATS server.
    Nats,
    /// A CQL server.
    Cql,
}

/// How it is held.
pub(super) enum Body {
    /// A process of Weir.
    Weir(Box<Process>),
    /// A server of a bus, by its number.
    Nats(Arc<nats::Bus>, usize),
    /// A server of a store, by its number, and whether it runs.
    Cql(Arc<Mutex<cql::Cluster>>, usize, bool),
}

/// One process, and what belongs to it.
pub struct Member {
    /// What it is.
    pub role: Role,
    /// What it is called.
    pub name: String,
    /// Its loopback address; empty for servers.
    pub address: String,
    pub(super) body: Body,
    pub(super) disk: Option<Disk>,
}

impl Member {
    /// Whether it takes connections of devices.
    pub(super) fn is_edge(&self) -> bool {
        matches!(self.role, Role::Service("all" | "ingest"))
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        match &mut self.body {
            Body::Weir(process) => process.kill(),
            Body::Nats(bus, number) => bus.kill(*number),
            Body::Cql(store, number, runs) => {
                if std::mem::take(runs) {
                    store.lock().unwrap_or_else(PoisonError::into_inner).kill(*number);
                }
            }
        }
    }

    /// SIGSTOP: it neither answers nor dies.
    pub fn freeze(&self) {
        match &self.body {
            Body::Weir(process) => process.freeze(),
            Body::Nats(bus, number) => bus.pause(*number),
            Body::Cql(store, number, _) => {
                store.lock().unwrap_or_else(PoisonError::into_inner).pause(*number)
            }
        }
    }

    /// SIGCONT.
    pub fn wake(&self) {
        match &self.body {
            Body::Weir(process) => process.wake(),
            Body::Nats(bus, number) => bus.resume(*number),
            Body::Cql(store, number, _) => {
                store.lock().unwrap_or_else(PoisonError::into_inner).resume(*number)
            }
        }
    }

    /// A note between its own lines, so that faults can be seen where they fell.
    pub fn note(&self, text: &str) {
        if let Body::Weir(process) = &self.body {
            process.note(text);
        }
    }

    /// The end of its log; servers keep their own.
    pub fn tail(&self, lines: usize) -> String {
        match &self.body {
            Body::Weir(process) => process.tail(lines),
            Body::Nats(..) | Body::Cql(..) => String::new(),
        }
    }

    /// SIGTERM to a process of Weir, and waits for its end.
    ///
    /// # Errors
    /// `DataLoss` where its drain fails.
    pub async fn terminate(&mut self, patience: Duration) -> Result<()> {
        match &mut self.body {
            Body::Weir(process) => process.terminate(patience).await.map(drop),
            Body::Nats(..) | Body::Cql(..) => {
                Err(Error::internal(format!("{} is no process of Weir", self.name)))
            }
        }
    }

    /// Starts it where it does not run, and waits until it is ready.
    ///
    /// # Errors
    /// Why it is not ready, with the end of its log.
    pub async fn start(&mut self) -> Result<()> {
        let name = self.name.clone();
        let failed = |why: String| Error::unavailable(format!("{name} does not start: {why}"));
        match &mut self.body {
            Body::Weir(process) => process.start()?,
            Body::Nats(bus, number) => {
                let (bus, number) = (Arc::clone(bus), *number);
                let started = tokio::task::spawn_blocking(move || match bus.pid(number) {
                    Some(_) => bus.wait_up(),
                    None => bus.start_again(number),
                });
                return joined(started.await)?.map_err(failed);
            }
            Body::Cql(_, _, true) => return Ok(()),
            Body::Cql(store, number, runs) => {
                let (store, number) = (Arc::clone(store), *number);
                let started = tokio::task::spawn_blocking(move || {
                    store.lock().unwrap_or_else(PoisonError::into_inner).restart(number)
                });
                joined(started.await)?.map_err(failed)?;
                *runs = true;
                return Ok(());
            }
        }
        self.ready().await
    }

    /// Waits until a process of Weir says that it is ready.
    async fn ready(&mut self) -> Result<()> {
        let Self { name, address, body: Body::Weir(process), .. } = self else { return Ok(()) };
        let mut said = String::new();
        let ready = until(&format!("{name} is ready"), READY, async || {
            if !process.is_running() {
                return Some(false);
            }
            let answer = reqwest::get(format!("http://{address}:8082/readyz")).await.ok()?;
            let is_ready = answer.status().is_success();
            said = answer.text().await.unwrap_or_default();
            is_ready.then_some(true)
        })
        .await;
        match ready {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::unavailable(format!("{name} ended at its start:\n{}", process.tail(5)))),
            Err(error) => {
                Err(error.context(format!("it says {said:?}; its log ends with\n{}", process.tail(5))))
            }
        }
    }
}

fn joined<T>(done: std::result::Result<T, tokio::task::JoinError>) -> Result<T> {
    done.map_err(|source| Error::internal("starting a server panicked").with_source(source))
}
