//! What a run found, as a table: a line for each scenario, and their sum.

use std::time::Duration;

use weir_drive::{Via, ledger::Gap};

use super::{faults::Injected, workload::Outcome};

/// One line.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The scenario.
    pub scenario: String,
    /// How long it was under load.
    pub length: Duration,
    /// What was done to it.
    pub injected: Injected,
    /// How it fared.
    pub outcome: Outcome,
    /// Why the scenario could not be carried through; then nothing else counts.
    pub failure: Option<String>,
}

const HEAD: [&str; 17] = [
    "scenario",
    "s",
    "attempted",
    "acked",
    "refused",
    "unknown",
    "lost",
    "duplicated",
    "phantom",
    "corrupt",
    "leaked",
    "alarms",
    "wrong alarms",
    "commands",
    "wrong commands",
    "kills",
    "power cuts",
];

impl Row {
    /// Whether nothing is wrong: what must be 0 is 0, and the scenario was carried through.
    pub fn is_clean(&self) -> bool {
        let outcome = &self.outcome;
        self.failure.is_none()
            && outcome.verdict.is_clean()
            && outcome.alarms.wrong == 0
            && outcome.commands.wrong == 0
    }

    fn cells(&self) -> Vec<String> {
        let (counts, verdict) = (&self.outcome.counts, &self.outcome.verdict);
        let numbers = [
            self.length.as_secs(),
            counts.attempted,
            counts.acked,
            counts.refused,
            counts.unknown,
            verdict.lost,
            verdict.duplicated,
            verdict.phantom,
            verdict.corrupt,
            verdict.leaked,
            self.outcome.alarms.expected,
            self.outcome.alarms.wrong,
            self.outcome.commands.accepted,
            self.outcome.commands.wrong,
            self.injected.kills,
            self.injected.power_cuts,
        ];
        let gap = self
            .outcome
            .gaps
            .map(|gap| gap.map_or_else(|| "-".to_owned(), |gap| format!("{:.1}", gap.length.as_secs_f64())))
            .join(" / ");
        let mut cells = vec![self.scenario.clone()];
        cells.extend(numbers.iter().map(ToString::to_string));
        cells.push(gap);
        cells
    }

    /// What is wrong and what was felt, in words.
    pub fn words(&self) -> String {
        let outcome = &self.outcome;
        let mut text = String::new();
        let mut line = |what: String| text.push_str(&format!("  {what}\n"));
        if let Some(failure) = &self.failure {
            line(format!("FAILED: {failure}"));
        }
        line(format!(
            "load: {} reconnects, {} messages left over 1 s late (the latest {:.1} s), {} were due and never left",
            outcome.reconnects,
            outcome.late.0,
            outcome.late.1.as_secs_f64(),
            outcome.behind
        ));
        line(format!(
            "faults: {} kill -9, {} SIGSTOP, {} SIGTERM, {} power cuts; {} readings read back",
            self.injected.kills,
            self.injected.freezes,
            self.injected.restarts,
            self.injected.power_cuts,
            outcome.verdict.found
        ));
        for (via, gap) in Via::ALL.iter().zip(outcome.gaps) {
            if let Some(gap) = gap {
                line(format!(
                    "longest gap without acks over {via:?}: {:.2} s, from {:.1} s on",
                    gap.length.as_secs_f64(),
                    gap.began.as_secs_f64()
                ));
            }
        }
        outcome
            .complaints
            .iter()
            .take(10)
            .for_each(|complaint| line(format!("a device was told: {complaint}")));
        let wrong = [&outcome.verdict.examples, &outcome.alarms.examples, &outcome.commands.examples];
        wrong.into_iter().flatten().for_each(|example| line(format!("WRONG: {example}")));
        text
    }
}

/// The table of all rows with their sum.
pub fn table(rows: &[Row]) -> String {
    let mut sum = Row { scenario: "sum".to_owned(), ..Row::default() };
    for row in rows {
        sum.length += row.length;
        sum.injected = sum.injected.plus(row.injected);
        let (all, one) = (&mut sum.outcome, &row.outcome);
        all.counts = all.counts.plus(one.counts);
        all.verdict.add(one.verdict.clone());
        all.alarms.expected += one.alarms.expected;
        all.alarms.wrong += one.alarms.wrong;
        all.commands.accepted += one.commands.accepted;
        all.commands.wrong += one.commands.wrong;
        for (longest, gap) in all.gaps.iter_mut().zip(one.gaps) {
            *longest = longer(*longest, gap);
        }
    }
    let mut lines = vec![HEAD.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    lines.iter_mut().for_each(|head| head.push("gap s mqtt / http / grpc".to_owned()));
    lines.extend(rows.iter().map(Row::cells));
    lines.push(sum.cells());
    aligned(&lines)
}

fn longer(one: Option<Gap>, two: Option<Gap>) -> Option<Gap> {
    match (one, two) {
        (Some(one), Some(two)) => Some(if two.length > one.length { two } else { one }),
        (one, two) => one.or(two),
    }
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (number, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let cell = if number == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            text.push_str(&cell);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use weir_drive::ledger::{Counts, Verdict};

    use super::*;

    #[test]
    fn the_table_sums_up_and_one_loss_makes_it_red() {
        let clean = Row {
            scenario: "calm".to_owned(),
            outcome: Outcome {
                counts: Counts { attempted: 5, acked: 5, ..Counts::default() },
                ..Outcome::default()
            },
            ..Row::default()
        };
        let mut lossy = clean.clone();
        lossy.outcome.verdict = Verdict { lost: 2, ..Verdict::default() };
        assert!(clean.is_clean() && !lossy.is_clean());
        let text = table(&[clean, lossy]);
        let sum: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(sum.get(..7).unwrap(), ["sum", "0", "10", "10", "0", "0", "2"], "{text}");
    }

    #[test]
    fn a_scenario_that_could_not_be_carried_through_is_not_clean() {
        assert!(!Row { failure: Some("it did not start".to_owned()), ..Row::default() }.is_clean());
    }
}
