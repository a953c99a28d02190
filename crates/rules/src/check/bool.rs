//! Expressions that must be true or false.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, Expr, LiteralValue, SelectExpr, operators},
};

use super::{Checker, Kind, literal_text, num::number, path};
use crate::expr::{Bool, Comparison, Text};

impl Checker<'_> {
    pub(super) fn bool(&mut self, expr: &IdedExpr) -> Option<Bool> {
        match &expr.expr {
            Expr::Literal(LiteralValue::Boolean(value)) => Some(Bool::Const(*value.inner())),
            Expr::Call(call) => self.bool_call(expr, call),
            Expr::Select(select) if select.test => self.has(expr, select),
            Expr::Ident(_) | Expr::Select(_) => match self.kind(expr) {
                Kind::Bool | Kind::Metric => self.metric(expr).map(Bool::Metric),
                _ => self.mismatch(expr, Kind::Bool),
            },
            _ => self.mismatch(expr, Kind::Bool),
        }
    }

    fn bool_call(&mut self, expr: &IdedExpr, call: &CallExpr) -> Option<Bool> {
        let comparison = match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, [a, b]) => {
                let (a, b) = (self.bool(a), self.bool(b));
                return Some(Bool::And(Box::new(a?), Box::new(b?)));
            }
            (operators::LOGICAL_OR, [a, b]) => {
                let (a, b) = (self.bool(a), self.bool(b));
                return Some(Bool::Or(Box::new(a?), Box::new(b?)));
            }
            (operators::LOGICAL_NOT, [inner]) => {
                return self.bool(inner).map(|inner| Bool::Not(Box::new(inner)));
            }
            (operators::CONDITIONAL, [condition, yes, no]) => {
                let (condition, yes, no) = (self.bool(condition), self.bool(yes), self.bool(no));
                return Some(Bool::If(Box::new(condition?), Box::new(yes?), Box::new(no?)));
            }
            (operators::IN, [item, list]) => return self.membership(item, list),
            ("absent", _) if call.target.is_none() => return self.absent(expr, call),
            ("contains" | "startsWith" | "endsWith" | "matches", _) => return self.text_test(expr, call),
            ("m", _) | ("last", [_]) if matches!(self.kind(expr), Kind::Bool | Kind::Metric) => {
                return self.metric(expr).map(Bool::Metric);
            }
            (operators::EQUALS, _) => Comparison::Equal,
            (operators::NOT_EQUALS, _) => Comparison::NotEqual,
            (operators::LESS, _) => Comparison::Less,
            (operators::LESS_EQUALS, _) => Comparison::LessOrEqual,
            (operators::GREATER, _) => Comparison::Greater,
            (operators::GREATER_EQUALS, _) => Comparison::GreaterOrEqual,
            _ => return self.mismatch(expr, Kind::Bool),
        };
        let [a, b] = call.args.as_slice() else { return self.mismatch(expr, Kind::Bool) };
        self.comparison(expr, comparison, a, b)
    }

    fn comparison(&mut self, expr: &IdedExpr, how: Comparison, a: &IdedExpr, b: &IdedExpr) -> Option<Bool> {
        let plain = |expr: &IdedExpr| !matches!(&expr.expr, Expr::Call(call) if call.func_name == operators::CONDITIONAL);
        match (self.kind(a), self.kind(b)) {
            (Kind::Other, _) => self.mismatch(a, Kind::Num),
            (_, Kind::Other) => self.mismatch(b, Kind::Num),
            (Kind::Metric, Kind::Metric) if plain(a) && plain(b) => {
                let (a, b) = (self.metric(a), self.metric(b));
                Some(Bool::CompareMetrics(how, a?, b?))
            }
            (Kind::Text, Kind::Text | Kind::Metric) | (Kind::Metric, Kind::Text) => {
                let (a, b) = (self.text(a), self.text(b));
                Some(Bool::CompareText(how, a?, b?))
            }
            (Kind::Bool, Kind::Bool | Kind::Metric) | (Kind::Metric, Kind::Bool) => {
                if !matches!(how, Comparison::Equal | Comparison::NotEqual) {
                    let problem = self.source.at_operator(expr, "truth values have no order");
                    return self.refuse(problem.hint("use == or !="));
                }
                let (a, b) = (self.bool(a), self.bool(b));
                Some(Bool::Same(Box::new(a?), Box::new(b?), how == Comparison::Equal))
            }
            (Kind::Num | Kind::Metric, Kind::Num | Kind::Metric) => {
                let (a, b) = (self.num(a), self.num(b));
                Some(Bool::CompareNum(how, a?, b?))
            }
            (left, right) => {
                let text = format!("{} and {} cannot be compared", left.name(), right.name());
                let problem = self.source.at_operator(expr, text);
                self.refuse(problem)
            }
        }
    }

    fn membership(&mut self, item: &IdedExpr, list: &IdedExpr) -> Option<Bool> {
        if let Expr::List(list) = &list.expr {
            let numbers: Option<Vec<f64>> = list
                .elements
                .iter()
                .map(|element| match &element.expr {
                    Expr::Literal(literal) => number(literal),
                    _ => None,
                })
                .collect();
            let texts: Option<Vec<String>> =
                list.elements.iter().map(|element| literal_text(Some(element)).map(str::to_owned)).collect();
            return match (numbers, texts) {
                _ if list.elements.is_empty() => {
                    let problem = self.source.at(item, "nothing is in an empty list");
                    self.refuse(problem)
                }
                (Some(numbers), _) => self.num(item).map(|item| Bool::NumIn(item, numbers)),
                (_, Some(texts)) => self.text(item).map(|item| Bool::TextIn(item, texts)),
                (None, None) => {
                    let problem =
                        self.source.at(item, "a list must hold only numbers or only texts, written out");
                    self.refuse(problem.hint("such as status in [\"on\", \"idle\"]"))
                }
            };
        }
        match path(list).as_deref() {
            Some(["device", "labels" | "attributes"]) => {
                let map = self.map(list)?;
                self.text(item).map(|key| Bool::Has(map, key))
            }
            _ => {
                let problem = self.source.at(list, "in needs a list, device.labels or device.attributes");
                self.refuse(problem.hint("such as status in [\"on\", \"idle\"]"))
            }
        }
    }

    fn has(&mut self, expr: &IdedExpr, select: &SelectExpr) -> Option<Bool> {
        match path(&select.operand).as_deref() {
            Some(["device", "labels" | "attributes"]) => {
                let map = self.map(&select.operand)?;
                Some(Bool::Has(map, Text::Const(select.field.clone())))
            }
            _ => {
                let problem =
                    self.source.at_name(expr, "has", "has takes a label or an attribute of the device");
                self.refuse(
                    problem.hint("such as has(device.labels.floor); for a metric use absent(temp, \"10m\")"),
                )
            }
        }
    }
}
