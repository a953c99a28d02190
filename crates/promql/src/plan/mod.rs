//! What a query computes: the parser's tree, checked for what this crate can do, with times resolved.

mod convert;
mod functions;

use weir_core::Result;

use crate::{
    eval::{Aggregation, OverTime},
    matcher::Matcher,
    source::Budget,
    steps::{LOOKBACK_MS, Steps, first_of},
};

pub(crate) use convert::{matchers_of, plan};

/// A query.
#[derive(Debug)]
pub(crate) enum Plan {
    /// A scalar, a vector or a text at each step.
    Expr(Expr),
    /// The samples of a window: only at one instant.
    Range(Range),
}

/// The type of an expression's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    Vector,
    Text,
}

/// An expression, whose value at each step is a scalar, a vector or a text.
#[derive(Debug)]
pub(crate) enum Expr {
    Number(f64),
    Text(String),
    /// `time()`
    Time,
    Instant(Selector),
    Negate(Box<Expr>),
    Binary(Box<Binary>),
    Aggregate(Box<Aggregate>),
    Over(Box<Over>),
    Each(Box<Each>),
    /// `scalar(…)`
    Scalar(Box<Expr>),
    /// `vector(…)`
    Vector(Box<Expr>),
    /// `absent(…)` with the labels of its answer
    Absent(Box<Expr>, crate::Labels),
    /// `absent_over_time(…)` with the labels of its answer
    AbsentOver(Box<Range>, crate::Labels),
    /// `sort(…)`, and `sort_desc(…)` where it is true
    Sort(Box<Expr>, bool),
    /// `timestamp(…)`
    Timestamp(Box<Expr>),
    Relabel(Box<Relabel>),
}

/// Which series, and when.
#[derive(Debug)]
pub(crate) struct Selector {
    /// Its place among the selectors of the query.
    pub(crate) index: usize,
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) time: Time,
}

/// The instant that an evaluation looks at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Time {
    /// `offset`, in milliseconds.
    pub(crate) offset: i64,
    /// `@`, in milliseconds since the Unix epoch.
    pub(crate) at: Option<i64>,
}

impl Time {
    /// Where an evaluation at `ts` looks.
    pub(crate) fn of(self, ts: i64) -> i64 {
        self.at.unwrap_or(ts).saturating_sub(self.offset)
    }
}

/// The samples of a window.
#[derive(Debug)]
pub(crate) struct Range {
    pub(crate) of: RangeOf,
    /// In milliseconds.
    pub(crate) length: i64,
    pub(crate) time: Time,
}

/// What a window is over.
#[derive(Debug)]
pub(crate) enum RangeOf {
    /// The place of stored series among the selectors, and what they meet.
    Series(usize, Vec<Matcher>),
    /// A subquery with its step in milliseconds.
    Subquery(Expr, i64),
}

/// An operator between two expressions.
#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) op: Op,
    pub(crate) lhs: Expr,
    pub(crate) rhs: Expr,
    /// `bool`: 0 and 1 in place of a filter.
    pub(crate) return_bool: bool,
    pub(crate) matching: Matching,
}

/// How the series of two vectors find each other.
#[derive(Debug, Default)]
pub(crate) struct Matching {
    /// `on` where it is true, else `ignoring`.
    pub(crate) on: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) group: Group,
}

/// Which side may have several series for one of the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Group {
    #[default]
    None,
    /// `group_left`, with the labels that are taken from the right.
    Left(Vec<String>),
    /// `group_right`, with the labels that are taken from the left.
    Right(Vec<String>),
}

/// A binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    And,
    Or,
    Unless,
}

/// An aggregation over series.
#[derive(Debug)]
pub(crate) struct Aggregate {
    pub(crate) by: Aggregation,
    pub(crate) param: Option<Expr>,
    pub(crate) of: Expr,
    /// `without` where it is true, else `by`.
    pub(crate) without: bool,
    pub(crate) labels: Vec<String>,
}

/// A function of the samples of a window.
#[derive(Debug)]
pub(crate) struct Over {
    pub(crate) function: OverTime,
    /// `last_over_time` keeps the name of the metric.
    pub(crate) keeps_name: bool,
    /// Whether it depends on the instant of the evaluation, too.
    pub(crate) reads_time: bool,
    pub(crate) range: Range,
    /// A scalar.
    pub(crate) param: Option<Expr>,
}

/// A function of each value of a vector.
#[derive(Debug)]
pub(crate) struct Each {
    pub(crate) function: fn(f64, [f64; 2]) -> f64,
    pub(crate) of: Expr,
    /// Scalars: two at most.
    pub(crate) params: Vec<Expr>,
    /// `clamp` has no answer where its greatest is below its least.
    pub(crate) is_clamp: bool,
    /// Parts of dates: Prometheus evaluates them anew at each step.
    pub(crate) reads_time: bool,
}

/// What becomes of labels.
#[derive(Debug)]
pub(crate) struct Relabel {
    pub(crate) of: Expr,
    pub(crate) to: String,
    pub(crate) by: RelabelBy,
}

/// The two functions on labels.
#[derive(Debug)]
pub(crate) enum RelabelBy {
    /// `label_replace`
    Replace { from: String, regex: regex::Regex, replacement: String },
    /// `label_join`
    Join { separator: String, from: Vec<String> },
}

impl Expr {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Number(_) | Self::Time | Self::Scalar(_) => Kind::Scalar,
            Self::Text(_) => Kind::Text,
            Self::Negate(of) => of.kind(),
            Self::Binary(binary) => match (binary.lhs.kind(), binary.rhs.kind()) {
                (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
                _ => Kind::Vector,
            },
            _ => Kind::Vector,
        }
    }

    /// Whether the value is the same at each step, by Prometheus' rules: then it is computed once.
    pub(crate) fn is_fixed(&self) -> bool {
        match self {
            Self::Number(_) | Self::Text(_) => true,
            Self::Time | Self::Timestamp(_) => false,
            Self::Instant(selector) => selector.time.at.is_some(),
            Self::Binary(binary) => binary.lhs.is_fixed() && binary.rhs.is_fixed(),
            Self::Aggregate(aggregate) => aggregate.of.is_fixed(),
            Self::Over(over) => {
                let param = over.param.as_ref().is_none_or(Self::is_fixed);
                !over.reads_time && param && over.range.time.at.is_some()
            }
            Self::AbsentOver(range, _) => range.time.at.is_some(),
            Self::Each(each) => {
                !each.reads_time && each.of.is_fixed() && each.params.iter().all(Self::is_fixed)
            }
            Self::Negate(of)
            | Self::Scalar(of)
            | Self::Vector(of)
            | Self::Absent(of, _)
            | Self::Sort(of, _) => of.is_fixed(),
            Self::Relabel(relabel) => relabel.of.is_fixed(),
        }
    }

    /// The expressions that it is made of.
    fn children(&self) -> Vec<&Self> {
        match self {
            Self::Number(_) | Self::Text(_) | Self::Time | Self::Instant(_) | Self::AbsentOver(..) => vec![],
            Self::Binary(binary) => vec![&binary.lhs, &binary.rhs],
            Self::Aggregate(aggregate) => aggregate.param.iter().chain([&aggregate.of]).collect(),
            Self::Over(over) => over.param.iter().collect(),
            Self::Each(each) => each.params.iter().chain([&each.of]).collect(),
            Self::Negate(of)
            | Self::Scalar(of)
            | Self::Vector(of)
            | Self::Absent(of, _)
            | Self::Sort(of, _)
            | Self::Timestamp(of) => vec![of],
            Self::Relabel(relabel) => vec![&relabel.of],
        }
    }

    /// Tells `need` which samples evaluating at `steps` reads: of which selector, by which matchers, from when, to when.
    fn reads(&self, steps: Steps, budget: &Budget, need: &mut Need<'_>) -> Result<()> {
        match self {
            Self::Instant(Selector { index, matchers, time }) => {
                let (first, last) = (time.of(steps.start), time.of(steps.end()));
                need(*index, matchers, first_of(first, LOOKBACK_MS), last);
            }
            Self::Over(over) => over.range.reads(steps, budget, need)?,
            Self::AbsentOver(range, _) => range.reads(steps, budget, need)?,
            _ => {}
        }
        self.children().into_iter().try_for_each(|child| child.reads(steps, budget, need))
    }
}

/// Hears of a selector: its place, its matchers, and the first and last instant in milliseconds.
type Need<'a> = dyn FnMut(usize, &[Matcher], i64, i64) + 'a;

impl Range {
    /// The steps of a subquery whose windows end where evaluations at `steps` look.
    pub(crate) fn inner_steps(&self, steps: Steps, interval: i64, budget: &Budget) -> Result<Steps> {
        let (first, last) = (self.time.of(steps.start), self.time.of(steps.end()));
        Steps::aligned(first_of(first, self.length), last, interval, budget)
    }

    fn reads(&self, steps: Steps, budget: &Budget, need: &mut Need<'_>) -> Result<()> {
        match &self.of {
            RangeOf::Series(index, matchers) => {
                let (first, last) = (self.time.of(steps.start), self.time.of(steps.end()));
                need(*index, matchers, first_of(first, self.length), last);
                Ok(())
            }
            RangeOf::Subquery(of, interval) => {
                let inner = self.inner_steps(steps, *interval, budget)?;
                if inner.count == 0 { Ok(()) } else { of.reads(inner, budget, need) }
            }
        }
    }
}

impl Plan {
    /// As [`Expr::reads`].
    ///
    /// # Errors
    /// `QUERY_TOO_LARGE` for a subquery of too many steps.
    pub(crate) fn reads(&self, steps: Steps, budget: &Budget, need: &mut Need<'_>) -> Result<()> {
        match self {
            Self::Expr(expr) => expr.reads(steps, budget, need),
            Self::Range(range) => range.reads(steps, budget, need),
        }
    }
}

impl Op {
    pub(crate) fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Gt | Self::Lt | Self::Ge | Self::Le)
    }

    pub(crate) fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// Whether the result is another metric than its operands. (`atan2` keeps the name in Prometheus 2.42.)
    pub(crate) fn drops_name(self) -> bool {
        matches!(self, Self::Add | Self::Sub | Self::Mul | Self::Div | Self::Mod | Self::Pow)
    }
}
