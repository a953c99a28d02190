//! The checker: CEL's tree to the typed tree, or what is wrong with it.
//!
//! `kind` guesses what an expression is; `num`, `bool` and `text` then demand it. A metric takes the type of its place.

mod bool;
mod call;
mod num;
mod text;

use std::{collections::BTreeMap, sync::Arc};

use cel::{
    IdedExpr,
    common::ast::{CallExpr, Expr, LiteralValue, operators},
};
use weir_core::{ValueType, device::Metric};

use crate::{
    expr::{Aggregate, Any, Bool, Needs},
    parse::{self, Source},
    problem::Problem,
    suggest::nearest,
};

/// Most metrics that one rule may name; each costs memory for every device that the rule selects.
const METRICS_MAX: usize = 32;
/// Most windows of one rule, for the same reason.
const WINDOWS_MAX: usize = 32;
/// Longest name of a metric, in bytes, as at the edge.
const METRIC_NAME_MAX: usize = 128;
/// Most problems that are told of one rule: nobody reads more at once.
pub(crate) const PROBLEMS_MAX: usize = 16;

/// Functions other than the windows, for "did you mean".
const OTHER_FUNCTIONS: [&str; 7] = ["absent", "m", "has", "contains", "startsWith", "endsWith", "matches"];

/// A window that a rule uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WindowSpec {
    pub(crate) metric: usize,
    /// µs.
    pub(crate) duration: i64,
    pub(crate) needs: Needs,
}

/// What a transition shows beside the alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    Metric(usize),
    Window(usize, Aggregate),
}

/// The metrics and windows of one rule, each once.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) metrics: Vec<Arc<str>>,
    pub(crate) windows: Vec<WindowSpec>,
    /// In order of appearance, with the text that a person knows it by.
    pub(crate) shown: Vec<(String, Shown)>,
    /// Whether anything depends on arrival.
    pub(crate) absent: bool,
}

/// What an expression is, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Num,
    Bool,
    Text,
    /// A metric's value.
    Metric,
    /// Something that is no value of its own (a list, a map, null, what is refused anyway).
    Other,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Num => "a number",
            Self::Bool => "a truth value",
            Self::Text => "a text",
            Self::Metric => "a metric",
            Self::Other => "no value",
        }
    }
}

/// The names that exist.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// The metrics that devices declare; none where anything may come.
    pub(crate) declared: Option<&'a BTreeMap<Arc<str>, Metric>>,
    /// Whether `alarm` is known: only in templates.
    pub(crate) alarm: bool,
}

/// Checks a condition: its result is a truth value.
pub(crate) fn condition(
    field: &str,
    text: &str,
    scope: Scope<'_>,
    tables: &mut Tables,
    problems: &mut Vec<Problem>,
) -> Option<Bool> {
    run(field, text, scope, tables, problems, |checker, expr| {
        let kind = checker.kind(expr);
        if matches!(kind, Kind::Num | Kind::Text) {
            let problem = checker
                .source
                .at(expr, format!("a condition must be true or false, and this is {}", kind.name()));
            return checker.refuse(problem.hint("compare it with something, such as avg(temp, \"5m\") > 30"));
        }
        checker.bool(expr)
    })
}

/// Checks an expression of a template: any value.
pub(crate) fn any(
    field: &str,
    text: &str,
    scope: Scope<'_>,
    tables: &mut Tables,
    problems: &mut Vec<Problem>,
) -> Option<Any> {
    run(field, text, scope, tables, problems, |checker, expr| match checker.kind(expr) {
        Kind::Bool => checker.bool(expr).map(Any::Bool),
        Kind::Text => checker.text(expr).map(Any::Text),
        Kind::Metric if !matches!(expr.expr, Expr::Call(CallExpr { ref func_name, .. }) if func_name == operators::CONDITIONAL) => {
            checker.metric(expr).map(Any::Metric)
        }
        Kind::Num | Kind::Metric | Kind::Other => checker.num(expr).map(Any::Num),
    })
}

fn run<T>(
    field: &str,
    text: &str,
    scope: Scope<'_>,
    tables: &mut Tables,
    problems: &mut Vec<Problem>,
    check: impl FnOnce(&mut Checker<'_>, &IdedExpr) -> Option<T>,
) -> Option<T> {
    match parse::parse(field, text) {
        Ok((expr, source)) => check(&mut Checker { source: &source, scope, tables, problems }, &expr),
        Err(problem) => {
            problems.push(*problem);
            None
        }
    }
}

struct Checker<'a> {
    source: &'a Source<'a>,
    scope: Scope<'a>,
    tables: &'a mut Tables,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    /// Notes a problem; `None`, so that it can be returned.
    fn refuse<T>(&mut self, problem: Problem) -> Option<T> {
        if self.problems.len() < PROBLEMS_MAX && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        None
    }

    fn kind(&self, expr: &IdedExpr) -> Kind {
        match &expr.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Kind::Num,
                LiteralValue::Boolean(_) => Kind::Bool,
                LiteralValue::String(_) => Kind::Text,
                LiteralValue::Bytes(_) | LiteralValue::Null => Kind::Other,
            },
            Expr::Select(select) if select.test => Kind::Bool,
            Expr::Call(call) => self.call_kind(call),
            Expr::Ident(_) | Expr::Select(_) => self.name_kind(expr),
            Expr::Unspecified | Expr::Comprehension(_) | Expr::List(_) | Expr::Map(_) | Expr::Struct(_) => {
                Kind::Other
            }
        }
    }

    fn name_kind(&self, expr: &IdedExpr) -> Kind {
        match path(expr).as_deref() {
            Some(["device", "id"]) | Some(["device", "labels" | "attributes", _]) => Kind::Text,
            Some(["device", ..]) => Kind::Other,
            Some(["alarm", ..]) if self.scope.alarm => Kind::Text,
            Some(segments) => self.declared_kind(&segments.join(".")),
            None => Kind::Other,
        }
    }

    fn declared_kind(&self, metric: &str) -> Kind {
        match self.scope.declared.and_then(|declared| declared.get(metric)).map(|metric| metric.value_type) {
            None => Kind::Metric,
            Some(ValueType::Double | ValueType::Int64) => Kind::Num,
            Some(ValueType::Bool) => Kind::Bool,
            Some(ValueType::String) => Kind::Text,
            Some(ValueType::Bytes) => Kind::Other,
        }
    }

    fn call_kind(&self, call: &CallExpr) -> Kind {
        let arg = |index: usize| call.args.get(index).map_or(Kind::Other, |arg| self.kind(arg));
        match call.func_name.as_str() {
            operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::IN
            | "absent"
            | "contains"
            | "startsWith"
            | "endsWith"
            | "matches" => Kind::Bool,
            operators::ADD if arg(0) == Kind::Text || arg(1) == Kind::Text => Kind::Text,
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::NEGATE => Kind::Num,
            operators::CONDITIONAL => match (arg(1), arg(2)) {
                (Kind::Metric | Kind::Other, other) | (other, _) => other,
            },
            operators::INDEX => Kind::Text,
            "m" => match literal_text(call.args.first()) {
                Some(name) => self.declared_kind(name),
                None => Kind::Metric,
            },
            "last" if call.args.len() == 1 => call.args.first().map_or(Kind::Metric, |arg| self.kind(arg)),
            name if Aggregate::named(name).is_some() => Kind::Num,
            _ => Kind::Other,
        }
    }

    /// Takes a metric, however it is written, and gives its number.
    fn metric(&mut self, expr: &IdedExpr) -> Option<usize> {
        let name = match &expr.expr {
            Expr::Call(call) if call.func_name == "m" && call.target.is_none() => {
                self.quoted_metric(expr, call)?
            }
            Expr::Call(call) if call.func_name == "last" && call.target.is_none() && call.args.len() == 1 => {
                return call.args.first().and_then(|arg| self.metric(arg));
            }
            _ => match path(expr).as_deref() {
                Some(["device", rest @ ..]) => return self.refuse_device(expr, rest),
                Some(["alarm", ..]) if self.scope.alarm => {
                    let problem = self.source.at(expr, "a metric is needed here, and this is the alarm's");
                    return self.refuse(problem);
                }
                Some(segments) => segments.join("."),
                None => {
                    let problem = self.source.at(expr, "a metric is needed here");
                    return self.refuse(problem.hint("such as temp, room.temp or m(\"room.temp-1\")"));
                }
            },
        };
        self.metric_named(expr, &name)
    }

    fn quoted_metric(&mut self, expr: &IdedExpr, call: &CallExpr) -> Option<String> {
        match (call.args.len(), literal_text(call.args.first())) {
            (1, Some(name)) => Some(name.to_owned()),
            _ => {
                let problem = self.source.at_name(expr, "m", "m takes one metric's name in quotes");
                self.refuse(problem.hint("such as m(\"room.temp-1\")"))
            }
        }
    }

    fn metric_named(&mut self, expr: &IdedExpr, name: &str) -> Option<usize> {
        if name.is_empty() || name.len() > METRIC_NAME_MAX || name.contains(char::is_control) {
            let text = format!("a metric's name has 1 to {METRIC_NAME_MAX} bytes without control characters");
            let problem = self.source.at(expr, text).limit(METRIC_NAME_MAX);
            return self.refuse(problem);
        }
        if let Some(declared) = self.scope.declared
            && !declared.contains_key(name)
        {
            let problem = self.source.at(expr, format!("no device declares a metric {name}"));
            return match nearest(name, declared.keys().map(AsRef::as_ref)) {
                Some(near) => self.refuse(problem.hint(format!("did you mean {near}?"))),
                None => self.refuse(problem),
            };
        }
        let at = match self.tables.metrics.iter().position(|known| known.as_ref() == name) {
            Some(at) => at,
            None if self.tables.metrics.len() >= METRICS_MAX => {
                let problem = self.source.at(expr, format!("a rule may name at most {METRICS_MAX} metrics"));
                return self.refuse(problem.limit(METRICS_MAX));
            }
            None => {
                self.tables.metrics.push(name.into());
                self.tables.metrics.len() - 1
            }
        };
        self.show(name.to_owned(), Shown::Metric(at));
        Some(at)
    }

    fn show(&mut self, text: String, what: Shown) {
        if !self.tables.shown.iter().any(|(_, known)| *known == what) {
            self.tables.shown.push((text, what));
        }
    }

    fn refuse_device<T>(&mut self, expr: &IdedExpr, rest: &[&str]) -> Option<T> {
        let problem = match rest {
            [] => self.source.at(expr, "device is not a value"),
            ["labels" | "attributes"] => {
                self.source.at(expr, "a map is not a value").hint("choose an entry: device.labels.floor")
            }
            [field, ..] => {
                let problem = self.source.at(expr, format!("a device has no {field}"));
                match nearest(field, ["id", "labels", "attributes"]) {
                    Some(near) => problem.hint(format!("did you mean device.{near}?")),
                    None => problem.hint("it has device.id, device.labels and device.attributes; a metric of that name is m(\"device.x\")"),
                }
            }
        };
        self.refuse(problem)
    }

    /// Says that an expression is not what its place needs, or why it is nothing at all.
    fn mismatch<T>(&mut self, expr: &IdedExpr, needed: Kind) -> Option<T> {
        let problem = match &expr.expr {
            Expr::Comprehension(_) => self
                .source
                .at_operator(expr, "all, exists, exists_one, map and filter are not part of rules")
                .hint("a metric has one value; windows look at several: max(temp, \"5m\") > 30"),
            Expr::Literal(LiteralValue::Null) => self
                .source
                .at(expr, "null is never a value")
                .hint("a metric that was not seen is unknown; use absent(temp, \"10m\")"),
            Expr::Literal(LiteralValue::Bytes(_)) => self.source.at(expr, "bytes cannot be compared"),
            Expr::List(_) => self.source.at_operator(expr, "a list may only stand after in"),
            Expr::Map(_) | Expr::Struct(_) => self.source.at_operator(expr, "maps are not part of rules"),
            Expr::Call(call) if self.kind(expr) == Kind::Other => return self.refuse_call(expr, call),
            Expr::Call(call) if call.target.is_some() => {
                let name = &call.func_name;
                let problem = self.source.at_name(expr, name, format!("{name} is not called on a value"));
                problem.hint(format!("write {name}(temp, \"5m\")"))
            }
            Expr::Ident(_) | Expr::Select(_) if self.kind(expr) == Kind::Other => match path(expr).as_deref()
            {
                Some(["device", rest @ ..]) => return self.refuse_device(expr, rest),
                Some(_) => self.source.at(expr, "a metric of type bytes cannot be compared"),
                None => self
                    .source
                    .at(expr, "this is not a value")
                    .hint("such as temp, room.temp or m(\"room.temp-1\")"),
            },
            _ => {
                let found = self.kind(expr).name();
                self.source.at(expr, format!("{} is needed here, and this is {found}", needed.name()))
            }
        };
        self.refuse(problem)
    }
}

/// The segments of `a.b.c`; none for anything else.
fn path(expr: &IdedExpr) -> Option<Vec<&str>> {
    let mut segments = Vec::new();
    let mut expr = expr;
    loop {
        match &expr.expr {
            Expr::Ident(name) if !name.starts_with('.') => {
                segments.push(name.as_str());
                segments.reverse();
                return Some(segments);
            }
            Expr::Select(select) if !select.test => {
                segments.push(select.field.as_str());
                expr = &select.operand;
            }
            _ => return None,
        }
    }
}

fn literal_text(expr: Option<&IdedExpr>) -> Option<&str> {
    match &expr?.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}
