//! Compares what is read back of one device with its account, point by point as they stream in.

use weir_core::{Timestamp, Value};

use super::{Account, Entry, Source, VERSION_MAX};

/// Findings that are told in words; more are only counted.
const EXAMPLES_MAX: usize = 20;

/// What is wrong, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Readings found.
    pub found: u64,
    /// Acknowledged, and absent or of an older version.
    pub lost: u64,
    /// Given twice.
    pub duplicated: u64,
    /// Never sent, or refused for good.
    pub phantom: u64,
    /// Found with another value or type, in part, or out of order.
    pub corrupt: u64,
    /// Another tenant's.
    pub leaked: u64,
    /// Devices that could not publish any more, or be read, after everything was healed.
    pub unhealed: u64,
    /// The first findings, in words.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.phantom + self.corrupt + self.leaked + self.unhealed == 0
    }

    /// Adds another device's verdict.
    pub fn add(&mut self, other: Self) {
        self.found += other.found;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.phantom += other.phantom;
        self.corrupt += other.corrupt;
        self.leaked += other.leaked;
        self.unhealed += other.unhealed;
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    /// Notes a finding in words; the caller counts it.
    pub fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text);
        }
    }
}

/// The comparison of one device.
pub struct Check<'a> {
    account: &'a Account,
    entries: Vec<Entry>,
    rivals: &'a [Source],
    /// The first sequence that is not settled.
    next: u32,
    reading: Option<(Timestamp, Vec<(String, Value)>)>,
    newest: Option<Timestamp>,
    verdict: Verdict,
}

impl<'a> Check<'a> {
    /// Begins. `rivals` are the sources of other tenants whose values must not be found here.
    pub fn new(account: &'a Account, rivals: &'a [Source]) -> Self {
        Self {
            account,
            entries: account.entries(),
            rivals,
            next: 0,
            reading: None,
            newest: None,
            verdict: Verdict::default(),
        }
    }

    /// Takes the next point, in order of (ts, metric).
    pub fn point(&mut self, ts: Timestamp, metric: &str, value: Value) {
        match &mut self.reading {
            Some((current, values)) if *current == ts => match values.last() {
                Some((last, _)) if last == metric => {
                    self.verdict.duplicated += 1;
                    self.tell(ts, format_args!("{metric} is given twice"));
                }
                Some((last, _)) if last.as_str() > metric => {
                    self.verdict.corrupt += 1;
                    self.tell(ts, format_args!("{metric} is out of order"));
                }
                _ => values.push((metric.to_owned(), value)),
            },
            Some((current, _)) if *current > ts => {
                let again = self.account.source().sequence(self.account.epoch(), ts).is_some();
                self.verdict.duplicated += u64::from(again);
                self.verdict.corrupt += u64::from(!again);
                self.tell(ts, format_args!("{metric} is given after a later time"));
            }
            _ => {
                self.settle_reading();
                self.reading = Some((ts, vec![(metric.to_owned(), value)]));
            }
        }
    }

    /// Ends: what was not found by now is absent. Also gives the newest event time found.
    pub fn finish(mut self) -> (Verdict, Option<Timestamp>) {
        self.settle_reading();
        self.absent_until(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        (self.verdict, self.newest)
    }

    fn settle_reading(&mut self) {
        let Some((ts, values)) = self.reading.take() else { return };
        self.newest = Some(ts);
        let marker = self.account.marker();
        if marker.ts == Some(ts) && marker.values == values {
            return;
        }
        self.verdict.found += 1;
        let sequence = self.account.source().sequence(self.account.epoch(), ts);
        let entry = sequence.and_then(|sequence| self.entries.get(sequence as usize).copied());
        match (sequence, entry) {
            (Some(sequence), Some(entry)) if entry.attempted() => {
                self.absent_until(sequence);
                self.next = sequence.saturating_add(1);
                self.compare(ts, sequence, entry, &values);
            }
            _ => {
                self.verdict.phantom += 1;
                self.tell(ts, format_args!("nothing was ever sent for this time: {values:?}"));
            }
        }
    }

    fn absent_until(&mut self, sequence: u32) {
        let range = self.next as usize..sequence as usize;
        let lost: Vec<usize> = self
            .entries
            .get(range.clone())
            .into_iter()
            .flatten()
            .zip(range)
            .filter(|(entry, _)| !entry.may_be_absent())
            .map(|(_, index)| index)
            .collect();
        self.verdict.lost += lost.len() as u64;
        for index in lost.iter().take(EXAMPLES_MAX) {
            let ts =
                self.account.source().ts(self.account.epoch(), u32::try_from(*index).unwrap_or(u32::MAX));
            self.tell(ts, format_args!("acknowledged and absent, sequence {index}"));
        }
        self.next = self.next.max(sequence);
    }

    fn compare(&mut self, ts: Timestamp, sequence: u32, entry: Entry, values: &[(String, Value)]) {
        let same = |source: Source, version: u8| {
            let expected = source.values(sequence, version);
            expected.len() == values.len()
                && expected.iter().zip(values).all(|(want, have)| want.0 == have.0 && want.1 == have.1)
        };
        let source = self.account.source();
        let version = (0..=VERSION_MAX).find(|version| same(source, *version));
        match version {
            Some(version) if entry.may_be(version) => {}
            Some(version) if version < entry.acked().unwrap_or(0) => {
                self.verdict.lost += 1;
                self.tell(
                    ts,
                    format_args!("version {version} is stored, {:?} was acknowledged", entry.acked()),
                );
            }
            Some(version) => {
                self.verdict.phantom += 1;
                self.tell(ts, format_args!("version {version} is stored, which was refused or never sent"));
            }
            None if self
                .rivals
                .iter()
                .any(|rival| (0..=VERSION_MAX).any(|version| same(*rival, version))) =>
            {
                self.verdict.leaked += 1;
                self.tell(ts, format_args!("another tenant's values are stored: {values:?}"));
            }
            None => {
                self.verdict.corrupt += 1;
                self.tell(ts, format_args!("no version has these values: {values:?}"));
            }
        }
    }

    fn tell(&mut self, ts: Timestamp, what: std::fmt::Arguments<'_>) {
        let source = self.account.source();
        self.verdict.example(format!(
            "tenant {} device {} ts {ts}: {what}",
            source.tenant,
            self.account.device()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source = Source { run: 1, tenant: 0, device: 0 };
    const RIVAL: Source = Source { tenant: 1, ..SOURCE };

    fn account(count: u32) -> Account {
        let account = Account::new(SOURCE, "d".to_owned(), Timestamp::from_micros(1_700_000_000_000_000));
        account.attempt(0, count, 0);
        (0..count).for_each(|sequence| account.ack(sequence, 0));
        account
    }

    fn give(check: &mut Check<'_>, account: &Account, source: Source, sequence: u32, version: u8) {
        for (metric, value) in source.values(sequence, version) {
            check.point(SOURCE.ts(account.epoch(), sequence), metric, value);
        }
    }

    fn verdict(account: &Account, stored: &[(Source, u32, u8)]) -> Verdict {
        let mut check = Check::new(account, &[RIVAL]);
        stored
            .iter()
            .for_each(|(source, sequence, version)| give(&mut check, account, *source, *sequence, *version));
        check.finish().0
    }

    #[test]
    fn what_was_acknowledged_and_is_there_once_is_clean() {
        let found = verdict(&account(3), &[(SOURCE, 0, 0), (SOURCE, 1, 0), (SOURCE, 2, 0)]);
        assert!(found.is_clean() && found.found == 3, "{found:?}");
    }

    #[test]
    fn a_hole_and_a_missing_end_are_lost() {
        let found = verdict(&account(4), &[(SOURCE, 0, 0), (SOURCE, 2, 0)]);
        assert_eq!((found.lost, found.examples.len()), (2, 2), "{found:?}");
    }

    #[test]
    fn a_reading_given_twice_is_duplicated() {
        let account = account(2);
        let twice = verdict(&account, &[(SOURCE, 0, 0), (SOURCE, 1, 0), (SOURCE, 1, 0)]);
        assert!(twice.duplicated > 0 && twice.lost == 0, "{twice:?}");
        let later = verdict(&account, &[(SOURCE, 0, 0), (SOURCE, 1, 0), (SOURCE, 0, 0)]);
        assert!(later.duplicated > 0, "{later:?}");
    }

    #[test]
    fn an_older_version_than_the_acknowledged_one_is_lost_and_one_never_sent_is_phantom() {
        let account = account(2);
        account.attempt(0, 1, 1);
        account.ack(0, 1);
        let found = verdict(&account, &[(SOURCE, 0, 0), (SOURCE, 1, 2)]);
        assert_eq!((found.lost, found.phantom), (1, 1), "{found:?}");
    }

    #[test]
    fn a_time_never_sent_is_phantom_and_the_marker_is_not() {
        let account = account(1);
        let mut check = Check::new(&account, &[]);
        let marker = account.marker();
        check.point(marker.ts.unwrap(), "end", Value::Bool(true));
        give(&mut check, &account, SOURCE, 0, 0);
        give(&mut check, &account, SOURCE, 9, 0);
        let (found, newest) = check.finish();
        assert_eq!((found.phantom, found.lost, found.found), (1, 0, 2), "{found:?}");
        assert_eq!(newest, Some(SOURCE.ts(account.epoch(), 9)));
    }

    #[test]
    fn half_a_reading_or_another_type_is_corrupt_and_another_tenants_values_are_leaked() {
        let account = account(3);
        let mut check = Check::new(&account, &[RIVAL]);
        let at = |sequence| SOURCE.ts(account.epoch(), sequence);
        let (metric, value) = SOURCE.values(0, 0).remove(0);
        check.point(at(0), metric, value);
        for (metric, value) in SOURCE.values(1, 0) {
            let value = if metric == "n" { Value::Int64(1) } else { value };
            check.point(at(1), metric, value);
        }
        give(&mut check, &account, RIVAL, 2, 0);
        let (found, _) = check.finish();
        assert_eq!((found.corrupt, found.leaked, found.lost), (2, 1, 0), "{found:?}");
    }

    #[test]
    fn what_nobody_answered_may_be_there_or_not() {
        let account = Account::new(SOURCE, "d".to_owned(), Timestamp::from_micros(0));
        account.attempt(0, 2, 0);
        account.lose_answer(0, 2);
        assert!(verdict(&account, &[(SOURCE, 1, 0)]).is_clean());
    }
}
