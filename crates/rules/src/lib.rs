//! Rules: what a condition means, and when an alarm is raised, escalated and cleared.
//!
//! Pure: no I/O, no clock, no async. The analytics service feeds it rows of the log, `TestRule` feeds it stored rows, and
//! `weir rule check` and `weir rule test` run it without a server; all four get the same answers from the same engine.
//!
//! The way of a rule: [`Rule`] (data) is checked into a [`Compiled`] rule; those that select a device form a [`RuleSet`];
//! [`DeviceState`] holds what the rules of one device remember and turns each [`weir_core::port::RuleRow`] into
//! [`Transition`]s. A `DeviceState` goes to bytes and back for checkpoints and continues exactly where it stood.
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use weir_core::{DeviceId, Partition, Position, Stream, TenantId, Timestamp, Uid, Value, device::Device, port::RuleRow};
//! # let device = Device { tenant: TenantId::new("default")?, id: DeviceId::new("room-1")?, uid: Uid::from_u128(7),
//! #     profile: "default".into(), labels: Default::default(), attributes: Default::default(), enabled: true,
//! #     gateway: false, created_at: Timestamp::default(), updated_at: Timestamp::default() };
//! # let row = |n: u64, ts: i64, co2: f64| RuleRow {
//! #     position: Position { stream: Stream::Readings, generation: 1, sequence: n, index: 0, partition: Partition(0) },
//! #     ts: Timestamp::from_micros(ts * 1_000_000), received_at: Timestamp::from_micros(ts * 1_000_000),
//! #     values: vec![("CO2".into(), Value::Double(co2))] };
//! use weir_rules::{Compiled, DeviceState, Rule, RuleSet, TransitionKind};
//!
//! let mut rule = Rule::new("co2-high".parse()?, Uid::random(), "CO2 > 1000 && avg(CO2, \"5m\") > 900");
//! rule.for_duration = Duration::from_secs(60);
//! let rules = RuleSet::selecting(&[Arc::new(Compiled::new(&rule, None)?)], &device);
//!
//! let mut state = DeviceState::default();
//! assert!(state.apply(&rules, &device, &row(1, 0, 1_200.0)).is_empty()); // pending
//! let mut state = DeviceState::from_bytes(&state.to_bytes()?)?; // a restart
//! let raised = state.apply(&rules, &device, &row(2, 60, 1_300.0));
//! assert_eq!((raised.len(), raised[0].kind), (1, TransitionKind::Raised));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a condition may say
//!
//! CEL's syntax with a closed list of names, all checked when the rule is written (see [`Problem`]):
//!
//! - A metric is a variable: `temp`, `room.temp` (nested objects flatten with dots at the edge), or `m("room.temp-1")`
//!   where the name is no identifier. `device.id`, `device.labels.k`, `device.labels["k"]` and `device.attributes` are the
//!   device's own; a metric whose name begins with `device.` is written `m("device.x")`.
//! - All numbers are doubles, `true` and `false` are 1 and 0 where a number is needed, and 1 and 0 are `true` and `false`
//!   where a truth value is needed. A name means the newest value by event time that was not late.
//! - Windows look at (t − d, t] of the device's event time: `avg`, `min`, `max`, `sum`, `count`, `stddev` (of the
//!   population), `delta` (last − first; at least two samples), `rate` (delta per second), `last`. `last(temp)` is `temp`.
//!   `absent(temp, "10m")` is true when no value of `temp` arrived for that long.
//! - Operators `&& || ! == != < <= > >= + - * / % ?: in`, `contains`, `startsWith`, `endsWith`, `matches` on text, and
//!   `has(device.labels.k)`.
//!
//! Logic has three values. *Unknown* is: a metric that this revision of the rule has not seen, a window without samples
//! or with more than [`MAX_SAMPLES_PER_METRIC`], a label that the device does not have, a value of another type than its
//! place needs, and arithmetic that gives no finite number (division by zero). `false && unknown` is false, `true ||
//! unknown` is true; else unknown spreads. Unknown fires nothing, clears nothing, ends a pending `for`, and is counted.
//!
//! # Rejected
//!
//! - Evaluating with `cel`: its values have integers beside doubles, and errors where this needs a third truth value. It
//!   only parses here.
//! - Running sums by adding and subtracting doubles: they drift, and then depend on the history and on checkpoints. Sums
//!   are exact ([Kulisch accumulators](https://en.wikipedia.org/wiki/Kulisch_arithmetic)), so an answer depends on the
//!   samples in the window alone, and checkpoints hold samples, not sums.

mod action;
mod check;
mod compiled;
mod duration;
mod eval;
mod exact;
mod expr;
mod parse;
mod problem;
mod rule;
mod series;
mod simulate;
mod state;
mod suggest;
mod template;

pub use action::{Action, ActionKind, Command, Trigger, Webhook};
pub use compiled::{Compiled, RuleSet, Tally};
pub use duration::{format_duration, parse_duration};
pub use problem::{Place, Problem, Problems};
pub use rule::{Rule, Rung, Severity};
pub use series::MAX_SAMPLES_PER_METRIC;
pub use simulate::{rule_row, simulate};
pub use state::{ClearReason, DeviceState, Due, MAX_SAMPLES_PER_DEVICE, Transition, TransitionKind};
