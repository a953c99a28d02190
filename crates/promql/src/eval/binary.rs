//! Operators between two expressions, and how the series of two vectors find each other.

use std::collections::HashMap;

use weir_core::Result;

use super::{Evaluator, Matrix, Row, Value};
use crate::{
    errors::{execution, same_labels},
    labels::{Labels, METRIC_NAME},
    plan::{Binary, Group, Kind, Matching, Op},
    steps::Steps,
};

/// Value, and whether a comparison holds.
fn apply(op: Op, a: f64, b: f64) -> (f64, bool) {
    match op {
        Op::Add => (a + b, true),
        Op::Sub => (a - b, true),
        Op::Mul => (a * b, true),
        Op::Div => (a / b, true),
        Op::Mod => (a % b, true),
        Op::Pow => (a.powf(b), true),
        Op::Atan2 => (a.atan2(b), true),
        Op::Eq => (a, a == b),
        Op::Ne => (a, a != b),
        Op::Gt => (a, a > b),
        Op::Lt => (a, a < b),
        Op::Ge => (a, a >= b),
        Op::Le => (a, a <= b),
        Op::And | Op::Or | Op::Unless => (a, false), // of vectors alone
    }
}

fn truth(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

impl<'a> Evaluator<'a> {
    pub(super) fn binary(&self, binary: &Binary, steps: Steps) -> Result<Value<'a>> {
        let Binary { op, lhs, rhs, return_bool, matching } = binary;
        match (lhs.kind(), rhs.kind()) {
            (Kind::Scalar, Kind::Scalar) => {
                let (mut values, rhs) = (self.scalar(lhs, steps)?, self.scalar(rhs, steps)?);
                for (a, b) in values.iter_mut().zip(rhs) {
                    let (value, holds) = apply(*op, *a, b);
                    *a = if op.is_comparison() { truth(holds) } else { value };
                }
                Ok(Value::Scalar(values))
            }
            (Kind::Vector, Kind::Scalar) => {
                let (vector, scalar) = (self.vector(lhs, steps)?, self.scalar(rhs, steps)?);
                self.with_scalar(binary, vector, |a, step| (a, scalar.get(step).copied().unwrap_or(f64::NAN)))
            }
            (Kind::Scalar, _) => {
                let (scalar, vector) = (self.scalar(lhs, steps)?, self.vector(rhs, steps)?);
                self.with_scalar(binary, vector, |b, step| (scalar.get(step).copied().unwrap_or(f64::NAN), b))
            }
            _ => {
                let (lhs, rhs) = (self.vector(lhs, steps)?, self.vector(rhs, steps)?);
                let joined = match op.is_set() {
                    true => self.set(*op, matching, lhs, rhs, steps)?,
                    false => self.join(*op, *return_bool, matching, lhs, rhs, steps)?,
                };
                Ok(Value::Vector(joined))
            }
        }
    }

    /// `sides`: the operands at a step, of the element's value there.
    fn with_scalar(
        &self,
        binary: &Binary,
        mut vector: Matrix<'a>,
        sides: impl Fn(f64, usize) -> (f64, f64),
    ) -> Result<Value<'a>> {
        let Binary { op, return_bool, .. } = binary;
        for row in &mut vector.rows {
            self.check()?;
            for (step, point) in row.points.iter_mut().enumerate() {
                let Some(element) = *point else { continue };
                let (a, b) = sides(element, step);
                let (value, holds) = apply(*op, a, b);
                *point = match (op.is_comparison(), return_bool) {
                    (_, true) => Some(truth(holds)),
                    (true, false) => holds.then_some(element), // also where it stands on the right
                    (false, false) => Some(value),
                };
            }
            if op.drops_name() || *return_bool {
                row.labels = row.labels.without_name();
            }
        }
        Ok(Value::Vector(self.united(vector)?))
    }

    fn set(
        &self,
        op: Op,
        matching: &Matching,
        lhs: Matrix<'a>,
        rhs: Matrix<'a>,
        steps: Steps,
    ) -> Result<Matrix<'a>> {
        let (left, right, count) = signatures(matching, &lhs.rows, &rhs.rows);
        let (mut lhs, mut rhs) = (lhs, rhs);
        let mut seen = vec![false; count];
        for step in 0..steps.count {
            self.check()?;
            seen.fill(false);
            let (of, signatures) = if op == Op::Or { (&lhs, &left) } else { (&rhs, &right) };
            for (row, signature) in of.rows.iter().zip(signatures) {
                if row.at(step).is_some()
                    && let Some(seen) = seen.get_mut(*signature)
                {
                    *seen = true;
                }
            }
            let (of, signatures) = if op == Op::Or { (&mut rhs, &right) } else { (&mut lhs, &left) };
            for (row, signature) in of.rows.iter_mut().zip(signatures) {
                let is_seen = seen.get(*signature).copied().unwrap_or(false);
                if is_seen != (op == Op::And)
                    && let Some(point) = row.points.get_mut(step)
                {
                    *point = None;
                }
            }
        }
        if op == Op::Or {
            lhs.append(rhs);
        }
        self.united(lhs)
    }

    fn join(
        &self,
        op: Op,
        return_bool: bool,
        matching: &Matching,
        lhs: Matrix<'a>,
        rhs: Matrix<'a>,
        steps: Steps,
    ) -> Result<Matrix<'a>> {
        // The side that may have several is called many; of the other there is one.
        let swapped = matches!(matching.group, Group::Right(_));
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let (of_many, of_one, count) = signatures(matching, &many.rows, &one.rows);
        let mut join = Join {
            op,
            return_bool,
            matching,
            swapped,
            many: &many.rows,
            one: &one.rows,
            partner: vec![None; count],
            matched: vec![None; count],
            pairs: HashMap::new(),
            places: HashMap::new(),
        };
        let mut result = self.matrix();
        for step in 0..steps.count {
            self.check()?;
            let is_empty = |rows: &[Row]| rows.iter().all(|row| row.at(step).is_none());
            if is_empty(join.many) || is_empty(join.one) {
                continue;
            }
            join.find_partners(step, &of_one)?;
            for (row, signature) in of_many.iter().enumerate() {
                join.pair(step, row, *signature, &mut result, steps)?;
            }
        }
        result.rows.retain(|row| row.points.iter().any(Option::is_some));
        Ok(result)
    }
}

/// A join under way.
struct Join<'a> {
    op: Op,
    return_bool: bool,
    matching: &'a Matching,
    swapped: bool,
    many: &'a [Row],
    one: &'a [Row],
    /// By signature: the row of the one side at this step.
    partner: Vec<Option<usize>>,
    /// By signature: the last step at which something of the many side was matched.
    matched: Vec<Option<usize>>,
    /// The place in the result, by the rows of both sides.
    pairs: HashMap<(usize, usize), usize>,
    /// The place in the result, by labels.
    places: HashMap<Labels, usize>,
}

impl Join<'_> {
    fn find_partners(&mut self, step: usize, signatures: &[usize]) -> Result<()> {
        self.partner.fill(None);
        for (row, signature) in signatures.iter().enumerate() {
            if self.one.get(row).is_none_or(|row| row.at(step).is_none()) {
                continue;
            }
            let Some(partner) = self.partner.get_mut(*signature) else { continue };
            if let Some(other) = partner.replace(row) {
                return Err(self.ambiguous(row, other));
            }
        }
        Ok(())
    }

    fn ambiguous(&self, row: usize, other: usize) -> weir_core::Error {
        let labels = |row: usize| self.one.get(row).map(|row| row.labels.clone()).unwrap_or_default();
        let (side, group) =
            (if self.swapped { "left" } else { "right" }, signature(self.matching, &labels(row)));
        execution(format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{}, \
             {}];many-to-many matching not allowed: matching labels must be unique on one side",
            labels(row),
            labels(other)
        ))
    }

    fn pair<'b>(
        &mut self,
        step: usize,
        row: usize,
        signature: usize,
        result: &mut Matrix<'b>,
        steps: Steps,
    ) -> Result<()> {
        let Some(partner) = self.partner.get(signature).copied().flatten() else { return Ok(()) };
        let (Some(many), Some(one)) = (self.many.get(row), self.one.get(partner)) else { return Ok(()) };
        let (Some(a), Some(b)) = (many.at(step), one.at(step)) else { return Ok(()) };
        let (value, holds) = if self.swapped { apply(self.op, b, a) } else { apply(self.op, a, b) };
        let value = if self.return_bool { truth(holds) } else { value };
        if !self.return_bool && !holds {
            return Ok(());
        }
        let is_one_to_one = self.matching.group == Group::None;
        let before = self.matched.get_mut(signature).and_then(|matched| matched.replace(step));
        if is_one_to_one && before == Some(step) {
            let message =
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
            return Err(execution(message));
        }
        let place = match self.pairs.get(&(row, partner)) {
            Some(place) => *place,
            None => {
                let labels = self.labels(&many.labels, &one.labels);
                let place = match self.places.get(&labels) {
                    Some(place) => *place,
                    None => {
                        result.push_all(labels.clone(), vec![None; steps.count])?;
                        self.places.insert(labels, result.rows.len() - 1);
                        result.rows.len() - 1
                    }
                };
                self.pairs.insert((row, partner), place);
                place
            }
        };
        match result.rows.get_mut(place).and_then(|row| row.points.get_mut(step)) {
            Some(point @ None) => *point = Some(value),
            _ if is_one_to_one => return Err(same_labels()),
            _ => {
                return Err(execution(
                    "multiple matches for labels: grouping labels must ensure unique matches",
                ));
            }
        }
        Ok(())
    }

    /// The labels of the result.
    fn labels(&self, many: &Labels, one: &Labels) -> Labels {
        let mut labels = many.clone();
        if self.op.drops_name() {
            labels = labels.without_name();
        }
        let include = match &self.matching.group {
            Group::None if self.matching.on => return self.named(labels.only(&self.matching.labels)),
            Group::None => return self.named(labels.without(&self.matching.labels)),
            Group::Left(include) | Group::Right(include) => include,
        };
        for name in include {
            labels = labels.with(name, one.get(name));
        }
        self.named(labels)
    }

    fn named(&self, labels: Labels) -> Labels {
        if self.return_bool { labels.without_name() } else { labels }
    }
}

/// What two series must have in common.
fn signature(matching: &Matching, labels: &Labels) -> Labels {
    if matching.on {
        return labels.only(&matching.labels);
    }
    let ignored: Vec<String> = matching.labels.iter().cloned().chain([METRIC_NAME.to_owned()]).collect();
    labels.without(&ignored)
}

/// A number for each distinct signature: of every row of both sides, and how many there are.
fn signatures(matching: &Matching, lhs: &[Row], rhs: &[Row]) -> (Vec<usize>, Vec<usize>, usize) {
    let mut numbers: HashMap<Labels, usize> = HashMap::new();
    let mut number = |row: &Row| {
        let next = numbers.len();
        *numbers.entry(signature(matching, &row.labels)).or_insert(next)
    };
    let (lhs, rhs): (Vec<usize>, Vec<usize>) =
        (lhs.iter().map(&mut number).collect(), rhs.iter().map(&mut number).collect());
    (lhs, rhs, numbers.len())
}
