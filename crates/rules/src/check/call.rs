//! Functions: windows, `absent`, tests of text, and everything that is refused by its name.

use std::time::Duration;

use cel::{
    IdedExpr,
    common::ast::{CallExpr, Expr, LiteralValue},
};
use regex::RegexBuilder;

use super::{Checker, Kind, OTHER_FUNCTIONS, Shown, WINDOWS_MAX, WindowSpec, literal_text};
use crate::{
    duration::{format_duration, parse_duration},
    expr::{Aggregate, Bool, Num},
    suggest::nearest,
};

/// Longest window: what a checkpoint can keep of a device that sends a sample a minute.
const WINDOW_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Memory of one compiled regular expression, in bytes; matching is linear in the text (the `regex` crate).
const REGEX_MAX: usize = 64 * 1024;

impl Checker<'_> {
    pub(super) fn window(&mut self, expr: &IdedExpr, call: &CallExpr, aggregate: Aggregate) -> Option<Num> {
        let name = call.func_name.as_str();
        let [metric, duration] = call.args.as_slice() else {
            return self.refuse_arity(
                expr,
                call,
                "a metric and a duration",
                &format!("{name}(temp, \"5m\")"),
            );
        };
        let (metric_at, duration) = (self.numeric_metric(metric, name), self.duration(duration));
        let (metric, duration) = (metric_at?, duration?);
        let micros = i64::try_from(duration.as_micros()).ok()?;
        let needs = aggregate.needs();
        let same = |window: &WindowSpec| window.metric == metric && window.duration == micros;
        let at = match self.tables.windows.iter().position(same) {
            Some(at) => {
                if let Some(window) = self.tables.windows.get_mut(at) {
                    window.needs = window.needs.union(needs);
                }
                at
            }
            None if self.tables.windows.len() >= WINDOWS_MAX => {
                let text = format!("a rule may have at most {WINDOWS_MAX} windows");
                let problem = self.source.at_name(expr, name, text).limit(WINDOWS_MAX);
                return self.refuse(problem);
            }
            None => {
                self.tables.windows.push(WindowSpec { metric, duration: micros, needs });
                self.tables.windows.len() - 1
            }
        };
        let metric = self.tables.metrics.get(metric).map_or("", AsRef::as_ref);
        let label = format!("{name}({metric}, {:?})", format_duration(duration));
        self.show(label, Shown::Window(at, aggregate));
        Some(Num::Window(at, aggregate))
    }

    pub(super) fn absent(&mut self, expr: &IdedExpr, call: &CallExpr) -> Option<Bool> {
        let [metric, duration] = call.args.as_slice() else {
            return self.refuse_arity(expr, call, "a metric and a duration", "absent(temp, \"10m\")");
        };
        let (metric, duration) = (self.metric(metric), self.duration(duration));
        let (metric, micros) = (metric?, i64::try_from(duration?.as_micros()).ok()?);
        self.tables.absent = true;
        Some(Bool::Absent(metric, micros))
    }

    /// A metric whose samples are numbers.
    fn numeric_metric(&mut self, expr: &IdedExpr, function: &str) -> Option<usize> {
        match (&expr.expr, self.kind(expr)) {
            (Expr::Ident(_) | Expr::Select(_) | Expr::Call(_), Kind::Text) => {
                let problem =
                    self.source.at(expr, format!("{function} needs a metric of numbers, and this is a text"));
                self.refuse(problem)
            }
            _ => self.metric(expr),
        }
    }

    fn duration(&mut self, expr: &IdedExpr) -> Option<Duration> {
        let Some(text) = literal_text(Some(expr)) else {
            let hint = match &expr.expr {
                Expr::Literal(LiteralValue::Int(seconds)) => format!("write \"{}s\"", seconds.inner()),
                _ => "write it in quotes, such as \"5m\"".to_owned(),
            };
            let problem = self.source.at(expr, "a duration is needed here").hint(hint);
            return self.refuse(problem);
        };
        match parse_duration(text) {
            Err(error) => {
                let problem = self.source.at(expr, error.message()).hint("such as \"5m\"");
                self.refuse(problem)
            }
            Ok(duration) if duration.is_zero() || duration > WINDOW_MAX => {
                let text = format!("a window of {text} must be above 0s and at most 30d");
                let problem = self.source.at(expr, text).limit("30d");
                self.refuse(problem)
            }
            Ok(duration) => Some(duration),
        }
    }

    pub(super) fn text_test(&mut self, expr: &IdedExpr, call: &CallExpr) -> Option<Bool> {
        let name = call.func_name.as_str();
        let (Some(target), [argument]) = (call.target.as_deref(), call.args.as_slice()) else {
            return self.refuse_arity(
                expr,
                call,
                "a text, called on a text",
                &format!("status.{name}(\"on\")"),
            );
        };
        if name == "matches" {
            let text = self.text(target);
            let regex = self.regex(argument);
            return Some(Bool::Matches(text?, Box::new(regex?)));
        }
        let (text, part) = (self.text(target), self.text(argument));
        let (text, part) = (text?, part?);
        Some(match name {
            "contains" => Bool::Contains(text, part),
            "startsWith" => Bool::StartsWith(text, part),
            _ => Bool::EndsWith(text, part),
        })
    }

    fn regex(&mut self, expr: &IdedExpr) -> Option<regex::Regex> {
        let Some(text) = literal_text(Some(expr)) else {
            let problem = self.source.at(expr, "a regular expression must be written out in quotes");
            return self.refuse(problem);
        };
        match RegexBuilder::new(text).size_limit(REGEX_MAX).dfa_size_limit(REGEX_MAX).build() {
            Ok(regex) => Some(regex),
            Err(regex::Error::CompiledTooBig(_)) => {
                let text = format!("this regular expression needs more than {REGEX_MAX} bytes");
                let problem = self.source.at(expr, text).limit(REGEX_MAX);
                self.refuse(problem)
            }
            Err(_) => {
                let problem = self.source.at(expr, "this is not a regular expression");
                self.refuse(problem.hint("RE2 syntax, such as \"^err-[0-9]+$\""))
            }
        }
    }

    fn refuse_arity<T>(&mut self, expr: &IdedExpr, call: &CallExpr, takes: &str, example: &str) -> Option<T> {
        let name = &call.func_name;
        let found = call.args.len() + usize::from(call.target.is_some());
        let text = format!(
            "{name} takes {takes}, and this has {found} argument{}",
            if found == 1 { "" } else { "s" }
        );
        let problem = self.source.at_name(expr, name, text).hint(format!("such as {example}"));
        self.refuse(problem)
    }

    /// A function that there is not, or that stands in a wrong place.
    pub(super) fn refuse_call<T>(&mut self, expr: &IdedExpr, call: &CallExpr) -> Option<T> {
        let name = call.func_name.as_str();
        let names = Aggregate::ALL.iter().map(|(name, _)| *name).chain(OTHER_FUNCTIONS);
        let problem = self.source.at_name(expr, name, format!("there is no function {name}"));
        let problem = match name {
            "double" | "int" | "uint" => problem.hint("every number is a double already"),
            "duration" | "timestamp" => problem.hint("a duration is text: avg(temp, \"5m\")"),
            "abs" => problem.hint("write x > 3 || x < -3"),
            "has" => self
                .source
                .at_name(expr, name, "has takes a label or an attribute of the device")
                .hint("such as has(device.labels.floor)"),
            _ => match nearest(name, names) {
                Some(near) => problem.hint(format!("did you mean {near}?")),
                None => problem.hint(
                    "there are avg, min, max, sum, count, rate, delta, stddev, last, absent, m, has, \
                     contains, startsWith, endsWith, matches",
                ),
            },
        };
        self.refuse(problem)
    }
}
