//! A rule that was checked and can be evaluated, and the rules of one device.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use weir_core::{
    Uid,
    device::{Device, Metric},
    selector,
};

use crate::{
    Rule, Severity, action,
    action::{ACTIONS_MAX, ActionKind},
    check::{self, PROBLEMS_MAX, Scope, Tables},
    duration::format_duration,
    expr::Bool,
    problem::{Problem, Problems},
    template::Template,
};

/// Longest `for`, `clear_for` and `max_gap`: as the longest window.
const DURATION_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Longest name for people, in bytes.
const DISPLAY_NAME_MAX: usize = 256;
/// Most labels of a rule.
const LABELS_MAX: usize = 64;

/// A checked rule. Cheap to share; counts how often it was evaluated.
#[derive(Debug)]
pub struct Compiled {
    rule: Rule,
    pub(crate) levels: Vec<(Severity, Bool)>,
    pub(crate) clear_when: Option<Bool>,
    pub(crate) tables: Tables,
    /// One for each action; none where it has no payload.
    pub(crate) payloads: Vec<Option<Template>>,
    counts: Tally,
    /// Where they are counted beside other rules.
    of_all: Option<Arc<Tally>>,
}

/// How often conditions were evaluated.
#[derive(Debug, Default)]
pub struct Tally {
    evaluations: AtomicU64,
    unknown: AtomicU64,
}

impl Tally {
    /// Evaluations so far.
    pub fn evaluations(&self) -> u64 {
        self.evaluations.load(Ordering::Relaxed)
    }

    /// Those of them that were unknown.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    fn count(&self, truth: Option<bool>) {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        if truth.is_none() {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Compiled {
    /// Checks a rule. `declared`: the metrics that its devices declare (a name that is not among them is refused, and a
    /// declared type is held to); none where devices may send anything.
    ///
    /// # Errors
    /// Everything that is wrong with it, at most 16 problems; a retry of the same rule cannot help.
    pub fn new(rule: &Rule, declared: Option<&BTreeMap<Arc<str>, Metric>>) -> Result<Self, Problems> {
        let scope = Scope { declared, alarm: false };
        let (mut tables, mut problems) = (Tables::default(), Vec::new());
        let levels = check_levels(rule, scope, &mut tables, &mut problems);
        let clear_when = rule
            .clear_when
            .as_ref()
            .filter(|text| !text.is_empty())
            .and_then(|text| check::condition("clear_when", text, scope, &mut tables, &mut problems));
        // What only templates use is not shown with an alarm.
        let shown = tables.shown.len();
        let payloads = check_actions(rule, scope, &mut tables, &mut problems);
        tables.shown.truncate(shown);
        check_limits(rule, &mut problems);
        if problems.is_empty() {
            Ok(Self {
                rule: rule.clone(),
                levels,
                clear_when,
                tables,
                payloads,
                counts: Tally::default(),
                of_all: None,
            })
        } else {
            problems.truncate(PROBLEMS_MAX);
            Err(Problems(problems))
        }
    }

    /// The rule as it was written.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The metrics that it looks at.
    pub fn metrics(&self) -> &[Arc<str>] {
        &self.tables.metrics
    }

    /// Whether it depends on arrival, so that [`crate::DeviceState::tick`] can matter and a test is approximate.
    pub fn uses_absent(&self) -> bool {
        self.tables.absent
    }

    /// How much of the past a simulation must see before its first result means something: the longest of windows, `for`
    /// and `clear_for`.
    pub fn warm_up(&self) -> Duration {
        let windows = self
            .tables
            .windows
            .iter()
            .map(|window| Duration::from_micros(u64::try_from(window.duration).unwrap_or(0)));
        windows.chain([self.rule.for_duration, self.rule.clear_for]).max().unwrap_or_default()
    }

    /// Evaluations since this value was made.
    pub fn evaluations(&self) -> u64 {
        self.counts.evaluations()
    }

    /// Those of them that were unknown.
    pub fn unknown(&self) -> u64 {
        self.counts.unknown()
    }

    /// Also counts its evaluations in `tally`, which outlives it.
    #[must_use]
    pub fn counted_in(mut self, tally: Arc<Tally>) -> Self {
        self.of_all = Some(tally);
        self
    }

    pub(crate) fn count(&self, truth: Option<bool>) {
        self.counts.count(truth);
        if let Some(all) = &self.of_all {
            all.count(truth);
        }
    }
}

fn check_levels(
    rule: &Rule,
    scope: Scope<'_>,
    tables: &mut Tables,
    problems: &mut Vec<Problem>,
) -> Vec<(Severity, Bool)> {
    if rule.severities.is_empty() {
        let condition = check::condition("condition", &rule.condition, scope, tables, problems);
        return condition.map(|condition| (rule.severity, condition)).into_iter().collect();
    }
    if !rule.condition.is_empty() {
        problems.push(
            Problem::of("condition", "a rule has either a condition or severities, not both")
                .hint("give each of the severities its own condition"),
        );
    }
    let mut seen = HashSet::new();
    let mut levels = Vec::new();
    for (index, rung) in rule.severities.iter().enumerate() {
        let field = format!("severities[{index}]");
        if !seen.insert(rung.severity) {
            problems.push(Problem::of(&field, format!("severity {} stands here twice", rung.severity)));
        }
        if let Some(condition) =
            check::condition(&format!("{field}.condition"), &rung.condition, scope, tables, problems)
        {
            levels.push((rung.severity, condition));
        }
    }
    levels.sort_by_key(|(severity, _)| *severity);
    levels
}

fn check_actions(
    rule: &Rule,
    scope: Scope<'_>,
    tables: &mut Tables,
    problems: &mut Vec<Problem>,
) -> Vec<Option<Template>> {
    if rule.actions.len() > ACTIONS_MAX {
        let text = format!("{} actions are more than {ACTIONS_MAX}", rule.actions.len());
        problems.push(Problem::of("actions", text).limit(ACTIONS_MAX));
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut payloads = Vec::new();
    for (index, rule_action) in rule.actions.iter().enumerate() {
        let field = format!("actions[{index}]");
        let before = problems.len();
        action::check(rule_action, &field, problems);
        if !seen.insert(rule_action.id.as_str()) {
            let text = format!("action id {:?} stands here twice", rule_action.id);
            problems.push(Problem::of(format!("{field}.id"), text));
        }
        payloads.push(match &rule_action.kind {
            ActionKind::Command(command) if problems.len() == before => {
                let field = format!("{field}.command.payload");
                Template::check(&field, &command.payload, scope, tables, problems)
            }
            ActionKind::Command(_) | ActionKind::Webhook(_) => None,
        });
    }
    payloads
}

fn check_limits(rule: &Rule, problems: &mut Vec<Problem>) {
    let durations =
        [("for", Some(rule.for_duration)), ("clear_for", Some(rule.clear_for)), ("max_gap", rule.max_gap)];
    for (field, duration) in durations {
        if let Some(duration) = duration.filter(|duration| *duration > DURATION_MAX) {
            let text = format!("{field} of {} is longer than 30d", format_duration(duration));
            problems.push(Problem::of(field, text).limit("30d"));
        }
    }
    if rule.max_gap.is_some_and(|gap| gap.is_zero()) {
        problems.push(Problem::of("max_gap", "max_gap must be above 0s").hint("leave it out for no limit"));
    }
    if rule.display_name.len() > DISPLAY_NAME_MAX {
        let text =
            format!("a display name of {} bytes is longer than {DISPLAY_NAME_MAX}", rule.display_name.len());
        problems.push(Problem::of("display_name", text).limit(DISPLAY_NAME_MAX));
    }
    if rule.labels.len() > LABELS_MAX {
        let text = format!("{} labels are more than {LABELS_MAX}", rule.labels.len());
        problems.push(Problem::of("labels", text).limit(LABELS_MAX));
    }
    for (key, value) in &rule.labels {
        if !selector::is_label_key(key) || !selector::is_label_value(value) {
            let shown: String = key.chars().take(63).collect();
            let text = format!(
                "label {shown:?} must be 1 to 63 of [A-Za-z0-9_./-], its value up to 63 of [A-Za-z0-9_.-]"
            );
            problems.push(Problem::of(format!("labels.{shown}"), text).limit(63));
        }
    }
}

/// The rules that select one device. Devices with the same labels can share it.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    rules: Arc<[Arc<Compiled>]>,
    pub(crate) absent: bool,
}

impl RuleSet {
    /// These rules, whatever they select; of two with one uid the later counts.
    pub fn new(rules: impl IntoIterator<Item = Arc<Compiled>>) -> Self {
        let rules: BTreeMap<Uid, Arc<Compiled>> =
            rules.into_iter().map(|compiled| (compiled.rule().uid, compiled)).collect();
        let absent = rules.values().any(|compiled| compiled.uses_absent() && !compiled.rule().disabled);
        Self { rules: rules.into_values().collect(), absent }
    }

    /// Those of `rules` that select `device`. Disabled ones among them evaluate nothing, but keep their open alarms.
    pub fn selecting<'a>(rules: impl IntoIterator<Item = &'a Arc<Compiled>>, device: &Device) -> Self {
        Self::new(
            rules.into_iter().filter(|compiled| compiled.rule().selector.matches(&device.labels)).cloned(),
        )
    }

    /// The rules in order of their uids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Compiled>> {
        self.rules.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether any of them depends on arrival, so that ticks can matter.
    pub fn uses_absent(&self) -> bool {
        self.absent
    }

    pub(crate) fn get(&self, uid: Uid) -> Option<&Arc<Compiled>> {
        let at = self.rules.binary_search_by_key(&uid, |compiled| compiled.rule().uid).ok()?;
        self.rules.get(at)
    }
}
