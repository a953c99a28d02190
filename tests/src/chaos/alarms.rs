//! Rules during chaos: alarms must be those that follow from the data, none missing and none extra.
//!
//! A few devices send a square wave, each reading strictly after the one before is acknowledged, with times of their own. So
//! the log holds their readings in one order (a resend is late or a repetition, which rules never see), and which alarms are
//! raised and cleared, and when in event time, is a function of the wave alone ([`expected`]). Nothing is taken from Weir's own
//! engine to know it.
//!
//! A rule starts with the next reading after its owner has learned of it, so a wave begins with probes until the first alarm
//! shows; only what follows is compared.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use weir_core::{Clock as _, Error, Result, SystemClock, Timestamp, Value, name};
use weir_drive::{
    Edge, Place, Reading, Via,
    edge::answer,
    lane::{Patience, patiently},
    provision,
    random::Random,
};
use weir_grpc::{convert, from_status};
use weir_proto::analytics::v1 as pb;

/// Devices with a wave: enough to lie in several partitions.
const DEVICES: u32 = 8;
/// Event time between two readings.
const STEP: Duration = Duration::from_secs(1);
/// Wall time between two readings: a wave is sparse beside the load.
const PACE: Duration = Duration::from_millis(50);
/// A level is held for at most so many readings.
const HOLD_MAX: u64 = 12;
/// How long the second rule's condition must hold.
const FOR: Duration = Duration::from_secs(4);
const LOW: f64 = 20.0;
const HIGH: f64 = 80.0;
/// How long one reading is tried: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(180);

/// The two rules: one that raises at once, one that waits.
const RULES: [(&str, Duration); 2] = [("hot", Duration::ZERO), ("hot-for-long", FOR)];

/// An alarm as far as it is compared: when raised, when cleared.
type Span = (Timestamp, Option<Timestamp>);

/// One device's data, as acknowledged.
struct Wave {
    device: String,
    epoch: Timestamp,
    /// Whether each reading was high, by its number; one that was sent and never acknowledged ends the wave.
    high: Vec<bool>,
    /// The first reading that counts.
    from: usize,
    error: Option<Error>,
}

/// Waves under way.
pub struct Alarms {
    stop: CancellationToken,
    place: Place,
    waves: Vec<JoinHandle<Wave>>,
}

impl Alarms {
    /// Makes devices and rules in the place's tenant, and starts the waves.
    ///
    /// # Errors
    /// What the registry or the rules' owner says.
    pub async fn start(places: Vec<Place>, seed: u64) -> Result<Self> {
        let place = places.first().cloned().ok_or_else(|| Error::internal("there is no edge"))?;
        let devices: Vec<String> = (0..DEVICES).map(|number| format!("wave-{number}")).collect();
        let labels = HashMap::from([("chaos".to_owned(), "wave".to_owned())]);
        patiently(PATIENCE, async || provision::create(&place, &devices, &labels).await).await?;
        for (rule, hold) in RULES {
            patiently(PATIENCE, async || create_rule(&place, rule, hold).await).await?;
        }
        let stop = CancellationToken::new();
        let epoch = SystemClock.now().as_micros() / 1_000_000 * 1_000_000;
        let epoch = Timestamp::from_micros(epoch).saturating_sub(Duration::from_secs(20 * 86_400));
        let places = Arc::new(places);
        let mut waves = Vec::new();
        for (number, device) in (0..).zip(devices) {
            let wave = Wave { device, epoch, high: Vec::new(), from: usize::MAX, error: None };
            waves.push(tokio::spawn(wave.run(Arc::clone(&places), Random::fork(seed, number), stop.clone())));
        }
        Ok(Self { stop, place, waves })
    }

    /// Ends the waves; gives how many alarms are missing or extra, and the first of them in words.
    ///
    /// # Errors
    /// Where alarms cannot be listed.
    pub async fn finish(self) -> Result<Outcome> {
        self.stop.cancel();
        let mut outcome = Outcome::default();
        let mut waves = Vec::new();
        for wave in self.waves {
            waves.push(wave.await.map_err(|source| Error::internal("a wave panicked").with_source(source))?);
        }
        let until = Instant::now() + LAG; // for all of them together
        for wave in &waves {
            for (rule, hold) in RULES {
                compare(&self.place, wave, (rule, hold), until, &mut outcome).await?;
            }
        }
        Ok(outcome)
    }
}

/// How alarms fared.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Alarms that were expected.
    pub expected: u64,
    /// Missing or extra ones.
    pub wrong: u64,
    /// In words.
    pub examples: Vec<String>,
}

async fn create_rule(place: &Place, id: &str, hold: Duration) -> Result<()> {
    let rule = pb::Rule {
        label_selector: "chaos=wave".to_owned(),
        condition: "level > 50".to_owned(),
        for_duration: (!hold.is_zero()).then(|| convert::from_duration(hold)),
        severity: pb::Severity::Warning.into(),
        ..Default::default()
    };
    let request = pb::CreateRuleRequest {
        parent: name::tenant(&place.tenant),
        rule_id: id.to_owned(),
        rule: Some(rule),
        request_id: format!("chaos-{id}"),
        ..Default::default()
    };
    place.connection.rules().create_rule(request).await.map_err(from_status).map(drop)
}

impl Wave {
    async fn run(mut self, places: Arc<Vec<Place>>, mut random: Random, stop: CancellationToken) -> Self {
        if let Err(error) = self.send_all(&places, &mut random, &stop).await {
            self.error = Some(error);
        }
        self
    }

    async fn send_all(
        &mut self,
        places: &[Place],
        random: &mut Random,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut link = Link::default();
        let first = places.first().ok_or_else(|| Error::internal("there is no edge"))?;
        // Probes: up and down until the rules are seen to work, then down.
        while self.from == usize::MAX && !stop.is_cancelled() {
            for high in std::iter::repeat_n(true, 6).chain([false]) {
                self.send(&mut link, places, high).await?;
            }
            let mut seen = true;
            for (rule, _) in RULES {
                seen &= !list(first, &self.device, rule).await?.is_empty();
            }
            if seen {
                self.from = self.high.len();
            }
        }
        while !stop.is_cancelled() {
            let high = self.high.last() == Some(&false);
            for _ in 0..1 + random.below(HOLD_MAX) {
                self.send(&mut link, places, high).await?;
                sleep(PACE).await;
            }
        }
        self.send(&mut link, places, false).await
    }

    async fn send(&mut self, link: &mut Link, places: &[Place], high: bool) -> Result<()> {
        let number = u32::try_from(self.high.len()).unwrap_or(u32::MAX);
        let level = if high { HIGH } else { LOW };
        let reading = Reading {
            ts: Some(self.epoch.saturating_add(STEP * number)),
            values: vec![("level".to_owned(), Value::Double(level))],
        };
        link.deliver(places, &self.device, &reading).await?;
        self.high.push(high);
        Ok(())
    }

    fn ts(&self, index: usize) -> Timestamp {
        self.epoch.saturating_add(STEP * u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The alarms that follow from what was acknowledged.
    fn expected(&self, hold: Duration) -> Vec<Span> {
        let mut spans = Vec::new();
        let (mut since, mut raised) = (None, None);
        for (index, high) in self.high.iter().enumerate().skip(self.from) {
            let ts = self.ts(index);
            if *high {
                let begin = *since.get_or_insert(ts);
                if raised.is_none() && ts.since(begin) >= hold {
                    raised = Some(ts);
                }
            } else {
                since = None;
                spans.extend(raised.take().map(|raised| (raised, Some(ts))));
            }
        }
        spans.extend(raised.map(|raised| (raised, None)));
        spans
    }
}

/// A connection that is opened again, at the next edge, after it failed.
#[derive(Default)]
pub(super) struct Link {
    edge: Option<Edge>,
    turn: usize,
}

impl Link {
    /// Sends one reading until it is acknowledged.
    pub(super) async fn deliver(&mut self, places: &[Place], device: &str, reading: &Reading) -> Result<()> {
        let mut patience = Patience::new(PATIENCE);
        while let Err(error) = self.send(places, device, reading).await {
            patience.again(error).await?;
        }
        Ok(())
    }

    async fn send(&mut self, places: &[Place], device: &str, reading: &Reading) -> Result<()> {
        let edge = match self.edge.take() {
            Some(edge) => edge,
            None => {
                self.turn += 1;
                let place = self.turn.checked_rem(places.len()).and_then(|at| places.get(at));
                let place = place.ok_or_else(|| Error::internal("there is no edge"))?;
                Edge::open(place, Via::Grpc, device, "").await?
            }
        };
        let mut pending = edge.send(std::slice::from_ref(reading)).await?;
        let refused = answer(&mut pending).await?;
        self.edge = Some(edge);
        refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }
}

async fn spans(place: &Place, device: &str, rule: &str) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for alarm in list(place, device, rule).await? {
        let raised = convert::to_timestamp_opt("raise_time", alarm.raise_time.as_ref())?;
        let cleared = convert::to_timestamp_opt("clear_time", alarm.clear_time.as_ref())?;
        spans.extend(raised.map(|raised| (raised, cleared)));
    }
    spans.sort_unstable();
    Ok(spans)
}

/// The alarms of a device and rule.
pub(super) async fn list(place: &Place, device: &str, rule: &str) -> Result<Vec<pb::Alarm>> {
    let (mut alarms, mut page_token) = (Vec::new(), String::new());
    let mut patience = Patience::new(PATIENCE);
    loop {
        let request = pb::ListAlarmsRequest {
            parent: name::tenant(&place.tenant),
            page_size: 1_000,
            page_token: page_token.clone(),
            device: name::child(&place.tenant, "devices", device),
            rule: name::child(&place.tenant, "rules", rule),
            ..Default::default()
        };
        let answer = match place.connection.alarms().list_alarms(request).await.map_err(from_status) {
            Ok(answer) => answer.into_inner(),
            Err(error) => {
                patience.again(error).await?;
                continue;
            }
        };
        alarms.extend(answer.alarms);
        if answer.next_page_token.is_empty() {
            return Ok(alarms);
        }
        page_token = answer.next_page_token;
    }
}

/// Findings that are told in words.
const EXAMPLES_MAX: usize = 20;
/// How long alarms may lag behind the last acknowledged reading once everything is healed.
const LAG: Duration = Duration::from_secs(60);

async fn compare(
    place: &Place,
    wave: &Wave,
    (rule, hold): (&str, Duration),
    until: Instant,
    outcome: &mut Outcome,
) -> Result<()> {
    if let Some(error) = &wave.error {
        outcome.wrong += 1;
        outcome.examples.push(format!("{} {rule}: the wave broke off: {error}", wave.device));
        return Ok(());
    }
    if wave.from == usize::MAX {
        outcome.wrong += 1;
        outcome.examples.push(format!("{} {rule}: its first alarm never came", wave.device));
        return Ok(());
    }
    let (expected, begin) = (wave.expected(hold), wave.ts(wave.from));
    let mut found;
    loop {
        found = spans(place, &wave.device, rule).await?;
        found.retain(|(raised, _)| *raised >= begin);
        if found == expected || Instant::now() > until {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    outcome.expected += expected.len() as u64;
    let spans: BTreeSet<Span> = expected.iter().chain(&found).copied().collect();
    let times = |list: &[Span], span: &Span| list.iter().filter(|other| *other == span).count();
    for span in spans {
        let (wanted, have) = (times(&expected, &span), times(&found, &span));
        outcome.wrong += wanted.abs_diff(have) as u64;
        if wanted != have && outcome.examples.len() < EXAMPLES_MAX {
            let (raised, cleared) = span;
            let cleared = cleared.map_or_else(|| "open".to_owned(), |ts| format!("cleared {ts}"));
            outcome.examples.push(format!(
                "{} {rule}: raised {raised}, {cleared}: {have} instead of {wanted}",
                wave.device
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_alarms_follow_from_the_wave_alone() {
        let epoch = Timestamp::from_micros(0);
        let high = "0110011111101".bytes().map(|letter| letter == b'1').collect();
        let wave = Wave { device: "d".to_owned(), epoch, high, from: 0, error: None };
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
        let at_once = vec![(at(1), Some(at(3))), (at(5), Some(at(11))), (at(12), None)];
        assert_eq!(wave.expected(Duration::ZERO), at_once);
        assert_eq!(wave.expected(FOR), vec![(at(9), Some(at(11)))]);
    }
}
