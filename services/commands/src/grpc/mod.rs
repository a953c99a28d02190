//! `weir.commands.v1`: each handler is who and what, one call, convert.

mod convert;
mod queue;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, metadata::MetadataMap, service::RoutesBuilder};
use weir_core::{
    Error, Result, Uid,
    command::{Command, DeviceKey},
    name,
    port::SendCommand,
    principal::{Principal, Scope},
};
use weir_grpc::{Answer, convert::to_duration_opt, page, principal, to_status};
use weir_proto::commands::v1::{
    CancelCommandRequest, CancelCommandResponse, GetCommandRequest, GetCommandResponse, InvokeCommandRequest,
    InvokeCommandResponse, ListCommandsRequest, ListCommandsResponse, SendCommandRequest,
    SendCommandResponse, WatchCommandsRequest, WatchCommandsResponse,
    command_service_server::{CommandService, CommandServiceServer},
    queue_service_server::QueueServiceServer,
};

use self::queue::Queue;
use crate::{
    Service,
    list::{Cursor, Filter},
    watch,
};

/// How long a command waits for its answer where nobody says.
const TTL_DEFAULT: Duration = Duration::from_secs(600);
/// How long Invoke waits where nobody says, and at most.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
const WAIT_MAX: Duration = Duration::from_secs(600);
/// An answer must be on its way before the caller's deadline passes.
const DEADLINE_MARGIN: Duration = Duration::from_millis(200);

impl Service {
    /// Adds `weir.commands.v1`, also the service that only services may call.
    pub fn add_routes(self: &Arc<Self>, routes: &mut RoutesBuilder) {
        let queue = Queue { sender: Arc::clone(self) as _, queue: Arc::clone(self) as _ };
        routes.add_service(CommandServiceServer::new(Grpc(Arc::clone(self))));
        routes.add_service(QueueServiceServer::new(queue));
    }
}

/// The handlers; streams outlive a call, so they hold the service themselves.
struct Grpc(Arc<Service>);

#[tonic::async_trait]
impl CommandService for Grpc {
    async fn send_command(&self, request: Request<SendCommandRequest>) -> Answer<SendCommandResponse> {
        let caller = principal(request.extensions())?.clone();
        let sent = self.send(&caller, request.into_inner()).await.map_err(to_status)?;
        Ok(Response::new(SendCommandResponse { command: Some(convert::from_command(sent)) }))
    }

    async fn invoke_command(&self, request: Request<InvokeCommandRequest>) -> Answer<InvokeCommandResponse> {
        let caller = principal(request.extensions())?.clone();
        let deadline = deadline(request.metadata());
        let command = self.invoke(&caller, request.into_inner(), deadline).await.map_err(to_status)?;
        Ok(Response::new(InvokeCommandResponse { command: Some(convert::from_command(command)) }))
    }

    async fn get_command(&self, request: Request<GetCommandRequest>) -> Answer<GetCommandResponse> {
        let caller = principal(request.extensions())?.clone();
        let get = async {
            let (tenant, id) = parse_command("name", &request.get_ref().name)?;
            caller.require(&tenant, Scope::Read)?;
            self.0.find(&tenant, id.parse()?).await
        };
        let command = get.await.map_err(to_status)?;
        Ok(Response::new(GetCommandResponse { command: Some(convert::from_command(command)) }))
    }

    async fn list_commands(&self, request: Request<ListCommandsRequest>) -> Answer<ListCommandsResponse> {
        let caller = principal(request.extensions())?.clone();
        let found = self.list(&caller, request.into_inner()).await.map_err(to_status)?;
        Ok(Response::new(found))
    }

    async fn cancel_command(&self, request: Request<CancelCommandRequest>) -> Answer<CancelCommandResponse> {
        let caller = principal(request.extensions())?.clone();
        let cancel = async {
            let (tenant, id) = parse_command("name", &request.get_ref().name)?;
            caller.require(&tenant, Scope::Write)?;
            self.0.cancel(&tenant, id.parse()?).await
        };
        let command = cancel.await.map_err(to_status)?;
        Ok(Response::new(CancelCommandResponse { command: Some(convert::from_command(command)) }))
    }

    type WatchCommandsStream = BoxStream<'static, Result<WatchCommandsResponse, Status>>;

    async fn watch_commands(
        &self,
        request: Request<WatchCommandsRequest>,
    ) -> Answer<Self::WatchCommandsStream> {
        let caller = principal(request.extensions())?.clone();
        let (scope, resume) = watched(&caller, request.get_ref()).map_err(to_status)?;
        let items = ReceiverStream::new(self.0.watch(scope, resume));
        Ok(Response::new(items.map(convert::from_item).boxed()))
    }
}

impl Grpc {
    async fn send(&self, caller: &Principal, request: SendCommandRequest) -> Result<Command> {
        let (tenant, device) = name::parse_device("device", &request.device)?;
        caller.require(&tenant, Scope::Write)?;
        let found = self.0.registry.device(&tenant, &device).await?;
        let payload = if request.payload.is_empty() { "{}".to_owned() } else { request.payload };
        let request_id =
            if request.request_id.is_empty() { Uid::random().to_string() } else { request.request_id };
        let send = SendCommand {
            to: DeviceKey { tenant, device, uid: found.uid },
            name: request.command,
            payload: payload.into(),
            ttl: to_duration_opt("ttl", request.ttl.as_ref())?.unwrap_or(TTL_DEFAULT),
            order: convert::to_order(request.order)?,
            request_id,
            actor: caller.actor(),
        };
        self.0.send_command(send).await
    }

    async fn invoke(
        &self,
        caller: &Principal,
        request: InvokeCommandRequest,
        deadline: Option<Duration>,
    ) -> Result<Command> {
        let send = request.send.ok_or_else(|| Error::invalid("send", "FIELD_MISSING", "send is missing"))?;
        let wait = to_duration_opt("wait", request.wait.as_ref())?.unwrap_or(WAIT_DEFAULT);
        if wait > WAIT_MAX {
            let what = format!(
                "wait is {} s, at most {} s (10 min) are allowed",
                wait.as_secs(),
                WAIT_MAX.as_secs()
            );
            return Err(
                Error::invalid("wait", "WAIT_INVALID", what).with_limit(format!("{}s", WAIT_MAX.as_secs()))
            );
        }
        let until = tokio::time::Instant::now() + deadline.map_or(wait, |deadline| wait.min(deadline));
        let sent = self.send(caller, send).await.map_err(|error| match error.field() {
            Some(_) => error.within("send"),
            None => error,
        })?;
        self.0.wait_for_end(sent, until.saturating_duration_since(tokio::time::Instant::now())).await
    }

    async fn list(&self, caller: &Principal, request: ListCommandsRequest) -> Result<ListCommandsResponse> {
        let tenant = name::parse_tenant("parent", &request.parent)?;
        caller.require(&tenant, Scope::Read)?;
        let size = page::size(request.page_size)?;
        let before = page::key(&request.page_token)?.map(|key| Cursor::from_bytes(&key)).transpose()?;
        let device = match request.device.as_str() {
            "" => None,
            device => {
                let (of, device) = name::parse_device("device", device)?;
                caller.require(&of, Scope::Read)?;
                let uid = self.0.registry.device(&of, &device).await?.uid;
                Some(DeviceKey { tenant: of, device, uid })
            }
        };
        let filter = Filter { tenant, device, state: convert::to_state(request.state)? };
        let found = self.0.list(&filter, before, size).await?;
        Ok(ListCommandsResponse {
            commands: found.commands.into_iter().map(convert::from_command).collect(),
            next_page_token: found.next.map(|next| page::token(next.to_bytes())).unwrap_or_default(),
        })
    }
}

fn parse_command<'a>(field: &str, full_name: &'a str) -> Result<(weir_core::TenantId, &'a str)> {
    name::parse_child(field, full_name, "commands")
}

fn watched(caller: &Principal, request: &WatchCommandsRequest) -> Result<(watch::Scope, watch::Cursor)> {
    let tenant = name::parse_tenant("parent", &request.parent)?;
    caller.require(&tenant, Scope::Read)?;
    let device = match request.device.as_str() {
        "" => None,
        device => {
            let (of, device) = name::parse_device("device", device)?;
            caller.require(&of, Scope::Read)?;
            Some(device)
        }
    };
    Ok((watch::Scope { tenant, device }, convert::to_cursor(&request.resume_cursor)?))
}

/// How long the caller waits, less what the answer's way takes (gRPC over HTTP/2, `Timeout`).
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(number.saturating_mul(3_600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout.saturating_sub(DEADLINE_MARGIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_deadline_is_read_in_every_unit() {
        for (text, expected) in
            [("1S", Some(800)), ("1500m", Some(1_300)), ("1M", Some(59_800)), ("5", None), ("", None)]
        {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(deadline(&metadata), expected.map(Duration::from_millis), "{text}");
        }
    }
}
