//! Positive controls: promises broken on purpose, which must turn the table red. A harness that stays green under one of them
//! proves nothing.

use std::{path::Path, time::Duration};

use weir_core::{Error, Result};

use super::{faults::Injected, report::Row, run::Options, scenario::Engines};

/// What a broken promise has lost never comes: there is no need to wait for it long.
const SHORT: Duration = Duration::from_secs(30);

/// One broken promise.
#[derive(Debug, Clone, Copy)]
pub struct Control {
    /// What `--control` calls it.
    pub name: &'static str,
    /// What is broken, in a line.
    pub about: &'static str,
    /// Under which scenario it must be noticed.
    pub scenario: &'static str,
    /// On which engines.
    pub on: &'static [Engines],
    /// Environment of every process of Weir.
    pub env: &'static [(&'static str, &'static str)],
    /// Whether NATS acknowledges before it syncs.
    pub nats_default_sync: bool,
    /// Whether the fault that it takes was injected.
    struck: fn(&Injected) -> bool,
}

/// Every control.
pub const CONTROLS: [Control; 3] = [
    Control {
        name: "acks-early",
        about: "a publish is acknowledged before the log has it",
        scenario: "kill-any",
        on: &[Engines::Embedded, Engines::NatsCql],
        env: &[("WEIR_SABOTAGE", "acks-early")],
        nats_default_sync: false,
        struck: |done| done.kills > 0,
    },
    Control {
        name: "progress-early",
        about: "progress passes rows that the store does not have yet",
        scenario: "kill-any",
        on: &[Engines::Embedded, Engines::NatsCql],
        env: &[("WEIR_SABOTAGE", "progress-early")],
        nats_default_sync: false,
        struck: |done| done.kills > 0,
    },
    Control {
        name: "nats-default-sync",
        about: "NATS acknowledges before it syncs, and loses power",
        scenario: "power-cut-nats",
        on: &[Engines::NatsCql],
        env: &[("WEIR__LOG__DURABILITY", "process")],
        nats_default_sync: true,
        struck: |done| done.power_cuts > 0,
    },
];

impl Control {
    /// The control of that name.
    ///
    /// # Errors
    /// `CONTROL_UNKNOWN` that names those there are.
    pub fn find(name: &str) -> Result<Self> {
        CONTROLS.into_iter().find(|control| control.name == name).ok_or_else(|| {
            let known = CONTROLS.map(|control| control.name).join(", ");
            Error::invalid(
                "control",
                "CONTROL_UNKNOWN",
                format!("there is no control {name}; there are {known}"),
            )
        })
    }

    /// Puts it into the options: its scenario, its environment, and the binary that can be told to break promises.
    pub fn apply(self, options: &mut Options, sabotaged: &Path) {
        options.scenarios = vec![self.scenario.to_owned()];
        options.env =
            self.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        options.binary = sabotaged.to_owned();
        options.nats_default_sync = self.nats_default_sync;
        options.patience = SHORT;
        options.readings_only = true; // lost readings are what must be noticed
    }

    /// Whether a run noticed it, and by what it is: the fault came, everything was started again and read back, and readings
    /// that were acknowledged are missing (more than the markers of devices that could not be read in time: slowness is no
    /// loss). Each of these promises loses readings; it invents none and shows none to a stranger, so a run that is red by
    /// that has found something else.
    pub fn was_noticed(&self, rows: &[Row]) -> bool {
        rows.iter().any(|row| {
            let verdict = &row.outcome.verdict;
            let other = verdict.phantom + verdict.leaked;
            let lost = verdict.lost > verdict.unhealed;
            row.failure.is_none() && (self.struck)(&row.injected) && lost && other == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use weir_drive::ledger::Verdict;

    use super::*;

    fn row(kills: u64, verdict: Verdict) -> Row {
        let mut row = Row { injected: Injected { kills, ..Injected::default() }, ..Row::default() };
        row.outcome.verdict = verdict;
        row
    }

    #[test]
    fn only_the_losses_of_a_run_that_was_carried_through_count_as_noticed() {
        let control = Control::find("acks-early").unwrap();
        let lost = Verdict { lost: 3, ..Verdict::default() };
        let noticed = |row: Row| control.was_noticed(&[row]);
        assert!(noticed(row(2, lost.clone())));
        assert!(!noticed(row(0, lost.clone())), "nothing was killed");
        assert!(!noticed(row(2, Verdict { phantom: 1, ..lost.clone() })), "that is another defect");
        assert!(!noticed(row(2, Verdict { unhealed: 3, ..lost.clone() })), "it is merely slow");
        assert!(!noticed(row(2, Verdict { corrupt: 3, ..Verdict::default() })), "nothing is lost");
        assert!(!noticed(Row { failure: Some("it did not start".to_owned()), ..row(2, lost) }));
    }
}
