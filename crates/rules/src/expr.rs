//! The typed tree that conditions are compiled to. Metrics and windows are numbers into the rule's own lists.

use regex::Regex;

/// What a window adds up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Avg,
    Min,
    Max,
    Sum,
    Count,
    Rate,
    Delta,
    Stddev,
    Last,
}

impl Aggregate {
    pub(crate) const ALL: [(&'static str, Self); 9] = [
        ("avg", Self::Avg),
        ("min", Self::Min),
        ("max", Self::Max),
        ("sum", Self::Sum),
        ("count", Self::Count),
        ("rate", Self::Rate),
        ("delta", Self::Delta),
        ("stddev", Self::Stddev),
        ("last", Self::Last),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, aggregate)| aggregate)
    }

    pub(crate) const fn needs(self) -> Needs {
        let mut needs = Needs { sum: false, squares: false, min: false, max: false };
        match self {
            Self::Avg | Self::Sum => needs.sum = true,
            Self::Stddev => (needs.sum, needs.squares) = (true, true),
            Self::Min => needs.min = true,
            Self::Max => needs.max = true,
            Self::Count | Self::Rate | Self::Delta | Self::Last => {}
        }
        needs
    }
}

/// What a window must keep up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    pub(crate) sum: bool,
    pub(crate) squares: bool,
    pub(crate) min: bool,
    pub(crate) max: bool,
}

impl Needs {
    pub(crate) const fn union(self, other: Self) -> Self {
        Self {
            sum: self.sum || other.sum,
            squares: self.squares || other.squares,
            min: self.min || other.min,
            max: self.max || other.max,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A number.
#[derive(Debug, Clone)]
pub(crate) enum Num {
    Const(f64),
    Metric(usize),
    Window(usize, Aggregate),
    Negate(Box<Num>),
    Binary(Arithmetic, Box<Num>, Box<Num>),
    If(Box<Bool>, Box<Num>, Box<Num>),
}

/// A truth value.
#[derive(Debug, Clone)]
pub(crate) enum Bool {
    Const(bool),
    Metric(usize),
    Not(Box<Bool>),
    And(Box<Bool>, Box<Bool>),
    Or(Box<Bool>, Box<Bool>),
    If(Box<Bool>, Box<Bool>, Box<Bool>),
    /// Two truth values, equal or not.
    Same(Box<Bool>, Box<Bool>, bool),
    CompareNum(Comparison, Num, Num),
    CompareText(Comparison, Text, Text),
    /// Two metrics of which nothing is known before their values.
    CompareMetrics(Comparison, usize, usize),
    NumIn(Num, Vec<f64>),
    TextIn(Text, Vec<String>),
    Contains(Text, Text),
    StartsWith(Text, Text),
    EndsWith(Text, Text),
    Matches(Text, Box<Regex>),
    Has(Map, Text),
    /// No value of the metric arrived for that many µs.
    Absent(usize, i64),
}

/// The maps of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Map {
    Labels,
    Attributes,
}

/// What a template knows of the alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AlarmField {
    Id,
    Rule,
    Severity,
}

/// Text.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    Const(String),
    Metric(usize),
    DeviceId,
    Entry(Map, Box<Text>),
    Alarm(AlarmField),
    Concat(Box<Text>, Box<Text>),
    If(Box<Bool>, Box<Text>, Box<Text>),
}

/// A value of any type, in a template.
#[derive(Debug, Clone)]
pub(crate) enum Any {
    Num(Num),
    Bool(Bool),
    Text(Text),
    Metric(usize),
}
