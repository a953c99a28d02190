//! `weir.ingest.v1.SessionService`.

use std::sync::Arc;

use tonic::{Request, Response};
use weir_core::{Error, Result, TenantId, name, principal::Scope};
use weir_grpc::{Answer, page, principal, to_status};
use weir_proto::ingest::v1::{
    GetPresenceRequest, GetPresenceResponse, ListSessionsRequest, ListSessionsResponse, Session,
    session_service_server::SessionService,
};

use super::some;
use crate::{edge::Edge, sessions::SessionInfo};

pub(super) struct Api {
    edge: Arc<Edge>,
}

impl Api {
    pub(super) fn new(edge: Arc<Edge>) -> Self {
        Self { edge }
    }

    async fn list(&self, request: &ListSessionsRequest) -> Result<ListSessionsResponse> {
        let size = page::size(request.page_size)?;
        let key = page::key(&request.page_token)?;
        if request.parent.contains("/devices/") {
            let (tenant, device) = name::parse_device("parent", &request.parent)?;
            self.edge.access.device(&tenant, &device).await?;
            // A device has a handful: one page.
            let sessions = self.edge.sessions.of(&tenant, &device).await?;
            return Ok(response(&tenant, sessions, None));
        }
        let tenant = name::parse_tenant("parent", &request.parent)?;
        let (sessions, next) = self.edge.sessions.list(&tenant, key.as_deref(), size).await?;
        Ok(response(&tenant, sessions, next))
    }
}

#[tonic::async_trait]
impl SessionService for Api {
    async fn get_presence(&self, request: Request<GetPresenceRequest>) -> Answer<GetPresenceResponse> {
        let who = principal(request.extensions())?.clone();
        let done = async {
            let (tenant, device) = name::parse_device("device", &request.get_ref().device)?;
            who.require(&tenant, Scope::Read)?;
            self.edge.access.device(&tenant, &device).await?; // an unknown device is not merely absent
            let sessions = self.edge.sessions.of(&tenant, &device).await?;
            Ok::<_, Error>(GetPresenceResponse {
                connected: sessions.iter().any(|session| session.connected),
                sessions: sessions.into_iter().map(|session| convert(&tenant, session)).collect(),
            })
        };
        Ok(Response::new(done.await.map_err(to_status)?))
    }

    async fn list_sessions(&self, request: Request<ListSessionsRequest>) -> Answer<ListSessionsResponse> {
        let who = principal(request.extensions())?.clone();
        let parent = request.get_ref().parent.split("/devices/").next().unwrap_or_default();
        let tenant = name::parse_tenant("parent", parent).map_err(to_status)?;
        who.require(&tenant, Scope::Read).map_err(to_status)?;
        Ok(Response::new(self.list(request.get_ref()).await.map_err(to_status)?))
    }
}

fn response(tenant: &TenantId, sessions: Vec<SessionInfo>, next: Option<Vec<u8>>) -> ListSessionsResponse {
    ListSessionsResponse {
        sessions: sessions.into_iter().map(|session| convert(tenant, session)).collect(),
        next_page_token: next.map(page::token).unwrap_or_default(),
    }
}

fn convert(tenant: &TenantId, session: SessionInfo) -> Session {
    let device = name::device(tenant, &session.device);
    Session {
        name: format!("{device}/sessions/{}", percent(&session.client_id)),
        device,
        client_id: session.client_id,
        connected: session.connected,
        protocol: session.protocol,
        remote_address: session.remote,
        connect_time: some(session.connected_at),
        last_seen_time: some(session.last_seen),
        subscriptions: session.subscriptions,
        expire_time: session.expires_at.and_then(some),
    }
}

/// RFC 3986: all but unreserved characters.
fn percent(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}
