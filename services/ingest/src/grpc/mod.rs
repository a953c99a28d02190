//! The gRPC services of the edge: who, what, one call, convert.

use std::sync::Arc;

use tonic::service::RoutesBuilder;
use weir_core::{
    Error, ErrorKind, Result, Timestamp, name,
    principal::{Principal, Scope},
};
use weir_proto::ingest::v1::{
    dead_letter_service_server::DeadLetterServiceServer, ingest_service_server::IngestServiceServer,
    session_service_server::SessionServiceServer,
};

use crate::{Service, access::DeviceAccess, edge::Edge, metrics::Protocol};

mod dead_letters;
mod ingest;
mod sessions;
mod stream;

/// What is spoken here.
const PROTOCOL: Protocol = Protocol::Grpc;
/// What tonic takes of one message before it ends the call; what is over the packet limit but below this is refused as one
/// item.
const DECODED_MAX: usize = 4 << 20;

impl Service {
    /// Adds the services of the edge.
    pub fn add_routes(self: &Arc<Self>, routes: &mut RoutesBuilder) {
        let ingest = ingest::Api::new(Arc::clone(&self.edge), self.stop.clone(), self.tasks.clone());
        routes.add_service(IngestServiceServer::new(ingest).max_decoding_message_size(DECODED_MAX));
        routes.add_service(SessionServiceServer::new(sessions::Api::new(Arc::clone(&self.edge))));
        routes.add_service(DeadLetterServiceServer::new(dead_letters::Api::new(Arc::clone(&self.edge))));
    }
}

/// The device that `who` may publish for under the name `device`.
async fn publisher(edge: &Edge, who: &Principal, device: &str) -> Result<DeviceAccess> {
    match who {
        Principal::Device { tenant, device: own, uid, .. } => {
            let own = edge.access.own(tenant, own, *uid).await?;
            if device.is_empty() {
                return Ok(own);
            }
            let (of, id) = name::parse_device("device", device)?;
            if of != *tenant {
                return Err(Error::permission_denied(format!(
                    "this device has no access to tenants/{of}; it is one of tenants/{tenant}"
                )));
            }
            if id == own.device.id { Ok(own) } else { edge.access.child(&own, id.as_str()).await }
        }
        Principal::Token { .. } | Principal::Service => {
            let (tenant, id) = name::parse_device("device", device)?;
            who.require(&tenant, Scope::Write)?;
            edge.access.enabled(&tenant, &id).await
        }
    }
}

/// Checks the size of an item as it came.
fn check_size(edge: &Edge, bytes: usize) -> Result<()> {
    let max = edge.config.limits.packet.as_usize();
    if bytes <= max {
        return Ok(());
    }
    let text = format!("the item has {bytes} bytes; it may have at most {max}");
    Err(Error::new(ErrorKind::InvalidArgument, "PACKET_TOO_LARGE", text).with_limit(max))
}

fn some(ts: Timestamp) -> Option<prost_types::Timestamp> {
    Some(weir_grpc::convert::from_timestamp(ts))
}
