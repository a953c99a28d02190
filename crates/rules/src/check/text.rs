//! Expressions that must be text.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, Expr, LiteralValue, operators},
};

use super::{Checker, Kind, path};
use crate::{
    expr::{AlarmField, Map, Text},
    suggest::nearest,
};

impl Checker<'_> {
    pub(super) fn text(&mut self, expr: &IdedExpr) -> Option<Text> {
        match &expr.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(Text::Const(text.inner().to_owned())),
            Expr::Call(call) => self.text_call(expr, call),
            Expr::Ident(_) | Expr::Select(_) => match path(expr).as_deref() {
                Some(["device", "id"]) => Some(Text::DeviceId),
                Some(["device", "labels", key]) => Some(entry(Map::Labels, key)),
                Some(["device", "attributes", key]) => Some(entry(Map::Attributes, key)),
                Some(["alarm", field @ ..]) if self.scope.alarm => self.alarm_field(expr, field),
                Some(["device", rest @ ..]) => self.refuse_device(expr, rest),
                Some(_) if matches!(self.kind(expr), Kind::Text | Kind::Metric) => {
                    self.metric(expr).map(Text::Metric)
                }
                _ => self.mismatch(expr, Kind::Text),
            },
            _ => self.mismatch(expr, Kind::Text),
        }
    }

    fn text_call(&mut self, expr: &IdedExpr, call: &CallExpr) -> Option<Text> {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::INDEX, [map, key]) => {
                let map = self.map(map)?;
                self.text(key).map(|key| Text::Entry(map, Box::new(key)))
            }
            (operators::ADD, [a, b]) if self.kind(expr) == Kind::Text => {
                let (a, b) = (self.text(a), self.text(b));
                Some(Text::Concat(Box::new(a?), Box::new(b?)))
            }
            (operators::CONDITIONAL, [condition, yes, no]) => {
                let (condition, yes, no) = (self.bool(condition), self.text(yes), self.text(no));
                Some(Text::If(Box::new(condition?), Box::new(yes?), Box::new(no?)))
            }
            ("m", _) | ("last", [_]) if matches!(self.kind(expr), Kind::Text | Kind::Metric) => {
                self.metric(expr).map(Text::Metric)
            }
            _ => self.mismatch(expr, Kind::Text),
        }
    }

    /// `device.labels` or `device.attributes`.
    pub(super) fn map(&mut self, expr: &IdedExpr) -> Option<Map> {
        match path(expr).as_deref() {
            Some(["device", "labels"]) => Some(Map::Labels),
            Some(["device", "attributes"]) => Some(Map::Attributes),
            _ => {
                let problem = self.source.at(expr, "only device.labels and device.attributes have entries");
                self.refuse(problem.hint("such as device.labels[\"floor\"]"))
            }
        }
    }

    fn alarm_field(&mut self, expr: &IdedExpr, field: &[&str]) -> Option<Text> {
        const FIELDS: [(&str, AlarmField); 3] =
            [("id", AlarmField::Id), ("rule", AlarmField::Rule), ("severity", AlarmField::Severity)];
        let name = field.join(".");
        match FIELDS.into_iter().find(|(known, _)| *known == name) {
            Some((_, field)) => Some(Text::Alarm(field)),
            None => {
                let problem = self.source.at(expr, format!("an alarm has no {name:?} here"));
                let near = nearest(&name, FIELDS.map(|(known, _)| known));
                self.refuse(problem.hint(match near {
                    Some(near) => format!("did you mean alarm.{near}?"),
                    None => "it has alarm.id, alarm.rule and alarm.severity".to_owned(),
                }))
            }
        }
    }
}

fn entry(map: Map, key: &str) -> Text {
    Text::Entry(map, Box::new(Text::Const(key.to_owned())))
}
