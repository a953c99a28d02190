//! Commands in another process.

use std::time::Duration;

use async_trait::async_trait;
use weir_core::{
    Position, Result, Uid,
    command::{Answer, DeviceKey},
    port::{CommandQueue, CommandSender, Queued, SendCommand, Session, SessionEpoch},
};
use weir_grpc::{
    convert::from_duration,
    internal::{commands as convert, from_uid, to_position, to_uid},
};
use weir_proto::commands::v1::{
    AnswerRequest, AttachRequest, DetachRequest, MarkDeliveredRequest, MarkSentRequest, NextRequest,
    queue_service_client::QueueServiceClient as Client,
};

use crate::{Peer, not_an_answer};

/// A few reads and one commit of the store.
const MOVE_MAX: Duration = Duration::from_secs(10);
/// The log may take half a minute for a command.
const SEND_MAX: Duration = Duration::from_secs(35);

/// [`CommandSender`] and [`CommandQueue`] over gRPC.
#[derive(Debug, Clone)]
pub struct CommandsClient {
    peer: Peer,
}

impl CommandsClient {
    /// Asks `peer`.
    pub fn new(peer: Peer) -> Self {
        Self { peer }
    }

    async fn offered(
        &self,
        device: &DeviceKey,
        SessionEpoch(epoch): SessionEpoch,
        unacknowledged: bool,
    ) -> Result<Option<Queued>> {
        let request = NextRequest { device: Some(convert::from_key(device)), epoch, unacknowledged };
        let answer = self
            .peer
            .call(MOVE_MAX, request, async |channel, request| Client::new(channel).next(request).await);
        convert::to_queued(answer.await?).map_err(not_an_answer)
    }
}

#[async_trait]
impl CommandSender for CommandsClient {
    async fn send(&self, send: SendCommand) -> Result<(Uid, Position)> {
        let request = convert::from_send(send);
        let answer = self
            .peer
            .call(SEND_MAX, request, async |channel, request| Client::new(channel).send(request).await)
            .await?;
        let sent = to_uid("command_id", &answer.command_id)
            .and_then(|command| Ok((command, to_position("position", &answer.position)?)));
        sent.map_err(not_an_answer)
    }
}

#[async_trait]
impl CommandQueue for CommandsClient {
    async fn attach(&self, device: &DeviceKey, Session(session): Session) -> Result<SessionEpoch> {
        let request = AttachRequest { device: Some(convert::from_key(device)), session: from_uid(session) };
        let answer = self
            .peer
            .call(MOVE_MAX, request, async |channel, request| Client::new(channel).attach(request).await);
        Ok(SessionEpoch(answer.await?.epoch))
    }

    async fn detach(
        &self,
        device: &DeviceKey,
        SessionEpoch(epoch): SessionEpoch,
        after: Duration,
    ) -> Result<()> {
        let device = Some(convert::from_key(device));
        let request = DetachRequest { device, epoch, after: Some(from_duration(after)) };
        let answer = self
            .peer
            .call(MOVE_MAX, request, async |channel, request| Client::new(channel).detach(request).await);
        answer.await.map(drop)
    }

    async fn next(&self, device: &DeviceKey, epoch: SessionEpoch) -> Result<Option<Queued>> {
        self.offered(device, epoch, false).await
    }

    async fn next_unacknowledged(&self, device: &DeviceKey, epoch: SessionEpoch) -> Result<Option<Queued>> {
        self.offered(device, epoch, true).await
    }

    async fn sent(&self, device: &DeviceKey, SessionEpoch(epoch): SessionEpoch, command: Uid) -> Result<()> {
        let device = Some(convert::from_key(device));
        let request = MarkSentRequest { device, epoch, command_id: from_uid(command) };
        let answer = self
            .peer
            .call(MOVE_MAX, request, async |channel, request| Client::new(channel).mark_sent(request).await);
        answer.await.map(drop)
    }

    async fn delivered(
        &self,
        device: &DeviceKey,
        SessionEpoch(epoch): SessionEpoch,
        command: Uid,
    ) -> Result<()> {
        let device = Some(convert::from_key(device));
        let request = MarkDeliveredRequest { device, epoch, command_id: from_uid(command) };
        let answer = self.peer.call(MOVE_MAX, request, async |channel, request| {
            Client::new(channel).mark_delivered(request).await
        });
        answer.await.map(drop)
    }

    async fn answered(&self, device: &DeviceKey, command: Uid, answer: Answer) -> Result<()> {
        let request = AnswerRequest {
            device: Some(convert::from_key(device)),
            command_id: from_uid(command),
            answer: Some(convert::from_answer(answer)),
        };
        let answer = self
            .peer
            .call(MOVE_MAX, request, async |channel, request| Client::new(channel).answer(request).await);
        answer.await.map(drop)
    }
}
