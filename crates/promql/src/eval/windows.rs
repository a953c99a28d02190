//! Range vectors: stored series or a subquery's, and functions of their windows.

use std::{borrow::Cow, sync::Arc};

use weir_core::Result;

use super::{Evaluator, Matrix, over_time::Window};
use crate::{
    labels::Labels,
    plan::{Over, Range, RangeOf},
    source::{Part, Sample, Series},
    steps::{Steps, first_of},
};

/// The series of a range vector, and what they hold of the budget where they are a subquery's.
struct Ranged<'a> {
    series: Cow<'a, [Series]>,
    _part: Part<'a>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn over(&self, over: &Over, steps: Steps) -> Result<Matrix<'a>> {
        let params = match &over.param {
            Some(param) => self.scalar(param, steps)?,
            None => vec![],
        };
        let ranged = self.ranged(&over.range, steps)?;
        let mut matrix = self.matrix();
        for series in ranged.series.iter() {
            let mut windows = Windows::new(&series.samples);
            let mut points = Vec::with_capacity(steps.count);
            for (step, at) in steps.iter().enumerate() {
                self.check()?;
                let end = over.range.time.of(at);
                let start = end.saturating_sub(over.range.length);
                let samples = windows.between(first_of(end, over.range.length), end);
                let param = params.get(step).copied().unwrap_or(0.0);
                let window = Window { samples, start, end, at, param };
                points.push(if samples.is_empty() { None } else { (over.function)(&window) });
            }
            let labels = if over.keeps_name { series.labels.clone() } else { series.labels.without_name() };
            matrix.push(labels, points)?;
        }
        self.distinct(matrix)
    }

    pub(super) fn absent_over(&self, range: &Range, labels: &Labels, steps: Steps) -> Result<Matrix<'a>> {
        let ranged = self.ranged(range, steps)?;
        let mut absent = vec![Some(1.0); steps.count];
        for series in ranged.series.iter() {
            self.check()?;
            let mut windows = Windows::new(&series.samples);
            for (point, at) in absent.iter_mut().zip(steps.iter()) {
                let end = range.time.of(at);
                if !windows.between(first_of(end, range.length), end).is_empty() {
                    *point = None;
                }
            }
        }
        let mut matrix = self.matrix();
        matrix.push(labels.clone(), absent)?;
        Ok(matrix)
    }

    /// The samples of a window at one instant.
    pub(crate) fn samples(&self, range: &Range, at: i64) -> Result<Vec<Series>> {
        let ranged = self.ranged(range, Steps::one(at))?;
        let end = range.time.of(at);
        let cut = ranged.series.iter().map(|series| {
            let samples = Windows::new(&series.samples).between(first_of(end, range.length), end).to_vec();
            self.budget.take(0, samples.len())?;
            Ok(Series { labels: series.labels.clone(), samples })
        });
        let cut: Result<Vec<Series>> = cut.collect();
        Ok(cut?.into_iter().filter(|series| !series.samples.is_empty()).collect())
    }

    fn ranged(&self, range: &Range, steps: Steps) -> Result<Ranged<'a>> {
        let mut part = self.budget.part();
        let (of, interval) = match &range.of {
            RangeOf::Series(index, _) => {
                let series: &'a [Series] = self.series.get(*index).map_or(&[], |series: &Arc<_>| series);
                return Ok(Ranged { series: Cow::Borrowed(series), _part: part });
            }
            RangeOf::Subquery(of, interval) => (of, *interval),
        };
        let inner = range.inner_steps(steps, interval, self.budget)?;
        if inner.count == 0 {
            return Ok(Ranged { series: Cow::Borrowed(&[]), _part: part });
        }
        let mut series = vec![];
        for row in self.vector(of, inner)?.rows {
            let samples: Vec<Sample> = row
                .points
                .iter()
                .zip(inner.iter())
                .filter_map(|(point, t)| point.map(|v| Sample { t, v }))
                .collect();
            part.grow(samples.len())?;
            series.push(Series { labels: row.labels, samples });
        }
        Ok(Ranged { series: Cow::Owned(series), _part: part })
    }
}

/// Windows over the samples of one series, each no earlier than the one before.
struct Windows<'a> {
    samples: &'a [Sample],
    first: usize,
    after: usize,
}

impl<'a> Windows<'a> {
    fn new(samples: &'a [Sample]) -> Self {
        Self { samples, first: 0, after: 0 }
    }

    /// The samples from `first` to `last`, both included.
    fn between(&mut self, first: i64, last: i64) -> &'a [Sample] {
        let ahead = |from: usize, is_before: &dyn Fn(&Sample) -> bool| {
            self.samples.get(from..).unwrap_or_default().iter().take_while(|sample| is_before(sample)).count()
        };
        let first = self.first + ahead(self.first, &|sample| sample.t < first);
        let after = self.after + ahead(self.after, &|sample| sample.t <= last);
        (self.first, self.after) = (first, after);
        self.samples.get(first..after).unwrap_or_default()
    }
}
