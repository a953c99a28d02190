//! `weir.ingest.v1.DeadLetterService`.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response};
use weir_core::{Error, Result, TenantId, Uid, name, principal::Scope};
use weir_grpc::{Answer, page, principal, to_status};
use weir_proto::ingest::v1::{
    DeadLetter, DeadLetterKind, GetDeadLetterRequest, GetDeadLetterResponse, ListDeadLettersRequest,
    ListDeadLettersResponse, dead_letter_service_server::DeadLetterService,
};

use super::some;
use crate::{dead_letters::Letter, edge::Edge};

pub(super) struct Api {
    edge: Arc<Edge>,
}

impl Api {
    pub(super) fn new(edge: Arc<Edge>) -> Self {
        Self { edge }
    }

    async fn list(
        &self,
        tenant: &TenantId,
        request: &ListDeadLettersRequest,
    ) -> Result<ListDeadLettersResponse> {
        let size = page::size(request.page_size)?;
        let before = page::key(&request.page_token)?.map(|key| to_uid(&key)).transpose()?;
        let (letters, evicted) = self.edge.dead_letters.list(tenant, before, size).await?;
        let next = letters.last().filter(|_| letters.len() == size);
        Ok(ListDeadLettersResponse {
            next_page_token: next.map(|last| page::token(last.id.to_bytes())).unwrap_or_default(),
            dead_letters: letters.into_iter().map(|letter| convert(tenant, letter, Bytes::new())).collect(),
            evicted: i64::try_from(evicted).unwrap_or(i64::MAX),
        })
    }
}

#[tonic::async_trait]
impl DeadLetterService for Api {
    async fn get_dead_letter(&self, request: Request<GetDeadLetterRequest>) -> Answer<GetDeadLetterResponse> {
        let who = principal(request.extensions())?.clone();
        let done = async {
            let (tenant, id) = name::parse_child("name", &request.get_ref().name, "deadLetters")?;
            who.require(&tenant, Scope::Read)?;
            let id = id.parse().map_err(|error: Error| error.with_field("name"))?;
            let (letter, payload) = self.edge.dead_letters.get(&tenant, id).await?;
            Ok::<_, Error>(convert(&tenant, letter, payload))
        };
        let dead_letter = Some(done.await.map_err(to_status)?);
        Ok(Response::new(GetDeadLetterResponse { dead_letter }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Answer<ListDeadLettersResponse> {
        let who = principal(request.extensions())?.clone();
        let tenant = name::parse_tenant("parent", &request.get_ref().parent).map_err(to_status)?;
        who.require(&tenant, Scope::Read).map_err(to_status)?;
        Ok(Response::new(self.list(&tenant, request.get_ref()).await.map_err(to_status)?))
    }
}

fn to_uid(key: &[u8]) -> Result<Uid> {
    <[u8; 16]>::try_from(key).map(Uid::from_bytes).map_err(|_| {
        Error::invalid("page_token", "PAGE_TOKEN_INVALID", "page_token is not one that a page gave")
    })
}

fn convert(tenant: &TenantId, letter: Letter, payload: Bytes) -> DeadLetter {
    DeadLetter {
        name: name::child(tenant, "deadLetters", letter.id),
        kind: DeadLetterKind::Payload.into(),
        device: name::device(tenant, &letter.device),
        topic: letter.topic,
        create_time: some(letter.at),
        reason: letter.reason,
        message: letter.message,
        field: letter.field,
        payload_bytes: i64::try_from(letter.payload_bytes).unwrap_or(i64::MAX),
        payload: payload.into(),
    }
}
