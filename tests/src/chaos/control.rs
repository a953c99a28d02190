//! Positive controls: promises broken on purpose, which must turn the table red. A harness that stays green under one of them
//! proves nothing.

use std::{path::Path, time::Duration};

use weir_core::{Error, Result};

use super::{report::Row, run::Options, scenario::Engines};

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
    },
    Control {
        name: "progress-early",
        about: "progress passes rows that the store does not have yet",
        scenario: "kill-any",
        on: &[Engines::Embedded, Engines::NatsCql],
        env: &[("WEIR_SABOTAGE", "progress-early")],
        nats_default_sync: false,
    },
    Control {
        name: "nats-default-sync",
        about: "NATS acknowledges before it syncs, and loses power",
        scenario: "power-cut-nats",
        on: &[Engines::NatsCql],
        env: &[("WEIR__LOG__DURABILITY", "process")],
        nats_default_sync: true,
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

    /// Whether a run noticed it: something acknowledged is missing.
    pub fn was_noticed(rows: &[Row]) -> bool {
        rows.iter().any(|row| row.outcome.verdict.lost > 0)
    }
}
