//! Waiting until a cluster is what its spec says.

use std::time::{Duration, Instant};

use kube::{Api, Client};
use weir_core::{Error, ErrorKind, Result};
use weir_crd::WeirCluster;

use crate::error::of_kube;

/// Often enough that nobody waits for it.
const PERIOD: Duration = Duration::from_millis(500);

/// Waits until the cluster is ready as its spec is now; `tell` hears of each change.
///
/// # Errors
/// `STALLED` where a person must act; `NOT_READY` with what was missing after `timeout`.
pub async fn wait(namespace: Option<&str>, name: &str, timeout: Duration, tell: impl Fn(&str)) -> Result<()> {
    let client = Client::try_default().await.map_err(|error| of_kube("the API server", error))?;
    let namespace = namespace.unwrap_or_else(|| client.default_namespace()).to_owned();
    let api: Api<WeirCluster> = Api::namespaced(client, &namespace);
    let begin = Instant::now();
    let mut last = String::new();
    loop {
        let state = match api.get_opt(name).await {
            Ok(Some(cluster)) => state(&cluster),
            Ok(None) => State::Waiting(format!("there is no WeirCluster {namespace}/{name} yet")),
            Err(error) => State::Waiting(of_kube("the API server", error).message().to_owned()),
        };
        let message = match state {
            State::Ready => return Ok(()),
            State::Stalled(message) => {
                return Err(Error::new(
                    ErrorKind::FailedPrecondition,
                    "STALLED",
                    format!("{name}: {message}"),
                ));
            }
            State::Waiting(message) => message,
        };
        if message != last {
            tell(&message);
            last = message;
        }
        if begin.elapsed() >= timeout {
            let message = format!("{name} is not ready after {} s: {last}", timeout.as_secs());
            return Err(Error::new(ErrorKind::DeadlineExceeded, "NOT_READY", message));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

enum State {
    Ready,
    Stalled(String),
    Waiting(String),
}

fn state(cluster: &WeirCluster) -> State {
    let status = cluster.status.clone().unwrap_or_default();
    if status.observed_generation != cluster.metadata.generation {
        return State::Waiting("the operator has not seen it yet".to_owned());
    }
    let is =
        |name: &str| status.conditions.iter().find(|known| known.type_ == name && known.status == "True");
    if is("Ready").is_some() {
        return State::Ready;
    }
    if let Some(stalled) = is("Stalled") {
        return State::Stalled(format!("{}: {}", stalled.reason, stalled.message));
    }
    let ready = status.conditions.iter().find(|known| known.type_ == "Ready");
    State::Waiting(ready.map(|ready| ready.message.clone()).unwrap_or_default())
}
