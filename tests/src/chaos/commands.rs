//! Commands during chaos: every accepted one reaches its device, once by its id, and its state is proof.
//!
//! Simulated devices over MQTT come and go by the seed, note every command they are given, and answer. A controller sends
//! commands with a `request_id` of their own until each is accepted; some go to a device that never comes, and must expire.
//!
//! Wrong is: an accepted command that does not end as it must (SUCCEEDED, with the device's own answer; EXPIRED at a device
//! that never came); DELIVERED or SUCCEEDED that the device never got; one request under two ids; a command at another device.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value as Json, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use weir_core::{Error, Result, name};
use weir_drive::{
    Place,
    lane::{Patience, patiently},
    mqtt::{Client, Incoming},
    provision,
    random::Random,
};
use weir_grpc::{convert::from_duration, from_status};
use weir_proto::commands::v1 as pb;

/// Devices that answer.
const DEVICES: u32 = 6;
/// A device that never comes.
const NEVER: &str = "away";
/// One command in so many goes to the device that never comes.
const NEVER_ONE_IN: u64 = 10;
/// From one command to the next.
const PACE: Duration = Duration::from_millis(250);
/// Longer than a run: what is accepted must be answered.
const TTL: Duration = Duration::from_secs(3_600);
/// Of commands to the device that never comes.
const TTL_NEVER: Duration = Duration::from_secs(20);
/// A device stays, and stays away, for at most so long.
const STAY_MAX_MS: u64 = 8_000;
/// How long a command is tried: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long commands may take to end once everything is healed and every device is there.
const LAG: Duration = Duration::from_secs(90);

/// An answer that is not acknowledged within it goes out again over a new connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Each command is asked for at least so long, however late it is.
const READ_MIN: Duration = Duration::from_secs(1);

/// What devices were given: by (device, number) the ids.
type Given = Arc<Mutex<BTreeMap<(String, u64), BTreeSet<String>>>>;

/// A command that was accepted.
struct Sent {
    number: u64,
    device: String,
    name: String,
}

/// Commands under way.
pub struct Commands {
    place: Place,
    stop_sending: CancellationToken,
    stop_devices: CancellationToken,
    controller: JoinHandle<(Vec<Sent>, Vec<String>)>,
    devices: Vec<JoinHandle<()>>,
    given: Given,
}

/// How commands fared.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Accepted.
    pub accepted: u64,
    /// Not as they must be.
    pub wrong: u64,
    /// In words.
    pub examples: Vec<String>,
}

impl Outcome {
    fn wrong(&mut self, what: String) {
        self.wrong += 1;
        if self.examples.len() < 20 {
            self.examples.push(what);
        }
    }
}

impl Commands {
    /// Makes devices in the place's tenant, and starts them and the controller.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn start(places: Vec<Place>, seed: u64) -> Result<Self> {
        let place = places.first().cloned().ok_or_else(|| Error::internal("there is no edge"))?;
        let mut ids: Vec<String> = (0..DEVICES).map(|number| format!("actor-{number}")).collect();
        ids.push(NEVER.to_owned());
        let labels = HashMap::from([("chaos".to_owned(), "actor".to_owned())]);
        patiently(PATIENCE, async || provision::create(&place, &ids, &labels).await).await?;
        ids.pop();
        let (stop_sending, stop_devices) = (CancellationToken::new(), CancellationToken::new());
        let given = Given::default();
        let mut devices = Vec::new();
        for (number, id) in ids.iter().enumerate() {
            let token = patiently(PATIENCE, async || provision::token(&place, id).await).await?.secret;
            let device = Device {
                id: id.clone(),
                token,
                addresses: places.iter().filter_map(|place| place.mqtt.clone()).collect(),
                random: Random::fork(seed, number as u64),
                given: Arc::clone(&given),
                unanswered: VecDeque::new(),
                stay: stop_sending.clone(),
                stop: stop_devices.clone(),
            };
            devices.push(tokio::spawn(device.live()));
        }
        let controller =
            tokio::spawn(control(place.clone(), Random::fork(seed, u64::MAX), stop_sending.clone()));
        Ok(Self { place, stop_sending, stop_devices, controller, devices, given })
    }

    /// Sends no more, waits until every accepted command has ended, and judges.
    ///
    /// # Errors
    /// Where commands cannot be read.
    pub async fn finish(self) -> Result<Outcome> {
        self.stop_sending.cancel();
        let (sent, refused) = self
            .controller
            .await
            .map_err(|source| Error::internal("the controller panicked").with_source(source))?;
        let mut outcome = Outcome { accepted: sent.len() as u64, ..Outcome::default() };
        refused.into_iter().for_each(|why| outcome.wrong(why));
        let until = Instant::now() + LAG;
        for sent in &sent {
            let command = ended(&self.place, &sent.name, until).await;
            judge(&self.given, sent, &command, &mut outcome);
        }
        self.stop_devices.cancel();
        for device in self.devices {
            drop(device.await); // it has nothing more to tell
        }
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        for ((device, number), ids) in given.iter().filter(|(_, ids)| ids.len() > 1) {
            outcome.wrong(format!("{device} was given command {number} under {} ids", ids.len()));
        }
        Ok(outcome)
    }
}

fn judge(given: &Given, sent: &Sent, command: &pb::Command, outcome: &mut Outcome) {
    let id = sent.name.rsplit('/').next().unwrap_or_default();
    let given = given.lock().unwrap_or_else(PoisonError::into_inner);
    let got = given.get(&(sent.device.clone(), sent.number)).is_some_and(|ids| ids.contains(id));
    let elsewhere = given.iter().any(|((device, _), ids)| *device != sent.device && ids.contains(id));
    drop(given);
    let (state, what) = (command.state(), format!("command {} to {} ({id})", sent.number, sent.device));
    if elsewhere {
        outcome.wrong(format!("{what} was given to another device"));
    }
    if sent.device == NEVER {
        if state != pb::CommandState::Expired || command.delivery_unknown {
            outcome.wrong(format!("{what} is {}, and its device never came", state.as_str_name()));
        }
        return;
    }
    let answered = serde_json::from_str::<Json>(&command.response)
        .is_ok_and(|answer| answer.get("number").and_then(Json::as_u64) == Some(sent.number));
    if state != pb::CommandState::Succeeded || !answered {
        outcome.wrong(format!("{what} is {}, answer {:?}", state.as_str_name(), command.response));
    }
    let claimed = matches!(state, pb::CommandState::Succeeded | pb::CommandState::Delivered);
    if claimed && !got {
        outcome.wrong(format!("{what} is {}, and the device never got it", state.as_str_name()));
    }
}

/// The command once it has ended, or as it is when the time is up; an empty one where it cannot be read by then, which is a
/// finding and not a failure of the harness.
async fn ended(place: &Place, name: &str, until: Instant) -> pb::Command {
    loop {
        let request = pb::GetCommandRequest { name: name.to_owned() };
        let mut stub = place.connection.commands();
        let deadline = until.max(Instant::now() + READ_MIN);
        let command = match tokio::time::timeout_at(deadline, stub.get_command(request)).await {
            Ok(Ok(answer)) => answer.into_inner().command.unwrap_or_default(),
            Ok(Err(_)) | Err(_) => pb::Command::default(),
        };
        if command.finish_time.is_some() || Instant::now() > until {
            return command;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Sends commands until told to stop; those accepted, and those refused for good in words.
async fn control(place: Place, mut random: Random, stop: CancellationToken) -> (Vec<Sent>, Vec<String>) {
    let (mut sent, mut refused) = (Vec::new(), Vec::new());
    for number in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let never = random.once_in(NEVER_ONE_IN);
        let device =
            if never { NEVER.to_owned() } else { format!("actor-{}", random.below(u64::from(DEVICES))) };
        let request = pb::SendCommandRequest {
            device: name::child(&place.tenant, "devices", &device),
            command: "turn".to_owned(),
            payload: json!({"number": number}).to_string(),
            ttl: Some(from_duration(if never { TTL_NEVER } else { TTL })),
            request_id: format!("chaos-{number}"),
            ..Default::default()
        };
        match accepted(&place, request).await {
            Ok(command) => sent.push(Sent { number, device, name: command.name }),
            Err(error) => refused.push(format!("command {number} to {device} was refused for good: {error}")),
        }
        sleep(PACE).await;
    }
    (sent, refused)
}

/// Sends until it is accepted.
async fn accepted(place: &Place, request: pb::SendCommandRequest) -> Result<pb::Command> {
    let mut patience = Patience::new(PATIENCE);
    loop {
        match place.connection.commands().send_command(request.clone()).await.map_err(from_status) {
            Ok(answer) => return Ok(answer.into_inner().command.unwrap_or_default()),
            Err(error) => patience.again(error).await?,
        }
    }
}

struct Device {
    id: String,
    token: String,
    addresses: Vec<String>,
    random: Random,
    given: Given,
    /// Answers that are not acknowledged: as a device keeps them until they are.
    unanswered: VecDeque<(String, Vec<u8>)>,
    /// From now on it comes and does not go.
    stay: CancellationToken,
    stop: CancellationToken,
}

impl Device {
    async fn live(mut self) {
        while !self.stop.is_cancelled() {
            let at = self.random.below(self.addresses.len() as u64) as usize;
            let Some(address) = self.addresses.get(at) else { return };
            if let Ok(client) = Client::connect(address, &self.id, &self.token).await {
                self.session(client).await;
            }
            let away = Duration::from_millis(100 + self.random.below(STAY_MAX_MS));
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.stay.cancelled() => sleep(Duration::from_millis(200)).await,
                () = sleep(away) => {}
            }
        }
    }

    async fn session(&mut self, mut client: Client) {
        if client.subscribe("v1/commands/request/+/+").await.is_err() {
            return;
        }
        let leave = Instant::now() + Duration::from_millis(500 + self.random.below(STAY_MAX_MS));
        let (stay, stop) = (self.stay.clone(), self.stop.clone());
        while self.answer_all(&client).await {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(leave), if !stay.is_cancelled() => break,
                incoming = client.next() => match incoming {
                    Some(incoming) => self.take(&incoming),
                    None => break,
                },
            }
        }
        // What was acknowledged is taken, also on the way out.
        client.leave().await.iter().for_each(|incoming| self.take(incoming));
    }

    /// Publishes every answer; false where the connection does not take it.
    async fn answer_all(&mut self, client: &Client) -> bool {
        while let Some((topic, answer)) = self.unanswered.front() {
            let Ok(pending) = client.publish(topic, answer.clone()).await else { return false };
            match tokio::time::timeout(ANSWER_TIMEOUT, pending).await {
                Ok(Ok(Ok(_))) => {}
                // An answer that is refused for good stays so; the command's state tells.
                Ok(Ok(Err(error))) if !error.kind().retryable() => {}
                Ok(_) | Err(_) => return false,
            }
            self.unanswered.pop_front();
        }
        true
    }

    /// Notes a command, and what to answer.
    fn take(&mut self, incoming: &Incoming) {
        let command =
            incoming.topic.strip_prefix("v1/commands/request/").and_then(|rest| rest.split_once('/'));
        let payload = serde_json::from_slice::<Json>(&incoming.payload).unwrap_or_default();
        let (Some((id, _)), Some(number)) = (command, payload.get("number").and_then(Json::as_u64)) else {
            return;
        };
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.entry((self.id.clone(), number)).or_default().insert(id.to_owned());
        let answer = json!({"number": number}).to_string().into_bytes();
        self.unanswered.push_back((format!("v1/commands/response/{id}"), answer));
    }
}
