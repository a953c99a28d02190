//! `weir.commands.v1` over a real connection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod support;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use support::{
    answer, device, eventually,
    serve::{Client, Served},
};
use tonic::{Code, Request};
use weir_core::port::CommandQueue;
use weir_grpc::from_status;
use weir_proto::commands::v1::{
    CancelCommandRequest, Command, CommandState, GetCommandRequest, InvokeCommandRequest,
    ListCommandsRequest, SendCommandRequest, WatchCommandsEvent, WatchCommandsRequest, WatchCommandsResponse,
};

fn to(device: &str, request_id: &str) -> SendCommandRequest {
    SendCommandRequest {
        device: format!("tenants/acme/devices/{device}"),
        command: "open".to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

async fn send(client: &mut Client, device: &str, request_id: &str) -> Command {
    client.send_command(to(device, request_id)).await.unwrap().into_inner().command.unwrap()
}

async fn get(client: &mut Client, name: &str) -> Command {
    let request = GetCommandRequest { name: name.to_owned() };
    client.get_command(request).await.unwrap().into_inner().command.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_found_right_after_its_send_and_a_repeat_is_the_same_one() {
    let served = Served::start().await;
    let mut client = served.client("acme:admin").await;
    for n in 0..50 {
        let sent = send(&mut client, "device-1", &n.to_string()).await;
        assert_eq!(get(&mut client, &sent.name).await, sent, "command {n}");
        assert_eq!(sent.payload, "{}");
        assert_eq!(send(&mut client, "device-1", &n.to_string()).await, sent);
    }
    let unknown = format!("tenants/acme/commands/{:032x}", 7);
    let status = client.get_command(GetCommandRequest { name: unknown }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_its_field_and_limit() {
    let served = Served::start().await;
    let mut client = served.client("acme:write").await;
    let ttl = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    for (request, field, limit) in [
        (SendCommandRequest { command: "a/b".to_owned(), ..to("device-1", "") }, "command", "64"),
        (SendCommandRequest { payload: "{".to_owned(), ..to("device-1", "") }, "payload", ""),
        (SendCommandRequest { payload: "1".repeat(131_073), ..to("device-1", "") }, "payload", "131072"),
        (SendCommandRequest { ttl: ttl(0), ..to("device-1", "") }, "ttl", "2592000s"),
        (SendCommandRequest { ttl: ttl(2_592_001), ..to("device-1", "") }, "ttl", "2592000s"),
        (to("device-1", &"x".repeat(129)), "request_id", "128"),
        (SendCommandRequest { device: "nonsense".to_owned(), ..to("device-1", "") }, "device", ""),
    ] {
        let error = from_status(client.send_command(request).await.unwrap_err());
        assert_eq!((error.field(), error.limit().unwrap_or_default()), (Some(field), limit), "{error}");
    }
    assert_eq!(client.send_command(to("nobody", "")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_and_a_lesser_scope_are_refused_before_anything_is_looked_up() {
    let served = Served::start().await;
    let name = send(&mut served.client("acme:write").await, "device-1", "1").await.name;
    for token in ["other:admin", "acme:read", "acme:provision"] {
        let mut client = served.client(token).await;
        for device in ["device-1", "nobody"] {
            let status = client.send_command(to(device, "2")).await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{token}");
        }
        let cancel = CancelCommandRequest { name: name.clone(), ..Default::default() };
        assert_eq!(client.cancel_command(cancel).await.unwrap_err().code(), Code::PermissionDenied);
    }
    for token in ["other:admin", "acme:write"] {
        let mut client = served.client(token).await;
        let request = GetCommandRequest { name: name.clone() };
        assert_eq!(client.get_command(request).await.unwrap_err().code(), Code::PermissionDenied);
        let request = ListCommandsRequest { parent: "tenants/acme".to_owned(), ..Default::default() };
        assert_eq!(client.list_commands(request).await.unwrap_err().code(), Code::PermissionDenied);
        let request = WatchCommandsRequest { parent: "tenants/acme".to_owned(), ..Default::default() };
        assert_eq!(client.watch_commands(request).await.unwrap_err().code(), Code::PermissionDenied);
    }
    assert_eq!(
        served.client("nonsense").await.send_command(to("device-1", "")).await.unwrap_err().code(),
        Code::Unauthenticated
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn invoke_gives_the_answer_or_past_its_wait_the_command_as_it_is() {
    let served = Served::start().await;
    let mut client = served.client("acme:admin").await;
    let device = device("device-1");
    let invoke = |id: &str, millis: i32| InvokeCommandRequest {
        send: Some(to("device-1", id)),
        wait: Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 }),
    };
    let queued = client.invoke_command(invoke("1", 1)).await.unwrap().into_inner().command.unwrap();
    assert_eq!(queued.state(), CommandState::Queued);
    let epoch = served.fixture.attach(&device).await;
    let (id, _) = served.fixture.next(&device, epoch).await;
    let service = Arc::clone(&served.fixture.service);
    let mut waiting = client.clone();
    let answered = tokio::spawn(async move {
        let request = InvokeCommandRequest { send: Some(to("device-1", "1")), wait: None };
        waiting.invoke_command(request).await.unwrap().into_inner().command.unwrap()
    });
    service.sent(&device, epoch, id).await.unwrap();
    service.answered(&device, id, answer(true)).await.unwrap();
    let answered = answered.await.unwrap();
    assert_eq!((answered.state(), answered.response.as_str()), (CommandState::Succeeded, "{\"done\": true}"));
    // The caller's own deadline counts as well: the answer comes before it.
    let mut request = Request::new(InvokeCommandRequest { send: Some(to("device-1", "2")), wait: None });
    request.set_timeout(Duration::from_millis(500));
    let queued = client.invoke_command(request).await.unwrap().into_inner().command.unwrap();
    assert_eq!(queued.state(), CommandState::Queued);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_newest_first_in_pages_of_every_filter() {
    let served = Served::start().await;
    let mut client = served.client("acme:admin").await;
    let mut sent = Vec::new();
    for n in 0..25 {
        if n == 12 {
            served.fixture.clock.advance(Duration::from_secs(3 * 86_400)); // the first ones are of another day
        }
        let mut request = to(["device-1", "device-2"][n % 2], &n.to_string());
        request.ttl = Some(prost_types::Duration { seconds: 30 * 86_400, nanos: 0 });
        sent.push(client.send_command(request).await.unwrap().into_inner().command.unwrap());
    }
    for n in [3, 17] {
        let request = CancelCommandRequest { name: sent[n].name.clone(), ..Default::default() };
        sent[n] = client.cancel_command(request).await.unwrap().into_inner().command.unwrap();
        assert_eq!(sent[n].state(), CommandState::Canceled);
    }
    get(&mut client, &sent[24].name).await; // everything is copied
    sent.reverse();
    let all =
        || ListCommandsRequest { parent: "tenants/acme".to_owned(), page_size: 4, ..Default::default() };
    let of_device = ListCommandsRequest { device: "tenants/acme/devices/device-1".to_owned(), ..all() };
    let queued = ListCommandsRequest { state: CommandState::Queued as i32, ..all() };
    let canceled = ListCommandsRequest { state: CommandState::Canceled as i32, ..all() };
    type Keep = fn(&Command) -> bool;
    for (request, keep) in [
        (all(), (|_| true) as Keep),
        (of_device, |command| command.device.ends_with("device-1")),
        (queued, |command| command.state() == CommandState::Queued),
        (canceled, |command| command.state() == CommandState::Canceled),
    ] {
        let expected: Vec<_> = sent.iter().filter(|command| keep(command)).cloned().collect();
        assert_eq!(listed(&mut client, request.clone()).await, expected, "{request:?}");
    }
}

async fn listed(client: &mut Client, mut request: ListCommandsRequest) -> Vec<Command> {
    let mut commands = Vec::new();
    loop {
        let page = client.list_commands(request.clone()).await.unwrap().into_inner();
        assert!(page.commands.len() <= 4);
        commands.extend(page.commands);
        if page.next_page_token.is_empty() {
            return commands;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_is_open_then_synced_then_changes_and_goes_on_after_its_cursor() {
    let served = Served::start().await;
    let mut client = served.client("acme:admin").await;
    let first = send(&mut client, "device-1", "1").await;
    let ended = send(&mut client, "device-1", "2").await;
    send(&mut client, "device-2", "1").await;
    let cancel = CancelCommandRequest { name: ended.name.clone(), ..Default::default() };
    client.cancel_command(cancel).await.unwrap();
    get(&mut client, &first.name).await;
    let watch = |resume_cursor: String| WatchCommandsRequest {
        parent: "tenants/acme".to_owned(),
        device: "tenants/acme/devices/device-1".to_owned(),
        resume_cursor,
    };
    let mut stream = client.watch_commands(watch(String::new())).await.unwrap().into_inner();
    let mut next = async || stream.message().await.unwrap().unwrap();
    assert_eq!(told(&next().await), (WatchCommandsEvent::Command, Some(first.name.clone())));
    assert_eq!(told(&next().await), (WatchCommandsEvent::Synced, None));
    let second = send(&mut client, "device-1", "3").await;
    let message = next().await;
    assert_eq!(told(&message), (WatchCommandsEvent::Command, Some(second.name.clone())));

    served.fixture.clock.advance(Duration::from_secs(60));
    let cancel = CancelCommandRequest { name: first.name.clone(), ..Default::default() };
    client.cancel_command(cancel).await.unwrap();
    let resumed = client.watch_commands(watch(message.cursor)).await.unwrap();
    let mut resumed = resumed.into_inner();
    let mut names = Vec::new();
    loop {
        let message = resumed.message().await.unwrap().unwrap();
        match told(&message) {
            (WatchCommandsEvent::Command, Some(name)) => names.push((name, message.command.unwrap().state())),
            (WatchCommandsEvent::Synced, _) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(names.contains(&(first.name.clone(), CommandState::Canceled)), "{names:?}");
    let status = client.watch_commands(watch("!".to_owned())).await.unwrap_err();
    assert_eq!(from_status(status).field(), Some("resume_cursor"));
}

fn told(message: &WatchCommandsResponse) -> (WatchCommandsEvent, Option<String>) {
    (message.event(), message.command.as_ref().map(|command| command.name.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_told_that_it_is_slow_and_where_to_go_on() {
    let served = Served::start().await;
    let mut client = served.client("acme:admin").await;
    let request = WatchCommandsRequest { parent: "tenants/acme".to_owned(), ..Default::default() };
    let mut stream = client.watch_commands(request).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().event(), WatchCommandsEvent::Synced);
    let payload = format!("\"{}\"", "x".repeat(100_000)); // so that a few fill what a connection buffers
    for n in 0..60 {
        let request = SendCommandRequest { payload: payload.clone(), ..to("device-0", &n.to_string()) };
        client.send_command(request).await.unwrap();
    }
    let device_of = |n: usize| device(&format!("device-{}", n % 50));
    let sends = (0..5_000).map(async |n| {
        served.fixture.send(&device_of(n), &format!("small {n}")).await.unwrap();
    });
    futures::stream::iter(sends).buffer_unordered(200).collect::<Vec<()>>().await;
    eventually("everything is copied", async || {
        let request =
            ListCommandsRequest { parent: "tenants/acme".to_owned(), page_size: 1, ..Default::default() };
        let newest = client.clone().list_commands(request).await.unwrap().into_inner().commands;
        (newest.len() == 1).then_some(())
    })
    .await;
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), from_status(status.clone()).reason()),
        (Code::ResourceExhausted, "SLOW_READER")
    );
    assert!(status.metadata().contains_key("cursor"));
}
