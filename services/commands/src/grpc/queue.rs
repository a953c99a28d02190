//! `QueueService`: the call ports, for other services.

use std::sync::Arc;

use tonic::{Request, Response};
use weir_core::{
    Result,
    port::{CommandQueue, CommandSender, Session, SessionEpoch},
};
use weir_grpc::{
    Answer,
    convert::to_duration,
    internal::{commands as convert, from_position, from_uid, open, required, to_uid},
    to_status,
};
use weir_proto::commands::v1::{
    AnswerRequest, AnswerResponse, AttachRequest, AttachResponse, DetachRequest, DetachResponse,
    MarkDeliveredRequest, MarkDeliveredResponse, MarkSentRequest, MarkSentResponse, NextRequest,
    NextResponse, SendRequest, SendResponse, queue_service_server::QueueService,
};

/// Answers by the ports.
pub(super) struct Queue {
    pub(super) sender: Arc<dyn CommandSender>,
    pub(super) queue: Arc<dyn CommandQueue>,
}

#[tonic::async_trait]
impl QueueService for Queue {
    async fn send(&self, request: Request<SendRequest>) -> Answer<SendResponse> {
        let asked = open(request)?;
        reply(async {
            let (command, position) = self.sender.send(convert::to_send(asked)?).await?;
            Ok(SendResponse { command_id: from_uid(command), position: from_position(position) })
        })
        .await
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let asked = open(request)?;
        reply(async {
            let device = convert::to_key("device", asked.device)?;
            let session = Session(to_uid("session", &asked.session)?);
            let SessionEpoch(epoch) = self.queue.attach(&device, session).await?;
            Ok(AttachResponse { epoch })
        })
        .await
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Answer<DetachResponse> {
        let asked = open(request)?;
        reply(async {
            let device = convert::to_key("device", asked.device)?;
            let after = to_duration("after", &required("after", asked.after)?)?;
            self.queue.detach(&device, SessionEpoch(asked.epoch), after).await?;
            Ok(DetachResponse {})
        })
        .await
    }

    async fn next(&self, request: Request<NextRequest>) -> Answer<NextResponse> {
        let asked = open(request)?;
        reply(async {
            let (device, epoch) = (convert::to_key("device", asked.device)?, SessionEpoch(asked.epoch));
            let queued = if asked.unacknowledged {
                self.queue.next_unacknowledged(&device, epoch).await?
            } else {
                self.queue.next(&device, epoch).await?
            };
            Ok(convert::from_queued(queued))
        })
        .await
    }

    async fn mark_sent(&self, request: Request<MarkSentRequest>) -> Answer<MarkSentResponse> {
        let asked = open(request)?;
        reply(async {
            let device = convert::to_key("device", asked.device)?;
            let command = to_uid("command_id", &asked.command_id)?;
            self.queue.sent(&device, SessionEpoch(asked.epoch), command).await?;
            Ok(MarkSentResponse {})
        })
        .await
    }

    async fn mark_delivered(&self, request: Request<MarkDeliveredRequest>) -> Answer<MarkDeliveredResponse> {
        let asked = open(request)?;
        reply(async {
            let device = convert::to_key("device", asked.device)?;
            let command = to_uid("command_id", &asked.command_id)?;
            self.queue.delivered(&device, SessionEpoch(asked.epoch), command).await?;
            Ok(MarkDeliveredResponse {})
        })
        .await
    }

    async fn answer(&self, request: Request<AnswerRequest>) -> Answer<AnswerResponse> {
        let asked = open(request)?;
        reply(async {
            let device = convert::to_key("device", asked.device)?;
            let command = to_uid("command_id", &asked.command_id)?;
            let answer = convert::to_answer(required("answer", asked.answer)?)?;
            self.queue.answered(&device, command, answer).await?;
            Ok(AnswerResponse {})
        })
        .await
    }
}

/// What a port said, as the wire has it.
async fn reply<T>(work: impl Future<Output = Result<T>>) -> Answer<T> {
    work.await.map(Response::new).map_err(to_status)
}
