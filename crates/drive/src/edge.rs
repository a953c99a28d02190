//! One device's way in, over any of the three protocols: send readings, get the server's durable answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value as Json, json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::Streaming;
use weir_clients::Connection;
use weir_core::{Error, ErrorKind, Result, TenantId, Timestamp, Value};
use weir_grpc::{convert, from_status, status::from_item};
use weir_proto::{
    common::v1 as common,
    ingest::v1::{PublishStreamRequest, PublishStreamResponse},
};

use crate::mqtt;

/// Items of a gRPC stream under way at most: enough to fill the server's frames.
const STREAM_WINDOW: usize = 64;
/// A durable answer takes milliseconds; past this something is wrong, and the same data is sent again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// MQTT 5, QoS 1.
    Mqtt,
    /// HTTP, `POST /v1/telemetry`.
    Http,
    /// gRPC, `PublishStream`.
    Grpc,
}

impl Via {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Mqtt, Self::Http, Self::Grpc];
}

/// A Weir, and a tenant in it.
#[derive(Clone)]
pub struct Place {
    /// gRPC, with an API token.
    pub connection: Connection,
    /// The tenant.
    pub tenant: TenantId,
    /// Address of the MQTT listener.
    pub mqtt: Option<String>,
    /// Address of the HTTP device API.
    pub http: Option<String>,
}

/// One reading to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Event time; the server's arrival if none.
    pub ts: Option<Timestamp>,
    /// Value by metric.
    pub values: Vec<(String, Value)>,
}

/// What of a message was refused; all else is durable.
pub type Refused = Vec<(usize, Error)>;

/// The answer to a message that is under way.
pub type Pending = oneshot::Receiver<Result<Refused>>;

/// A device's way in.
pub enum Edge {
    /// MQTT.
    Mqtt(mqtt::Client),
    /// HTTP.
    Http(Http),
    /// gRPC.
    Grpc(Grpc),
}

impl Edge {
    /// Opens the way for `device`, whose token is needed by MQTT and HTTP.
    ///
    /// # Errors
    /// `UNREACHABLE`, or `Unauthenticated` where the token is refused; `USAGE` where the place has no such address.
    pub async fn open(place: &Place, via: Via, device: &str, token: &str) -> Result<Self> {
        let missing = |what: &str| {
            Error::new(ErrorKind::InvalidArgument, "USAGE", format!("no {what} address is known"))
        };
        match via {
            Via::Mqtt => {
                let address = place.mqtt.as_deref().ok_or_else(|| missing("mqtt"))?;
                mqtt::Client::connect(address, device, token).await.map(Self::Mqtt)
            }
            Via::Http => {
                Http::new(place.http.as_deref().ok_or_else(|| missing("http"))?, token).map(Self::Http)
            }
            Via::Grpc => {
                let name = weir_core::name::child(&place.tenant, "devices", device);
                Grpc::open(&place.connection, name).await.map(Self::Grpc)
            }
        }
    }

    /// Sends a message; waits only for a place in the window.
    ///
    /// # Errors
    /// `Unavailable` where the connection has ended.
    pub async fn send(&self, readings: &[Reading]) -> Result<Pending> {
        match self {
            Self::Mqtt(client) => {
                let answer = client.publish("v1/telemetry", payload(readings)).await?;
                let (sender, receiver) = oneshot::channel();
                tokio::spawn(async move {
                    let answer = answer.await.unwrap_or_else(|_| Err(ended()));
                    drop(sender.send(answer.map(|_| Vec::new())));
                });
                Ok(receiver)
            }
            Self::Http(http) => http.send(payload(readings)).await,
            Self::Grpc(grpc) => grpc.send(readings).await,
        }
    }
}

/// Waits for the answer to a message.
///
/// # Errors
/// What the whole message was refused with, or `Unavailable` where no answer came.
pub async fn answer(pending: &mut Pending) -> Result<Refused> {
    match tokio::time::timeout(ANSWER_TIMEOUT, pending).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(ended()),
        Err(_) => Err(Error::unavailable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "CONNECTION_CLOSED", "the connection ended before the answer came")
}

/// Readings as the device API's JSON.
pub fn payload(readings: &[Reading]) -> Vec<u8> {
    let one = |reading: &Reading| {
        let values: Map<_, _> =
            reading.values.iter().map(|(name, value)| (name.clone(), json_value(value))).collect();
        match reading.ts {
            Some(ts) if ts.as_micros() % 1_000 == 0 => {
                json!({"ts": ts.as_micros() / 1_000, "values": values})
            }
            Some(ts) => json!({"ts": ts.to_string(), "values": values}),
            None => json!({"values": values}),
        }
    };
    match readings {
        [reading] => one(reading).to_string().into_bytes(),
        many => Json::Array(many.iter().map(one).collect()).to_string().into_bytes(),
    }
}

fn json_value(value: &Value) -> Json {
    match value {
        Value::Double(value) => json!(value),
        Value::Int64(value) => json!(value),
        Value::Bool(value) => json!(value),
        Value::String(value) => json!(value),
        Value::Bytes(value) => json!(value.as_ref()),
    }
}

/// HTTP: one request at a time, so that a device's readings stay in order.
pub struct Http {
    client: reqwest::Client,
    url: String,
    authorization: String,
    turn: Arc<Semaphore>,
}

impl Http {
    fn new(address: &str, token: &str) -> Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .map_err(|source| Error::internal("cannot make an http client").with_source(source))?;
        let base = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        Ok(Self {
            client,
            url: format!("{base}/v1/telemetry"),
            authorization: format!("Bearer {token}"),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    async fn send(&self, payload: Vec<u8>) -> Result<Pending> {
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| ended())?;
        let request = self
            .client
            .post(&self.url)
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .body(payload);
        let (sender, receiver) = oneshot::channel();
        let turns = Arc::clone(&self.turn);
        tokio::spawn(async move {
            let answer = request.send().await;
            let answer = match answer {
                Err(_) => {
                    // What follows must not overtake what is sent again: this edge is over.
                    turns.close();
                    Err(ended())
                }
                Ok(response) if response.status().is_success() => {
                    drop(response.bytes().await); // read to its end, so that the connection serves again
                    Ok(Vec::new())
                }
                Ok(response) => {
                    let error = problem(response).await;
                    if error.kind().retryable() {
                        turns.close();
                    }
                    Err(error)
                }
            };
            drop(turn);
            drop(sender.send(answer)); // whoever asked may have gone
        });
        Ok(receiver)
    }
}

async fn problem(response: reqwest::Response) -> Error {
    let kind = match response.status().as_u16() {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        429 => ErrorKind::ResourceExhausted,
        400..=499 => ErrorKind::InvalidArgument,
        _ => ErrorKind::Unavailable,
    };
    let status = response.status();
    let body: Json =
        response.bytes().await.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
    let text = |key: &str| body.get(key).and_then(Json::as_str).map(str::to_owned);
    let mut error = Error::new(
        kind,
        text("title").unwrap_or_else(|| status.to_string()),
        text("detail").unwrap_or_else(|| status.to_string()),
    );
    if let Some(field) = text("field") {
        error = error.with_field(field);
    }
    error
}

/// gRPC: one `PublishStream`.
pub struct Grpc {
    device: String,
    requests: mpsc::Sender<PublishStreamRequest>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    answers: HashMap<u64, oneshot::Sender<Result<Refused>>>,
    ended: bool,
}

impl Grpc {
    async fn open(connection: &Connection, device: String) -> Result<Self> {
        let (requests, receiver) = mpsc::channel(STREAM_WINDOW);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let answers = connection.ingest().publish_stream(stream).await.map_err(from_status)?.into_inner();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        tokio::spawn(take_answers(answers, Arc::clone(&waiting)));
        Ok(Self { device, requests, waiting })
    }

    async fn send(&self, readings: &[Reading]) -> Result<Pending> {
        let permit = self.requests.reserve().await.map_err(|_| ended())?;
        let (sender, receiver) = oneshot::channel();
        let item = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.ended {
                return Err(ended());
            }
            waiting.next += 1;
            let item = waiting.next;
            waiting.answers.insert(item, sender);
            item
        };
        permit.send(PublishStreamRequest {
            item,
            device: self.device.clone(),
            readings: readings.iter().map(as_proto).collect(),
            traceparent: String::new(),
        });
        Ok(receiver)
    }
}

/// A reading as the gRPC API's message.
pub fn as_proto(reading: &Reading) -> common::Reading {
    common::Reading {
        ts: reading.ts.map(convert::from_timestamp),
        values: reading
            .values
            .iter()
            .map(|(name, value)| (name.clone(), convert::from_value(value.clone())))
            .collect(),
    }
}

async fn take_answers(mut answers: Streaming<PublishStreamResponse>, waiting: Arc<Mutex<Waiting>>) {
    while let Ok(Some(answer)) = answers.message().await {
        let sender = waiting.lock().unwrap_or_else(PoisonError::into_inner).answers.remove(&answer.item);
        if let Some(sender) = sender {
            drop(sender.send(outcome(&answer))); // whoever asked may have gone
        }
    }
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.ended = true;
    waiting.answers.clear();
}

fn outcome(answer: &PublishStreamResponse) -> Result<Refused> {
    if let Some(status) = &answer.status {
        from_item(status)?;
    }
    let refused = answer.statuses.iter().enumerate();
    Ok(refused.filter_map(|(index, status)| from_item(status).err().map(|error| (index, error))).collect())
}
