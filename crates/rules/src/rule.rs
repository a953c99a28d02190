//! A rule as data.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use weir_core::{
    Error, Uid,
    id::ResourceId,
    selector::{Labels, Selector},
};

use crate::{Action, duration};

/// How bad it is, from least to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a look.
    #[default]
    Warning,
    /// Somebody must look soon.
    Minor,
    /// Somebody must look now.
    Major,
    /// Everybody must look now.
    Critical,
}

impl Severity {
    /// From least to worst.
    pub const ALL: [Self; 5] = [Self::Info, Self::Warning, Self::Minor, Self::Major, Self::Critical];

    /// `INFO`, `WARNING`, `MINOR`, `MAJOR` or `CRITICAL`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Minor => "MINOR",
            Self::Major => "MAJOR",
            Self::Critical => "CRITICAL",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|severity| severity.as_str().eq_ignore_ascii_case(text)).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::invalid(
                "severity",
                "SEVERITY_INVALID",
                format!("severity {shown:?} must be INFO, WARNING, MINOR, MAJOR or CRITICAL"),
            )
        })
    }
}

/// One rung of a ladder of severities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// How bad it is.
    pub severity: Severity,
    /// When, in CEL.
    pub condition: String,
}

/// What to watch for, and what to do. Its text form (JSON or YAML) writes durations as `5m` and labels as a map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The name that a person gave it.
    pub id: ResourceId,
    /// New at each creation, so that a rule made anew under an old id is another rule.
    #[serde(default = "nobody")]
    pub uid: Uid,
    /// Rises with each change, from 1.
    #[serde(default = "first")]
    pub revision: u64,
    /// For people; at most 256 bytes.
    #[serde(default)]
    pub display_name: String,
    /// Which devices; the empty one selects all.
    #[serde(default)]
    pub selector: Selector,
    /// When it is true, in CEL; empty with `severities`.
    #[serde(default)]
    pub condition: String,
    /// How bad it is; unused with `severities`.
    #[serde(default)]
    pub severity: Severity,
    /// A ladder instead of one severity: at most one rung for each. The alarm is raised at the worst rung whose condition
    /// held for `for`, escalates when a worse one has, and never becomes less bad until it clears.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub severities: Vec<Rung>,
    /// For how long, in event time, a condition must hold before the alarm is raised; it completes only at a reading
    /// where the condition still holds.
    #[serde(default, rename = "for", with = "duration::text")]
    pub for_duration: Duration,
    /// When the alarm clears, in CEL; without it, when no condition holds any more. A condition that holds outranks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_when: Option<String>,
    /// For how long that must hold before it clears.
    #[serde(default, with = "duration::text")]
    pub clear_for: Duration,
    /// A silence of the device longer than this, in event time, restarts a pending `for` or `clear_for`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "duration::optional_text")]
    pub max_gap: Option<Duration>,
    /// Copied onto its alarms.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// What to do; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Action>,
    /// A disabled rule evaluates nothing; its open alarms stay open.
    #[serde(default)]
    pub disabled: bool,
}

fn nobody() -> Uid {
    Uid::from_u128(0)
}
fn first() -> u64 {
    1
}

impl Rule {
    /// A rule with one condition, everything else as by default.
    pub fn new(id: ResourceId, uid: Uid, condition: impl Into<String>) -> Self {
        Self {
            id,
            uid,
            revision: 1,
            display_name: String::new(),
            selector: Selector::default(),
            condition: condition.into(),
            severity: Severity::default(),
            severities: Vec::new(),
            for_duration: Duration::ZERO,
            clear_when: None,
            clear_for: Duration::ZERO,
            max_gap: None,
            labels: Labels::new(),
            actions: Vec::new(),
            disabled: false,
        }
    }
}
