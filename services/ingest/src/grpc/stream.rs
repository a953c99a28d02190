//! One `PublishStream`: items in, statuses out, pipelined.
//!
//! Items are taken in one after the other, so that a device's readings keep their order; their acks are waited for
//! together. While an item waits for room, or the client does not read its answers, nothing more is read from it.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, pending},
    stream::FuturesUnordered,
};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use weir_core::{Error, Result, cache::AGE_AT_EDGE, principal::Principal};
use weir_grpc::{to_item, to_status};
use weir_proto::ingest::v1::{PublishStreamRequest, PublishStreamResponse};

use super::{check_size, ingest};
use crate::edge::Edge;

/// Items under way on one stream: at 1 ms a frame a client can do a million items a second before this is the limit.
const IN_FLIGHT_MAX: usize = 1_024;
/// Hints of revocation may be lost: the credential is shown again at least so often.
const RECHECK_EVERY: Duration = AGE_AT_EDGE;
/// How long a client that does not read its answers may hold up the end.
const SEND_GRACE: Duration = Duration::from_secs(2);

type Answers = mpsc::Sender<std::result::Result<PublishStreamResponse, Status>>;

pub(super) struct Exchange {
    pub(super) edge: Arc<Edge>,
    pub(super) who: Principal,
    /// With the credential that the stream was opened with.
    pub(super) headers: http::HeaderMap,
    pub(super) answers: Answers,
    pub(super) stop: CancellationToken,
}

/// An item that the log has yet to answer.
struct UnderWay {
    item: u64,
    taken: Result<ingest::Taken>,
}

impl Exchange {
    /// Runs until the client has half-closed and all is answered, or it is gone.
    pub(super) async fn run(self, mut requests: Streaming<PublishStreamRequest>) {
        let lost = self.access_lost();
        tokio::pin!(lost);
        let mut taking: Option<BoxFuture<'_, UnderWay>> = None;
        let mut waiting = FuturesUnordered::new();
        let mut end: Option<std::result::Result<(), Status>> = None;
        while end.is_none() || taking.is_some() || !waiting.is_empty() {
            let reads = end.is_none() && taking.is_none() && waiting.len() < IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                Some(answer) = waiting.next(), if !waiting.is_empty() => {
                    if !self.send(Ok(answer)).await {
                        return;
                    }
                }
                taken = poll_some(taking.as_mut()), if taking.is_some() => {
                    taking = None;
                    waiting.push(self.answer(taken));
                }
                () = self.stop.cancelled(), if end.is_none() => {
                    end = Some(Err(to_status(Error::unavailable("ingest is stopping"))));
                }
                error = &mut lost, if end.is_none() => end = Some(Err(to_status(error))),
                request = requests.message(), if reads => match request {
                    Ok(Some(request)) => taking = Some(self.take(request).boxed()),
                    Ok(None) => end = Some(Ok(())),
                    Err(status) => end = Some(Err(status)),
                },
            }
        }
        if let Some(Err(status)) = end {
            self.send(Err(status)).await;
        }
    }

    /// Whether the client still takes answers; one that does not read them is given up when ingest stops.
    async fn send(&self, answer: std::result::Result<PublishStreamResponse, Status>) -> bool {
        let given_up = async {
            self.stop.cancelled().await;
            sleep(SEND_GRACE).await;
        };
        tokio::select! {
            sent = self.answers.send(answer) => sent.is_ok(),
            () = given_up => false,
        }
    }

    async fn take(&self, request: PublishStreamRequest) -> UnderWay {
        let size = request.encoded_len();
        let PublishStreamRequest { item, device, readings, traceparent } = request;
        let taken = async {
            check_size(&self.edge, size)?;
            ingest::take(&self.edge, &self.who, &device, readings, &traceparent, (size, true)).await
        };
        UnderWay { item, taken: taken.await }
    }

    async fn answer(&self, under_way: UnderWay) -> PublishStreamResponse {
        let UnderWay { item, taken } = under_way;
        let done = async {
            let mut taken = taken?;
            let position = ingest::acked(&mut taken).await?;
            Ok((taken, position))
        };
        match done.await {
            Ok((taken, position)) => {
                let all_good = taken.good == taken.statuses.len();
                PublishStreamResponse {
                    item,
                    status: Some(to_item(Ok(()))),
                    statuses: if all_good { Vec::new() } else { taken.statuses },
                    position: position.map(|position| position.to_string()).unwrap_or_default(),
                }
            }
            Err(error) => {
                let error = ingest::refused(&self.edge, &self.who, error);
                PublishStreamResponse { item, status: Some(to_item(Err(&error))), ..Default::default() }
            }
        }
    }

    /// Returns when the credential is no longer good.
    async fn access_lost(&self) -> Error {
        let mut changes = self.edge.access.changes();
        let mut recheck = interval(RECHECK_EVERY);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        recheck.reset();
        loop {
            let concerned = tokio::select! {
                change = changes.recv() => change.map_or(true, |change| change.concerns_principal(&self.who)),
                _ = recheck.tick() => true,
            };
            if concerned
                && let Err(error) = self.check_access().await
                && !error.kind().retryable()
            {
                return error;
            }
        }
    }
}

impl Exchange {
    async fn check_access(&self) -> Result<()> {
        self.edge.access.check_shown(&self.who)?; // known also while the registry is away
        self.edge.access.authenticate_headers(&self.headers).await.map(drop)
    }
}

async fn poll_some<T>(future: Option<&mut BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
