//! `weir.storage.v1.PoisonFrameService`: check, one call, convert.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response};
use weir_core::{Error, Result};
use weir_grpc::{Answer, convert::from_timestamp, page, principal, to_status};
use weir_proto::storage::v1::{
    DeletePoisonFrameRequest, DeletePoisonFrameResponse, GetPoisonFrameRequest, GetPoisonFrameResponse,
    ListPoisonFramesRequest, ListPoisonFramesResponse, PoisonFrame, ReplayPoisonFrameRequest,
    ReplayPoisonFrameResponse, poison_frame_service_server::PoisonFrameService,
};

use crate::{
    Service,
    poison::{Info, Place},
};

/// The handlers. Every method needs the scope `platform`: a frame holds messages of many tenants.
pub(super) struct PoisonFrames(pub(super) Arc<Service>);

#[tonic::async_trait]
impl PoisonFrameService for PoisonFrames {
    async fn list_poison_frames(
        &self,
        request: Request<ListPoisonFramesRequest>,
    ) -> Answer<ListPoisonFramesResponse> {
        principal(request.extensions())?.require_platform().map_err(to_status)?;
        let listed = async {
            let size = page::size(request.get_ref().page_size)?;
            let found = self.0.poison_frames(after(&request.get_ref().page_token)?, size).await?;
            let next = found.last().filter(|_| found.len() == size);
            let next_page_token = next.map(|(at, _)| page::token(at.to_string())).unwrap_or_default();
            let poison_frames = found.into_iter().map(|(at, info)| convert(at, info, Bytes::new())).collect();
            Ok(ListPoisonFramesResponse { poison_frames, next_page_token })
        };
        Ok(Response::new(listed.await.map_err(to_status)?))
    }

    async fn get_poison_frame(
        &self,
        request: Request<GetPoisonFrameRequest>,
    ) -> Answer<GetPoisonFrameResponse> {
        principal(request.extensions())?.require_platform().map_err(to_status)?;
        let at = place(&request.get_ref().name).map_err(to_status)?;
        let (info, frame) = self.0.poison_frame(at).await.map_err(to_status)?;
        Ok(Response::new(GetPoisonFrameResponse { poison_frame: Some(convert(at, info, frame)) }))
    }

    async fn replay_poison_frame(
        &self,
        request: Request<ReplayPoisonFrameRequest>,
    ) -> Answer<ReplayPoisonFrameResponse> {
        principal(request.extensions())?.require_platform().map_err(to_status)?;
        let at = place(&request.get_ref().name).map_err(to_status)?;
        let sequence = self.0.replay_poison_frame(at).await.map_err(to_status)?;
        Ok(Response::new(ReplayPoisonFrameResponse { sequence: i64::try_from(sequence).unwrap_or(i64::MAX) }))
    }

    async fn delete_poison_frame(
        &self,
        request: Request<DeletePoisonFrameRequest>,
    ) -> Answer<DeletePoisonFrameResponse> {
        principal(request.extensions())?.require_platform().map_err(to_status)?;
        let at = place(&request.get_ref().name).map_err(to_status)?;
        self.0.forget_poison_frame(at).await.map_err(to_status)?;
        Ok(Response::new(DeletePoisonFrameResponse {}))
    }
}

fn after(page_token: &str) -> Result<Option<Place>> {
    let Some(key) = page::key(page_token)? else { return Ok(None) };
    let place = std::str::from_utf8(&key).ok().and_then(|text| text.parse().ok());
    place.map(Some).ok_or_else(|| {
        Error::invalid("page_token", "PAGE_TOKEN_INVALID", "page_token is not one that a page gave")
    })
}

fn place(name: &str) -> Result<Place> {
    name.strip_prefix("poisonFrames/").unwrap_or_default().parse()
}

fn convert(at: Place, info: Info, frame: Bytes) -> PoisonFrame {
    PoisonFrame {
        name: format!("poisonFrames/{at}"),
        partition: at.partition.0.into(),
        generation: at.generation.into(),
        sequence: i64::try_from(at.sequence).unwrap_or(i64::MAX),
        frame_id: info.id.to_string(),
        store_time: Some(from_timestamp(info.stored_at)),
        frame_bytes: i64::try_from(info.bytes).unwrap_or(i64::MAX),
        reason: info.reason,
        message: info.message,
        frame: frame.into(),
    }
}
