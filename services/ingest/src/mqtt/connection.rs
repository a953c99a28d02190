//! One authenticated connection: one task, one loop, everything that it waits for in one place.

use std::{future::pending, pin::Pin, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use mqtt_protocol_core::mqtt::result_code::{DisconnectReasonCode, SubackReasonCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use weir_core::{Error, Result, cache::AGE_AT_EDGE};

use super::{
    acks::{self, Acks, UnderWay, Work},
    header, inbound,
    io::{Io, Moved},
    outbound::{self, Outbound},
    packets::{Acknowledge, Broken, Input, Publish, Version, Will},
    protocol::Protocol,
    reason,
    server::{Connected, Server},
    subscribe::{self, Changed, Subscriptions},
};
use crate::{
    access::{self, Authenticated},
    doorbell::{Bell, Doorbell},
    explain::explain,
    sessions::{self, OpenSession},
};

/// How often a connection asks again whether it may be here: signals are only hints.
const TICK: Duration = AGE_AT_EDGE;
/// What may leave is asked for at one tick of so many: still below the 30 s that are promised.
const TICKS_OF_OUTBOUND: u32 = 2;

/// Above this many bytes that the client has not taken, nothing is read from it.
const UNWRITTEN_MAX: usize = 64 * 1024;

/// How long an orderly stop waits for the log to acknowledge what was taken in: ten times a slow disk's sync, and well
/// inside the drain of the process.
const DRAIN: Duration = Duration::from_secs(5);

/// An authenticated connection.
pub(super) struct Connection<S> {
    server: Arc<Server>,
    io: Io<S>,
    protocol: Protocol,
    who: Authenticated,
    session: Arc<OpenSession>,
    will: Option<Will>,
    /// What the CONNECT asked for, cut to the maximum.
    expiry: Duration,
    /// Longest silence of the client.
    silence_max: Duration,
    ended: oneshot::Receiver<sessions::Ended>,
    changes: Doorbell,
    subscriptions: Subscriptions,
    outbound: Outbound,
    /// Rung where a command waits.
    bell: Arc<Bell>,
    acks: Acks,
    /// What must be done before the next packet is taken.
    doing: Option<BoxFuture<'static, Done>>,
    rechecking: Option<BoxFuture<'static, Result<Authenticated>>>,
    /// A change came while it was asked: it is asked again.
    recheck_again: bool,
    heard: Instant,
    tick_at: Instant,
    ticks: u32,
    drain_until: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    _counted: Connected,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client said DISCONNECT.
    Left { with_will: bool, expiry: Option<u32> },
    /// The socket is gone.
    Lost,
    /// The client broke the protocol, or was silent for too long.
    Broken(Broken),
    /// Another connection took its place.
    Displaced(sessions::Ended),
    /// The device may no longer be here.
    Unwanted(Error),
    /// MQTT 3.1.1 has no way to say that a message was not kept.
    NotKept(Error),
    /// The process stops.
    Stopping,
}

/// Something that had to be done before the next packet.
enum Done {
    Published(inbound::Taken),
    Subscribed { id: u16, codes: Vec<SubackReasonCode>, changed: Result<Changed> },
    Unsubscribed { id: u16, existed: Vec<bool>, changed: Result<Changed> },
    Resumed(Changed),
}

/// What the loop waits for.
enum Event {
    Displaced(sessions::Ended),
    Stop,
    Done(Done),
    Acked(acks::Ended),
    Answered,
    Rung,
    Changed,
    Rechecked(Result<Authenticated>),
    Timer,
    Moved(Moved),
}

/// Who is at the other end, as the handshake found out.
pub(super) struct Peer {
    pub(super) who: Authenticated,
    pub(super) session: OpenSession,
    pub(super) will: Option<Will>,
    /// How long its session outlives the connection.
    pub(super) expiry: Duration,
    /// The longest silence that is suffered.
    pub(super) silence_max: Duration,
    pub(super) changes: Doorbell,
    /// Something changed while it was let in: ask again.
    pub(super) recheck: bool,
    pub(super) counted: Connected,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(server: Arc<Server>, io: Io<S>, protocol: Protocol, mut peer: Peer) -> Self {
        let (_, never) = oneshot::channel();
        let ended = std::mem::replace(&mut peer.session.ended, never);
        let bell = Arc::<Bell>::default();
        let now = Instant::now();
        let mut connection = Self {
            outbound: Outbound::new(Arc::clone(&server), peer.session.id, Arc::clone(&bell)),
            subscriptions: Subscriptions::resumed(&peer.session.subscriptions),
            session: Arc::new(peer.session),
            stopped: Box::pin(server.stop.clone().cancelled_owned()),
            server,
            io,
            protocol,
            who: peer.who,
            will: peer.will,
            expiry: peer.expiry,
            silence_max: peer.silence_max,
            ended,
            changes: peer.changes,
            bell,
            acks: Acks::default(),
            doing: None,
            rechecking: None,
            recheck_again: false,
            heard: now,
            tick_at: now + TICK,
            ticks: 0,
            drain_until: None,
            timer: Box::pin(sleep_until(now + TICK.min(peer.silence_max))),
            _counted: peer.counted,
        };
        if peer.recheck {
            connection.recheck();
        }
        connection.resume();
        connection
    }

    fn resume(&mut self) {
        if !self.session.subscriptions.is_empty() {
            let (who, subscriptions) = (self.who.access.clone(), self.subscriptions.clone());
            let resumed = subscribe::resume(Arc::clone(&self.server), who, subscriptions);
            self.doing = Some(resumed.map(Done::Resumed).boxed());
        }
    }

    /// Works until the connection ends, and says why it does.
    pub(super) async fn run(&mut self) -> End {
        loop {
            let ended = self.take_packets().err();
            let unwritten = self.io.unwritten();
            self.outbound.send(&mut self.protocol, unwritten, &mut self.io.output);
            if let Some(end) = ended.or_else(|| self.drained()) {
                return end;
            }
            let event = self.event().await;
            if let Err(end) = self.handle(event) {
                return end;
            }
        }
    }

    /// Whether another packet may be taken now: at each of these bounds the socket is left alone, and TCP tells the client.
    fn may_take(&self) -> bool {
        self.drain_until.is_none()
            && self.doing.is_none()
            && self.acks.len() < usize::from(self.server.edge.config.mqtt.receive_max)
            && self.io.unwritten() < UNWRITTEN_MAX
    }

    fn drained(&self) -> Option<End> {
        let until = self.drain_until?;
        let done = self.doing.is_none() && self.acks.is_empty();
        (done || Instant::now() >= until).then_some(End::Stopping)
    }

    async fn event(&mut self) -> Event {
        let read = self.may_take();
        tokio::select! {
            biased;
            Ok(why) = &mut self.ended, if !self.ended.is_terminated() => Event::Displaced(why),
            () = &mut self.stopped, if self.drain_until.is_none() => Event::Stop,
            done = settled(&mut self.doing), if self.doing.is_some() => Event::Done(done),
            acked = self.acks.next(), if !self.acks.is_empty() => Event::Acked(acked),
            () = self.outbound.answer(), if self.outbound.is_asking() => Event::Answered,
            () = self.changes.rung() => Event::Changed,
            checked = settled(&mut self.rechecking), if self.rechecking.is_some() => Event::Rechecked(checked),
            () = &mut self.timer => Event::Timer,
            () = self.bell.rung() => Event::Rung,
            moved = self.io.moved(read) => Event::Moved(moved),
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Displaced(why) => return Err(End::Displaced(why)),
            Event::Stop => {
                let until = Instant::now() + DRAIN;
                self.drain_until = Some(until);
                self.timer.as_mut().reset(until);
            }
            Event::Done(done) => self.done(done)?,
            Event::Acked(acked) => {
                self.acked(acked)?;
                // All that ended meanwhile is acknowledged in the same write.
                while let Some(acked) = self.acks.next().now_or_never() {
                    self.acked(acked)?;
                }
            }
            Event::Answered => {}
            Event::Rung => self.outbound.rung(),
            Event::Changed => self.recheck(),
            Event::Rechecked(checked) => self.rechecked(checked)?,
            Event::Timer => self.timer_fired()?,
            Event::Moved(Moved::Read | Moved::Flushed) => {}
            Event::Moved(Moved::Closed) => return Err(End::Lost),
        }
        Ok(())
    }

    fn take_packets(&mut self) -> Result<(), End> {
        while self.may_take() {
            let packet_max = self.server.packet_max;
            let packet = match self.io.packet(packet_max) {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(()),
                Err(refused) => return Err(End::Broken(Broken::header(refused, packet_max))),
            };
            self.server.came(packet);
            let input = self.protocol.receive(packet).map_err(End::Broken)?;
            self.heard = Instant::now();
            self.server.edge.sessions.seen(&self.session);
            if let Some(input) = input {
                self.input(input)?;
            }
        }
        Ok(())
    }

    fn input(&mut self, input: Input) -> Result<(), End> {
        let (server, who) = (Arc::clone(&self.server), self.who.access.clone());
        match input {
            Input::Publish(publish) => {
                let can_refuse =
                    self.protocol.version() == Version::V5 && publish.acknowledge() != Acknowledge::Never;
                return self.start(inbound::take(server, who, can_refuse, publish).map(Done::Published));
            }
            Input::Subscribe { id, entries } => {
                let (session, before) = (Arc::clone(&self.session), self.subscriptions.clone());
                let done = async move {
                    let _timed = server.edge.metrics.mqtt.subscribe.start_timer();
                    let (codes, changed) =
                        subscribe::subscribe(Arc::clone(&server), who, session, before, entries).await;
                    Done::Subscribed { id, codes, changed }
                };
                return self.start(done);
            }
            Input::Unsubscribe { id, filters } => {
                let (session, before) = (Arc::clone(&self.session), self.subscriptions.clone());
                let done = async move {
                    let _timed = server.edge.metrics.mqtt.unsubscribe.start_timer();
                    let (existed, changed) =
                        subscribe::unsubscribe(Arc::clone(&server), session, before, filters).await;
                    Done::Unsubscribed { id, existed, changed }
                };
                return self.start(done);
            }
            Input::Repeated(id) if self.acks.has_pubrec(id) => {} // its PUBREC waits for the log
            Input::Repeated(id) => {
                self.protocol.acknowledge(Acknowledge::Pubrec(id), &Ok(None), &mut self.io.output);
            }
            Input::Pubrel(id) => self.protocol.complete(id, &mut self.io.output),
            Input::Puback { id, refused } => self.outbound.acknowledged(id, refused),
            Input::Ping => self.protocol.pong(&mut self.io.output),
            Input::Disconnect { with_will, expiry } => return Err(End::Left { with_will, expiry }),
        }
        Ok(())
    }

    /// Does it now if nothing makes it wait; else the next packet waits for it.
    fn start(&mut self, doing: impl Future<Output = Done> + Send + 'static) -> Result<(), End> {
        let mut doing = doing.boxed();
        match doing.as_mut().now_or_never() {
            Some(done) => self.done(done),
            None => {
                self.doing = Some(doing);
                Ok(())
            }
        }
    }

    fn done(&mut self, done: Done) -> Result<(), End> {
        match done {
            Done::Published(taken) => {
                if let Some(child) = taken.child {
                    let id = &child.device.id;
                    self.outbound.spoke_for(&child.key());
                    self.outbound.want(&child.key(), Some(id), self.subscriptions.child(id), false);
                }
                if let Some(uid) = taken.answered {
                    self.outbound.ask(uid);
                }
                self.acks.push(UnderWay { how: taken.how, readings: taken.readings, work: taken.work });
            }
            Done::Subscribed { id, codes, changed } => match changed {
                Ok(changed) => {
                    self.subscriptions_are(changed, true);
                    self.protocol.subscribed(id, codes, &mut self.io.output);
                }
                Err(error) => {
                    tracing::warn!(%error, "subscriptions cannot be recorded");
                    self.server.edge.metrics.mqtt.refused("subscribe");
                    let codes = vec![reason::suback(&error); codes.len()];
                    self.protocol.subscribed(id, codes, &mut self.io.output);
                }
            },
            Done::Unsubscribed { id, existed, changed } => {
                // MQTT has no words for an UNSUBSCRIBE that failed in 3.1.1: the client asks again on a new connection.
                let changed = changed.map_err(End::NotKept)?;
                self.subscriptions_are(changed, false);
                self.protocol.unsubscribed(id, &existed, &mut self.io.output);
            }
            Done::Resumed(changed) => self.subscriptions_are(changed, true),
        }
        Ok(())
    }

    fn subscriptions_are(&mut self, changed: Changed, anew: bool) {
        self.subscriptions = changed.subscriptions;
        self.outbound.want(&self.who.access.key(), None, self.subscriptions.own(), changed.own);
        for child in self.outbound.children() {
            let qos = self.subscriptions.child(&child.device);
            self.outbound.want(&child, Some(&child.device), qos, false);
        }
        for child in changed.children {
            let id = &child.device.id;
            self.outbound.want(&child.key(), Some(id), self.subscriptions.child(id), anew);
        }
        self.outbound.give_back();
    }

    fn acked(&mut self, acked: acks::Ended) -> Result<(), End> {
        // Without readings it was counted where it was refused.
        if let Err(error) = acked.outcome.as_ref()
            && acked.readings > 0
        {
            self.server.refused_of(&self.who.access, error);
        }
        match acked.outcome {
            Err(error) if acked.how != Acknowledge::Never && self.protocol.version() == Version::V3_1_1 => {
                Err(End::NotKept(error))
            }
            outcome => {
                self.protocol.acknowledge(acked.how, &outcome, &mut self.io.output);
                Ok(())
            }
        }
    }

    fn recheck(&mut self) {
        self.recheck_again = self.rechecking.is_some();
        if !self.recheck_again {
            let (server, who) = (Arc::clone(&self.server), self.who.clone());
            self.rechecking = Some(async move { server.edge.access.recheck(&who).await }.boxed());
        }
    }

    fn rechecked(&mut self, checked: Result<Authenticated>) -> Result<(), End> {
        match checked {
            Ok(who) => self.who = who,
            Err(error) if access::is_unwanted(error.kind()) => return Err(End::Unwanted(error)),
            // Nobody is put out because the registry is away or has a defect; the next tick asks again.
            Err(error) => {
                tracing::warn!(device = %self.who.access.device.id, %error, "access cannot be checked");
            }
        }
        if self.recheck_again {
            self.recheck();
        }
        Ok(())
    }

    fn timer_fired(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if let Some(until) = self.drain_until {
            self.timer.as_mut().reset(until.max(now + Duration::from_millis(1)));
            return Ok(());
        }
        if !self.may_take() && self.io.unwritten() < UNWRITTEN_MAX {
            self.heard = now; // it may well have said something: we did not listen, and not because it does not read
        }
        if now >= self.heard + self.silence_max {
            return Err(End::Broken(Broken::silent(self.silence_max)));
        }
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            self.ticks = self.ticks.wrapping_add(1);
            self.recheck();
            if self.ticks.is_multiple_of(TICKS_OF_OUTBOUND) {
                self.outbound.tick();
            }
            self.io.shrink();
            self.acks.shrink();
        }
        self.timer.as_mut().reset(self.tick_at.min(self.heard + self.silence_max));
        Ok(())
    }

    /// Says why, publishes the will where it is due, and closes.
    pub(super) async fn close(mut self, end: End) {
        self.say(&end);
        let Self { server, io, session, doing, outbound, will, who, expiry: asked, .. } = self;
        drop(doing);
        let (id, held) = (session.id, outbound.into_held());
        let with_will = !matches!(end, End::Left { with_will: false, .. } | End::Unwanted(_) | End::Stopping);
        let expiry = match end {
            // MQTT 5.0, 3.14.2.2.2: a session that was to end with its connection cannot be made to outlive it.
            End::Left { expiry: Some(seconds), .. } if !asked.is_zero() => {
                Some(Duration::from_secs(seconds.into()).min(server.edge.config.mqtt.session_expiry_max))
            }
            _ => None,
        };
        let rest = async {
            if let Some(will) = will.filter(|_| with_will) {
                let taken = inbound::take(Arc::clone(&server), who.access, false, Publish::Will(will)).await;
                if let Work::Log(pending) = taken.work {
                    drop(pending.await); // nobody is there to be told
                }
            }
            if let Some(session) = Arc::into_inner(session)
                && let Err(error) = server.edge.sessions.close(session, expiry).await
            {
                tracing::warn!(%error, "the end of a session cannot be recorded");
            }
            outbound::give_back(server, id, held).await;
        };
        match end {
            End::Lost => rest.await,
            _ => drop(tokio::join!(io.finish(), rest)),
        }
    }

    fn say(&mut self, end: &End) {
        let explained;
        let (code, message) = match end {
            End::Left { .. } | End::Lost => return,
            End::Broken(broken) => (broken.code, broken.message.as_str()),
            End::Displaced(sessions::Ended::TakenOver) => {
                (DisconnectReasonCode::SessionTakenOver, "the same client connected again")
            }
            End::Displaced(sessions::Ended::TooMany) => {
                (DisconnectReasonCode::SessionTakenOver, "the device opened more sessions than it may have")
            }
            End::Unwanted(error) => {
                explained = explain(error);
                (reason::disconnect(error), explained.as_str())
            }
            End::NotKept(error) => {
                explained = explain(error);
                (DisconnectReasonCode::ImplementationSpecificError, explained.as_str())
            }
            End::Stopping => (DisconnectReasonCode::ServerShuttingDown, "the server stops"),
        };
        tracing::debug!(device = %self.who.access.device.id, ?end, "connection ends");
        self.protocol.disconnect(code, message, &mut self.io.output);
    }
}

impl Broken {
    pub(super) fn header(refused: header::Refused, packet_max: usize) -> Self {
        match refused {
            header::Refused::TooLarge(len) => Self {
                code: DisconnectReasonCode::PacketTooLarge,
                message: format!("a packet of {len} bytes is over the limit of {packet_max} bytes"),
            },
            header::Refused::Malformed => Self {
                code: DisconnectReasonCode::MalformedPacket,
                message: "a fixed header cannot be read".to_owned(),
            },
        }
    }

    fn silent(silence_max: Duration) -> Self {
        Self {
            code: DisconnectReasonCode::KeepAliveTimeout,
            message: format!("no packet came for {} s", silence_max.as_secs()),
        }
    }
}

/// The output of what is under way, which is then over.
async fn settled<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        None => pending().await,
        Some(future) => {
            let output = future.await;
            *slot = None;
            output
        }
    }
}
