//! Random lives of devices' queues against a model, across restarts and kills at any commit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod support;

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use support::{
    Fixture, answer, device, eventually,
    serve::{Client, Served},
};
use weir_commands::Config;
use weir_core::{
    ErrorKind, Uid,
    command::{DeviceKey, Order},
    port::{CommandQueue, SessionEpoch},
};
use weir_proto::commands::v1::{
    CancelCommandRequest, CommandState as State, GetCommandRequest, ListCommandsRequest,
};

const DEVICES: usize = 2;

#[derive(Debug, Clone)]
enum Op {
    Send {
        device: usize,
        request: u8,
        on_response: bool,
        ttl: u64,
    },
    Attach {
        device: usize,
    },
    /// Takes what may leave and sends it.
    Take {
        device: usize,
        acknowledges: bool,
    },
    Deliver {
        device: usize,
        nth: usize,
    },
    Answer {
        nth: usize,
        ok: bool,
    },
    Cancel {
        nth: usize,
    },
    Advance {
        seconds: u64,
    },
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let device = 0..DEVICES;
    prop_oneof![
        4 => (device.clone(), 0_u8..12, any::<bool>(), 10_u64..200)
            .prop_map(|(device, request, on_response, ttl)| Op::Send { device, request, on_response, ttl }),
        2 => device.clone().prop_map(|device| Op::Attach { device }),
        5 => (device.clone(), any::<bool>()).prop_map(|(device, acknowledges)| Op::Take { device, acknowledges }),
        3 => (device, 0_usize..8).prop_map(|(device, nth)| Op::Deliver { device, nth }),
        2 => (0_usize..12, any::<bool>()).prop_map(|(nth, ok)| Op::Answer { nth, ok }),
        1 => (0_usize..12).prop_map(|nth| Op::Cancel { nth }),
        2 => (1_u64..60).prop_map(|seconds| Op::Advance { seconds }),
        1 => Just(Op::Restart),
    ]
}

/// Some operations are cut off by a kill after so many commits.
fn life() -> impl Strategy<Value = Vec<(Op, Option<i64>)>> {
    let kill = prop_oneof![8 => Just(None), 1 => (0_i64..8).prop_map(Some)];
    proptest::collection::vec((op(), kill), 1..40)
}

/// A command as the model has it.
#[derive(Debug, Clone, PartialEq)]
struct Expected {
    id: Uid,
    device: usize,
    request: u8,
    on_response: bool,
    expires_at: u64,
    state: State,
    unknown: bool,
    /// (epoch, first offered, last offered)
    offer: Option<(u64, u64, u64)>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    now: u64,
    /// In the order of acceptance.
    commands: Vec<Expected>,
    epochs: BTreeMap<usize, u64>,
}

fn is_final(state: State) -> bool {
    matches!(state, State::Succeeded | State::Failed | State::Expired | State::Canceled)
}

impl Model {
    fn end(command: &mut Expected, state: State) {
        if !is_final(command.state) {
            command.unknown =
                command.state == State::Sent && matches!(state, State::Expired | State::Canceled);
            command.state = state;
        }
    }

    fn accept(&mut self, id: Uid, device: usize, request: u8, on_response: bool, ttl: u64) {
        let (expires_at, state) = (self.now + ttl, State::Queued);
        let (unknown, offer) = (false, None);
        self.commands.push(Expected { id, device, request, on_response, expires_at, state, unknown, offer });
    }

    fn advance(&mut self, seconds: u64) {
        self.now += seconds;
        for command in self.commands.iter_mut().filter(|command| command.expires_at <= self.now) {
            Self::end(command, State::Expired);
        }
    }

    fn next(&self, device: usize, acknowledges: bool) -> Option<(usize, bool)> {
        let epoch = self.epochs[&device];
        let ours = self.commands.iter().enumerate().filter(|(_, command)| command.device == device);
        for (index, command) in ours {
            match (command.state, command.offer) {
                (State::Queued, _) => return Some((index, false)),
                (State::Sent, Some((of, ..))) if of != epoch => return Some((index, true)),
                (State::Sent, Some((_, _, last))) if acknowledges => {
                    return (self.now >= last + 30).then_some((index, true));
                }
                (State::Sent, Some((_, first, _))) if self.now < first + 30 => return None,
                (State::Delivered, _) if command.on_response => return None,
                _ => {}
            }
        }
        None
    }
}

struct Run {
    served: Served,
    client: Client,
    model: Model,
    devices: Vec<DeviceKey>,
}

impl Run {
    async fn start() -> Self {
        let config = Config { partitions: 2, ..Config::default() };
        let served = Served::serve(Fixture::start_with(config).await).await;
        let client = served.client("acme:admin").await;
        let devices = (0..DEVICES).map(|n| device(&format!("device-{n}"))).collect();
        Self { served, client, model: Model::default(), devices }
    }

    async fn restart(self) -> Self {
        let Self { served, model, devices, client } = self;
        drop(client);
        let served = served.restart().await;
        let client = served.client("acme:admin").await;
        Self { served, client, model, devices }
    }

    /// Does it in both, and compares what each says.
    async fn apply(&mut self, op: &Op) -> weir_core::Result<()> {
        match *op {
            Op::Send { device, request, on_response, ttl } => {
                self.send(device, request, on_response, ttl).await?;
            }
            Op::Attach { device } => {
                let session = weir_core::port::Session(Uid::random());
                let epoch = self.served.fixture.service.attach(&self.devices[device], session).await?;
                let before = self.model.epochs.insert(device, epoch.0);
                assert!(before.is_none_or(|before| before < epoch.0));
            }
            Op::Take { device, acknowledges } => self.take(device, acknowledges).await?,
            Op::Deliver { device, nth } => self.deliver(device, nth).await?,
            Op::Answer { nth, ok } => {
                let Some(command) = self.model.commands.get_mut(nth) else { return Ok(()) };
                let to = &self.devices[command.device];
                self.served.fixture.service.answered(to, command.id, answer(ok)).await?;
                Model::end(command, if ok { State::Succeeded } else { State::Failed });
            }
            Op::Cancel { nth } => self.cancel(nth).await?,
            Op::Advance { seconds } => {
                self.served.fixture.clock.advance(Duration::from_secs(seconds));
                self.model.advance(seconds);
            }
            Op::Restart => {}
        }
        Ok(())
    }

    async fn send(
        &mut self,
        device: usize,
        request: u8,
        on_response: bool,
        ttl: u64,
    ) -> weir_core::Result<()> {
        let order = if on_response { Order::OnResponse } else { Order::OnDelivery };
        let (to, request_id) = (&self.devices[device], request.to_string());
        let id = self.served.fixture.send_with(to, &request_id, order, Duration::from_secs(ttl)).await?;
        let same = |known: &&Expected| known.device == device && known.request == request;
        match self.model.commands.iter().find(same) {
            Some(known) => assert_eq!(known.id, id),
            None => self.model.accept(id, device, request, on_response, ttl),
        }
        self.found(id).await.map(drop)
    }

    async fn take(&mut self, device: usize, acknowledges: bool) -> weir_core::Result<()> {
        let Some(epoch) = self.model.epochs.get(&device).copied() else { return Ok(()) };
        let (to, session, service) =
            (&self.devices[device], SessionEpoch(epoch), &self.served.fixture.service);
        let next = match acknowledges {
            true => service.next(to, session).await?,
            false => service.next_unacknowledged(to, session).await?,
        };
        let next = next.map(|queued| (queued.command.request.id, queued.again));
        let expected = self.model.next(device, acknowledges);
        assert_eq!(next, expected.map(|(index, again)| (self.model.commands[index].id, again)));
        if let Some((index, _)) = expected {
            let (now, command) = (self.model.now, &mut self.model.commands[index]);
            service.sent(to, session, command.id).await?;
            let first = command.offer.filter(|(of, ..)| *of == epoch).map_or(now, |(_, first, _)| first);
            command.offer = Some((epoch, first, now));
            command.state = State::Sent;
        }
        Ok(())
    }

    async fn deliver(&mut self, device: usize, nth: usize) -> weir_core::Result<()> {
        let Some(epoch) = self.model.epochs.get(&device).copied() else { return Ok(()) };
        let mut ours = self.model.commands.iter_mut().filter(|command| command.device == device);
        let Some(command) = ours.nth(nth) else { return Ok(()) };
        let service = &self.served.fixture.service;
        let done = service.delivered(&self.devices[device], SessionEpoch(epoch), command.id).await;
        if command.state == State::Queued {
            assert!(refused(done)?, "a command that was not sent was delivered");
            return Ok(());
        }
        done?;
        if command.state == State::Sent {
            command.state = State::Delivered;
        }
        Ok(())
    }

    async fn cancel(&mut self, nth: usize) -> weir_core::Result<()> {
        let Some(command) = self.model.commands.get_mut(nth) else { return Ok(()) };
        let request = CancelCommandRequest { name: name(command.id), ..Default::default() };
        let done = self.client.cancel_command(request).await.map(drop).map_err(weir_grpc::from_status);
        if is_final(command.state) && command.state != State::Canceled {
            assert!(refused(done)?, "an ended command was canceled");
            return Ok(());
        }
        done?;
        Model::end(command, State::Canceled);
        Ok(())
    }

    async fn found(&self, id: Uid) -> weir_core::Result<(State, bool)> {
        let request = GetCommandRequest { name: name(id) };
        let found = self.client.clone().get_command(request).await.map_err(weir_grpc::from_status)?;
        let found = found.into_inner().command.unwrap();
        Ok((found.state(), found.delivery_unknown))
    }

    /// Every command is as the model has it, and the list has each once, newest first.
    async fn check(&self) {
        for expected in &self.model.commands {
            let what = format!("{expected:?} is so");
            eventually(&what, async || {
                let found = self.found(expected.id).await.unwrap();
                (found == (expected.state, expected.unknown)).then_some(())
            })
            .await;
        }
        let request =
            ListCommandsRequest { parent: "tenants/acme".to_owned(), page_size: 1_000, ..Default::default() };
        let listed = self.client.clone().list_commands(request).await.unwrap().into_inner().commands;
        let listed: Vec<_> = listed.into_iter().map(|command| command.name).collect();
        let expected: Vec<_> = self.model.commands.iter().rev().map(|command| name(command.id)).collect();
        assert_eq!(listed, expected);
    }

    /// After a kill: what was cut off has happened or has not, and nothing else. The model takes what is there.
    async fn reconcile(&mut self, before: Model, op: &Op) {
        let after = &mut self.model;
        if let Op::Send { device, request, on_response, ttl } = *op {
            let to = &self.devices[device];
            let tenant = to.tenant.as_str().as_bytes();
            let id = Uid::hash(&[b"command", tenant, &to.uid.to_bytes(), request.to_string().as_bytes()]);
            if before.commands.iter().all(|known| known.id != id) {
                after.commands.retain(|known| known.id != id);
                let get = self.client.clone().get_command(GetCommandRequest { name: name(id) }).await;
                if get.is_ok() {
                    after.accept(id, device, request, on_response, ttl);
                }
            }
            return;
        }
        // An offer cannot be seen, but it shows in what leaves next; a new session starts from a known place.
        let touched: Vec<usize> = (0..after.commands.len()).collect();
        for index in touched {
            let found = self.found(before.commands[index].id).await.unwrap();
            let (was, is) = (&before.commands[index], &mut self.model.commands[index]);
            let mut possible = vec![(was.state, was.unknown), (is.state, is.unknown)];
            match op {
                Op::Take { .. } if was.state == State::Queued => possible.push((State::Sent, false)),
                Op::Deliver { .. } if was.state == State::Sent => possible.push((State::Delivered, false)),
                Op::Answer { ok, .. } if !is_final(was.state) => {
                    possible.push((if *ok { State::Succeeded } else { State::Failed }, false));
                }
                Op::Cancel { .. } if !is_final(was.state) => {
                    possible.push((State::Canceled, was.state == State::Sent));
                }
                _ => {}
            }
            if was.expires_at <= self.model.now && !is_final(was.state) {
                possible.push((State::Expired, was.state == State::Sent));
            }
            assert!(possible.contains(&found), "{found:?} after {op:?} on {was:?}");
            if is.state != State::Expired || is_final(found.0) {
                (is.state, is.unknown) = found;
            }
            if is.state == State::Sent && is.offer.is_none() {
                is.offer = Some((0, 0, 0));
            }
        }
        for device in 0..DEVICES {
            self.apply(&Op::Attach { device }).await.unwrap();
        }
    }
}

fn name(id: Uid) -> String {
    format!("tenants/acme/commands/{id}")
}

/// Whether it was refused for the state of the command; any other failure is the caller's.
fn refused(done: weir_core::Result<()>) -> weir_core::Result<bool> {
    match done {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::FailedPrecondition => Ok(true),
        Err(error) => Err(error),
    }
}

async fn live(life: Vec<(Op, Option<i64>)>) {
    let mut run = Run::start().await;
    for (op, kill) in life {
        let before = run.model.clone();
        if let Some(commits) = kill {
            run.served.fixture.kill_after(commits);
        }
        let done = run.apply(&op).await;
        if kill.is_none() {
            done.unwrap();
        }
        if kill.is_some() || matches!(op, Op::Restart) {
            run = run.restart().await;
        }
        if kill.is_some() {
            run.reconcile(before, &op).await;
        }
        run.check().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_lives_as_the_model_does(life in life()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(live(life));
    }
}
