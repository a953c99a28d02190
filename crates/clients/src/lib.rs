//! gRPC clients: for users, one connection with its credential and a typed stub for each public service; for services, the
//! call ports of `weir-core` over the network ([`RegistryClient`], [`CommandsClient`], [`StorageClient`]), each to a [`Peer`],
//! and the [`Gateway`] by which one process answers for those beside it.
//!
//! And what a process remembers of a registry that is another process ([`CachedRegistry`]).
//!
//! Not here: conversions and error mapping, which servers share (`weir-grpc`), and anything that decides.

mod cached;
pub mod certificates;
mod commands;
mod gateway;
mod peer;
mod registry;
mod storage;

pub use commands::CommandsClient;
pub use gateway::Gateway;
pub use peer::{Identity, Peer};
pub use registry::RegistryClient;
pub use storage::StorageClient;

use std::time::Duration;

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use weir_core::{Error, ErrorKind, Result};
use weir_proto::{
    analytics::v1::{alarm_service_client::AlarmServiceClient, rule_service_client::RuleServiceClient},
    commands::v1::command_service_client::CommandServiceClient,
    ingest::v1::{
        dead_letter_service_client::DeadLetterServiceClient, ingest_service_client::IngestServiceClient,
        session_service_client::SessionServiceClient,
    },
    registry::v1::{
        credential_service_client::CredentialServiceClient, device_service_client::DeviceServiceClient,
        profile_service_client::ProfileServiceClient, tenant_service_client::TenantServiceClient,
        token_service_client::TokenServiceClient,
    },
    storage::v1::{
        poison_frame_service_client::PoisonFrameServiceClient,
        telemetry_service_client::TelemetryServiceClient,
    },
};

pub use cached::CachedRegistry;

/// How long a connection attempt may take: a server that is there answers in milliseconds, also across a continent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pings find a dead peer before a person gives up waiting.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Puts the bearer token on every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A channel with a credential.
pub type Authenticated = InterceptedService<Channel, Bearer>;

/// A connection to a Weir, with a credential. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct Connection {
    channel: Channel,
    bearer: Bearer,
}

impl Connection {
    /// Connects to `address` (`http://127.0.0.1:8081`, or `127.0.0.1:8081`) as the holder of `token`.
    ///
    /// # Errors
    /// `InvalidArgument` for an address or token that cannot be one; `Unavailable` (`UNREACHABLE`) where nobody answers.
    pub async fn open(address: &str, token: &str) -> Result<Self> {
        let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|source| {
                Error::invalid(
                    "addr",
                    "ADDRESS_INVALID",
                    format!("{address:?} is not an address such as 127.0.0.1:8081"),
                )
                .with_source(source)
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|source| {
            Error::new(
                ErrorKind::Unavailable,
                "UNREACHABLE",
                format!("nobody answers at {address}; is Weir running? (`weir dev` starts one here)"),
            )
            .with_source(source)
        })?;
        Ok(Self { channel, bearer: bearer(token)? })
    }

    /// The same connection as the holder of another token.
    ///
    /// # Errors
    /// `TOKEN_INVALID` for what cannot be a token.
    pub fn with_token(&self, token: &str) -> Result<Self> {
        Ok(Self { channel: self.channel.clone(), bearer: bearer(token)? })
    }
}

fn bearer(token: &str) -> Result<Bearer> {
    let value = format!("Bearer {token}").parse().map_err(|_| {
        Error::invalid("token", "TOKEN_INVALID", "the token holds characters that cannot be part of one")
    })?;
    Ok(Bearer(value))
}

macro_rules! stubs {
    ($($(#[$doc:meta])* $name:ident: $client:ident),* $(,)?) => {
        impl Connection {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> $client<Authenticated> {
                    $client::with_interceptor(self.channel.clone(), self.bearer.clone())
                }
            )*
        }
    };
}

stubs! {
    /// Tenants, and who the caller is.
    tenants: TenantServiceClient,
    /// API tokens.
    tokens: TokenServiceClient,
    /// Device profiles.
    profiles: ProfileServiceClient,
    /// Devices.
    devices: DeviceServiceClient,
    /// Devices' credentials.
    credentials: CredentialServiceClient,
    /// The device edge.
    ingest: IngestServiceClient,
    /// Who is connected.
    sessions: SessionServiceClient,
    /// Refused payloads.
    dead_letters: DeadLetterServiceClient,
    /// Stored telemetry.
    telemetry: TelemetryServiceClient,
    /// Frames that could not be decoded.
    poison_frames: PoisonFrameServiceClient,
    /// Rules.
    rules: RuleServiceClient,
    /// Alarms.
    alarms: AlarmServiceClient,
    /// Commands.
    commands: CommandServiceClient,
}

/// A peer answered with what cannot be an answer: a defect of it, not of what it was asked.
fn not_an_answer(error: Error) -> Error {
    Error::internal(format!("a peer gave what is no answer: {error}")).with_source(error)
}
