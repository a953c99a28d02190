//! `AlarmService`.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};
use weir_core::{
    Error, ErrorKind, Result, TenantId, Uid, name,
    principal::{Principal, Scope},
};
use weir_grpc::{Answer, page, to_status};
use weir_proto::analytics::v1::{self as pb, alarm_service_server::AlarmService};

use super::{COMMENT_MAX, Handlers, REQUEST_ID_MAX, Stream, bounded, convert, open, reply};
use crate::{
    Service,
    admission::Permit,
    alarm::{Changed, Filter, Person, PersonKind, States, Watch},
};

/// What a watcher is told when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Messages that wait for a slow watcher, and for how long one may.
const QUEUE: usize = 64;
const SLOW: Duration = Duration::from_secs(30);

#[tonic::async_trait]
impl AlarmService for Handlers {
    type WatchAlarmsStream = Stream<pb::WatchAlarmsResponse>;

    async fn get_alarm(&self, request: Request<pb::GetAlarmRequest>) -> Answer<pb::GetAlarmResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, uid) = alarm_of(&caller, &request.name, Scope::Read)?;
            let (_, alarm) = self.0.alarms.find(&tenant, uid).await?;
            Ok(pb::GetAlarmResponse { alarm: Some(convert::from_alarm(alarm)) })
        })
        .await
    }

    async fn list_alarms(&self, request: Request<pb::ListAlarmsRequest>) -> Answer<pb::ListAlarmsResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            caller.require(&tenant, Scope::Read)?;
            let states = convert::to_states(request.state)?;
            let filter = filter(&tenant, &request.device, &request.rule, states)?;
            let (size, after) = (page::size(request.page_size)?, page::key(&request.page_token)?);
            let (alarms, next) = self.0.alarms.page(&tenant, &filter, after, size).await?;
            Ok(pb::ListAlarmsResponse {
                alarms: alarms.into_iter().map(convert::from_alarm).collect(),
                next_page_token: next.map(page::token).unwrap_or_default(),
            })
        })
        .await
    }

    async fn acknowledge_alarm(
        &self,
        request: Request<pb::AcknowledgeAlarmRequest>,
    ) -> Answer<pb::AcknowledgeAlarmResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, uid) = alarm_of(&caller, &request.name, Scope::Write)?;
            let person = person(&caller, PersonKind::Acknowledge, uid, request.comment, request.request_id)?;
            let alarm = self.0.person(&tenant, person).await?;
            Ok(pb::AcknowledgeAlarmResponse { alarm: Some(convert::from_alarm(alarm)) })
        })
        .await
    }

    async fn clear_alarm(&self, request: Request<pb::ClearAlarmRequest>) -> Answer<pb::ClearAlarmResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, uid) = alarm_of(&caller, &request.name, Scope::Write)?;
            let person = person(&caller, PersonKind::Clear, uid, request.comment, request.request_id)?;
            let alarm = self.0.person(&tenant, person).await?;
            Ok(pb::ClearAlarmResponse { alarm: Some(convert::from_alarm(alarm)) })
        })
        .await
    }

    async fn watch_alarms(
        &self,
        request: Request<pb::WatchAlarmsRequest>,
    ) -> Answer<Self::WatchAlarmsStream> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            caller.require(&tenant, Scope::Read)?;
            let filter = filter(&tenant, &request.device, &request.rule, States::Any)?;
            let permit = self.0.watches.enter(&tenant)?;
            let watch = self.0.watch(tenant, filter, &request.resume_cursor).await?;
            Ok(stream(&self.0, watch, permit))
        })
        .await
    }
}

fn alarm_of(caller: &Principal, full_name: &str, scope: Scope) -> Result<(TenantId, Uid)> {
    let (tenant, uid) = name::parse_child("name", full_name, "alarms")?;
    caller.require(&tenant, scope)?;
    Ok((tenant, uid.parse().map_err(|error: Error| error.with_field("name"))?))
}

fn person(
    caller: &Principal,
    kind: PersonKind,
    alarm: Uid,
    comment: String,
    request_id: String,
) -> Result<Person> {
    bounded("comment", &comment, COMMENT_MAX)?;
    bounded("request_id", &request_id, REQUEST_ID_MAX)?;
    Ok(Person::new(kind, alarm, request_id, caller.actor(), comment))
}

/// Names of another tenant are refused, whether they exist or not.
fn filter(tenant: &TenantId, device: &str, rule: &str, states: States) -> Result<Filter> {
    let own = |of: TenantId| match of == *tenant {
        true => Ok(()),
        false => Err(Error::permission_denied(format!("this token has no access to tenants/{of}"))),
    };
    let mut filter = Filter { states, ..Filter::default() };
    if !device.is_empty() {
        let (of, id) = name::parse_device("device", device)?;
        own(of)?;
        filter.device = Some(id);
    }
    if !rule.is_empty() {
        let (of, id) = name::parse_child("rule", rule, "rules")?;
        own(of)?;
        filter.rule = Some(id.to_owned());
    }
    Ok(filter)
}

/// Feeds a watcher until it goes away, is too slow, or the server ends.
fn stream(service: &Arc<Service>, mut watch: Watch, permit: Permit) -> Stream<pb::WatchAlarmsResponse> {
    let (answers, receiver) = mpsc::channel::<Result<pb::WatchAlarmsResponse, Status>>(QUEUE);
    let closing = service.closing.clone();
    service.tasks.spawn(async move {
        let _permit = permit;
        let mut told = String::new();
        let ended = loop {
            let next = tokio::select! {
                () = closing.cancelled() => break Error::unavailable("this server is about to end; try another"),
                () = answers.closed() => return,
                next = tokio::time::timeout(HEARTBEAT, watch.next()) => next.map_or(Ok(None), |next| next.map(Some)),
            };
            let message = match next {
                Ok(next) => message(next, &watch),
                Err(error) => break error,
            };
            let cursor = message.cursor.clone();
            match tokio::time::timeout(SLOW, answers.send(Ok(message))).await {
                Ok(Ok(())) => told = cursor,
                Ok(Err(_)) => return,
                Err(_) => break too_slow(&told),
            }
        };
        // It waits behind what was not read; nothing else is kept for the watcher.
        let last_word = answers.send(Err(to_status(ended)));
        tokio::select! {
            biased;
            _ = last_word => {}
            () = closing.cancelled() => {}
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

fn too_slow(told: &str) -> Error {
    let text =
        format!("this watcher did not read for {} s; go on with resume_cursor {told:?}", SLOW.as_secs());
    Error::new(ErrorKind::ResourceExhausted, "SLOW_READER", text).with_limit(SLOW.as_secs())
}

fn message(next: Option<Changed>, watch: &Watch) -> pb::WatchAlarmsResponse {
    let (event, alarm) = match next {
        Some(Changed::Alarm(alarm)) => (pb::WatchAlarmsEvent::Alarm, Some(convert::from_alarm(*alarm))),
        Some(Changed::Synced) => (pb::WatchAlarmsEvent::Synced, None),
        None => (pb::WatchAlarmsEvent::Heartbeat, None),
    };
    pb::WatchAlarmsResponse { event: event.into(), alarm, cursor: watch.cursor() }
}
