//! What a selector asks of a label.

use std::fmt;

use promql_parser::label::MatchOp;
use regex::Regex;

use crate::labels::Labels;

/// One matcher of a selector. A label that is not there has the empty value.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The name of the label.
    pub name: String,
    /// How its value is compared.
    pub op: Op,
    /// What with: for a regular expression its text as written.
    pub value: String,
}

/// How a matcher compares.
#[derive(Debug, Clone)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends.
    Matches(Regex),
    /// `!~`, anchored at both ends.
    NotMatches(Regex),
}

impl Matcher {
    /// Whether a label of that value is what is asked for.
    pub fn accepts(&self, value: &str) -> bool {
        match &self.op {
            Op::Equal => self.value == value,
            Op::NotEqual => self.value != value,
            Op::Matches(regex) => regex.is_match(value),
            Op::NotMatches(regex) => !regex.is_match(value),
        }
    }

    /// The value that the label must have, where there is only one.
    pub fn only_value(&self) -> Option<&str> {
        matches!(self.op, Op::Equal).then_some(self.value.as_str())
    }

    /// `name = value`.
    pub(crate) fn equal(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), op: Op::Equal, value: value.to_owned() }
    }

    pub(crate) fn from_parsed(matcher: &promql_parser::label::Matcher) -> Self {
        let op = match &matcher.op {
            MatchOp::Equal => Op::Equal,
            MatchOp::NotEqual => Op::NotEqual,
            MatchOp::Re(regex) => Op::Matches(regex.clone()),
            MatchOp::NotRe(regex) => Op::NotMatches(regex.clone()),
        };
        Self { name: matcher.name.clone(), op, value: matcher.value.clone() }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            Op::Equal => "=",
            Op::NotEqual => "!=",
            Op::Matches(_) => "=~",
            Op::NotMatches(_) => "!~",
        };
        write!(f, "{}{op}{:?}", self.name, self.value)
    }
}

/// Whether `labels` are what every matcher asks for.
pub fn accepts_all(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.accepts(labels.get(&matcher.name)))
}
