//! A fleet over MQTT: each device sends slowly wandering measurements and answers its commands.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_core::{Error, Result, Value};

use crate::{
    Place, Reading, Tally,
    edge::payload,
    mqtt::{Client, Incoming},
    provision::{self, Token},
};

/// Connections that are opened at the same time: as a site that comes back after a power cut, without a thundering herd.
const OPENING: usize = 32;
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The fleet.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many devices.
    pub devices: usize,
    /// Readings a second of each device.
    pub rate: f64,
    /// Devices are called `<prefix>-<number>` and labelled `type=<prefix>`.
    pub prefix: String,
}

/// How a fleet fares; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    connected: AtomicU64,
    answered: AtomicU64,
    /// What became of what was sent.
    pub tally: Arc<Tally>,
}

impl Progress {
    /// Devices that are connected now.
    pub fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }
    /// Commands that were answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// Runs the fleet until `stop`, then revokes its tokens.
///
/// # Errors
/// `InvalidArgument` for a rate that is none; what the registry says. A connection that fails is opened again.
pub async fn run(
    place: &Place,
    options: &Options,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> Result<()> {
    if !(options.rate > 0.0 && options.rate <= 1_000.0) {
        let message = format!(
            "--rate {} must be above 0 and at most 1000 readings a second for each device",
            options.rate
        );
        return Err(Error::invalid("rate", "USAGE", message).with_limit(1_000));
    }
    let address =
        place.mqtt.clone().ok_or_else(|| Error::invalid("mqtt", "USAGE", "no mqtt address is known"))?;
    let devices: Vec<String> =
        (1..=options.devices).map(|number| format!("{}-{number}", options.prefix)).collect();
    let labels = HashMap::from([("type".to_owned(), options.prefix.clone())]);
    provision::create(place, &devices, &labels).await?;
    let tokens: Vec<Result<Token>> = stream::iter(&devices)
        .map(|device| provision::token(place, device))
        .buffered(OPENING)
        .collect()
        .await;
    let tokens = tokens.into_iter().collect::<Result<Vec<_>>>()?;
    let tracker = TaskTracker::new();
    for (index, (device, token)) in devices.into_iter().zip(&tokens).enumerate() {
        let device = Device {
            address: address.clone(),
            id: device,
            token: token.secret.clone(),
            period: Duration::from_secs_f64(1.0 / options.rate),
            phase: index as f64,
            progress: Arc::clone(&progress),
        };
        tracker.spawn(device.live(stop.clone()));
    }
    tracker.close();
    tracker.wait().await;
    stream::iter(&tokens)
        .for_each_concurrent(OPENING, |token| async {
            drop(provision::revoke(place, token).await); // it ends by itself within a day
        })
        .await;
    Ok(())
}

struct Device {
    address: String,
    id: String,
    token: String,
    period: Duration,
    phase: f64,
    progress: Arc<Progress>,
}

impl Device {
    async fn live(self, stop: CancellationToken) {
        let mut backoff = Duration::from_millis(100);
        while !stop.is_cancelled() {
            if let Ok(client) = Client::connect(&self.address, &self.id, &self.token).await {
                backoff = Duration::from_millis(100);
                self.progress.connected.fetch_add(1, Ordering::Relaxed);
                self.session(client, &stop).await;
                self.progress.connected.fetch_sub(1, Ordering::Relaxed);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn session(&self, mut client: Client, stop: &CancellationToken) {
        if client.subscribe("v1/commands/request/+/+").await.is_err() {
            return;
        }
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut step = 0_u64;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {
                    step += 1;
                    let Ok(pending) = client.publish("v1/telemetry", payload(&[self.reading(step)])).await else { return };
                    self.progress.tally.sent(1);
                    let tally = Arc::clone(&self.progress.tally);
                    tokio::spawn(async move {
                        match pending.await {
                            Ok(Ok(_)) => tally.acknowledged(1),
                            Ok(Err(error)) => tally.refused(&error),
                            Err(_) => tally.lost(1),
                        }
                    });
                }
                command = client.next() => {
                    let Some(command) = command else { return };
                    if let Some((topic, answer)) = answer_to(&command)
                        && client.publish(&topic, answer).await.is_ok()
                    {
                        self.progress.answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        client.close().await;
    }

    /// Measurements that wander as those of a room do, a little differently for each device.
    fn reading(&self, step: u64) -> Reading {
        let at = step as f64 / 60.0 + self.phase;
        let values = [("temp", 21.0 + 3.0 * at.sin()), ("humidity", 45.0 + 10.0 * (at / 3.0).cos())];
        let values =
            values.map(|(name, value)| (name.to_owned(), Value::Double((value * 100.0).round() / 100.0)));
        Reading { ts: None, values: values.to_vec() }
    }
}

/// Topic and payload of the answer to a command; none for what is no command.
pub fn answer_to(command: &Incoming) -> Option<(String, Vec<u8>)> {
    let (id, name) = command.topic.strip_prefix("v1/commands/request/")?.split_once('/')?;
    let answer = json!({"ok": true, "done": name});
    Some((format!("v1/commands/response/{id}"), answer.to_string().into_bytes()))
}
