//! The evaluation: every expression for all steps at once, so that labels are compared once for a series and not once for
//! a step.

pub(crate) mod aggregate;
mod binary;
mod functions;
pub(crate) mod over_time;
mod windows;

use std::collections::{HashMap, hash_map::Entry};

pub(crate) use aggregate::Aggregation;
pub(crate) use over_time::OverTime;
use weir_core::{Error, Result};

use crate::{
    errors::same_labels,
    labels::Labels,
    plan::{Expr, Selector},
    source::{Budget, Part, Series},
    steps::{LOOKBACK_MS, Steps, first_of},
};

/// Evaluates plans over series that were read.
pub(crate) struct Evaluator<'a> {
    /// By the place of the selector, in the order of labels.
    pub(crate) series: &'a [std::sync::Arc<Vec<Series>>],
    pub(crate) budget: &'a Budget,
    /// Asked now and then whether to go on.
    pub(crate) check: &'a (dyn Fn() -> Result<()> + 'a),
}

/// What an expression is at all steps.
pub(crate) enum Value<'a> {
    Scalar(Vec<f64>),
    Vector(Matrix<'a>),
    Text(String),
}

/// Series with a value, or none, at each step.
pub(crate) struct Matrix<'a> {
    /// Each has a value at some step; no labels twice.
    pub(crate) rows: Vec<Row>,
    part: Part<'a>,
}

/// One of them.
pub(crate) struct Row {
    pub(crate) labels: Labels,
    /// By step.
    pub(crate) points: Vec<Option<f64>>,
}

impl Row {
    pub(crate) fn at(&self, step: usize) -> Option<f64> {
        self.points.get(step).copied().flatten()
    }
}

impl Matrix<'_> {
    /// Adds a row, unless it has no values.
    pub(crate) fn push(&mut self, labels: Labels, points: Vec<Option<f64>>) -> Result<()> {
        if points.iter().any(Option::is_some) { self.push_all(labels, points) } else { Ok(()) }
    }

    /// Adds a row that is yet to be filled.
    fn push_all(&mut self, labels: Labels, points: Vec<Option<f64>>) -> Result<()> {
        self.part.grow(points.len())?;
        self.rows.push(Row { labels, points });
        Ok(())
    }

    fn append(&mut self, mut other: Self) {
        self.rows.append(&mut other.rows);
        self.part.join(other.part);
    }
}

impl<'a> Evaluator<'a> {
    /// The value of an expression; what is the same at each step is computed once.
    pub(crate) fn eval(&self, expr: &Expr, steps: Steps) -> Result<Value<'a>> {
        (self.check)()?;
        if steps.count <= 1 || !expr.is_fixed() {
            return self.eval_each(expr, steps);
        }
        match self.eval_each(expr, steps.first())? {
            Value::Scalar(values) => {
                Ok(Value::Scalar(vec![values.first().copied().unwrap_or(f64::NAN); steps.count]))
            }
            Value::Vector(one) => {
                let mut all = self.matrix();
                for row in one.rows {
                    all.push(row.labels, vec![row.points.first().copied().flatten(); steps.count])?;
                }
                Ok(Value::Vector(all))
            }
            text => Ok(text),
        }
    }

    fn eval_each(&self, expr: &Expr, steps: Steps) -> Result<Value<'a>> {
        let vector = match expr {
            Expr::Number(value) => return Ok(Value::Scalar(vec![*value; steps.count])),
            Expr::Text(text) => return Ok(Value::Text(text.clone())),
            Expr::Time => return Ok(Value::Scalar(steps.iter().map(|at| at as f64 / 1_000.0).collect())),
            Expr::Scalar(of) => return Ok(Value::Scalar(self.only_values(of, steps)?)),
            Expr::Negate(of) => return self.negate(of, steps),
            Expr::Binary(binary) => return self.binary(binary, steps),
            Expr::Instant(selector) => self.instant(selector, steps, |sample| sample.v)?,
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, steps)?,
            Expr::Over(over) => self.over(over, steps)?,
            Expr::AbsentOver(range, labels) => self.absent_over(range, labels, steps)?,
            Expr::Each(each) => self.each(each, steps)?,
            Expr::Vector(of) => {
                let mut matrix = self.matrix();
                matrix.push(Labels::default(), self.scalar(of, steps)?.into_iter().map(Some).collect())?;
                matrix
            }
            Expr::Absent(of, labels) => self.absent(of, labels, steps)?,
            Expr::Sort(of, descending) => self.sort(of, *descending, steps)?,
            Expr::Timestamp(of) => self.timestamp(of, steps)?,
            Expr::Relabel(relabel) => self.relabel(relabel, steps)?,
        };
        Ok(Value::Vector(vector))
    }

    pub(crate) fn vector(&self, expr: &Expr, steps: Steps) -> Result<Matrix<'a>> {
        match self.eval(expr, steps)? {
            Value::Vector(matrix) => Ok(matrix),
            _ => Err(Error::internal("an expression is not the vector that its plan says")),
        }
    }

    pub(crate) fn scalar(&self, expr: &Expr, steps: Steps) -> Result<Vec<f64>> {
        match self.eval(expr, steps)? {
            Value::Scalar(values) => Ok(values),
            _ => Err(Error::internal("an expression is not the scalar that its plan says")),
        }
    }

    pub(crate) fn matrix(&self) -> Matrix<'a> {
        Matrix { rows: vec![], part: self.budget.part() }
    }

    pub(crate) fn check(&self) -> Result<()> {
        (self.check)()
    }

    /// The newest sample within the lookback of each step.
    fn instant(
        &self,
        selector: &Selector,
        steps: Steps,
        value: impl Fn(&crate::Sample) -> f64,
    ) -> Result<Matrix<'a>> {
        let mut matrix = self.matrix();
        for series in self.series.get(selector.index).into_iter().flat_map(|series| series.iter()) {
            self.check()?;
            let mut newest = 0;
            let points = steps.iter().map(|ts| {
                let at = selector.time.of(ts);
                newest += series.samples.get(newest..)?.iter().take_while(|sample| sample.t <= at).count();
                let sample = series.samples.get(newest.checked_sub(1)?)?;
                (sample.t >= first_of(at, LOOKBACK_MS)).then(|| value(sample))
            });
            matrix.push(series.labels.clone(), points.collect())?;
        }
        Ok(matrix)
    }

    /// Rows that came to have the same labels become one: allowed where no step has a value of both.
    fn united(&self, mut matrix: Matrix<'a>) -> Result<Matrix<'a>> {
        let mut places: HashMap<Labels, usize> = HashMap::with_capacity(matrix.rows.len());
        let mut rows: Vec<Row> = Vec::with_capacity(matrix.rows.len());
        for row in matrix.rows {
            if row.points.iter().all(Option::is_none) {
                continue;
            }
            match places.entry(row.labels.clone()) {
                Entry::Vacant(place) => {
                    place.insert(rows.len());
                    rows.push(row);
                }
                Entry::Occupied(place) => {
                    let Some(known) = rows.get_mut(*place.get()) else { continue };
                    for (point, more) in known.points.iter_mut().zip(row.points) {
                        match (&point, more) {
                            (Some(_), Some(_)) => return Err(same_labels()),
                            (None, Some(_)) => *point = more,
                            (_, None) => {}
                        }
                    }
                }
            }
        }
        matrix.rows = rows;
        Ok(matrix)
    }

    /// Refuses rows with the same labels, whenever they have values.
    fn distinct(&self, matrix: Matrix<'a>) -> Result<Matrix<'a>> {
        let mut known = std::collections::HashSet::with_capacity(matrix.rows.len());
        match matrix.rows.iter().all(|row| known.insert(&row.labels)) {
            true => Ok(matrix),
            false => Err(same_labels()),
        }
    }
}
