//! One person with one device: what is done, and what is seen of it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use weir_core::{Clock as _, Error, ErrorKind, Result, SystemClock, Timestamp, Value, name};
use weir_drive::{Place, Reading, lane::Patience, random::Random};
use weir_grpc::{convert::to_timestamp_opt, from_status};
use weir_proto::analytics::v1 as pb;

use super::{
    Outcome, PATIENCE,
    model::{End, Facts, Model},
};
use crate::chaos::alarms::{Link, list};

const LOW: f64 = 20.0;
/// Above the lower threshold alone.
const MID: f64 = 80.0;
/// Above both.
const HIGH: f64 = 200.0;
const THRESHOLDS: [f64; 2] = [50.0, 150.0];
/// Of the rule that is never changed.
const STEADY: f64 = 100.0;
/// Event time between two readings.
const STEP: Duration = Duration::from_secs(1);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(100);
/// Things that are done with one rule at most before it is deleted.
const DEEDS_MAX: u64 = 6;

pub(super) struct Desk {
    places: Arc<Vec<Place>>,
    number: u32,
    device: String,
    random: Random,
    link: Link,
    epoch: Timestamp,
    sent: u32,
    steady: Model,
    /// The rule at work, and its number.
    work: Model,
    round: u32,
    /// The rules before it.
    past: Vec<(String, Model)>,
    requests: u64,
    outcome: Outcome,
}

impl Desk {
    pub(super) fn new(places: Arc<Vec<Place>>, number: u32, random: Random) -> Self {
        let epoch = SystemClock.now().as_micros() / 1_000_000 * 1_000_000;
        Self {
            places,
            number,
            device: format!("desk-{number}"),
            random,
            link: Link::default(),
            epoch: Timestamp::from_micros(epoch).saturating_sub(Duration::from_secs(20 * 86_400)),
            sent: 0,
            steady: Model::default(),
            work: Model::default(),
            round: 0,
            past: Vec::new(),
            requests: 0,
            outcome: Outcome::default(),
        }
    }

    /// Works until told to stop, and judges at the end.
    pub(super) async fn work(mut self, stop: CancellationToken) -> Outcome {
        if let Err(error) = self.work_until(&stop).await {
            // What came before it is told in its words; what would come after it shows nothing.
            self.outcome.wrong(format!("{}: {error}", self.device));
        }
        self.outcome
    }

    async fn work_until(&mut self, stop: &CancellationToken) -> Result<()> {
        let steady = self.steady_id();
        self.create(&steady, STEADY).await?;
        self.steady.put(STEADY);
        while !stop.is_cancelled() {
            let threshold = self.threshold();
            let (last, model) = (self.rule_id(), std::mem::take(&mut self.work));
            self.past.extend((self.round > 0).then_some((last, model)));
            self.round += 1;
            self.create(&self.rule_id(), threshold).await?;
            self.work.put(threshold);
            for _ in 0..1 + self.random.below(DEEDS_MAX) {
                if !stop.is_cancelled() {
                    self.deed().await?;
                }
            }
            if !stop.is_cancelled() {
                self.delete().await?;
            }
        }
        self.pulse().await?;
        self.verify().await
    }

    /// Does one thing with a rule that has no open alarm, and leaves it so.
    async fn deed(&mut self) -> Result<()> {
        match self.random.below(5) {
            0 => self.pulse().await,
            1 => {
                self.raise().await?;
                self.acknowledge().await?;
                self.read(&[HIGH, LOW]).await
            }
            2 => {
                self.raise().await?;
                self.clear().await?;
                self.read(&[HIGH, MID, HIGH, LOW, HIGH]).await?;
                self.read(&[LOW]).await
            }
            3 => {
                self.edit().await?;
                self.read(&[MID, HIGH]).await?;
                self.read(&[LOW]).await
            }
            _ => {
                self.raise().await?;
                self.edit().await?;
                self.read(&[MID, LOW]).await
            }
        }
    }

    async fn pulse(&mut self) -> Result<()> {
        self.raise().await?;
        self.read(&[HIGH, MID, LOW]).await
    }

    async fn raise(&mut self) -> Result<()> {
        self.read(&[HIGH]).await
    }

    fn threshold(&mut self) -> f64 {
        let [low, high] = THRESHOLDS;
        if self.random.once_in(2) { low } else { high }
    }

    fn steady_id(&self) -> String {
        format!("steady-{}", self.number)
    }

    fn rule_id(&self) -> String {
        format!("edited-{}-{}", self.number, self.round)
    }

    fn place(&self) -> Result<&Place> {
        self.places.first().ok_or_else(|| Error::internal("there is no edge"))
    }

    fn rule_name(&self, id: &str) -> Result<String> {
        Ok(name::child(&self.place()?.tenant, "rules", id))
    }

    fn rule(&self, threshold: f64) -> pb::Rule {
        pb::Rule {
            label_selector: format!("desk={}", self.number),
            condition: condition(threshold),
            severity: pb::Severity::Warning.into(),
            ..Default::default()
        }
    }

    fn request_id(&mut self) -> String {
        self.requests += 1;
        format!("desk-{}-{}", self.number, self.requests)
    }

    /// Sends readings, the last of which crosses every threshold, and waits until what must follow is seen.
    async fn read(&mut self, levels: &[f64]) -> Result<()> {
        for level in levels {
            let ts = self.epoch.saturating_add(STEP * self.sent);
            self.sent += 1;
            let values = vec![("level".to_owned(), Value::Double(*level))];
            let places = Arc::clone(&self.places);
            self.link.deliver(&places, &self.device, &Reading { ts: Some(ts), values }).await?;
            self.steady.reading(ts, *level);
            self.work.reading(ts, *level);
        }
        self.settle().await
    }

    /// Waits until the alarms of both rules are those of their models.
    async fn settle(&mut self) -> Result<()> {
        let pairs =
            [(self.steady_id(), self.steady.alarms.clone()), (self.rule_id(), self.work.alarms.clone())];
        for (rule, expected) in pairs {
            let until = Instant::now() + PATIENCE;
            loop {
                let found = self.alarms(&rule).await?;
                if found == expected {
                    break;
                }
                if Instant::now() > until {
                    return Err(differ(&rule, &expected, &found));
                }
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// The alarms of a rule, in order of their times; notes where more than one is open.
    async fn alarms(&mut self, rule: &str) -> Result<Vec<Facts>> {
        let alarms = list(self.place()?, &self.device, rule).await?;
        let mut facts = alarms.iter().map(Facts::of).collect::<Result<Vec<_>>>()?;
        facts.sort();
        let open = facts.iter().filter(|alarm| alarm.end == End::Open).count();
        if open > 1 {
            self.outcome.wrong(format!("{} {rule}: {open} alarms are open: {facts:?}", self.device));
        }
        Ok(facts)
    }

    async fn create(&mut self, id: &str, threshold: f64) -> Result<()> {
        let place = self.place()?.clone();
        let request = pb::CreateRuleRequest {
            parent: name::tenant(&place.tenant),
            rule_id: id.to_owned(),
            rule: Some(self.rule(threshold)),
            request_id: format!("desk-{id}"),
            ..Default::default()
        };
        let made = again(|| {
            let (mut stub, request) = (place.connection.rules(), request.clone());
            async move { stub.create_rule(request).await.map_err(from_status) }
        });
        let rule = made.await?.into_inner().rule.unwrap_or_default();
        self.changed(id, 1, rule.revision);
        Ok(())
    }

    /// Turns the threshold over.
    async fn edit(&mut self) -> Result<()> {
        let [low, high] = THRESHOLDS;
        let threshold = if self.work.threshold == Some(low) { high } else { low };
        let (place, id) = (self.place()?.clone(), self.rule_id());
        let request = pb::UpdateRuleRequest {
            rule: Some(pb::Rule { name: self.rule_name(&id)?, ..self.rule(threshold) }),
            ..Default::default()
        };
        let changed = again(|| {
            let (mut stub, request) = (place.connection.rules(), request.clone());
            async move { stub.update_rule(request).await.map_err(from_status) }
        });
        let rule = changed.await?.into_inner().rule.unwrap_or_default();
        self.work.put(threshold);
        let expected = self.work.revision;
        self.changed(&id, expected, rule.revision);
        Ok(())
    }

    fn changed(&mut self, id: &str, expected: i64, revision: i64) {
        self.outcome.changes += 1;
        if revision != expected {
            self.outcome
                .wrong(format!("rule {id} was acknowledged with revision {revision} instead of {expected}"));
        }
    }

    /// Deletes the rule, sometimes under an open alarm; afterwards nothing is raised.
    async fn delete(&mut self) -> Result<()> {
        if self.random.once_in(2) {
            self.raise().await?;
        }
        let place = self.place()?.clone();
        let request = pb::DeleteRuleRequest { name: self.rule_name(&self.rule_id())?, ..Default::default() };
        let deleted = again(|| {
            let (mut stub, request) = (place.connection.rules(), request.clone());
            async move { stub.delete_rule(request).await.map_err(from_status).map(drop) }
        });
        match deleted.await {
            // The first of several attempts may have been the one that nobody answered.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            deleted => deleted?,
        }
        self.outcome.changes += 1;
        self.work.deleted();
        self.read(&[LOW, HIGH]).await?;
        self.read(&[HIGH, LOW]).await
    }

    /// The name of the open alarm of the rule at work.
    async fn open_alarm(&self) -> Result<String> {
        let alarms = list(self.place()?, &self.device, &self.rule_id()).await?;
        let open = alarms.into_iter().find(|alarm| alarm.state() != pb::AlarmState::Cleared);
        open.map(|alarm| alarm.name).ok_or_else(|| Error::data_loss("an alarm that was open is open no more"))
    }

    async fn acknowledge(&mut self) -> Result<()> {
        let request_id = self.request_id();
        let (place, name) = (self.place()?.clone(), self.open_alarm().await?);
        let request = pb::AcknowledgeAlarmRequest { name, comment: "I go".to_owned(), request_id };
        let done = again(|| {
            let (mut stub, request) = (place.connection.alarms(), request.clone());
            async move { stub.acknowledge_alarm(request).await.map_err(from_status) }
        });
        done.await?;
        self.outcome.changes += 1;
        self.work.acknowledged();
        self.settle().await
    }

    async fn clear(&mut self) -> Result<()> {
        let request_id = self.request_id();
        let (place, name) = (self.place()?.clone(), self.open_alarm().await?);
        let request = pb::ClearAlarmRequest { name, comment: "It is well".to_owned(), request_id };
        let done = again(|| {
            let (mut stub, request) = (place.connection.alarms(), request.clone());
            async move { stub.clear_alarm(request).await.map_err(from_status) }
        });
        done.await?;
        self.outcome.changes += 1;
        self.work.cleared();
        self.settle().await
    }

    /// Everything once more, when all is healed: alarms of all rules, the rules themselves, and what a test makes of them.
    async fn verify(&mut self) -> Result<()> {
        self.settle().await?;
        let mut rules = std::mem::take(&mut self.past);
        rules.push((self.rule_id(), self.work.clone()));
        rules.push((self.steady_id(), self.steady.clone()));
        for (id, model) in rules {
            let found = self.alarms(&id).await?;
            if found != model.alarms {
                let differ = differ(&id, &model.alarms, &found);
                self.outcome.wrong(format!("{}: {differ}", self.device));
            }
            self.verify_rule(&id, &model).await?;
        }
        Ok(())
    }

    async fn verify_rule(&mut self, id: &str, model: &Model) -> Result<()> {
        let (place, name) = (self.place()?.clone(), self.rule_name(id)?);
        let request = pb::GetRuleRequest { name: name.clone() };
        let got = again(|| {
            let (mut stub, request) = (place.connection.rules(), request.clone());
            async move { stub.get_rule(request).await.map_err(from_status) }
        });
        let rule = match (got.await, model.threshold) {
            (Err(error), None) if error.kind() == ErrorKind::NotFound => return Ok(()),
            (Ok(_), None) => {
                self.outcome.wrong(format!("rule {id} is deleted and there"));
                return Ok(());
            }
            (got, Some(_)) | (got @ Err(_), None) => got?.into_inner().rule.unwrap_or_default(),
        };
        let expected = (model.revision, condition(model.threshold.unwrap_or_default()));
        if (rule.revision, &rule.condition) != (expected.0, &expected.1) {
            self.outcome.wrong(format!(
                "rule {id} is {} at revision {} instead of {} at {}",
                rule.condition, rule.revision, expected.1, expected.0
            ));
        }
        let tested = again(|| test(place.clone(), name.clone())).await?;
        if !tested.exact {
            self.outcome.wrong(format!("a test of rule {id} is no exact one: {}", tested.note));
        }
        let raised: Vec<Timestamp> = model.alarms.iter().map(|alarm| alarm.raised).collect();
        let cleared = model.alarms.iter().filter_map(|alarm| match alarm.end {
            End::Condition(ts) => Some(ts),
            End::Open | End::Reason(_) => None,
        });
        let missing: Vec<Timestamp> = cleared.filter(|ts| !tested.cleared.contains(ts)).collect();
        if tested.raised != raised || !missing.is_empty() {
            self.outcome.wrong(format!(
                "a test of rule {id} raises {:?}, not {raised:?}, and does not clear {missing:?}",
                tested.raised
            ));
        }
        Ok(())
    }
}

/// Does something that can be done twice until it succeeds.
async fn again<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> Result<T> {
    let mut patience = Patience::new(PATIENCE);
    loop {
        match attempt().await {
            Err(error) => patience.again(error).await?,
            done => return done,
        }
    }
}

fn condition(threshold: f64) -> String {
    format!("level > {threshold}")
}

fn differ(rule: &str, expected: &[Facts], found: &[Facts]) -> Error {
    let only = |these: &[Facts], those: &[Facts]| {
        these.iter().filter(|alarm| !those.contains(alarm)).cloned().collect::<Vec<_>>()
    };
    let (missing, extra) = (only(expected, found), only(found, expected));
    Error::data_loss(format!(
        "{rule}: {} alarms instead of {}: missing {missing:?}, extra {extra:?}",
        found.len(),
        expected.len()
    ))
}

/// What a test of a stored rule gives.
#[derive(Default)]
struct Tested {
    raised: Vec<Timestamp>,
    cleared: Vec<Timestamp>,
    exact: bool,
    note: String,
}

async fn test(place: Place, rule: String) -> Result<Tested> {
    let request = pb::TestRuleRequest {
        parent: name::tenant(&place.tenant),
        subject: Some(pb::test_rule_request::Subject::Name(rule)),
        ..Default::default()
    };
    let mut answers = place.connection.rules().test_rule(request).await.map_err(from_status)?.into_inner();
    let mut tested = Tested::default();
    while let Some(answer) = answers.message().await.map_err(from_status)? {
        for transition in answer.transitions {
            let ts = to_timestamp_opt("event_time", transition.event_time.as_ref())?;
            match transition.r#type() {
                pb::AlarmEventType::Raised => tested.raised.extend(ts),
                pb::AlarmEventType::Cleared => tested.cleared.extend(ts),
                _ => {}
            }
        }
        if let Some(summary) = answer.summary {
            (tested.exact, tested.note) = (summary.exact, summary.note);
        }
    }
    Ok(tested)
}
