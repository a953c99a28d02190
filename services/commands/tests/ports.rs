//! The call ports of commands over the embedded engines: order, sessions, time, and what a kill leaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod support;

use std::time::Duration;

use futures::StreamExt;
use support::{Fixture, answer, device, eventually};
use weir_commands::Config;
use weir_core::{
    ErrorKind, Stream, Uid,
    command::Order,
    port::{CommandQueue, CommandSender, SendCommand, Session, SessionEpoch, Signal, Signals, Topic},
    progress::all_progress,
};
use weir_runtime::trim::trim_once;

#[tokio::test(flavor = "multi_thread")]
async fn commands_leave_in_the_order_of_their_sends_each_after_the_delivery_of_the_last() {
    let fixture = Fixture::start().await;
    let to = device("device-1");
    let mut sent = Vec::new();
    for n in 0..20 {
        sent.push(fixture.send(&to, &n.to_string()).await.unwrap());
    }
    let epoch = fixture.attach(&to).await;
    for id in sent {
        assert_eq!(fixture.next(&to, epoch).await, (id, false));
        fixture.service.sent(&to, epoch, id).await.unwrap();
        assert_eq!(fixture.service.next(&to, epoch).await.unwrap(), None, "one is in flight");
        fixture.service.delivered(&to, epoch, id).await.unwrap();
        fixture.service.delivered(&to, epoch, id).await.unwrap(); // idempotent
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_asks_for_it_holds_the_next_one_back_until_its_answer() {
    let fixture = Fixture::start().await;
    let to = device("device-1");
    let first = fixture.send_with(&to, "1", Order::OnResponse, Duration::from_secs(600)).await.unwrap();
    let second = fixture.send(&to, "2").await.unwrap();
    let epoch = fixture.attach(&to).await;
    assert_eq!(fixture.next(&to, epoch).await.0, first);
    fixture.service.sent(&to, epoch, first).await.unwrap();
    fixture.service.delivered(&to, epoch, first).await.unwrap();
    assert_eq!(fixture.service.next(&to, epoch).await.unwrap(), None);
    fixture.service.answered(&to, first, answer(false)).await.unwrap();
    assert_eq!(fixture.next(&to, epoch).await, (second, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_offers_again_what_was_not_delivered_and_fences_the_older_session() {
    let fixture = Fixture::start().await;
    let to = device("device-1");
    let id = fixture.send(&to, "1").await.unwrap();
    let old = fixture.attach(&to).await;
    fixture.next(&to, old).await;
    fixture.service.sent(&to, old, id).await.unwrap();
    let new = fixture.attach(&to).await;
    assert!(new > old);
    for refused in [
        fixture.service.next(&to, old).await.map(drop),
        fixture.service.sent(&to, old, id).await,
        fixture.service.delivered(&to, old, id).await,
    ] {
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Aborted, "SESSION_REPLACED"));
    }
    assert_eq!(fixture.next(&to, new).await, (id, true));
    fixture.service.sent(&to, new, id).await.unwrap();
    fixture.service.delivered(&to, new, id).await.unwrap();
    let after_restart = fixture.restart().await;
    assert!(after_restart.attach(&to).await > new, "epochs rise over restarts");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_session_is_told_when_the_newer_one_is_gone() {
    let fixture = Fixture::start().await;
    let to = device("device-1");
    let id = fixture.send(&to, "1").await.unwrap();
    let (old, new) = (fixture.attach(&to).await, fixture.attach(&to).await);
    fixture.next(&to, new).await;
    fixture.service.sent(&to, new, id).await.unwrap();
    let reason = async || fixture.service.next(&to, old).await.unwrap_err().reason().to_owned();
    fixture.service.detach(&to, old, Duration::ZERO).await.unwrap();
    assert_eq!(reason().await, "SESSION_REPLACED", "it is the older one that left");
    fixture.service.detach(&to, new, Duration::from_secs(30)).await.unwrap();
    assert_eq!(reason().await, "SESSION_REPLACED", "it may still acknowledge");
    fixture.service.delivered(&to, new, id).await.unwrap();
    let mut heard = fixture.signals.subscribe(Topic::Commands).await;
    fixture.service.detach(&to, new, Duration::ZERO).await.unwrap();
    assert_eq!(reason().await, "SESSION_ENDED");
    let rung = tokio::time::timeout(Duration::from_secs(20), heard.next()).await;
    assert!(rung.expect("nobody rang for the older session").is_some());
    fixture.service.detach(&to, new, Duration::from_secs(30)).await.unwrap();
    assert_eq!(reason().await, "SESSION_ENDED", "what ends earlier counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_the_instant_of_the_send_finds_its_command() {
    let fixture = Fixture::start().await;
    let to = device("device-1");
    for n in 0..20 {
        let id = fixture.send(&to, &n.to_string()).await.unwrap();
        fixture.service.answered(&to, id, answer(true)).await.unwrap();
    }
    let other = device("device-2");
    let theirs = fixture.send(&other, "1").await.unwrap();
    let error = fixture.service.answered(&to, theirs, answer(true)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "another device's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_not_taken_for_another_command() {
    let fixture = Fixture::start().await;
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
    let (id, _) = fixture.service.send(send("open", r#"{"valve": 1}"#)).await.unwrap();
    for other in [send("close", r#"{"valve": 1}"#), send("open", r#"{"valve": 2}"#)] {
        let error = fixture.service.send(other).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::AlreadyExists, "REQUEST_ID_REUSED"));
        assert_eq!(error.field(), Some("request_id"));
    }
    let again = fixture.service.send(send("open", r#"{"valve":1}"#)).await.unwrap();
    assert_eq!(again.0, id, "written another way it is the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_attach_at_once_get_different_epochs() {
    let fixture = Fixture::start().await;
    let to = device("device-1");
    let attaching = (0..8).map(|_| fixture.service.attach(&to, Session(Uid::random())));
    let mut epochs: Vec<SessionEpoch> =
        futures::future::join_all(attaching).await.into_iter().filter_map(Result::ok).collect();
    let count = epochs.len();
    epochs.sort();
    epochs.dedup();
    assert_eq!(epochs.len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_for_thirty_seconds_is_offered_again_or_lets_the_next_one_pass() {
    let fixture = Fixture::start().await;
    let to = device("device-1");
    let first = fixture.send(&to, "1").await.unwrap();
    let second = fixture.send(&to, "2").await.unwrap();
    let epoch = fixture.attach(&to).await;
    fixture.next(&to, epoch).await;
    fixture.service.sent(&to, epoch, first).await.unwrap();
    assert_eq!(fixture.service.next_unacknowledged(&to, epoch).await.unwrap(), None);
    fixture.clock.advance(Duration::from_secs(30));
    assert_eq!(fixture.next(&to, epoch).await, (first, true));
    let passing = fixture.service.next_unacknowledged(&to, epoch).await.unwrap().unwrap();
    assert_eq!((passing.command.request.id, passing.again), (second, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_implies_delivery_and_one_after_the_end_changes_nothing() {
    let fixture = Fixture::start().await;
    let to = device("device-1");
    let id = fixture.send(&to, "1").await.unwrap();
    let epoch = fixture.attach(&to).await;
    fixture.next(&to, epoch).await;
    fixture.service.sent(&to, epoch, id).await.unwrap();
    let fixture = fixture.restart().await; // an answer needs no session
    fixture.service.answered(&to, id, answer(true)).await.unwrap();
    let ended = fixture.send(&to, "1").await.unwrap();
    assert_eq!(ended, id, "the request is remembered");
    fixture.service.answered(&to, id, answer(false)).await.unwrap();
    let error = fixture.service.sent(&to, fixture.attach(&to).await, id).await.unwrap_err();
    assert_eq!((error.kind(), error.message().contains("SUCCEEDED")), (ErrorKind::FailedPrecondition, true));
    let unknown = fixture.service.answered(&to, Uid::from_u128(1), answer(true)).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_json_fails_its_command_and_blocks_nothing() {
    let fixture = Fixture::start().await;
    let to = device("device-1");
    let first = fixture.send_with(&to, "1", Order::OnResponse, Duration::from_secs(600)).await.unwrap();
    let second = fixture.send(&to, "2").await.unwrap();
    let epoch = fixture.attach(&to).await;
    fixture.next(&to, epoch).await;
    fixture.service.sent(&to, epoch, first).await.unwrap();
    let mut nonsense = answer(true);
    nonsense.payload = vec![0xff, 0xfe].into();
    fixture.service.answered(&to, first, nonsense).await.unwrap();
    assert_eq!(fixture.next(&to, epoch).await, (second, false));
    let error = fixture.service.sent(&to, epoch, first).await.unwrap_err();
    assert!(error.message().contains("FAILED"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_a_bounded_number_of_pending_commands_and_a_repeat_is_not_one_more() {
    let fixture = Fixture::start_with(Config { partitions: 2, pending_max: 10, ..Config::default() }).await;
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
    fixture.service.answered(&to, id, answer(true)).await.unwrap();
    fixture.send(&to, "one more").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_expires_also_while_its_device_is_away_and_after_a_restart() {
    let fixture = Fixture::start().await;
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
        let error = fixture.service.sent(&to, fixture.attach(&to).await, id).await.unwrap_err();
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
        fixture.service.next(&to, epoch).await.unwrap().is_none().then_some(())
    })
    .await;
    ended(&fixture, second).await;
    ended(&fixture, third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_command_is_removed_after_its_retention_and_not_brought_back() {
    let retention = Duration::from_secs(3_600);
    let fixture = Fixture::start_with(Config { partitions: 1, retention, ..Config::default() }).await;
    let to = device("device-1");
    let id = fixture.send(&to, "1").await.unwrap();
    let epoch = fixture.attach(&to).await;
    fixture.next(&to, epoch).await;
    fixture.clock.advance(Duration::from_secs(601));
    let gone = async |fixture: &Fixture| {
        let answered = fixture.service.answered(&to, id, answer(true)).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_is_trimmed_behind_its_slowest_reader_and_not_into_what_is_kept() {
    let fixture = Fixture::start_with(Config { partitions: 1, ..Config::default() }).await;
    let to = device("device-1");
    for n in 0..3 {
        fixture.send(&to, &n.to_string()).await.unwrap();
    }
    let trim = async |readers: &[&str]| {
        let keep = Duration::from_secs(3_600);
        trim_once(&*fixture.log, &*fixture.records, Stream::Commands, readers, 1, keep, &*fixture.clock)
            .await
            .unwrap()
    };
    eventually("the reader is through", async || {
        let progress = all_progress(&*fixture.records, Stream::Commands, &["commands"], 1).await.unwrap();
        (progress[0].progress.sequence == 3).then_some(())
    })
    .await;
    assert_eq!(trim(&["commands"]).await, 0, "it is younger than an hour");
    fixture.clock.advance(Duration::from_secs(3_601));
    assert_eq!(trim(&["commands", "another"]).await, 0, "another reader has read nothing");
    assert_eq!(trim(&["commands"]).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_kill_cuts_off_every_accepted_command_is_there_once_and_in_order() {
    let kills = (0..40).map(|commits| tokio::spawn(kill_after(commits)));
    let ended: Vec<_> = futures::stream::iter(kills).buffer_unordered(8).collect().await;
    ended.into_iter().for_each(|ended| ended.unwrap());
}

async fn kill_after(commits: i64) {
    let fixture = Fixture::start().await;
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
            fixture.service.sent(to, epoch, id).await.unwrap();
            fixture.service.answered(to, id, answer(true)).await.unwrap();
        }
        assert_eq!(fixture.service.next(to, epoch).await.unwrap(), None, "killed after {commits} commits");
    }
}
