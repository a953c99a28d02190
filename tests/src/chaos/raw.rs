//! The yardstick for gaps: a plain client of NATS that publishes beside the load to a stream of its own, with as many replicas
//! and the same disks as Weir's. How long *it* is without an acknowledgement is what the bus itself costs.
//!
//! One message at a time for each subject, the same one again until it is acknowledged. Its patience is Weir's: an answer is
//! waited for 2 s, and a server that does not answer pings is left. Before the leader of the readings is struck, the leader
//! of this stream is moved to the same server, so that both lose theirs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::{
    Client, ConnectOptions,
    jetstream::{self, Context, stream},
};
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use weir_core::{Error, Result};
use weir_drive::ledger::Gap;

use crate::{cluster::Cluster, process::until};

const STREAM: &str = "plain_publisher";
/// Subjects, each with a connection: any server may be struck, and some of them are connected to another.
const SUBJECTS: usize = 6;
/// From one message to the next: fine enough to measure, too little to be load.
const PACE: Duration = Duration::from_millis(50);
/// From a failure to the next attempt.
const AGAIN: Duration = Duration::from_millis(50);
/// As long as Weir waits for one answer.
const ATTEMPT: Duration = Duration::from_secs(2);
/// As often as Weir pings.
const PING: Duration = Duration::from_secs(2);
/// Bytes of a message: one reading's.
const BYTES: usize = 100;
/// An hour of it, with the oldest let go.
const STREAM_MAX: i64 = 64 << 20;
/// How long a leader may take to move.
const MOVE: Duration = Duration::from_secs(20);

/// Acknowledgements as they come.
#[derive(Debug)]
struct Watch {
    begin: Instant,
    last: Option<Instant>,
    longest: Gap,
}

impl Watch {
    fn acked(&mut self, now: Instant) {
        if let Some(last) = self.last {
            let length = now.saturating_duration_since(last);
            if length > self.longest.length {
                self.longest = Gap { length, began: last.saturating_duration_since(self.begin) };
            }
        }
        self.last = Some(now);
    }
}

/// A plain publisher under way.
pub struct Publisher {
    context: Context,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    watch: Arc<Mutex<Watch>>,
}

impl Publisher {
    /// Makes the stream and begins; moments are counted from `begin` on.
    ///
    /// # Errors
    /// Where the bus does not answer.
    pub async fn start(cluster: &Cluster, begin: Instant) -> Result<Self> {
        let bus = cluster.bus()?;
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec![format!("{STREAM}.*")],
            num_replicas: bus.nodes(),
            max_bytes: STREAM_MAX,
            ..stream::Config::default()
        };
        let context = jetstream::new(connect(bus.servers()).await?);
        context.create_stream(config).await.map_err(|source| {
            Error::unavailable(format!("cannot make stream {STREAM}: {source}")).with_source(source)
        })?;
        let watch = Watch { begin, last: None, longest: Gap::default() };
        let (watch, stop) = (Arc::new(Mutex::new(watch)), CancellationToken::new());
        let mut tasks = Vec::new();
        for number in 0..SUBJECTS {
            let context = jetstream::new(connect(bus.servers()).await?);
            tasks.push(tokio::spawn(publish(context, number, Arc::clone(&watch), stop.clone())));
        }
        Ok(Self { context, stop, tasks, watch })
    }

    /// Moves the stream's leader to a server.
    ///
    /// # Errors
    /// Where it does not move there in time: then the two could not be compared.
    pub async fn follow(&self, cluster: &Cluster, member: &str) -> Result<()> {
        let bus = cluster.bus()?;
        let server = member.replace("nats-", "n");
        let Some(wanted) = bus.index_of(&server) else {
            return Err(Error::internal(format!("{member} is no NATS server")));
        };
        let moved = until("the plain publisher's stream is led by the same server", MOVE, async || {
            if bus.leader_of(STREAM) == Some(wanted) {
                return Some(());
            }
            let subject = format!("STREAM.LEADER.STEPDOWN.{STREAM}");
            let body = json!({"placement": {"preferred": server}});
            let asked: std::result::Result<serde_json::Value, _> = self.context.request(subject, &body).await;
            drop(asked); // whether it is led there is looked at, not believed
            sleep(Duration::from_millis(200)).await;
            None
        });
        moved.await.map_err(|error| error.context("for the yardstick"))
    }

    /// Ends it; its longest time without an acknowledgement, none where it never had one.
    pub async fn finish(self) -> Option<Gap> {
        self.stop.cancel();
        for task in self.tasks {
            drop(task.await); // what it found is in the watch
        }
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.last?;
        watch.acked(Instant::now());
        Some(watch.longest)
    }
}

async fn connect(servers: Vec<String>) -> Result<Client> {
    let options = ConnectOptions::new().ping_interval(PING);
    options
        .connect(servers)
        .await
        .map_err(|source| Error::unavailable(format!("cannot connect to NATS: {source}")).with_source(source))
}

async fn publish(context: Context, number: usize, watch: Arc<Mutex<Watch>>, stop: CancellationToken) {
    let subject = format!("{STREAM}.{number}");
    let message = bytes::Bytes::from(vec![b'x'; BYTES]);
    while !stop.is_cancelled() {
        let attempt = async { context.publish(subject.clone(), message.clone()).await?.await };
        let acked = tokio::select! {
            acked = timeout(ATTEMPT, attempt) => matches!(acked, Ok(Ok(_))),
            () = stop.cancelled() => return,
        };
        if acked {
            watch.lock().unwrap_or_else(PoisonError::into_inner).acked(Instant::now());
        }
        sleep(if acked { PACE } else { AGAIN }).await;
    }
}
