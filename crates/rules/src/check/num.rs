//! Expressions that must be numbers. Every number is a double.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, Expr, LiteralValue, operators},
};

use super::{Checker, Kind};
use crate::expr::{Aggregate, Arithmetic, Num};

impl Checker<'_> {
    pub(super) fn num(&mut self, expr: &IdedExpr) -> Option<Num> {
        match &expr.expr {
            Expr::Literal(literal) => match number(literal) {
                Some(value) if !value.is_finite() => {
                    let problem = self.source.at(expr, "this number is larger than a double can be");
                    self.refuse(problem.limit(f64::MAX))
                }
                Some(value) => Some(Num::Const(value)),
                None => self.mismatch(expr, Kind::Num),
            },
            Expr::Call(call) => self.num_call(expr, call),
            Expr::Ident(_) | Expr::Select(_) => match self.kind(expr) {
                Kind::Num | Kind::Metric | Kind::Bool if !is_test(expr) => self.metric(expr).map(Num::Metric),
                _ => self.mismatch(expr, Kind::Num),
            },
            _ => self.mismatch(expr, Kind::Num),
        }
    }

    fn num_call(&mut self, expr: &IdedExpr, call: &CallExpr) -> Option<Num> {
        let operator = match call.func_name.as_str() {
            operators::ADD => Arithmetic::Add,
            operators::SUBSTRACT => Arithmetic::Subtract,
            operators::MULTIPLY => Arithmetic::Multiply,
            operators::DIVIDE => Arithmetic::Divide,
            operators::MODULO => Arithmetic::Modulo,
            operators::NEGATE => {
                let [inner] = call.args.as_slice() else { return self.mismatch(expr, Kind::Num) };
                return self.num(inner).map(|inner| Num::Negate(Box::new(inner)));
            }
            operators::CONDITIONAL => {
                let [condition, yes, no] = call.args.as_slice() else {
                    return self.mismatch(expr, Kind::Num);
                };
                let (condition, yes, no) = (self.bool(condition), self.num(yes), self.num(no));
                return Some(Num::If(Box::new(condition?), Box::new(yes?), Box::new(no?)));
            }
            "m" if call.target.is_none() => return self.metric(expr).map(Num::Metric),
            "last" if call.target.is_none() && call.args.len() == 1 => {
                return self.metric(expr).map(Num::Metric);
            }
            name => {
                return match Aggregate::named(name) {
                    Some(aggregate) if call.target.is_none() => self.window(expr, call, aggregate),
                    _ => self.mismatch(expr, Kind::Num),
                };
            }
        };
        let [a, b] = call.args.as_slice() else { return self.mismatch(expr, Kind::Num) };
        let (a, b) = (self.num(a), self.num(b));
        Some(Num::Binary(operator, Box::new(a?), Box::new(b?)))
    }
}

/// A literal as a double; integers beyond 2^53 lose their last digits, as they would at the edge.
#[allow(clippy::cast_precision_loss)]
pub(super) fn number(literal: &LiteralValue) -> Option<f64> {
    match literal {
        LiteralValue::Double(value) => Some(*value.inner()),
        LiteralValue::Int(value) => Some(*value.inner() as f64),
        LiteralValue::UInt(value) => Some(*value.inner() as f64),
        _ => None,
    }
}

fn is_test(expr: &IdedExpr) -> bool {
    matches!(&expr.expr, Expr::Select(select) if select.test)
}
