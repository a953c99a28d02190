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

/// A column of numbers.
type Column = (&'static str, fn(&Row) -> u64);

/// What every run has.
const COLUMNS: [Column; 17] = [
    ("s", |row| row.length.as_secs()),
    ("attempted", |row| row.outcome.counts.attempted),
    ("acked", |row| row.outcome.counts.acked),
    ("refused", |row| row.outcome.counts.refused),
    ("unknown", |row| row.outcome.counts.unknown),
    ("lost", |row| row.outcome.verdict.lost),
    ("duplicated", |row| row.outcome.verdict.duplicated),
    ("phantom", |row| row.outcome.verdict.phantom),
    ("corrupt", |row| row.outcome.verdict.corrupt),
    ("leaked", |row| row.outcome.verdict.leaked),
    ("unhealed", |row| row.outcome.verdict.unhealed),
    ("alarms", |row| row.outcome.alarms.expected),
    ("wrong alarms", |row| row.outcome.alarms.wrong),
    ("commands", |row| row.outcome.commands.accepted),
    ("wrong commands", |row| row.outcome.commands.wrong),
    ("kills", |row| row.injected.kills),
    ("power cuts", |row| row.injected.power_cuts),
];

/// What some scenarios have: left out where no row has any of it.
const FURTHER: [Column; 6] = [
    ("cut off", |row| row.injected.cut_offs),
    ("clock jumps", |row| row.injected.jumps),
    ("edits", |row| row.outcome.edits.changes),
    ("wrong edits", |row| row.outcome.edits.wrong),
    ("poison", |row| row.outcome.poison.expected),
    ("wrong poison", |row| row.outcome.poison.wrong),
];

fn columns(rows: &[Row]) -> Vec<Column> {
    let further = FURTHER.into_iter().filter(|(_, of)| rows.iter().any(|row| of(row) > 0));
    COLUMNS.into_iter().chain(further).collect()
}

impl Row {
    /// Whether nothing is wrong: what must be 0 is 0, and the scenario was carried through.
    pub fn is_clean(&self) -> bool {
        let outcome = &self.outcome;
        self.failure.is_none()
            && outcome.verdict.is_clean()
            && outcome.alarms.wrong == 0
            && outcome.commands.wrong == 0
            && outcome.edits.wrong == 0
            && outcome.poison.wrong == 0
    }

    fn cells(&self, columns: &[Column]) -> Vec<String> {
        let seconds = |gap: Option<Gap>| {
            gap.map_or_else(|| "-".to_owned(), |gap| format!("{:.1}", gap.length.as_secs_f64()))
        };
        let mut gaps = self.outcome.gaps.map(seconds).join(" / ");
        if self.outcome.raw.is_some() {
            gaps.push_str(&format!(" ({})", seconds(self.outcome.raw)));
        }
        let mut cells = vec![self.scenario.clone()];
        cells.extend(columns.iter().map(|(_, of)| of(self).to_string()));
        cells.push(gaps);
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
        let done = &self.injected;
        line(format!(
            "faults: {} kill -9, {} SIGSTOP, {} SIGTERM, {} power cuts, {} cut off, {} clock jumps, {} poison frames",
            done.kills,
            done.freezes,
            done.restarts,
            done.power_cuts,
            done.cut_offs,
            done.jumps,
            outcome.poison.expected
        ));
        line(format!("{} readings read back", outcome.verdict.found));
        if outcome.verdict.unhealed > 0 {
            let unhealed = outcome.verdict.unhealed;
            line(format!("{unhealed} devices could not publish, or be read, after everything was healed"));
        }
        for (via, gap) in Via::ALL.iter().zip(outcome.gaps) {
            if let Some(gap) = gap {
                line(format!(
                    "longest gap without acks over {via:?}: {:.2} s, from {:.1} s on",
                    gap.length.as_secs_f64(),
                    gap.began.as_secs_f64()
                ));
            }
        }
        if let Some(raw) = outcome.raw {
            line(format!(
                "longest gap of a plain NATS client beside it: {:.2} s, from {:.1} s on",
                raw.length.as_secs_f64(),
                raw.began.as_secs_f64()
            ));
        }
        outcome
            .complaints
            .iter()
            .take(10)
            .for_each(|complaint| line(format!("a device was told: {complaint}")));
        let wrong = [
            &outcome.verdict.examples,
            &outcome.alarms.examples,
            &outcome.commands.examples,
            &outcome.edits.examples,
            &outcome.poison.examples,
        ];
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
        all.edits.changes += one.edits.changes;
        all.edits.wrong += one.edits.wrong;
        all.poison.expected += one.poison.expected;
        all.poison.wrong += one.poison.wrong;
        all.raw = longer(all.raw, one.raw);
        for (longest, gap) in all.gaps.iter_mut().zip(one.gaps) {
            *longest = longer(*longest, gap);
        }
    }
    let columns = columns(rows);
    let mut head = vec!["scenario"];
    head.extend(columns.iter().map(|(name, _)| *name));
    head.push(if sum.outcome.raw.is_some() {
        "gap s mqtt / http / grpc (plain client)"
    } else {
        "gap s mqtt / http / grpc"
    });
    let mut lines = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| row.cells(&columns)));
    lines.push(sum.cells(&columns));
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
