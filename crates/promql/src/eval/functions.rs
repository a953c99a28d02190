//! Functions of vectors.

use std::cmp::Ordering;

use weir_core::Result;

use super::{Evaluator, Matrix, Value};
use crate::{
    labels::Labels,
    plan::{Each, Expr, Relabel, RelabelBy},
    steps::Steps,
};

impl<'a> Evaluator<'a> {
    pub(super) fn negate(&self, of: &Expr, steps: Steps) -> Result<Value<'a>> {
        match self.eval(of, steps)? {
            Value::Scalar(values) => Ok(Value::Scalar(values.into_iter().map(|value| -value).collect())),
            Value::Vector(mut matrix) => {
                for row in &mut matrix.rows {
                    row.labels = row.labels.without_name();
                    row.points.iter_mut().flatten().for_each(|value| *value = -*value);
                }
                Ok(Value::Vector(self.distinct(matrix)?))
            }
            text => Ok(text),
        }
    }

    pub(super) fn each(&self, each: &Each, steps: Steps) -> Result<Matrix<'a>> {
        let params = each.params.iter().map(|param| self.scalar(param, steps)).collect::<Result<Vec<_>>>()?;
        let param = |index: usize, step: usize| {
            params.get(index).map_or(1.0, |values| values.get(step).copied().unwrap_or(f64::NAN))
        };
        let mut matrix = self.vector(&each.of, steps)?;
        for row in &mut matrix.rows {
            self.check()?;
            row.labels = row.labels.without_name();
            for (step, point) in row.points.iter_mut().enumerate() {
                let params = [param(0, step), param(1, step)];
                let [least, greatest] = params;
                let is_empty = each.is_clamp && greatest < least;
                *point = point.filter(|_| !is_empty).map(|value| (each.function)(value, params));
            }
        }
        self.united(matrix)
    }

    /// `scalar()`: the value of the only element, NaN where there is another number of them.
    pub(super) fn only_values(&self, of: &Expr, steps: Steps) -> Result<Vec<f64>> {
        let matrix = self.vector(of, steps)?;
        let only = |step: usize| {
            let mut values = matrix.rows.iter().filter_map(|row| row.at(step));
            match (values.next(), values.next()) {
                (Some(value), None) => value,
                _ => f64::NAN,
            }
        };
        Ok((0..steps.count).map(only).collect())
    }

    pub(super) fn absent(&self, of: &Expr, labels: &Labels, steps: Steps) -> Result<Matrix<'a>> {
        let vector = self.vector(of, steps)?;
        let is_absent = |step: usize| vector.rows.iter().all(|row| row.at(step).is_none()).then_some(1.0);
        let mut matrix = self.matrix();
        matrix.push(labels.clone(), (0..steps.count).map(is_absent).collect())?;
        Ok(matrix)
    }

    /// Orders what there is at one instant; NaN comes last. Over several steps there is nothing to order.
    pub(super) fn sort(&self, of: &Expr, descending: bool, steps: Steps) -> Result<Matrix<'a>> {
        let mut matrix = self.vector(of, steps)?;
        if steps.count == 1 {
            matrix.rows.sort_by(|a, b| {
                let (a, b) = (a.at(0).unwrap_or(f64::NAN), b.at(0).unwrap_or(f64::NAN));
                let by_value = if descending { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
                a.is_nan().cmp(&b.is_nan()).then(by_value.unwrap_or(Ordering::Equal))
            });
        }
        Ok(matrix)
    }

    /// Of a selector when its samples were taken, of everything else the instant of the evaluation.
    pub(super) fn timestamp(&self, of: &Expr, steps: Steps) -> Result<Matrix<'a>> {
        let mut matrix = match of {
            Expr::Instant(selector) => self.instant(selector, steps, |sample| sample.t as f64 / 1_000.0)?,
            _ => {
                let mut matrix = self.vector(of, steps)?;
                for row in &mut matrix.rows {
                    for (point, at) in row.points.iter_mut().zip(steps.iter()) {
                        *point = point.map(|_| at as f64 / 1_000.0);
                    }
                }
                matrix
            }
        };
        for row in &mut matrix.rows {
            row.labels = row.labels.without_name();
        }
        self.united(matrix)
    }

    pub(super) fn relabel(&self, relabel: &Relabel, steps: Steps) -> Result<Matrix<'a>> {
        let mut matrix = self.vector(&relabel.of, steps)?;
        for row in &mut matrix.rows {
            let value = match &relabel.by {
                RelabelBy::Replace { from, regex, replacement } => {
                    let Some(found) = regex.captures(row.labels.get(from)) else { continue };
                    let mut value = String::new();
                    found.expand(replacement, &mut value);
                    value
                }
                RelabelBy::Join { separator, from } => {
                    from.iter().map(|from| row.labels.get(from)).collect::<Vec<_>>().join(separator)
                }
            };
            row.labels = row.labels.with(&relabel.to, &value);
        }
        self.united(matrix)
    }
}
