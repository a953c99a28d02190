//! What is wrong with a rule, so that its author can see it: place, caret, and what to write instead.

use std::fmt;

use weir_core::Error;

/// A line longer than this is shown only around its caret, so that the caret is on the screen.
const SHOWN_MAX: usize = 100;

/// Where in an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub length: usize,
    /// The whole line.
    pub text: String,
}

/// One thing that is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The part of the rule: `condition`, `severities[1].condition`, `clear_when`, `actions[0].payload`.
    pub field: String,
    /// Where in that part; none where all of it is meant.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The limit that was passed, where one was.
    pub limit: Option<String>,
}

impl Problem {
    pub(crate) fn of(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), place: None, message: message.into(), hint: None, limit: None }
    }
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    pub(crate) fn limit(mut self, limit: impl fmt::Display) -> Self {
        self.limit = Some(limit.to_string());
        self
    }
    pub(crate) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }
}

/// Several lines: `condition:1:5: what is wrong`, the source line, the caret, the fix.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            None => write!(f, "{}: {}", self.field, self.message)?,
            Some(place) => {
                write!(f, "{}:{}:{}: {}", self.field, place.line, place.column, self.message)?;
                let skipped = place.column.saturating_sub(1 + SHOWN_MAX / 2);
                let shown: String = place
                    .text
                    .chars()
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .skip(skipped)
                    .take(SHOWN_MAX)
                    .collect();
                let caret = place.column.saturating_sub(1 + skipped);
                let length = place.length.clamp(1, SHOWN_MAX.saturating_sub(caret).max(1));
                write!(f, "\n  {shown}\n  {}{}", " ".repeat(caret), "^".repeat(length))?;
            }
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a rule; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    /// The problems in the order of the rule's parts.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// `RULE_INVALID` with the first problem's field and limit, and all of them as its message.
impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        let field = problems.iter().next().map_or("rule", |problem| problem.field.as_str()).to_owned();
        let limit = problems.iter().next().and_then(|problem| problem.limit.clone());
        let error = Self::invalid(field, "RULE_INVALID", problems.to_string());
        match limit {
            Some(limit) => error.with_limit(limit),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_line_its_caret_and_its_fix() {
        let place = Place { line: 2, column: 4, length: 4, text: "x &&avgg(t)".to_owned() };
        let problem =
            Problem::of("condition", "there is no function avgg").at(place).hint("did you mean avg?");
        assert_eq!(
            problem.to_string(),
            "condition:2:4: there is no function avgg\n  x &&avgg(t)\n     ^^^^\n  did you mean avg?"
        );
    }

    #[test]
    fn the_caret_of_a_long_line_stays_on_the_screen() {
        let text = format!("{}!{}", "a".repeat(1_000), "b".repeat(1_000));
        let problem = Problem::of("condition", "no").at(Place { line: 1, column: 1_001, length: 1, text });
        let shown = problem.to_string();
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[2].find('^').unwrap();
        assert!(lines[1].len() < 110, "{shown}");
        assert_eq!(lines[1].chars().nth(caret), Some('!'), "{shown}");
    }
}
