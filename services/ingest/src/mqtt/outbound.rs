//! Commands on their way down: one line for the device, and one for each child that a gateway speaks for.
//!
//! A line asks the queue for the oldest command that may leave (on subscribe, when the doorbell rings, and on the
//! connection's tick), puts it on the wire, and asks again once the device acknowledged it: at most one command of a device
//! is under way. What the queue is asked runs beside the reading of the socket, one question for each line at a time.
//!
//! The newest session that subscribed has a device's commands, and only the queue knows which that is: a newer one may be at
//! another replica. It gives its place back when it unsubscribes or its connection ends; then the newest of the others takes
//! it. Where it could not, the session that is the newest by the records takes the place on its tick. An open poll is never
//! robbed so: the queue knows when it ends.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use weir_core::{
    DeviceId, Error, ErrorKind, Uid,
    command::{Answer, DeviceKey},
    port::{CommandQueue, Queued, SESSION_ENDED, SESSION_ENDING, Session, SessionEpoch},
};

use super::{protocol::Protocol, server::Server, subscribe::Subscriptions, topics};
use crate::{
    doorbell::{Bell, Doorbell},
    sessions::Subscription,
};

/// Lines of one connection: the device and 1,023 children; what a gateway of more children needs is another session.
const LINES_MAX: usize = 1_024;

/// Commands that ended while they were offered, before a question gives up until the next tick: more than a device is
/// ever sent within one.
const SKIPS_MAX: usize = 64;

/// How often a place is given back that cannot be: over some six seconds, then an older session takes it on its tick.
const GIVE_BACK_TRIES: u32 = 6;
/// The first pause between.
const GIVE_BACK_PAUSE: Duration = Duration::from_millis(200);
/// Places of a gateway's children that are given back at a time.
const GIVE_BACK_AT_ONCE: usize = 8;

/// Above this many bytes that the client has not taken, no command leaves: two of the largest fit.
const UNWRITTEN_MAX: usize = 256 * 1024;

/// The commands of one connection.
pub(super) struct Outbound {
    server: Arc<Server>,
    session: Session,
    /// Hangs at the door of each line.
    bell: Arc<Bell>,
    lines: HashMap<Uid, Line>,
    /// The children that the gateway spoke for, for a wildcard that comes later: as many as there can be lines.
    spoken: HashMap<Uid, DeviceKey>,
    asking: FuturesUnordered<BoxFuture<'static, (Uid, Asked)>>,
    ready: VecDeque<(Uid, SessionEpoch, Queued)>,
    /// What waits for the client's PUBACK, by packet identifier.
    sent: HashMap<u16, Sent>,
    /// Places of lines that are no longer wanted, until [`Outbound::give_back`].
    left: Vec<Held>,
}

/// The commands of one device.
struct Line {
    key: DeviceKey,
    child: Option<DeviceId>,
    qos: u8,
    phase: Phase,
    /// What the queue could not be told yet.
    untold: Option<(Uid, Told)>,
    /// What it is being told now: were the connection to end, nobody else would.
    telling: Option<(Uid, Told)>,
    /// Ask again once the question under way is answered.
    again: bool,
    /// It was subscribed to anew while a question was under way.
    regained: bool,
    /// Under which epoch it has the commands, as far as is known.
    held: Option<SessionEpoch>,
    /// The question under way attaches first.
    attaching: bool,
    /// It may have the commands under an epoch that it was not told: the answer to an attach was lost.
    unsure: bool,
    /// Unsubscribed while a question was under way: it goes with the answer.
    unwanted: bool,
    /// How many replicas were lost when the queue was last asked who has the commands.
    lost: u64,
    doorbell: Doorbell,
}

/// A device whose commands a connection has when it ends.
pub(super) struct Held {
    key: DeviceKey,
    own: bool,
    /// Unknown where the connection ended while it attached.
    epoch: Option<SessionEpoch>,
    /// What the queue has not been told.
    untold: Option<(Uid, Told)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Detached,
    Attached(SessionEpoch),
    Asking,
    /// A command is ready, or waits for its PUBACK.
    Sending,
    /// A newer session has the commands; the epoch is the last that this one had.
    Superseded(SessionEpoch),
}

struct Sent {
    uid: Uid,
    epoch: SessionEpoch,
    command: Uid,
}

/// How the device took a command.
#[derive(Debug, Clone)]
enum Told {
    Delivered,
    Refused(Answer),
}

/// What a question gave, and how many replicas were lost before it, where it settled who has the commands.
struct Asked {
    step: Step,
    lost: Option<u64>,
}

enum Step {
    Nothing(SessionEpoch),
    Send(SessionEpoch, Box<Queued>),
    Superseded(SessionEpoch, Option<(Uid, Told)>),
    /// The queue is away: the next tick tries again.
    Later(Option<SessionEpoch>, Option<(Uid, Told)>),
}

impl Outbound {
    /// `bell` is rung where a command waits for any of the lines.
    pub(super) fn new(server: Arc<Server>, session: Session, bell: Arc<Bell>) -> Self {
        Self {
            server,
            session,
            bell,
            lines: HashMap::new(),
            spoken: HashMap::new(),
            asking: FuturesUnordered::new(),
            ready: VecDeque::new(),
            sent: HashMap::new(),
            left: Vec::new(),
        }
    }

    /// The commands of this device are wanted at `qos`, or not at all. `anew` says that it was subscribed to now, which
    /// makes this session the newest.
    pub(super) fn want(&mut self, key: &DeviceKey, child: Option<&DeviceId>, qos: Option<u8>, anew: bool) {
        let Some(qos) = qos else { return self.leave(key.uid) };
        let full = self.lines.len() >= LINES_MAX;
        match self.lines.get_mut(&key.uid) {
            Some(line) => {
                line.qos = qos;
                line.unwanted = false;
                if !anew {
                    return;
                }
                // The new door is up before the old one is taken down, so that nobody else is told to be the newest.
                line.doorbell = self.server.edge.doorbells.put_up_at(key.uid, &self.bell);
                line.regain();
            }
            None if full => return,
            None => {
                let line = Line {
                    key: key.clone(),
                    child: child.cloned(),
                    qos,
                    phase: Phase::Detached,
                    untold: None,
                    telling: None,
                    again: false,
                    regained: false,
                    held: None,
                    attaching: false,
                    unsure: false,
                    unwanted: false,
                    lost: self.server.edge.sessions.replicas_lost(),
                    doorbell: self.server.edge.doorbells.put_up_at(key.uid, &self.bell),
                };
                self.lines.insert(key.uid, line);
            }
        }
        self.ask(key.uid);
    }

    /// A line is no longer wanted: its place goes to an older session.
    fn leave(&mut self, uid: Uid) {
        match self.lines.get_mut(&uid) {
            Some(line) if line.phase == Phase::Asking => line.unwanted = true,
            _ => self.left.extend(self.lines.remove(&uid).and_then(Line::into_held)),
        }
    }

    /// Gives back the places of lines that are no longer wanted, beside the connection.
    pub(super) fn give_back(&mut self) {
        let left = std::mem::take(&mut self.left);
        if !left.is_empty() {
            tokio::spawn(give_back(Arc::clone(&self.server), self.session, left));
        }
    }

    /// The gateway spoke for this child: a wildcard means it, now or later.
    pub(super) fn spoke_for(&mut self, child: &DeviceKey) {
        if self.spoken.len() < LINES_MAX && !self.spoken.contains_key(&child.uid) {
            self.spoken.insert(child.uid, child.clone());
        }
    }

    /// The children that have a line, or that the gateway spoke for.
    pub(super) fn children(&self) -> Vec<DeviceKey> {
        let lines = self.lines.values().filter(|line| line.child.is_some()).map(|line| &line.key);
        let silent = self.spoken.values().filter(|child| !self.lines.contains_key(&child.uid));
        lines.chain(silent).cloned().collect()
    }

    /// Asks for those devices whose bell was pressed.
    pub(super) fn rung(&mut self) {
        let pressed: Vec<Uid> =
            self.lines.iter().filter(|(_, line)| line.doorbell.was_pressed()).map(|(uid, _)| *uid).collect();
        pressed.into_iter().for_each(|uid| self.ask(uid));
    }

    /// Asks for every device: a hint may have been lost, or the end of a newer session.
    pub(super) fn tick(&mut self) {
        let all: Vec<Uid> = self.lines.keys().copied().collect();
        all.into_iter().for_each(|uid| self.ask_whether(uid, true));
    }

    /// Asks what may leave for a device, unless something is under way.
    pub(super) fn ask(&mut self, uid: Uid) {
        self.ask_whether(uid, false);
    }

    /// `reclaims` says to look whether a newer session of the device itself is gone without having said so.
    fn ask_whether(&mut self, uid: Uid, reclaims: bool) {
        let Some(line) = self.lines.get_mut(&uid) else { return };
        let epoch = match line.phase {
            Phase::Detached => None,
            Phase::Attached(epoch) => Some(epoch),
            Phase::Asking => {
                line.again = true;
                return;
            }
            // Whether the newer session is gone, a poll or one at another replica perhaps, only the queue knows.
            Phase::Superseded(epoch) if line.may_return() => Some(epoch),
            Phase::Sending | Phase::Superseded(_) => return,
        };
        let told = line.untold.take();
        self.put_whether(uid, epoch, told, reclaims);
    }

    fn put(&mut self, uid: Uid, epoch: Option<SessionEpoch>, told: Option<(Uid, Told)>) {
        self.put_whether(uid, epoch, told, false);
    }

    fn put_whether(
        &mut self,
        uid: Uid,
        epoch: Option<SessionEpoch>,
        told: Option<(Uid, Told)>,
        reclaims: bool,
    ) {
        let Some(line) = self.lines.get_mut(&uid) else { return };
        let (lost, superseded) =
            (self.server.edge.sessions.replicas_lost(), matches!(line.phase, Phase::Superseded(_)));
        line.phase = Phase::Asking;
        line.again = false;
        line.attaching = epoch.is_none();
        line.telling.clone_from(&told);
        line.regained &= epoch.is_some();
        let question = Question {
            server: Arc::clone(&self.server),
            key: line.key.clone(),
            own: line.is_own(),
            session: self.session,
            epoch,
            acknowledges: line.qos > 0,
            may_return: line.may_return(),
            lost,
            reclaims: superseded && (lost > line.lost || (reclaims && line.is_own())),
        };
        self.asking.push(question.put(told).map(move |asked| (uid, asked)).boxed());
    }

    /// Whether a question is under way.
    pub(super) fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Waits for the next answer of the queue; call only where one is under way.
    pub(super) async fn answer(&mut self) {
        let Some((uid, Asked { step, lost })) = self.asking.next().await else { return };
        let Some(line) = self.lines.get_mut(&uid) else { return };
        line.lost = lost.unwrap_or(line.lost);
        line.telling = None;
        line.learn(&step);
        if line.unwanted {
            self.left.extend(self.lines.remove(&uid).and_then(Line::into_held));
            return self.give_back();
        }
        match step {
            Step::Nothing(epoch) => line.phase = Phase::Attached(epoch),
            Step::Send(epoch, queued) => {
                line.phase = Phase::Sending;
                self.ready.push_back((uid, epoch, *queued));
                return;
            }
            Step::Superseded(epoch, untold) => {
                line.untold = untold;
                line.phase = match std::mem::take(&mut line.regained) && line.doorbell.is_newest() {
                    true => Phase::Detached,
                    false => Phase::Superseded(epoch),
                };
                line.again |= line.phase == Phase::Detached;
            }
            Step::Later(epoch, untold) => {
                line.phase = epoch.map_or(Phase::Detached, Phase::Attached);
                line.untold = untold;
                return;
            }
        }
        if line.again {
            self.ask(uid);
        }
    }

    /// Puts on the wire what is ready, as far as the client takes it.
    pub(super) fn send(&mut self, protocol: &mut Protocol, unwritten: usize, output: &mut Vec<u8>) {
        while unwritten.max(output.len()) <= UNWRITTEN_MAX && protocol.may_publish() {
            let Some((uid, epoch, queued)) = self.ready.pop_front() else { return };
            // Unsubscribed meanwhile: it stays SENT, and is offered again to whoever attaches next.
            let Some(line) = self.lines.get_mut(&uid) else { continue };
            let request = &queued.command.request;
            let topic = topics::request(line.child.as_ref(), request.id, &request.name);
            match protocol.publish(&topic, &request.payload, line.qos > 0, queued.again, output) {
                Ok(Some(packet)) => {
                    self.sent.insert(packet, Sent { uid, epoch, command: request.id });
                }
                Ok(None) => line.phase = Phase::Attached(epoch),
                Err(_) => {
                    let text = format!(
                        "the command is over the client's maximum packet size of {} bytes",
                        protocol.peer_packet_max()
                    );
                    let refused = self.refused(text);
                    self.put(uid, Some(epoch), Some((request.id, refused)));
                }
            }
        }
    }

    /// The client acknowledged a packet of ours, or refused it and said why.
    pub(super) fn acknowledged(&mut self, packet: u16, refused: Option<String>) {
        let Some(Sent { uid, epoch, command }) = self.sent.remove(&packet) else { return };
        let told = refused.map_or(Told::Delivered, |text| self.refused(text));
        self.put(uid, Some(epoch), Some((command, told)));
    }

    /// What must be given back; the doors are taken down.
    pub(super) fn into_held(self) -> Vec<Held> {
        let Self { lines, left, .. } = self;
        lines.into_values().filter_map(Line::into_held).chain(left).collect()
    }

    fn refused(&self, error: String) -> Told {
        let received_at = self.server.edge.clock.now();
        Told::Refused(Answer { ok: false, payload: Bytes::new(), error, received_at })
    }
}

/// One question to the queue.
struct Question {
    server: Arc<Server>,
    key: DeviceKey,
    /// Whether it is about the device that is connected, not a child.
    own: bool,
    session: Session,
    epoch: Option<SessionEpoch>,
    /// Whether the subscription's QoS lets the device acknowledge.
    acknowledges: bool,
    /// Whether this session takes the commands back where the newer one is gone.
    may_return: bool,
    /// How many replicas were lost before.
    lost: u64,
    /// Whether to look if the newer session is gone without having said so.
    reclaims: bool,
}

impl Line {
    fn is_own(&self) -> bool {
        self.child.is_none()
    }

    /// Whether it may be this one's turn where the newer session is gone. Whose turn it is the records say; they do not
    /// know which gateways speak for a child: there it is the one that came last here.
    fn may_return(&self) -> bool {
        self.is_own() || self.doorbell.is_newest()
    }

    /// What an answer says about the place.
    fn learn(&mut self, step: &Step) {
        self.attaching = false;
        match step {
            Step::Nothing(epoch) | Step::Send(epoch, _) => (self.held, self.unsure) = (Some(*epoch), false),
            Step::Superseded(..) => (self.held, self.unsure) = (None, false),
            Step::Later(epoch, _) => (self.held, self.unsure) = (*epoch, epoch.is_none()),
        }
    }

    /// What must be given back of it; its door is taken down.
    fn into_held(self) -> Option<Held> {
        let unknown = self.unsure || (self.phase == Phase::Asking && self.attaching);
        let epoch = self.held.filter(|_| !unknown);
        let (own, untold) = (self.is_own(), self.telling.or(self.untold));
        (unknown || epoch.is_some()).then_some(Held { key: self.key, own, epoch, untold })
    }

    /// The commands are this session's: it attaches anew, at the latest when what is under way ends.
    fn regain(&mut self) {
        match self.phase {
            Phase::Attached(_) | Phase::Superseded(_) => self.phase = Phase::Detached,
            Phase::Asking | Phase::Sending => self.regained = true,
            Phase::Detached => {}
        }
    }
}

impl Question {
    async fn put(self, told: Option<(Uid, Told)>) -> Asked {
        let (lost, reclaims) = (self.lost, self.reclaims);
        let step = self.step(told).await;
        let settled = match &step {
            Step::Nothing(_) | Step::Send(..) => true,
            Step::Superseded(..) => reclaims,
            Step::Later(..) => false,
        };
        Asked { step, lost: settled.then_some(lost) }
    }

    async fn step(mut self, mut told: Option<(Uid, Told)>) -> Step {
        let mut asked = self.ask(&mut told).await;
        if let Err(error) = &asked
            && self.may_return
        {
            let is_next = match error.reason() {
                SESSION_ENDED => self.is_next().await.unwrap_or(true),
                SESSION_ENDING => false,
                _ if self.reclaims && error.kind() == ErrorKind::Aborted => match self.is_next().await {
                    Ok(is_next) => is_next,
                    Err(error) => {
                        tracing::warn!(device = %self.key.device, %error, "the sessions of a device cannot be read");
                        return Step::Later(self.epoch, told);
                    }
                },
                _ => false,
            };
            if is_next {
                self.epoch = None;
                asked = self.ask(&mut told).await;
            }
        }
        match asked {
            Ok((epoch, Some(queued))) => Step::Send(epoch, Box::new(queued)),
            Ok((epoch, None)) => Step::Nothing(epoch),
            Err(error) if error.kind() == ErrorKind::Aborted => {
                self.epoch.map_or(Step::Later(None, None), |epoch| Step::Superseded(epoch, told))
            }
            Err(error) => {
                tracing::warn!(device = %self.key.device, %error, "the command queue cannot be asked");
                Step::Later(self.epoch, told)
            }
        }
    }

    /// Whether of all sessions that are connected this one is to have the commands. Who else speaks for a child is not known:
    /// there whoever comes last has them.
    async fn is_next(&self) -> Result<bool, Error> {
        if !self.own {
            return Ok(true);
        }
        let wants = |filters: &[Subscription]| Subscriptions::resumed(filters).own().is_some();
        self.server.edge.sessions.is_next(&self.key, self.session, wants).await
    }

    async fn ask(&mut self, told: &mut Option<(Uid, Told)>) -> Result<(SessionEpoch, Option<Queued>), Error> {
        let queue = Arc::clone(&self.server.edge.commands);
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => *self.epoch.insert(queue.attach(&self.key, self.session).await?),
        };
        tell(&*queue, &self.key, epoch, told.as_ref()).await?;
        *told = None;
        for _ in 0..SKIPS_MAX {
            let next = match self.acknowledges {
                true => queue.next(&self.key, epoch).await?,
                false => queue.next_unacknowledged(&self.key, epoch).await?,
            };
            let Some(queued) = next else { return Ok((epoch, None)) };
            match queue.sent(&self.key, epoch, queued.command.request.id).await {
                Ok(()) => return Ok((epoch, Some(queued))),
                Err(error) if error.kind() == ErrorKind::FailedPrecondition => {} // it ended meanwhile
                Err(error) => return Err(error),
            }
        }
        Ok((epoch, None))
    }
}

/// Tells how the device took a command.
async fn tell(
    queue: &dyn CommandQueue,
    key: &DeviceKey,
    epoch: SessionEpoch,
    told: Option<&(Uid, Told)>,
) -> Result<(), Error> {
    match told {
        Some((command, Told::Delivered)) => queue.delivered(key, epoch, *command).await,
        Some((command, Told::Refused(answer))) => queue.answered(key, *command, answer.clone()).await,
        None => Ok(()),
    }
}

/// Gives back the place as the newest session, so that an older one that is still connected takes it. Where the device has no
/// other session, there is nobody to give it to.
pub(super) async fn give_back(server: Arc<Server>, session: Session, held: Vec<Held>) {
    let one = |held: Held| {
        let server = Arc::clone(&server);
        async move {
            let mut pause = GIVE_BACK_PAUSE;
            for left in (0..GIVE_BACK_TRIES).rev() {
                match held.give_back(&server, session).await {
                    Err(error) if left > 0 && error.kind().retryable() && !server.stop.is_cancelled() => {
                        tokio::time::sleep(pause).await;
                        pause *= 2;
                    }
                    Err(error) => {
                        tracing::warn!(device = %held.key.device, %error, "a session's place cannot be given back");
                        return;
                    }
                    Ok(()) => return,
                }
            }
        }
    };
    futures::stream::iter(held).map(one).buffer_unordered(GIVE_BACK_AT_ONCE).collect::<()>().await;
}

impl Held {
    async fn give_back(&self, server: &Server, session: Session) -> Result<(), Error> {
        let edge = &server.edge;
        if let Some(epoch) = self.epoch {
            match tell(&*edge.commands, &self.key, epoch, self.untold.as_ref()).await {
                Err(error) if error.kind() == ErrorKind::Aborted => {} // a newer session sends it again
                told => told?,
            }
        }
        if self.own && !edge.sessions.has_others(&self.key, session).await? {
            return Ok(());
        }
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => edge.commands.attach(&self.key, session).await?,
        };
        edge.commands.detach(&self.key, epoch, Duration::ZERO).await?;
        edge.doorbells.ring(self.key.uid); // those here need not wait for the signal
        Ok(())
    }
}
