//! What a client publishes, on its way to the log or to the command that it answers.

use std::sync::Arc;

use weir_core::{Error, Result, Uid};

use super::{
    acks::Work,
    packets::{Acknowledge, Publish},
    reason,
    server::{PROTOCOL, Server},
    topics::{self, What},
};
use crate::{access::DeviceAccess, answer, dead_letters::Refused, decode::Format, intake::Source};

/// A publication that was taken in or refused; its acknowledgement may still wait for the log.
pub(super) struct Taken {
    pub(super) how: Acknowledge,
    pub(super) work: Work,
    pub(super) readings: u64,
    /// The child that a gateway spoke for.
    pub(super) child: Option<DeviceAccess>,
    /// The device whose command was answered: its next one may leave.
    pub(super) answered: Option<Uid>,
}

/// Takes in one publication of `who`. `can_refuse` says whether the wire has words for a refusal (MQTT 5, above QoS 0);
/// where it has none, what can never be accepted is kept as a dead letter, and then it counts as taken.
pub(super) async fn take(
    server: Arc<Server>,
    who: DeviceAccess,
    can_refuse: bool,
    publish: Publish,
) -> Taken {
    let mut taken = Taken {
        how: publish.acknowledge(),
        work: Work::Done(Ok(None)),
        readings: 0,
        child: None,
        answered: None,
    };
    if let Err(error) = accept(&server, &who, &publish, &mut taken).await {
        server.refused_of(&who, &error);
        let outcome = match can_refuse || !reason::is_final(error.kind()) {
            true => Err(error),
            false => keep(&server, &who, &publish, &error).await,
        };
        taken.work = Work::Done(outcome.map(|()| None));
    }
    taken
}

async fn accept(server: &Server, who: &DeviceAccess, publish: &Publish, taken: &mut Taken) -> Result<()> {
    let topic = topics::upward(publish.topic())?;
    let device = match topic.child {
        None => who,
        Some(child) => {
            let child =
                server.edge.access.child(who, child).await.map_err(|error| error.with_field("topic"))?;
            &*taken.child.insert(child)
        }
    };
    match topic.what {
        What::Telemetry => {
            let format = Format::of(publish.content_type(), publish.payload())?;
            let mut message = server.edge.decoder.decode(device, format, publish.payload())?;
            message.trace_context = publish.trace_context().map(Into::into);
            taken.readings = message.readings.len() as u64;
            let source = Source::now(PROTOCOL, publish.payload().len());
            taken.work = Work::Log(server.edge.intake.enqueue(message, source).await?);
            Ok(())
        }
        What::Answer(command) => {
            let payload_max = server.command_payload_max;
            let (answer, wrong) = answer::parse(publish.payload(), payload_max, server.edge.clock.now());
            server.edge.commands.answered(&device.key(), command, answer).await?;
            taken.answered = Some(device.device.uid);
            wrong.map_or(Ok(()), Err)
        }
    }
}

async fn keep(server: &Server, who: &DeviceAccess, publish: &Publish, error: &Error) -> Result<()> {
    let refused = Refused {
        tenant: &who.device.tenant,
        device: &who.device.id,
        topic: publish.topic(),
        payload: publish.payload_bytes(),
        error,
    };
    server.edge.dead_letters.keep(refused).await?;
    server.edge.metrics.dead_letters.inc();
    Ok(())
}
