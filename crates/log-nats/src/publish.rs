//! Appending to a stream: the hot path.

use std::time::Duration;

use async_nats::{HeaderMap, Message, RequestErrorKind, client::Request};
use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    select,
    time::{self, Instant},
};
use weir_core::{Error, Partition, Result, Uid};

use crate::{
    error::{self, Refusal, code, unanswered},
    handle::{Handle, ID_HEADER},
};

/// Subject, id and the name of the expected stream, with room to spare.
const OVERHEAD: usize = 1024;
/// After this without an answer the same id is sent again: a leader that died does not answer, and its successor is there
/// after 4 to 9 s. On a bus that is merely slow the server refuses the second one by its id alone.
const ATTEMPT: Duration = Duration::from_secs(2);
/// The first pause before the same id is sent again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// The answer to a publish: an acknowledgement or a refusal.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    error: Option<Refusal>,
}

/// What an attempt came to.
enum Outcome {
    Stored(u64),
    Failed(Error),
    Again(Error),
}

/// Publishes until it is acknowledged, refused, or the request time-out has passed.
pub(crate) async fn publish(handle: &Handle, partition: Partition, id: Uid, bytes: Bytes) -> Result<u64> {
    let shared = &handle.shared;
    let max = shared.api.client.max_payload().saturating_sub(OVERHEAD);
    if bytes.len() > max {
        return Err(error::too_large(handle.stream, bytes.len(), max));
    }
    let subject = handle.subject(partition);
    let mut headers = HeaderMap::new();
    headers.insert(ID_HEADER, id.to_string());
    headers.insert("Nats-Expected-Stream", handle.name.as_str());
    let until = Instant::now() + shared.config.request_timeout;
    let mut pause = PAUSE.0;
    loop {
        let why = match attempt(handle, &subject, &headers, &bytes, until).await {
            Outcome::Stored(sequence) => {
                handle.saw(sequence);
                return Ok(sequence);
            }
            Outcome::Failed(error) => return Err(error),
            Outcome::Again(why) => why,
        };
        if Instant::now() + pause >= until {
            return Err(why);
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn attempt(
    handle: &Handle,
    subject: &str,
    headers: &HeaderMap,
    bytes: &Bytes,
    until: Instant,
) -> Outcome {
    let shared = &handle.shared;
    let mut link = shared.link.clone();
    // A frame given to a connection that is away would be kept there, and so would each of its repetitions.
    let changes = match time::timeout_at(until, link.wait_for(|link| link.connected)).await {
        Ok(Ok(link)) => link.changes,
        _ => return Outcome::Failed(error::away(&what(handle), "the bus is not connected")),
    };
    let request = Request::new().payload(bytes.clone()).headers(headers.clone()).timeout(None);
    let answer = shared.api.client.send_request(subject.to_owned(), request);
    select! {
        answer = time::timeout_at(until.min(Instant::now() + ATTEMPT), answer) => match answer {
            Ok(Ok(message)) => read(handle, &message),
            Ok(Err(failure)) => failed(handle, bytes.len(), failure),
            Err(_) => Outcome::Again(unanswered(&what(handle), RequestErrorKind::TimedOut)),
        },
        // The answer, if there was one, went to the connection that is gone.
        _ = link.wait_for(|link| link.changes != changes) => Outcome::Again(error::away(&what(handle), "the connection is lost")),
    }
}

fn failed(handle: &Handle, len: usize, failure: async_nats::RequestError) -> Outcome {
    match failure.kind() {
        RequestErrorKind::MaxPayloadExceeded => {
            let max = handle.shared.api.client.max_payload();
            Outcome::Failed(error::too_large(handle.stream, len, max))
        }
        RequestErrorKind::InvalidSubject => {
            Outcome::Failed(Error::internal(format!("cannot {}: its subject is invalid", what(handle))))
        }
        kind => Outcome::Again(unanswered(&what(handle), kind).with_source(failure)),
    }
}

fn read(handle: &Handle, message: &Message) -> Outcome {
    let answer = match serde_json::from_slice::<Answer>(&message.payload) {
        Ok(Answer { seq, error: None }) if seq > 0 => return Outcome::Stored(seq),
        Ok(Answer { error: Some(refusal), .. }) => refusal,
        _ => return Outcome::Again(error::away(&what(handle), "the answer of the bus is not understood")),
    };
    let Refusal { code, description } = answer;
    let bytes_max = handle.shared.options.max_bytes.0;
    match code {
        code::DUPLICATE_IN_PROCESS => {
            Outcome::Again(error::away(&what(handle), "the same id is still being stored"))
        }
        code::STORE_FAILED if is_full(&description) => {
            Outcome::Failed(error::full(handle.stream, bytes_max, &description))
        }
        code::INSUFFICIENT_RESOURCES | code::STORAGE_EXCEEDED | code::ACCOUNT_EXCEEDED => {
            Outcome::Failed(error::full(handle.stream, bytes_max, &description))
        }
        code::MESSAGE_TOO_LARGE => Outcome::Failed(error::too_large(
            handle.stream,
            message.length,
            handle.shared.api.client.max_payload(),
        )),
        _ => {
            let why = format!("the bus says: {description} ({code})");
            Outcome::Again(error::away(&what(handle), &why))
        }
    }
}

/// The texts of nats-server's `ErrMaxBytes` and `ErrStoreFull...`, and of a full disk.
fn is_full(description: &str) -> bool {
    ["maximum bytes", "maximum messages", "no space", "insufficient"]
        .iter()
        .any(|text| description.to_ascii_lowercase().contains(text))
}

fn what(handle: &Handle) -> String {
    format!("publish to stream {}", handle.name)
}
