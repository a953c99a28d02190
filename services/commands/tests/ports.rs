//! The call ports of commands over the embedded engines, in process and over gRPC: order, sessions, time, and what a kill leaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod support;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use support::{Fixture, How, answer, device, eventually};
use tonic::Code;
use weir_clients::CommandsClient;
use weir_commands::Config;
use weir_core::{
    ErrorKind, Stream, Uid,
    command::Order,
    port::{CommandQueue, SendCommand, Session, SessionEpoch, Signal, Signals, Topic},
    progress::all_progress,
};
use weir_grpc::from_status;
use weir_proto::commands::v1 as pb;
use weir_runtime::trim::trim_once;

/// Makes a test of each for each way to the port.
macro_rules! every_way {
    ($($name:ident),+ $(,)?) => {
        every_way!(in_process, How::InProcess; $($name),+);
        every_way!(by_the_service_key, How::ServiceKey; $($name),+);
        every_way!(by_mutual_tls, How::MutualTls; $($name),+);
    };
    ($way:ident, $how:expr; $($name:ident),+) => {
        mod $way {
            use super::How;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name($how).await;
                }
            )+
        }
    };
}

every_way!(
    commands_leave_in_the_order_of_their_sends_each_after_the_delivery_of_the_last,
    a_command_that_asks_for_it_holds_the_next_one_back_until_its_answer,
    a_takeover_offers_again_what_was_not_delivered_and_fences_the_older_session,
    an_older_session_is_told_when_the_newer_one_is_gone,
    an_answer_in_the_instant_of_the_send_finds_its_command,
    a_request_id_is_not_taken_for_another_command,
    sessions_that_attach_at_once_get_different_epochs,
    what_is_not_acknowledged_for_thirty_seconds_is_offered_again_or_lets_the_next_one_pass,
    an_answer_implies_delivery_and_one_after_the_end_changes_nothing,
    an_answer_that_is_no_json_fails_its_command_and_blocks_nothing,
    a_device_has_a_bounded_number_of_pending_commands_and_a_repeat_is_not_one_more,
    a_command_expires_also_while_its_device_is_away_and_after_a_restart,
    an_ended_command_is_removed_after_its_retention_and_not_brought_back,
    the_stream_is_trimmed_behind_its_slowest_reader_and_not_into_what_is_kept,
    whatever_a_kill_cuts_off_every_accepted_command_is_there_once_and_in_order,
);

fn config() -> Config {
    Config { partitions: 4, ..Config::default() }
}

async fn commands_leave_in_the_order_of_their_sends_each_after_the_delivery_of_the_last(how: How) {
    let fixture = Fixture::start_as(how, config()).await;
    let to = device("device-1");
    let mut sent = Vec::new();
    for n in 0..20 {
        sent.push(fixture.send(&to, &n.to_string()).await.unwrap());
    }
    let epoch = fixture.attach(&to).await;
    for id in sent {
        assert_eq!(fixture.next(&to, epoch).await, (id, false));
        fixture.port.sent(&to, epoch, id).await.unwrap();
        assert_eq!(fixture.port.next(&to, epoch).await.unwrap(), None, "one is in flight");
        fixture.port.delivered(&to, epoch, id).await.unwrap();
        fixture.port.delivered(&to, epoch, id).await.unwrap(); // idempotent
    }
}

async fn a_command_that_asks_for_it_holds_the_next_one_back_until_its_answer(how: How) {
    let fixture = Fixture::start_as(how, config()).await;
    let to = device("device-1");
    let first = fixture.send_with(&to, "1", Order::OnResponse, Duration::from_secs(600)).await.unwrap();
    let second = fixture.send(&to, "2").await.unwrap();
    let epoch = fixture.attach(&to).await;
    assert_eq!(fixture.next(&to, epoch).await.0, first);
    fixture.port.sent(&to, epoch, first).await.unwrap();
    fixture.port.delivered(&to, epoch, first).await.unwrap();
    assert_eq!(fixture.port.next(&to, epoch).await.unwrap(), None);
    fixture.port.answered(&to, first, answer(false)).await.unwrap();
    assert_eq!(fixture.next(&to, epoch).await, (second, false));
}

async fn a_takeover_offers_again_what_was_not_delivered_and_fences_the_older_session(how: How) {
    let fixture = Fixture::start_as(how, config()).await;
    let to = device("device-1");
    let id = fixture.send(&to, "1").await.unwrap();
    let old = fixture.attach(&to).await;
    fixture.next(&to, old).await;
    fixture.port.sent(&to, old, id).await.unwrap();
    let new = fixture.attach(&to).await;
    assert!(new > old);
    for refused in [
        fixture.port.next(&to, old).await.map(drop),
        fixture.port.sent(&to, old, id).await,
        fixture.port.delivered(&to, old, id).await,
    ] {
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Aborted, "SESSION_REPLACED"));
    }
    assert_eq!(fixture.next(&to, new).await, (id, true));
    fixture.port.sent(&to, new, id).await.unwrap();
    fixture.port.delivered(&to, new, id).await.unwrap();
    let after_restart = fixture.restart().await;
    assert!(after_restart.attach(&to).await > new, "epochs rise over restarts");
}

async fn an_older_session_is_told_when_the_newer_one_is_gone(how: How) {
    let fixture = Fixture::start_as(how, config()).await;
    let to = device("device-1");
    let id = fixture.send(&to, "1").await.unwrap();
    let (old, new) = (fixture.attach(&to).await, fixture.attach(&to).await);
    fixture.next(&to, new).await;
    fixture.port.sent(&to, new, id).await.unwrap();
    let reason = async || fixture.port.next(&to, old).await.unwrap_err().reason().to_owned();
    fixture.port.detach(&to, old, Duration::ZERO).await.unwrap();
    assert_eq!(reason().await, "SESSION_REPLACED", "it is the older one that left");
    fixture.port.detach(&to, new, Duration::from_secs(30)).await.unwrap();
    assert_eq!(reason().await, "SESSION_ENDING", "it may still acknowledge");
    fixture.port.delivered(&to, new, id).await.unwrap();
    let mut heard = fixture.signals.subscribe(Topic::Commands).await;
    fixture.port.detach(&to, new, Duration::ZERO).await.unwrap();
    assert_eq!(reason().await, "SESSION_ENDED");
    let rung = tokio::time::timeout(Duration::from_secs(20), heard.next()).await;
    assert!(rung.expect("nobody rang for the older session").is_some());
    fixture.port.detach(&to, new, Duration::from_secs(30)).await.unwrap();
    assert_eq!(reason().await, "SESSION_ENDED", "what ends earlier counts");
}

async fn an_answer_in_the_instant_of_the_send_finds_its_command(how: How) {
    let fixture = Fixture::start_as(how, config()).await;
    let to = device("device-1");
    for n in 0..20 {
        let id = fixture.send(&to, &n.to_string()).await.unwrap();
        fixture.port.answered(&to, id, answer(true)).await.unwrap();
    }
    let other = device("device-2");
    let theirs = fixture.send(&other, "1").await.unwrap();
    let error = fixture.port.answered(&to, theirs, answer(true)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "another device's");
}

async fn a_request_id_is_not_taken_for_another_command(how: How) {
    let fixture = Fixture::start_as(how, config()).await;
    let to = device("device-1");
    let send = |name: &str, payload: &'static str| SendCommand {
        to: to.clone(),
        name: name.to_owned(),
        payload: payload.into(),
        ttl: Duration::from_secs(600),
        order: Order::OnDelivery,
        request_id: "1".to_owned(),
        actor: "token:test".to_owned(),
    };
    let (id, _) = fixture.port.send(send("open", r#"{"valve": 1}"#)).await.unwrap();
    for other in [send("close", r#"{"valve": 1}"#), send("open", r#"{"valve": 2}"#)] {
        let error = fixture.port.send(other).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::AlreadyExists, "REQUEST_ID_REUSED"));
        assert_eq!(error.field(), Some("request_id"));
    }
    let again = fixture.port.send(send("open", r#"{"valve":1}"#)).await.unwrap();
    assert_eq!(again.0, id, "written another way it is the same");
}

async fn sessions_that_attach_at_once_get_different_epochs(how: How) {
    let fixture = Fixture::start_as(how, config()).await;
    let to = device("device-1");
    let attaching = (0..8).map(|_| fixture.port.attach(&to, Session(Uid::random())));
    let mut epochs: Vec<SessionEpoch> =
        futures::future::join_all(attaching).await.into_iter().filter_map(Result::ok).collect();
    let count = epochs.len();
    epochs.sort();
    epochs.dedup();
    assert_eq!(epochs.len(), count);
}

async fn what_is_not_acknowledged_for_thirty_seconds_is_offered_again_or_lets_the_next_one_pass(how: How) {
    let fixture = Fixture::start_as(how, config()).await;
    let to = device("device-1");
    let first = fixture.send(&to, "1").await.unwrap();
    let second = fixture.send(&to, "2").await.unwrap();
    let epoch = fixture.attach(&to).await;
    fixture.next(&to, epoch).await;
    fixture.port.sent(&to, epoch, first).await.unwrap();
    assert_eq!(fixture.port.next_unacknowledged(&to, epoch).await.unwrap(), None);
    fixture.clock.advance(Duration::from_secs(30));
    assert_eq!(fixture.next(&to, epoch).await, (first, true));
    let passing = fixture.port.next_unacknowledged(&to, epoch).await.unwrap().unwrap();
    assert_eq!((passing.command.request.id, passing.again), (second, false));
}

async fn an_answer_implies_delivery_and_one_after_the_end_changes_nothing(how: How) {
    let fixture = Fixture::start_as(how, config()).await;
    let to = device("device-1");
    let id = fixture.send(&to, "1").await.unwrap();
    let epoch = fixture.attach(&to).await;
    fixture.next(&to, epoch).await;
    fixture.port.sent(&to, epoch, id).await.unwrap();
    let fixture = fixture.restart().await; // an answer needs no session
    fixture.port.answered(&to, id, answer(true)).await.unwrap();
    let ended = fixture.send(&to, "1").await.unwrap();
    assert_eq!(ended, id, "the request is remembered");
    fixture.port.answered(&to, id, answer(false)).await.unwrap();
    let error = fixture.port.sent(&to, fixture.attach(&to).await, id).await.unwrap_err();
    assert_eq!((error.kind(), error.message().contains("SUCCEEDED")), (ErrorKind::FailedPrecondition, true));
    let unknown = fixture.port.answered(&to, Uid::from_u128(1), answer(true)).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

async fn an_answer_that_is_no_json_fails_its_command_and_blocks_nothing(how: How) {
    let fixture = Fixture::start_as(how, config()).await;
    let to = device("device-1");
    let first = fixture.send_with(&to, "1", Order::OnResponse, Duration::from_secs(600)).await.unwrap();
    let second = fixture.send(&to, "2").await.unwrap();
    let epoch = fixture.attach(&to).await;
    fixture.next(&to, epoch).await;
    fixture.port.sent(&to, epoch, first).await.unwrap();
    let mut nonsense = answer(true);
    nonsense.payload = vec![0xff, 0xfe].into();
    fixture.port.answered(&to, first, nonsense).await.unwrap();
    assert_eq!(fixture.next(&to, epoch).await, (second, false));
    let error = fixture.port.sent(&to, epoch, first).await.unwrap_err();
    assert!(error.message().contains("FAILED"), "{error}");
}

async fn a_device_has_a_bounded_number_of_pending_commands_and_a_repeat_is_not_one_more(how: How) {
    let fixture =
        Fixture::start_as(how, Config { partitions: 2, pending_max: 10, ..Config::default() }).await;
    let to = device("device-1");
    for n in 0..10 {
        fixture.send(&to, &n.to_string()).await.unwrap();
    }
    let error = fixture.send(&to, "one more").await.unwrap_err();
    assert_eq!((error.kind(), error.limit()), (ErrorKind::ResourceExhausted, Some("10")));
    eventually("a repeat is answered", async || fixture.send(&to, "3").await.ok()).await;
    fixture.send(&device("device-2"), "another device").await.unwrap();
    let epoch = fixture.attach(&to).await;
    let (id, _) = fixture.next(&to, epoch).await;
    fixture.port.answered(&to, id, answer(true)).await.unwrap();
    fixture.send(&to, "one more").await.unwrap();
}

async fn a_command_expires_also_while_its_device_is_away_and_after_a_restart(how: How) {
    let fixture = Fixture::start_as(how, config()).await;
    let to = device("device-1");
    let (short, long) = (Duration::from_secs(10), Duration::from_secs(1_000));
    let first = fixture.send_with(&to, "1", Order::OnDelivery, short).await.unwrap();
    let second = fixture.send_with(&to, "2", Order::OnDelivery, long).await.unwrap();
    let third = fixture.send_with(&to, "3", Order::OnDelivery, long).await.unwrap();
    let epoch = fixture.attach(&to).await;
    fixture.next(&to, epoch).await;
    let mut heard = fixture.signals.subscribe(Topic::Commands).await;
    fixture.clock.advance(Duration::from_secs(11));
    assert_eq!(fixture.next(&to, epoch).await.0, second, "it no longer holds the next one back");
    let ended = async |fixture: &Fixture, id| {
        let error = fixture.port.sent(&to, fixture.attach(&to).await, id).await.unwrap_err();
        assert!(error.message().contains("EXPIRED"), "{error}");
    };
    let rung = tokio::time::timeout(Duration::from_secs(20), heard.next()).await;
    let expected = Signal::CommandWaiting { tenant: to.tenant.clone(), uid: to.uid };
    assert_eq!(rung.expect("nobody rang for the next command"), Some(Some(expected)));
    ended(&fixture, first).await;
    let fixture = fixture.restart().await;
    fixture.clock.advance(long);
    let epoch = fixture.attach(&to).await;
    eventually("nothing is pending", async || {
        fixture.port.next(&to, epoch).await.unwrap().is_none().then_some(())
    })
    .await;
    ended(&fixture, second).await;
    ended(&fixture, third).await;
}

async fn an_ended_command_is_removed_after_its_retention_and_not_brought_back(how: How) {
    let retention = Duration::from_secs(3_600);
    let fixture = Fixture::start_as(how, Config { partitions: 1, retention, ..Config::default() }).await;
    let to = device("device-1");
    let id = fixture.send(&to, "1").await.unwrap();
    let epoch = fixture.attach(&to).await;
    fixture.next(&to, epoch).await;
    fixture.clock.advance(Duration::from_secs(601));
    let gone = async |fixture: &Fixture| {
        let answered = fixture.port.answered(&to, id, answer(true)).await;
        answered.is_err_and(|error| error.kind() == ErrorKind::NotFound).then_some(())
    };
    let fixture = fixture.restart().await;
    assert!(gone(&fixture).await.is_none(), "it is kept for its retention");
    fixture.clock.advance(retention);
    eventually("it is removed", async || gone(&fixture).await).await;
    let fixture = fixture.restart().await;
    let other = fixture.send(&to, "2").await.unwrap();
    let epoch = fixture.attach(&to).await;
    assert_eq!(fixture.next(&to, epoch).await.0, other);
    assert!(gone(&fixture).await.is_some());
}

async fn the_stream_is_trimmed_behind_its_slowest_reader_and_not_into_what_is_kept(how: How) {
    let fixture = Fixture::start_as(how, Config { partitions: 1, ..Config::default() }).await;
    let to = device("device-1");
    for n in 0..3 {
        fixture.send(&to, &n.to_string()).await.unwrap();
    }
    let trim = async |readers: &[&str]| {
        let keep = Duration::from_secs(3_600);
        let trimmed =
            trim_once(&*fixture.log, &*fixture.records, Stream::Commands, readers, 1, keep, &*fixture.clock)
                .await
                .unwrap();
        (trimmed.through, trimmed.blocker.map(|(reader, _)| reader))
    };
    eventually("the reader is through", async || {
        let progress = all_progress(&*fixture.records, Stream::Commands, &["commands"], 1).await.unwrap();
        (progress[0].progress.sequence == 3).then_some(())
    })
    .await;
    assert_eq!(trim(&["commands"]).await, (0, None), "it is younger than an hour");
    fixture.clock.advance(Duration::from_secs(3_601));
    let another = Some("another".to_owned());
    assert_eq!(trim(&["commands", "another"]).await, (0, another), "another reader has read nothing");
    assert_eq!(trim(&["commands"]).await, (3, None));
}

async fn whatever_a_kill_cuts_off_every_accepted_command_is_there_once_and_in_order(how: How) {
    let kills = (0..40).map(|commits| tokio::spawn(kill_after(how, commits)));
    let ended: Vec<_> = futures::stream::iter(kills).buffer_unordered(8).collect().await;
    ended.into_iter().for_each(|ended| ended.unwrap());
}

async fn kill_after(how: How, commits: i64) {
    let fixture = Fixture::start_as(how, config()).await;
    let devices = [device("device-1"), device("device-2")];
    fixture.kill_after(commits);
    let mut sent = [Vec::new(), Vec::new()];
    for n in 0..6 {
        for (to, sent) in devices.iter().zip(&mut sent) {
            if let Ok(id) = fixture.send(to, &n.to_string()).await {
                sent.push(id);
            }
        }
    }
    let fixture = fixture.restart().await;
    for (to, sent) in devices.iter().zip(sent) {
        let epoch = fixture.attach(to).await;
        for id in sent {
            assert_eq!(fixture.next(to, epoch).await, (id, false), "killed after {commits} commits");
            fixture.port.sent(to, epoch, id).await.unwrap();
            fixture.port.answered(to, id, answer(true)).await.unwrap();
        }
        assert_eq!(fixture.port.next(to, epoch).await.unwrap(), None, "killed after {commits} commits");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_command_is_the_same_from_everywhere() {
    let fixture = Fixture::start_as(How::ServiceKey, config()).await;
    let to = device("device-1");
    let id = fixture.send_with(&to, "1", Order::OnResponse, Duration::from_secs(86_400)).await.unwrap();
    let epoch = fixture.attach(&to).await;
    fixture.next(&to, epoch).await;
    let queues: [Arc<dyn CommandQueue>; 3] = {
        let [(_, by_key), (_, by_certificate)] = fixture.loopback().peers();
        [
            Arc::clone(&fixture.service) as _,
            Arc::new(CommandsClient::new(by_key)),
            Arc::new(CommandsClient::new(by_certificate)),
        ]
    };
    let expected = fixture.service.next(&to, epoch).await.unwrap().unwrap();
    assert!(!expected.again);
    for queue in &queues {
        assert_eq!(queue.next(&to, epoch).await.unwrap().as_ref(), Some(&expected));
        assert_eq!(queue.next_unacknowledged(&to, epoch).await.unwrap().as_ref(), Some(&expected));
    }
    fixture.service.sent(&to, epoch, id).await.unwrap();
    for (queue, epoch) in queues.iter().zip([(); 3].map(|()| fixture.attach(&to))) {
        let epoch = epoch.await;
        let expected = fixture.service.next(&to, epoch).await.unwrap().unwrap();
        assert!(expected.again && expected.command.sent_at.is_some());
        assert_eq!(queue.next(&to, epoch).await.unwrap(), Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_is_refused_with_its_field() {
    let fixture = Fixture::start_as(How::ServiceKey, config()).await;
    let mut service = fixture.as_bearer(fixture.loopback().key().reveal()).await;
    let key = || pb::DeviceKey { tenant: "acme".to_owned(), device: "device-1".to_owned(), uid: vec![1; 16] };
    let command_id = || vec![2; 16];
    let mut refused: Vec<(tonic::Status, &str)> = Vec::new();
    for (device, field) in [
        (None, "device"),
        (Some(pb::DeviceKey { tenant: String::new(), ..key() }), "device.tenant"),
        (Some(pb::DeviceKey { device: "a b".to_owned(), ..key() }), "device.device"),
        (Some(pb::DeviceKey { uid: vec![1; 15], ..key() }), "device.uid"),
        (Some(pb::DeviceKey { uid: Vec::new(), ..key() }), "device.uid"),
    ] {
        let request = pb::AttachRequest { device: device.clone(), session: vec![1; 16] };
        refused.push((service.attach(request).await.unwrap_err(), field));
        let request = pb::DetachRequest { device: device.clone(), epoch: 1, after: Some(Default::default()) };
        refused.push((service.detach(request).await.unwrap_err(), field));
        let request = pb::NextRequest { device: device.clone(), epoch: 1, unacknowledged: false };
        refused.push((service.next(request).await.unwrap_err(), field));
        let request = pb::MarkSentRequest { device: device.clone(), epoch: 1, command_id: command_id() };
        refused.push((service.mark_sent(request).await.unwrap_err(), field));
        let request = pb::MarkDeliveredRequest { device: device.clone(), epoch: 1, command_id: command_id() };
        refused.push((service.mark_delivered(request).await.unwrap_err(), field));
        let request = pb::AnswerRequest { device, command_id: command_id(), answer: None };
        refused.push((service.answer(request).await.unwrap_err(), field));
    }
    let request = pb::AttachRequest { device: Some(key()), session: vec![1; 17] };
    refused.push((service.attach(request).await.unwrap_err(), "session"));
    let request = pb::DetachRequest { device: Some(key()), epoch: 1, after: None };
    refused.push((service.detach(request).await.unwrap_err(), "after"));
    let request = pb::MarkSentRequest { device: Some(key()), epoch: 1, command_id: Vec::new() };
    refused.push((service.mark_sent(request).await.unwrap_err(), "command_id"));
    let request = pb::MarkDeliveredRequest { device: Some(key()), epoch: 1, command_id: vec![0; 3] };
    refused.push((service.mark_delivered(request).await.unwrap_err(), "command_id"));
    let answer = || pb::AnswerRequest { device: Some(key()), command_id: command_id(), answer: None };
    refused.push((service.answer(answer()).await.unwrap_err(), "answer"));
    let request = pb::AnswerRequest { answer: Some(pb::DeviceAnswer::default()), ..answer() };
    refused.push((service.answer(request).await.unwrap_err(), "answer.receive_time"));
    let ttl = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let send = || pb::SendRequest {
        to: Some(key()),
        command: "open".to_owned(),
        payload: "{}".into(),
        ttl: ttl(60),
        order: 0,
        request_id: "1".to_owned(),
        actor: "token:test".to_owned(),
    };
    for (request, field) in [
        (pb::SendRequest { to: None, ..send() }, "to"),
        (pb::SendRequest { ttl: None, ..send() }, "ttl"),
        (pb::SendRequest { ttl: ttl(-1), ..send() }, "ttl"),
        (pb::SendRequest { order: 9, ..send() }, "order"),
        (pb::SendRequest { payload: vec![0xff].into(), ..send() }, "payload"),
        (pb::SendRequest { command: String::new(), ..send() }, "command"),
        (pb::SendRequest { request_id: String::new(), ..send() }, "request_id"),
    ] {
        refused.push((service.send(request).await.unwrap_err(), field));
    }
    for (status, field) in refused {
        let error = from_status(status);
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some(field)), "{error}");
    }
    let mut admin = fixture.as_bearer("acme:admin").await;
    assert_eq!(admin.send(send()).await.unwrap_err().code(), Code::PermissionDenied);
    let request = pb::NextRequest { device: Some(key()), epoch: 1, unacknowledged: false };
    assert_eq!(admin.next(request).await.unwrap_err().code(), Code::PermissionDenied);
}
