//! `weir.storage.v1` on the wire: who and what, one call, convert.

mod convert;
mod deadline;
mod poison_frames;
mod request;
mod rules;

use std::sync::Arc;

use futures::{StreamExt as _, stream::BoxStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, service::RoutesBuilder};
use weir_core::{Error, Result};
use weir_grpc::{Answer, principal, to_status};
use weir_proto::storage::v1::{
    AggregateRequest, AggregateResponse, LatestRequest, LatestResponse, QueryRequest, QueryResponse,
    TailRequest, TailResponse,
    poison_frame_service_server::PoisonFrameServiceServer,
    rule_scan_service_server::RuleScanServiceServer,
    telemetry_service_server::{TelemetryService, TelemetryServiceServer},
};

use self::{deadline::Deadline, poison_frames::PoisonFrames, rules::Rules};
use crate::Service;

type Stream<T> = BoxStream<'static, Result<T, Status>>;

impl Service {
    /// Adds `weir.storage.v1` to a server, also the service that only services may call. Behind it every call must carry a
    /// principal (`weir_grpc::AuthLayer`).
    pub fn add_routes(self: &Arc<Self>, routes: &mut RoutesBuilder) {
        let rules = Rules { reader: Arc::clone(self) as _, closing: self.closing.clone() };
        routes
            .add_service(TelemetryServiceServer::new(Telemetry(Arc::clone(self))))
            .add_service(PoisonFrameServiceServer::new(PoisonFrames(Arc::clone(self))))
            .add_service(RuleScanServiceServer::new(rules));
    }
}

struct Telemetry(Arc<Service>);

#[tonic::async_trait]
impl TelemetryService for Telemetry {
    type QueryStream = Stream<QueryResponse>;
    type AggregateStream = Stream<AggregateResponse>;
    type TailStream = Stream<TailResponse>;

    async fn query(&self, request: Request<QueryRequest>) -> Answer<Self::QueryStream> {
        let deadline = Deadline::of(request.metadata());
        let caller = principal(request.extensions())?.clone();
        let (asked, positions) = request::points(&caller, request.into_inner()).map_err(refuse)?;
        let points = deadline.limit(self.0.query(asked, &positions, deadline.at())).await.map_err(refuse)?;
        let pages = futures::stream::try_unfold(points, move |mut points| async move {
            let page = deadline.limit(points.next()).await?;
            Ok(page.map(|page| (convert::query_response(page), points)))
        });
        Ok(Response::new(serve(pages.boxed(), &self.0.closing)))
    }

    async fn aggregate(&self, request: Request<AggregateRequest>) -> Answer<Self::AggregateStream> {
        let deadline = Deadline::of(request.metadata());
        let caller = principal(request.extensions())?.clone();
        let (asked, positions) = request::aggregates(&caller, request.into_inner()).map_err(refuse)?;
        let rows =
            deadline.limit(self.0.aggregate(asked, &positions, deadline.at())).await.map_err(refuse)?;
        let pages = futures::stream::try_unfold(rows, move |mut rows| async move {
            let page = deadline.limit(rows.next()).await?;
            Ok(page.map(|page| (convert::aggregate_response(page), rows)))
        });
        Ok(Response::new(serve(pages.boxed(), &self.0.closing)))
    }

    async fn latest(&self, request: Request<LatestRequest>) -> Answer<LatestResponse> {
        let deadline = Deadline::of(request.metadata());
        let caller = principal(request.extensions())?.clone();
        let (asked, positions) = request::latest(&caller, request.into_inner()).map_err(refuse)?;
        let page = deadline.limit(self.0.latest(asked, &positions, deadline.at())).await.map_err(refuse)?;
        Ok(Response::new(convert::latest_response(page)))
    }

    async fn tail(&self, request: Request<TailRequest>) -> Answer<Self::TailStream> {
        let deadline = Deadline::of(request.metadata());
        let caller = principal(request.extensions())?.clone();
        let asked = request::tail(&caller, request.into_inner()).map_err(refuse)?;
        let tail = deadline.limit(self.0.tail(asked)).await.map_err(refuse)?;
        let messages = futures::stream::try_unfold(tail, move |mut tail| async move {
            let message = deadline.limit(tail.next()).await?;
            Ok(message.map(|message| (convert::tail_response(message), tail)))
        });
        Ok(Response::new(serve(messages.boxed(), &self.0.closing)))
    }
}

/// Ends a stream where the service does.
fn serve<T: Send + 'static>(pages: BoxStream<'static, Result<T>>, closing: &CancellationToken) -> Stream<T> {
    let open = Some((pages, closing.clone()));
    let served = futures::stream::unfold(open, |open| async {
        let (mut pages, closing) = open?;
        tokio::select! {
            page = pages.next() => page.map(|page| (page, Some((pages, closing)))),
            () = closing.cancelled() => Some((Err(Error::unavailable("storage is shutting down")), None)),
        }
    });
    served.map(|page| page.map_err(refuse)).boxed()
}

/// As every error, but for a cursor that points before the log: gRPC has a code for it that the domain does not.
fn refuse(error: Error) -> Status {
    let too_old = error.reason() == "CURSOR_TOO_OLD";
    let status = to_status(error);
    if !too_old {
        return status;
    }
    Status::with_details_and_metadata(
        Code::OutOfRange,
        status.message(),
        bytes::Bytes::copy_from_slice(status.details()),
        status.metadata().clone(),
    )
}
