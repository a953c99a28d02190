//! How many processes a service needs: pure, so that the control loop can be simulated.
//!
//! Readers of the log (storage, analytics) follow the reasoning of a queue: what arrives, and what waits spread over the time
//! in which it is to be gone, is the rate that is needed; one process's rate is what a process was seen to do while it had
//! work waiting (service rate of a busy server, M. Harchol-Balter, "Performance Modeling and Design of Computer Systems",
//! section 2). The edge follows its connections, and how full its windows are.
//!
//! What keeps it calm: a step up needs a while of agreement and a step down a longer one; there is a gap between the loads
//! at which either happens; nothing happens while an earlier step is not done; nothing happens on data that is missing, nor
//! where nothing is drained at all, since more readers do not help a store that is down.

use std::{collections::VecDeque, fmt, time::Duration};

/// Bounds and aims of one service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Never fewer.
    pub min: i32,
    /// Never more.
    pub max: i32,
    /// What waits in the log is to be gone within this time.
    pub lag_gone_within: Duration,
    /// Connections that one process of the edge is to hold.
    pub connections_each: f64,
}

/// How long everything must agree on more before there is more, and on less before there is less: a burst is worth waiting
/// for, and a process that goes is missed longer than one that comes too late.
pub const UP_AFTER: Duration = Duration::from_secs(30);
/// See [`UP_AFTER`].
pub const DOWN_AFTER: Duration = Duration::from_secs(300);
/// A step that is not done after this long never will be: no node has room for it.
const STUCK_AFTER: Duration = Duration::from_secs(600);
/// Of what a process can do, this much is planned with, so that there is something left for what comes next.
const BUSY_UP: f64 = 0.8;
/// Fewer processes must be no busier than this: the gap between both keeps the number still at a steady load.
const BUSY_DOWN: f64 = 0.6;
/// Lag that is gone in less than this is none: a frame on its way.
const NO_LAG: Duration = Duration::from_secs(2);
/// At most so many times as many at one step: what one process can do is an estimate.
const STEP_MAX: i32 = 2;
/// How much of the estimate a newer, lower one leaves: it sinks over minutes, and rises at once.
const KEPT: f64 = 0.9;

/// What a service was seen to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seen {
    /// A reader of the log: frames that wait, and frames a second that were published and that were read.
    Reader {
        /// Frames that wait.
        lag: f64,
        /// Frames a second that were published.
        arrived: f64,
        /// Frames a second that were read.
        drained: f64,
    },
    /// The edge.
    Edge {
        /// Open connections of all processes.
        connections: f64,
        /// How full their windows are, from 0 to 1.
        in_flight: f64,
    },
}

/// One look at a service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// When, on a clock that never goes back.
    pub at: Duration,
    /// Processes that are asked for now.
    pub wanted: i32,
    /// Of these, how many are ready.
    pub ready: i32,
    /// Whether the last change of their number, or of anything else of them, is done.
    pub settled: bool,
    /// None where some process could not be asked.
    pub seen: Option<Seen>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Processes that were asked for when it was made; where it is another number by now, it is void.
    pub wanted: i32,
    /// Processes that are to be asked for.
    pub replicas: i32,
    /// Why.
    pub reason: Reason,
}

/// Why the number is what it is; the name is the reason of the condition `ScalingActive`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reason {
    /// It is outside of its bounds, and comes back.
    OutOfBounds,
    /// An earlier step is not done.
    StepInFlight,
    /// It was not done for too long, and is taken back.
    StepStuck,
    /// Some process could not be asked.
    DataMissing,
    /// Nothing is read although something waits.
    NotDraining,
    /// There is too little to go by yet.
    Watching,
    /// As many as are needed.
    Enough {
        /// How many are needed.
        needed: i32,
    },
    /// More are needed than the bound allows.
    AtMaximum {
        /// How many are needed.
        needed: i32,
    },
    /// More are needed.
    Up {
        /// How many are needed.
        needed: i32,
    },
    /// Fewer do.
    Down {
        /// How many are needed.
        needed: i32,
    },
}

impl Reason {
    /// Whether the number follows the load.
    pub const fn is_active(self) -> bool {
        !matches!(self, Self::DataMissing | Self::NotDraining)
    }

    /// The name, in the form of a reason of a condition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutOfBounds => "OutOfBounds",
            Self::StepInFlight => "StepInFlight",
            Self::StepStuck => "StepStuck",
            Self::DataMissing => "DataMissing",
            Self::NotDraining => "NotDraining",
            Self::Watching => "Watching",
            Self::Enough { .. } => "Enough",
            Self::AtMaximum { .. } => "AtMaximum",
            Self::Up { .. } => "ScalingUp",
            Self::Down { .. } => "ScalingDown",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds => f.write_str("the number was outside of its bounds"),
            Self::StepInFlight => f.write_str("waiting until the last change is done"),
            Self::StepStuck => {
                write!(
                    f,
                    "not every pod became ready within {} s; the last step is taken back",
                    STUCK_AFTER.as_secs()
                )
            }
            Self::DataMissing => {
                f.write_str("not every process could be asked; nothing is changed on missing data")
            }
            Self::NotDraining => {
                f.write_str("frames wait and none is read; more processes do not help, look at the store")
            }
            Self::Watching => f.write_str("not watched for long enough yet"),
            Self::Enough { needed } => write!(f, "{needed} needed"),
            Self::AtMaximum { needed } => write!(f, "{needed} needed, which is above the maximum"),
            Self::Up { needed } => write!(f, "{needed} needed for {} s", UP_AFTER.as_secs()),
            Self::Down { needed } => write!(f, "no more than {needed} needed for {} s", DOWN_AFTER.as_secs()),
        }
    }
}

/// What one look says is needed: with little to spare, and with much.
#[derive(Debug, Clone, Copy)]
struct Needed {
    at: Duration,
    up: i32,
    down: i32,
}

/// The control loop of one service.
#[derive(Debug, Clone, Default)]
pub struct Scaler {
    /// Frames a second of one process with work waiting.
    each: Option<f64>,
    /// The most that a process was seen to do without: it can do that at least.
    at_least: f64,
    /// Since when the last change is not done.
    unsettled: Option<Duration>,
    /// Without a gap; at most [`DOWN_AFTER`] and one look.
    history: VecDeque<Needed>,
}

impl Scaler {
    /// What is to be done after a look. Looks come in the order of their time.
    pub fn decide(&mut self, policy: &Policy, look: &Look) -> Decision {
        let decided = |replicas, reason| Decision { wanted: look.wanted, replicas, reason };
        let hold = |reason| decided(look.wanted, reason);
        let max = policy.max.max(policy.min);
        if look.wanted < policy.min || look.wanted > max {
            self.history.clear();
            return decided(look.wanted.clamp(policy.min, max), Reason::OutOfBounds);
        }
        if !look.settled {
            self.history.clear();
            let since = *self.unsettled.get_or_insert(look.at);
            let fewer = look.ready.max(policy.min);
            if look.at.saturating_sub(since) < STUCK_AFTER || fewer >= look.wanted {
                return hold(Reason::StepInFlight);
            }
            self.unsettled = None;
            return decided(fewer, Reason::StepStuck);
        }
        self.unsettled = None;
        let Some(seen) = look.seen else {
            self.history.clear(); // what was agreed on before the gap may not hold after it
            return hold(Reason::DataMissing);
        };
        let needed = match self.needed(policy, look, seen) {
            Ok(needed) => needed,
            Err(reason) => return hold(reason),
        };
        self.remember(needed);
        let decision = self.step(max, policy, look);
        if decision.replicas != look.wanted {
            self.history.clear(); // the next step has reasons of its own
        }
        decision
    }

    fn step(&self, max: i32, policy: &Policy, look: &Look) -> Decision {
        let wanted = look.wanted;
        let decided = |replicas, reason| Decision { wanted, replicas, reason };
        let hold = |reason| decided(wanted, reason);
        let up = self.over(look.at, UP_AFTER).map(|looks| looks.map(|needed| needed.up).min().unwrap_or(0));
        let down =
            self.over(look.at, DOWN_AFTER).map(|looks| looks.map(|needed| needed.down).max().unwrap_or(0));
        let now = self.history.back().map_or(wanted, |needed| needed.up);
        match (up, down) {
            (Some(needed), _) if needed > wanted && wanted == max => hold(Reason::AtMaximum { needed }),
            (Some(needed), _) if needed > wanted => {
                let replicas = needed.min(wanted.saturating_mul(STEP_MAX)).min(max);
                decided(replicas, Reason::Up { needed })
            }
            // One at a time: how the others carry what it leaves is seen before the next goes.
            (_, Some(needed)) if needed < wanted && wanted > policy.min => {
                decided(wanted - 1, Reason::Down { needed })
            }
            (None, _) => hold(Reason::Watching),
            _ => hold(Reason::Enough { needed: now }),
        }
    }

    /// What was needed during the last `span`; none where it was not watched for so long.
    fn over(&self, now: Duration, span: Duration) -> Option<impl Iterator<Item = &Needed>> {
        let from = now.saturating_sub(span);
        let watched = self.history.front().is_some_and(|oldest| oldest.at <= from);
        (watched && now >= span).then(|| self.history.iter().filter(move |needed| needed.at >= from))
    }

    fn remember(&mut self, needed: Needed) {
        self.history.push_back(needed);
        let from = needed.at.saturating_sub(DOWN_AFTER);
        while self.history.get(1).is_some_and(|next| next.at <= from) {
            self.history.pop_front();
        }
    }

    fn needed(&mut self, policy: &Policy, look: &Look, seen: Seen) -> Result<Needed, Reason> {
        let at = look.at;
        let ready = f64::from(look.ready.max(1));
        match seen {
            Seen::Edge { connections, in_flight } => {
                let held = connections / policy.connections_each.max(1.0);
                let busy = held.max(in_flight * ready);
                // Connections are a limit that was set; windows are planned with something to spare.
                let up = held.max(in_flight * ready / BUSY_UP);
                Ok(Needed { at, up: ceil(up), down: ceil(busy / BUSY_DOWN) })
            }
            Seen::Reader { lag, arrived, drained } => {
                let waits = lag > arrived.max(drained) * NO_LAG.as_secs_f64();
                if waits && drained <= 0.0 {
                    self.history.clear();
                    return Err(Reason::NotDraining);
                }
                let shown = drained / ready;
                self.each = match self.each {
                    Some(each) if waits && shown < each => Some(each * KEPT + shown * (1.0 - KEPT)),
                    Some(each) => Some(each.max(shown)),
                    None if waits => Some(shown),
                    None => None, // without work that waits it is not known what a process can do
                };
                self.at_least = self.at_least.max(shown);
                let rate =
                    arrived + if waits { lag / policy.lag_gone_within.as_secs_f64().max(1.0) } else { 0.0 };
                let needed = |each: f64, busy: f64| if rate > 0.0 { ceil(rate / (each * busy)) } else { 1 };
                let down = needed(self.each.unwrap_or(self.at_least), BUSY_DOWN);
                let up = self.each.map_or(look.wanted.min(down), |each| needed(each, BUSY_UP));
                Ok(Needed { at, up, down })
            }
        }
    }
}

/// At least one, and no more than any service has.
fn ceil(processes: f64) -> i32 {
    processes.ceil().clamp(1.0, 1_000.0) as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy =
        Policy { min: 1, max: 4, lag_gone_within: Duration::from_secs(60), connections_each: 10_000.0 };
    /// Frames a second that one simulated process reads.
    const EACH: f64 = 1_000.0;
    /// How often the loop looks, and how many seconds a new process takes until it is ready.
    const LOOK_EVERY: u64 = 15;
    const START: u64 = 20;

    /// A service that reads a log, second by second.
    struct World {
        scaler: Scaler,
        now: u64,
        wanted: i32,
        /// When each process is ready.
        ready_at: Vec<u64>,
        lag: f64,
        arrived: f64,
        drained: f64,
        changes: Vec<i32>,
        reasons: Vec<&'static str>,
        lag_most: f64,
    }

    impl World {
        fn new() -> Self {
            Self {
                scaler: Scaler::default(),
                now: 0,
                wanted: 1,
                ready_at: vec![0],
                lag: 0.0,
                arrived: 0.0,
                drained: 0.0,
                changes: Vec::new(),
                reasons: Vec::new(),
                lag_most: 0.0,
            }
        }

        fn ready(&self) -> i32 {
            self.ready_at.iter().filter(|at| **at <= self.now).count() as i32
        }

        /// One second at this load; the store does so much of what it can.
        fn second(&mut self, load: f64, store: f64, data: bool) {
            self.now += 1;
            let drained = (self.lag + load).min(f64::from(self.ready()) * EACH * store);
            self.lag = self.lag + load - drained;
            self.lag_most = self.lag_most.max(self.lag);
            (self.arrived, self.drained) = (load, drained);
            if !self.now.is_multiple_of(LOOK_EVERY) {
                return;
            }
            let seen = Seen::Reader { lag: self.lag, arrived: self.arrived, drained: self.drained };
            let look = Look {
                at: Duration::from_secs(self.now),
                wanted: self.wanted,
                ready: self.ready(),
                settled: self.ready() == self.wanted,
                seen: data.then_some(seen),
            };
            let decision = self.scaler.decide(&POLICY, &look);
            self.reasons.push(decision.reason.name());
            let change = decision.replicas - self.wanted;
            if change != 0 {
                assert_eq!(self.ready(), self.wanted, "one step at a time");
                assert!(data, "nothing changes on missing data");
                self.changes.push(change.signum());
                self.wanted = decision.replicas;
                self.ready_at.truncate(self.wanted as usize);
                self.ready_at.resize(self.wanted as usize, self.now + START);
            }
            assert!((POLICY.min..=POLICY.max).contains(&self.wanted));
        }

        fn run(&mut self, seconds: u64, load: impl Fn(f64) -> f64) {
            for second in 0..seconds {
                self.second(load(second as f64 / seconds as f64), 1.0, true);
            }
        }

        fn changes_of_direction(&self) -> usize {
            self.changes.windows(2).filter(|pair| pair[0] != pair[1]).count()
        }
    }

    #[test]
    fn a_ramp_up_and_down_is_followed_with_one_change_of_direction() {
        let mut world = World::new();
        world.run(600, |at| 300.0 + at * 1_900.0);
        world.run(600, |_| 2_200.0);
        assert!(world.wanted >= 3, "{}", world.wanted);
        assert!(world.lag <= 2_200.0, "the lag is gone, not {}", world.lag);
        assert_eq!(world.changes_of_direction(), 0);
        world.run(600, |at| 2_200.0 - at * 1_900.0);
        world.run(2_400, |_| 300.0);
        assert_eq!(world.wanted, 1);
        assert_eq!(world.changes_of_direction(), 1, "{:?}", world.changes);
    }

    #[test]
    fn a_short_burst_changes_nothing_and_a_long_one_is_gone_within_its_time() {
        let mut world = World::new();
        world.run(300, |_| 500.0);
        world.run(20, |_| 1_200.0);
        world.run(300, |_| 500.0);
        assert!(world.changes.is_empty(), "{:?}", world.changes);
        world.run(120, |_| 3_000.0);
        world.run(90, |_| 500.0);
        assert!(world.lag <= 1_000.0, "the lag is gone, not {}", world.lag);
    }

    #[test]
    fn a_steady_load_at_any_height_comes_to_rest() {
        for load in (100..=3_900).step_by(100) {
            let mut world = World::new();
            world.run(3_600, |_| f64::from(load));
            let changes = world.changes.len();
            world.run(3_600, |_| f64::from(load));
            assert_eq!(world.changes.len(), changes, "{load}: {:?}", world.changes);
            // It begins all at once: what waited meanwhile may need one more for a while.
            assert!(world.changes_of_direction() <= 1, "{load}: {:?}", world.changes);
        }
    }

    #[test]
    fn a_store_that_is_down_and_data_that_is_missing_change_nothing() {
        let mut world = World::new();
        world.run(600, |_| 1_500.0);
        let before = world.wanted;
        world.reasons.clear();
        (0..600).for_each(|_| world.second(1_500.0, 0.0, true));
        assert_eq!((world.wanted, world.reasons.last()), (before, Some(&"NotDraining")));
        (0..600).for_each(|_| world.second(1_500.0, 1.0, false));
        assert_eq!((world.wanted, world.reasons.last()), (before, Some(&"DataMissing")));
    }

    #[test]
    fn a_new_operator_takes_nothing_away_from_a_service_that_has_what_it_needs() {
        let mut world = World::new();
        (world.wanted, world.ready_at) = (3, vec![0; 3]);
        world.run(3_600, |_| 2_100.0);
        assert!(world.changes.is_empty(), "{:?}", world.changes);
        world.run(3_600, |_| 10.0);
        assert_eq!(world.wanted, 1);
    }

    #[test]
    fn a_step_for_which_there_is_no_room_is_taken_back() {
        let mut scaler = Scaler::default();
        let mut look = |seconds: u64, wanted| {
            let at = Duration::from_secs(seconds);
            scaler.decide(&POLICY, &Look { at, wanted, ready: 2, settled: false, seen: None })
        };
        assert_eq!(look(0, 4).reason, Reason::StepInFlight);
        assert_eq!(look(599, 4).replicas, 4);
        assert_eq!(look(600, 4), Decision { wanted: 4, replicas: 2, reason: Reason::StepStuck });
        assert_eq!(look(615, 2).replicas, 2);
    }

    #[test]
    fn the_edge_follows_connections_and_full_windows() {
        let decide = |wanted, connections, in_flight| {
            let mut scaler = Scaler::default();
            let look = |n: u64| Look {
                at: Duration::from_secs(600 + n * LOOK_EVERY),
                wanted,
                ready: wanted,
                settled: true,
                seen: Some(Seen::Edge { connections, in_flight }),
            };
            let decisions = (0..=30).map(|n| scaler.decide(&POLICY, &look(n)));
            decisions.map(|decision| decision.replicas).find(|replicas| *replicas != wanted).unwrap_or(wanted)
        };
        assert_eq!(decide(1, 25_000.0, 0.1), 2, "at most twice as many at one step");
        assert_eq!(decide(2, 25_000.0, 0.1), 3);
        assert_eq!(decide(3, 25_000.0, 0.1), 3);
        assert_eq!(decide(1, 100.0, 0.95), 2);
        assert_eq!(decide(2, 100.0, 0.1), 1);
        assert_eq!(decide(4, 100_000.0, 1.0), 4);
    }

    proptest! {
        #[test]
        fn whatever_is_seen_the_number_stays_in_its_bounds_and_moves_only_by_steps_that_are_done(
            looks in prop::collection::vec(
                (any::<bool>(), (0..8_i32, any::<bool>()), 0.0..1e9_f64, 0.0..1e6_f64, prop_oneof![Just(0.0), 0.0..1e6_f64]),
                1..200,
            )
        ) {
            let (mut scaler, mut wanted) = (Scaler::default(), 2);
            for (n, (data, (ready, settled), lag, arrived, drained)) in looks.into_iter().enumerate() {
                let at = Duration::from_secs(n as u64 * LOOK_EVERY);
                let seen = data.then_some(Seen::Reader { lag, arrived, drained });
                let decision = scaler.decide(&POLICY, &Look { at, wanted, ready, settled, seen });
                prop_assert!((POLICY.min..=POLICY.max).contains(&decision.replicas));
                let is_undone = decision.reason == Reason::StepStuck && decision.replicas < wanted;
                prop_assert!(decision.replicas == wanted || is_undone || (data && settled));
                prop_assert_eq!(decision.wanted, wanted);
                wanted = decision.replicas;
            }
        }
    }
}
