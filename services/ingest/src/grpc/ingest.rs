//! `weir.ingest.v1.IngestService`.

use std::sync::Arc;

use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};
use weir_core::{Error, Position, Result, principal::Principal};
use weir_grpc::{Answer, principal, to_item, to_status};
use weir_proto::{
    common::v1::{Reading, Status as Item},
    ingest::v1::{
        PublishRequest, PublishResponse, PublishStreamRequest, PublishStreamResponse,
        ingest_service_server::IngestService,
    },
};

use super::{PROTOCOL, check_size, publisher, stream};
use crate::{
    edge::Edge,
    intake::{Pending, Source},
    publish,
};

/// Answers that wait for a slow client; then its stream is not read.
const ANSWERS: usize = 64;

pub(super) struct Api {
    edge: Arc<Edge>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// An item that was taken in as far as it was good.
pub(super) struct Taken {
    /// The ack of what was good; none where nothing was.
    pub(super) pending: Option<Pending>,
    /// One for each reading.
    pub(super) statuses: Vec<Item>,
    /// How many are good.
    pub(super) good: usize,
}

impl Api {
    pub(super) fn new(edge: Arc<Edge>, stop: CancellationToken, tasks: TaskTracker) -> Self {
        Self { edge, stop, tasks }
    }
}

/// Takes an item of so many bytes in: what is good goes to the log, what is not has its status. Waits for room as long as it
/// takes, unless `patient` is false.
pub(super) async fn take(
    edge: &Edge,
    who: &Principal,
    device: &str,
    readings: Vec<Reading>,
    traceparent: &str,
    (bytes, patient): (usize, bool),
) -> Result<Taken> {
    let device = publisher(edge, who, device).await?;
    let trace = publish::trace_context(traceparent)?;
    let readings = edge.decoder.readings(&device, readings)?;
    let statuses = readings.iter().map(|reading| to_item(reading.as_ref().map(drop))).collect();
    for error in readings.iter().filter_map(|reading| reading.as_ref().err()) {
        edge.metrics.refused(PROTOCOL, error);
        edge.metrics.tenants.refused(&device.device.tenant);
    }
    let good: Vec<_> = readings.into_iter().flatten().collect();
    let count = good.len();
    if good.is_empty() {
        return Ok(Taken { pending: None, statuses, good: 0 });
    }
    let message = device.message(good, trace);
    let source = Source::now(PROTOCOL, bytes);
    let pending = if patient {
        edge.intake.enqueue(message, source).await?
    } else {
        edge.intake.enqueue_within(message, source, publish::PATIENCE).await?
    };
    Ok(Taken { pending: Some(pending), statuses, good: count })
}

/// Waits for the log.
pub(super) async fn acked(taken: &mut Taken) -> Result<Option<Position>> {
    let Some(pending) = taken.pending.take() else { return Ok(None) };
    let accepted = pending.await?;
    Ok(Some(accepted.position))
}

/// Counts what was refused as a whole.
pub(super) fn refused(edge: &Edge, who: &Principal, error: Error) -> Error {
    edge.metrics.refused(PROTOCOL, &error);
    if let Ok(tenant) = who.tenant() {
        edge.metrics.tenants.refused(tenant);
    }
    error
}

#[tonic::async_trait]
impl IngestService for Api {
    async fn publish(&self, request: Request<PublishRequest>) -> Answer<PublishResponse> {
        let who = principal(request.extensions())?.clone();
        let request = request.into_inner();
        let size = request.encoded_len();
        let done = async {
            check_size(&self.edge, size)?;
            let PublishRequest { device, readings, traceparent } = request;
            let mut taken = take(&self.edge, &who, &device, readings, &traceparent, (size, false)).await?;
            let position = acked(&mut taken).await?;
            Ok((taken.statuses, position))
        };
        let (statuses, position) = done.await.map_err(|error| to_status(refused(&self.edge, &who, error)))?;
        let position = position.map(|position| position.to_string()).unwrap_or_default();
        Ok(Response::new(PublishResponse { statuses, position }))
    }

    type PublishStreamStream = ReceiverStream<std::result::Result<PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishStreamRequest>>,
    ) -> Answer<Self::PublishStreamStream> {
        let who = principal(request.extensions())?.clone();
        let headers = request.metadata().clone().into_headers();
        let (answers, receiver) = mpsc::channel(ANSWERS);
        let exchange =
            stream::Exchange { edge: Arc::clone(&self.edge), who, headers, answers, stop: self.stop.clone() };
        self.tasks.spawn(exchange.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
