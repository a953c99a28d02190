//! One query: planned, read, evaluated.

use std::{collections::HashMap, sync::Arc};

use weir_core::Result;

use crate::{
    errors::invalid,
    eval::{Evaluator, Value},
    outcome::Outcome,
    plan::{Expr, Kind, Plan, plan},
    source::{Budget, Sample, Selection, Series, Source},
    steps::Steps,
};

/// A query and the instants at which it is asked.
#[derive(Debug)]
pub struct Query {
    plan: Plan,
    steps: Steps,
    selectors: usize,
    is_range: bool,
}

/// The series that a query was evaluated on, by selector.
#[derive(Debug)]
pub struct Data(Vec<Arc<Vec<Series>>>);

impl Query {
    /// `query` at one instant, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// `QUERY_INVALID` for what cannot be read; `QUERY_NOT_SUPPORTED` for what Prometheus can and this cannot;
    /// `QUERY_TOO_LARGE`. A retry helps with none.
    pub fn instant(query: &str, at: i64) -> Result<Self> {
        let steps = Steps::one(at);
        let (plan, selectors) = plan(query, at, at)?;
        Ok(Self { plan, steps, selectors, is_range: false })
    }

    /// `query` from `start` to `end` every `step`, all in milliseconds.
    ///
    /// # Errors
    /// As [`Query::instant`]; for an end before the start, a step that is not positive, and for more than 11,000 steps.
    pub fn range(query: &str, start: i64, end: i64, step: i64) -> Result<Self> {
        let steps = Steps::range(start, end, step)?;
        let (plan, selectors) = plan(query, start, end)?;
        let kind = match &plan {
            Plan::Range(_) => Some("range vector"),
            Plan::Expr(expr) => (expr.kind() == Kind::Text).then_some("string"),
        };
        if let Some(kind) = kind {
            let message =
                format!("invalid expression type {kind:?} for range query, must be Scalar or instant Vector");
            return Err(invalid(message));
        }
        Ok(Self { plan, steps, selectors, is_range: true })
    }

    /// Reads what the query needs; the same selection is read once.
    ///
    /// # Errors
    /// Those of the source; `QUERY_TOO_LARGE` where it is more than the budget has.
    pub async fn read(&self, source: &dyn Source, budget: &Budget) -> Result<Data> {
        let mut wanted: Vec<Option<Selection>> = vec![None; self.selectors];
        self.plan.reads(self.steps, budget, &mut |index, matchers, start, end| {
            if let Some(wanted) = wanted.get_mut(index) {
                *wanted = Some(Selection { matchers: matchers.to_vec(), start, end });
            }
        })?;
        let mut read: HashMap<String, Arc<Vec<Series>>> = HashMap::new();
        let mut data = Vec::with_capacity(wanted.len());
        for selection in wanted {
            let Some(selection) = selection else {
                data.push(Arc::default());
                continue;
            };
            let matchers: Vec<String> = selection.matchers.iter().map(ToString::to_string).collect();
            let key = format!("{} {} {}", selection.start, selection.end, matchers.join(","));
            if let Some(series) = read.get(&key) {
                data.push(Arc::clone(series));
                continue;
            }
            let mut series = source.select(&selection, budget).await?;
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            let series = Arc::new(series);
            read.insert(key, Arc::clone(&series));
            data.push(series);
        }
        Ok(Data(data))
    }

    /// Computes the answer. This takes time, and no I/O; `check` is asked now and then whether to go on.
    ///
    /// # Errors
    /// `QUERY_FAILED` for series that cannot be combined as asked; `QUERY_TOO_LARGE`; what `check` says.
    pub fn evaluate(&self, data: &Data, budget: &Budget, check: &dyn Fn() -> Result<()>) -> Result<Outcome> {
        let evaluator = Evaluator { series: &data.0, budget, check };
        let at = self.steps.start;
        let value = match &self.plan {
            Plan::Range(range) => return Ok(Outcome::Matrix(evaluator.samples(range, at)?)),
            Plan::Expr(expr) => self.value(&evaluator, expr)?,
        };
        let rows = match value {
            Value::Text(text) => return Ok(Outcome::Text(at, text)),
            Value::Scalar(values) if !self.is_range => {
                return Ok(Outcome::Scalar(Sample { t: at, v: values.first().copied().unwrap_or(f64::NAN) }));
            }
            Value::Scalar(values) => {
                let mut matrix = evaluator.matrix();
                matrix.push(crate::Labels::default(), values.into_iter().map(Some).collect())?;
                matrix.rows
            }
            Value::Vector(matrix) => matrix.rows,
        };
        let series = rows.into_iter().map(|row| {
            let points = row.points.iter().zip(self.steps.iter());
            let samples = points.filter_map(|(point, t)| point.map(|v| Sample { t, v })).collect();
            Series { labels: row.labels, samples }
        });
        let mut series: Vec<Series> = series.collect();
        if !self.is_range {
            return Ok(Outcome::Vector(series));
        }
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Outcome::Matrix(series))
    }

    fn value<'a>(&self, evaluator: &Evaluator<'a>, expr: &Expr) -> Result<Value<'a>> {
        evaluator.eval(expr, self.steps)
    }
}
