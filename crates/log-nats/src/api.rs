//! Questions to JetStream that its leaders answer.

use std::time::Duration;

use async_nats::{Client, client::Request, jetstream::stream};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weir_core::{Error, Result};

use crate::error::{Failure, Refusal, code, unanswered};

/// JetStream's API over one connection.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) client: Client,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Refused {
    error: Refusal,
}

#[derive(Deserialize)]
struct Found {
    message: stream::RawMessage,
}

#[derive(Deserialize)]
struct Done {
    success: bool,
}

#[derive(Deserialize)]
struct Names {
    #[serde(default)]
    streams: Option<Vec<String>>,
}

/// Which message.
#[derive(Debug, Serialize)]
pub(crate) struct Which<'a> {
    #[serde(rename = "seq")]
    pub(crate) sequence: u64,
    /// The first of this subject at or after `sequence`.
    #[serde(rename = "next_by_subj", skip_serializing_if = "Option::is_none")]
    pub(crate) next_of: Option<&'a str>,
}

impl Api {
    pub(crate) fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// Asks `$JS.API.<subject>`.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        what: &str,
        subject: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let payload = serde_json::to_vec(body).map_err(|source| Failure::Away(unreadable(what, source)))?;
        let request = Request::new().payload(Bytes::from(payload)).timeout(Some(self.timeout));
        let answer = self.client.send_request(format!("$JS.API.{subject}"), request);
        // The request's own time does not count how long it waits to be sent.
        let answer = tokio::time::timeout(self.timeout, answer)
            .await
            .map_err(|_| Failure::Away(unanswered(what, async_nats::RequestErrorKind::TimedOut)))?
            .map_err(|error| Failure::Away(unanswered(what, error.kind()).with_source(error)))?;
        match serde_json::from_slice(&answer.payload) {
            Ok(answer) => Ok(answer),
            Err(source) => match serde_json::from_slice::<Refused>(&answer.payload) {
                Ok(Refused { error }) => Err(Failure::Refused { what: what.to_owned(), refusal: error }),
                Err(_) => Err(Failure::Away(unreadable(what, source))),
            },
        }
    }

    /// What a stream is and holds, as its leader knows it.
    pub(crate) async fn info(&self, stream: &str) -> Result<stream::Info, Failure> {
        self.call(&format!("look at stream {stream}"), &format!("STREAM.INFO.{stream}"), &()).await
    }

    /// A stored message, as the stream's leader has it.
    pub(crate) async fn message(
        &self,
        stream: &str,
        which: &Which<'_>,
    ) -> Result<Option<stream::RawMessage>, Failure> {
        let what = format!("read a message of stream {stream}");
        match self.call::<Found>(&what, &format!("STREAM.MSG.GET.{stream}"), which).await {
            Ok(found) => Ok(Some(found.message)),
            Err(failure) if failure.code() == code::NO_MESSAGE => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Forgets every message below `sequence`.
    pub(crate) async fn purge_below(&self, stream: &str, sequence: u64) -> Result<(), Failure> {
        let what = format!("purge stream {stream}");
        let body = serde_json::json!({ "seq": sequence });
        let done: Done = self.call(&what, &format!("STREAM.PURGE.{stream}"), &body).await?;
        if done.success { Ok(()) } else { Err(Failure::Refused { what, refusal: Refusal::default() }) }
    }

    /// Names of the streams that take messages of a subject.
    pub(crate) async fn streams_of(&self, subject: &str) -> Result<Vec<String>, Failure> {
        let body = serde_json::json!({ "subject": subject });
        let names: Names = self.call("list streams", "STREAM.NAMES", &body).await?;
        Ok(names.streams.unwrap_or_default())
    }
}

fn unreadable(what: &str, source: serde_json::Error) -> Error {
    Error::internal(format!("cannot {what}: the answer of the bus is not understood: {source}"))
        .with_source(source)
}
