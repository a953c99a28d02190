//! Replicas over the same log and store: what is sent at one is there at every other, whoever owns the partition.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use support::{
    Fixture, answer, device, device_of, eventually,
    serve::{Client, client_of},
};
use weir_commands::Service;
use weir_conformance::board::Board;
use weir_core::{
    Stream, Uid,
    port::{CommandQueue, Session, Signal, Signals},
    progress::all_progress,
};
use weir_log_embedded::LocalSignals;
use weir_proto::commands::v1::{
    Command, CommandState, GetCommandRequest, InvokeCommandRequest, ListCommandsRequest, SendCommandRequest,
    WatchCommandsEvent, WatchCommandsRequest,
};
use weir_runtime::Service as _;

/// Enough that each partition has one.
const DEVICES: usize = 12;

struct Site {
    fixture: Fixture,
    board: Board,
}

impl Site {
    async fn open() -> Self {
        let fixture = Fixture::start().await;
        fixture.service.drain().await; // only its engines are of use
        Self { fixture, board: Board::default() }
    }

    async fn replica(&self, name: &str) -> (Arc<Service>, Client) {
        let service = self.fixture.replica(Arc::new(self.board.seat(name))).await;
        let client = client_of(&service, "acme:admin").await;
        (service, client)
    }

    async fn epochs(&self) -> Vec<u64> {
        let records = &*self.fixture.records;
        let found = all_progress(records, Stream::Commands, &["commands"], 4).await.unwrap();
        found.iter().map(|one| one.epoch).collect()
    }
}

fn to(n: usize, request_id: &str) -> SendCommandRequest {
    SendCommandRequest {
        device: format!("tenants/acme/devices/device-{}", n % DEVICES),
        command: "open".to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

async fn send(client: &mut Client, n: usize) -> Command {
    client.send_command(to(n, &n.to_string())).await.unwrap().into_inner().command.unwrap()
}

async fn get(client: &mut Client, name: &str) -> Command {
    let request = GetCommandRequest { name: name.to_owned() };
    client.get_command(request).await.unwrap().into_inner().command.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sent_at_one_replica_is_found_at_another_and_a_repeat_there_is_the_same_one() {
    let site = Site::open().await;
    let (one, mut first) = site.replica("one").await;
    let (two, mut second) = site.replica("two").await;
    for n in 0..48 {
        let (here, there) = if n % 2 == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
        let sent = send(here, n).await;
        assert_eq!(get(there, &sent.name).await, sent, "command {n}");
        assert_eq!(send(there, n).await, sent);
    }
    one.drain().await;
    two.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_and_a_watch_at_one_replica_see_what_a_device_does_at_another() {
    let site = Site::open().await;
    let (one, _) = site.replica("one").await;
    let (two, mut second) = site.replica("two").await;
    let request = WatchCommandsRequest { parent: "tenants/acme".to_owned(), ..Default::default() };
    let mut stream = second.watch_commands(request).await.unwrap().into_inner();
    let synced = stream.message().await.unwrap().unwrap();
    assert_eq!(synced.event(), WatchCommandsEvent::Synced);
    for n in 0..DEVICES {
        let to_device = device(&format!("device-{n}"));
        let epoch = one.attach(&to_device, Session(Uid::random())).await.unwrap();
        let mut waiting = second.clone();
        let invoked = tokio::spawn(async move {
            let request = InvokeCommandRequest { send: Some(to(n, "invoke")), wait: None };
            waiting.invoke_command(request).await.unwrap().into_inner().command.unwrap()
        });
        let next = async || one.next(&to_device, epoch).await.unwrap();
        let id = eventually("it may leave at the other replica", next).await.command.request.id;
        one.sent(&to_device, epoch, id).await.unwrap();
        one.answered(&to_device, id, answer(true)).await.unwrap();
        assert_eq!(invoked.await.unwrap().state(), CommandState::Succeeded);
    }
    let mut succeeded = BTreeSet::new();
    while succeeded.len() < DEVICES {
        let message = tokio::time::timeout(Duration::from_secs(20), stream.message()).await;
        let message = message.expect("every end is told").unwrap().unwrap();
        let ended = message.command.filter(|command| command.state() == CommandState::Succeeded);
        succeeded.extend(ended.map(|command| command.name));
    }
    one.drain().await;
    two.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_signal_was_lost_is_told_after_a_gap_though_later_ones_were_told_before_it() {
    let site = Site::open().await;
    let (one, mut client) = site.replica("one").await;
    let unheard =
        site.fixture.replica_with(Arc::new(site.board.seat("two")), Arc::new(LocalSignals::new())).await;
    let mut sent = Vec::new();
    for n in 0..2 {
        let to_device = device(&format!("device-{n}"));
        client.send_command(to(n, "1")).await.unwrap();
        let epoch = one.attach(&to_device, Session(Uid::random())).await.unwrap();
        let next = async || one.next(&to_device, epoch).await.unwrap();
        let id = eventually("it may leave", next).await.command.request.id;
        one.sent(&to_device, epoch, id).await.unwrap();
        sent.push((to_device, id));
    }
    let request = WatchCommandsRequest { parent: "tenants/acme".to_owned(), ..Default::default() };
    let mut stream = client.watch_commands(request).await.unwrap().into_inner();
    while stream.message().await.unwrap().unwrap().event() != WatchCommandsEvent::Synced {}
    let mut ended = async || loop {
        let message = tokio::time::timeout(Duration::from_secs(20), stream.message()).await;
        let message = message.expect("every end is told").unwrap().unwrap();
        if let Some(command) = message.command.filter(|one| one.state() == CommandState::Succeeded) {
            return command.name;
        }
    };
    let [(first, lost), (second, heard)] = &sent[..] else { panic!("two were sent") };
    unheard.answered(first, *lost, answer(true)).await.unwrap();
    site.fixture.clock.advance(Duration::from_secs(60));
    one.answered(second, *heard, answer(true)).await.unwrap();
    assert_eq!(ended().await, format!("tenants/acme/commands/{heard}"));

    // More than anybody can be behind, of somebody else.
    let signals = Arc::clone(&site.fixture.signals);
    let flood = tokio::spawn(async move {
        loop {
            for _ in 0..10_000 {
                let change =
                    Signal::CommandChanged { to: device_of("other", "device-1"), id: Uid::from_u128(0) };
                signals.publish(change).await;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(ended().await, format!("tenants/acme/commands/{lost}"));
    flood.abort();
    one.drain().await;
    unheard.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_sent_while_replicas_come_and_go_are_there_once_and_in_order_and_end_in_time() {
    let site = Site::open().await;
    let (one, mut first) = site.replica("one").await;
    let (two, mut second) = site.replica("two").await;
    let mut sent: BTreeMap<String, Vec<Command>> = BTreeMap::new();
    let mut third = None;
    for n in 0..240 {
        match n {
            80 => third = Some(site.replica("three").await),
            160 => one.drain().await,
            _ => {}
        }
        let client = if n % 2 == 0 && n < 160 { &mut first } else { &mut second };
        let command = send(client, n).await;
        sent.entry(command.device.clone()).or_default().push(command);
    }
    let (three, mut last) = third.unwrap();
    let before = site.epochs().await;
    two.drain().await;
    eventually("the last replica has claimed what the one before had", async || {
        let after = site.epochs().await;
        let moved = after.iter().zip(&before).any(|(after, before)| after > before);
        (moved && three.ready().await.is_ok()).then_some(())
    })
    .await;
    for (device, commands) in &sent {
        get(&mut last, &commands.last().unwrap().name).await;
        let request = ListCommandsRequest {
            parent: "tenants/acme".to_owned(),
            device: device.clone(),
            page_size: 100,
            ..Default::default()
        };
        let mut listed = last.list_commands(request).await.unwrap().into_inner().commands;
        listed.reverse();
        assert_eq!(listed, *commands, "{device}");
    }
    // Timers of others are the last one's now.
    site.fixture.clock.advance(Duration::from_secs(3_600));
    for command in sent.values().flatten() {
        eventually("its time is over", async || {
            let request = GetCommandRequest { name: command.name.clone() };
            let found = last.clone().get_command(request).await.unwrap().into_inner().command.unwrap();
            (found.state() == CommandState::Expired).then_some(())
        })
        .await;
    }
    three.drain().await;
}
