//! Aggregations over the series of a vector, step by step: each as Prometheus 2.42 computes it.

use std::{cmp::Ordering, collections::HashMap};

use weir_core::Result;

use super::{Evaluator, Matrix, Row, over_time::stays_infinite};
use crate::{
    errors::execution,
    labels::Labels,
    number::{self, format_plain},
    plan::Aggregate,
    steps::Steps,
};

/// What becomes of the values of a group.
#[derive(Debug)]
pub(crate) enum Aggregation {
    /// One value, of the values in the order of their series and the parameter.
    Each(fn(&mut [f64], f64) -> f64),
    /// The series with the greatest values, or the least.
    Top {
        /// `bottomk`
        least: bool,
    },
    /// How often each value comes, by a label of this name.
    CountValues(String),
}

pub(crate) fn sum(values: &mut [f64], _: f64) -> f64 {
    values.iter().skip(1).fold(values.first().copied().unwrap_or(0.0), |sum, value| sum + value)
}

pub(crate) fn avg(values: &mut [f64], _: f64) -> f64 {
    let (mut mean, mut count) = (0.0, 0.0);
    for value in values.iter().copied() {
        count += 1.0;
        if count == 1.0 {
            mean = value;
        } else if !(f64::is_infinite(mean) && stays_infinite(mean, value)) {
            mean += value / count - mean / count;
        }
    }
    mean
}

pub(crate) fn min(values: &mut [f64], _: f64) -> f64 {
    values.iter().copied().reduce(|a, b| if a > b || a.is_nan() { b } else { a }).unwrap_or(f64::NAN)
}

pub(crate) fn max(values: &mut [f64], _: f64) -> f64 {
    values.iter().copied().reduce(|a, b| if a < b || a.is_nan() { b } else { a }).unwrap_or(f64::NAN)
}

pub(crate) fn count(values: &mut [f64], _: f64) -> f64 {
    values.len() as f64
}

pub(crate) fn group(_: &mut [f64], _: f64) -> f64 {
    1.0
}

pub(crate) fn stddev(values: &mut [f64], param: f64) -> f64 {
    stdvar(values, param).sqrt()
}

/// Welford's algorithm.
pub(crate) fn stdvar(values: &mut [f64], _: f64) -> f64 {
    let (mut mean, mut squares, mut count) = (0.0, 0.0, 0.0);
    for value in values.iter().copied() {
        count += 1.0;
        if count == 1.0 {
            mean = value;
            continue;
        }
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
    }
    squares / count
}

pub(crate) fn quantile(values: &mut [f64], param: f64) -> f64 {
    number::quantile(param, values)
}

/// The series of one group, by their places in the vector.
struct Members {
    labels: Labels,
    rows: Vec<usize>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn aggregate(&self, aggregate: &Aggregate, steps: Steps) -> Result<Matrix<'a>> {
        let params = match &aggregate.param {
            Some(param) => self.scalar(param, steps)?,
            None => vec![],
        };
        let of = self.vector(&aggregate.of, steps)?;
        if let Aggregation::CountValues(label) = &aggregate.by {
            return self.count_values(aggregate, label, &of, steps);
        }
        let groups = groups(aggregate, &of);
        let mut result = self.matrix();
        match aggregate.by {
            Aggregation::Each(function) => {
                let mut values = Vec::new();
                for group in groups {
                    self.check()?;
                    let points = (0..steps.count).map(|step| {
                        values.clear();
                        values.extend(group.rows.iter().filter_map(|row| of.rows.get(*row)?.at(step)));
                        let param = params.get(step).copied().unwrap_or(0.0);
                        (!values.is_empty()).then(|| function(&mut values, param))
                    });
                    result.push(group.labels, points.collect())?;
                }
            }
            Aggregation::Top { least } => self.top(&mut result, groups, of, &params, least, steps)?,
            Aggregation::CountValues(_) => {}
        }
        Ok(result)
    }

    /// At one instant in the order of rank, else in the order of series.
    fn top(
        &self,
        result: &mut Matrix<'a>,
        groups: Vec<Members>,
        of: Matrix<'a>,
        params: &[f64],
        least: bool,
        steps: Steps,
    ) -> Result<()> {
        let places = params.iter().map(|param| places(*param)).collect::<Result<Vec<_>>>()?;
        let mut kept: Vec<Vec<Option<f64>>> = of.rows.iter().map(|_| vec![]).collect();
        let mut order = vec![];
        for group in groups {
            for step in 0..steps.count {
                self.check()?;
                let k = places.get(step).copied().unwrap_or(0);
                let members = group.rows.iter().filter_map(|row| Some((of.rows.get(*row)?.at(step)?, *row)));
                for (value, row) in best(members, k, least) {
                    if let Some(points) = kept.get_mut(row) {
                        if points.is_empty() {
                            points.resize(steps.count, None);
                            order.push(row);
                        }
                        if let Some(point) = points.get_mut(step) {
                            *point = Some(value);
                        }
                    }
                }
            }
        }
        if steps.count > 1 {
            order.sort_unstable();
        }
        for row in order {
            if let (Some(of), Some(points)) = (of.rows.get(row), kept.get_mut(row)) {
                result.push(of.labels.clone(), std::mem::take(points))?;
            }
        }
        Ok(())
    }

    fn count_values(
        &self,
        aggregate: &Aggregate,
        label: &str,
        of: &Matrix<'a>,
        steps: Steps,
    ) -> Result<Matrix<'a>> {
        let mut labels = aggregate.labels.clone();
        if !aggregate.without {
            labels.push(label.to_owned());
        }
        let mut result = self.matrix();
        let mut places: HashMap<Labels, usize> = HashMap::new();
        for row in &of.rows {
            self.check()?;
            for step in 0..steps.count {
                let Some(value) = row.at(step) else { continue };
                let key =
                    group_labels(&row.labels.with(label, &format_plain(value)), aggregate.without, &labels);
                let place = match places.get(&key) {
                    Some(place) => *place,
                    None => {
                        places.insert(key.clone(), result.rows.len());
                        result.push_all(key, vec![None; steps.count])?;
                        result.rows.len() - 1
                    }
                };
                if let Some(point) = result.rows.get_mut(place).and_then(|row| row.points.get_mut(step)) {
                    *point = Some(point.unwrap_or(0.0) + 1.0);
                }
            }
        }
        Ok(result)
    }
}

fn group_labels(labels: &Labels, without: bool, names: &[String]) -> Labels {
    if without { labels.without_name().without(names) } else { labels.only(names) }
}

fn groups(aggregate: &Aggregate, of: &Matrix<'_>) -> Vec<Members> {
    let mut groups: Vec<Members> = vec![];
    let mut places: HashMap<Labels, usize> = HashMap::new();
    for (row, Row { labels, .. }) in of.rows.iter().enumerate() {
        let key = group_labels(labels, aggregate.without, &aggregate.labels);
        let place = *places.entry(key.clone()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.rows.push(row),
            None => groups.push(Members { labels: key, rows: vec![row] }),
        }
    }
    groups
}

/// The parameter of `topk`, as a number of places.
fn places(param: f64) -> Result<usize> {
    if !(-9.223_372_036_854_776e18..=9.223_372_036_854_776e18).contains(&param) {
        return Err(execution(format!("Scalar value {param} overflows int64")));
    }
    Ok(if param < 1.0 { 0 } else { param as usize })
}

/// The `k` best members by value, the best first; NaN comes last. Which of equal ones stay is as in Prometheus, whose heap
/// is Go's `container/heap`: so that the same series are chosen.
fn best(members: impl Iterator<Item = (f64, usize)>, k: usize, least: bool) -> Vec<(f64, usize)> {
    let worse = |a: f64, b: f64| a.is_nan() || if least { a > b } else { a < b };
    let mut heap = Heap { items: Vec::new(), worse };
    if k == 0 {
        return vec![];
    }
    for (value, row) in members {
        if heap.items.len() < k {
            heap.push((value, row));
        } else if let Some(worst) = heap.items.first().map(|worst| worst.0)
            && (worst.is_nan() || worse(worst, value))
        {
            heap.pop();
            heap.push((value, row));
        }
    }
    let mut items = heap.items;
    items.sort_by(|a, b| {
        let by_value = if least { a.0.partial_cmp(&b.0) } else { b.0.partial_cmp(&a.0) };
        a.0.is_nan().cmp(&b.0.is_nan()).then(by_value.unwrap_or(Ordering::Equal))
    });
    items
}

/// A binary heap with the worst on top.
struct Heap<F> {
    items: Vec<(f64, usize)>,
    worse: F,
}

impl<F: Fn(f64, f64) -> bool> Heap<F> {
    fn is_worse(&self, a: usize, b: usize) -> bool {
        match (self.items.get(a), self.items.get(b)) {
            (Some(a), Some(b)) => (self.worse)(a.0, b.0),
            _ => false,
        }
    }

    fn push(&mut self, item: (f64, usize)) {
        self.items.push(item);
        let mut at = self.items.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.is_worse(at, parent) {
                break;
            }
            self.items.swap(at, parent);
            at = parent;
        }
    }

    /// Removes the worst.
    fn pop(&mut self) {
        let Some(last) = self.items.len().checked_sub(1) else { return };
        self.items.swap(0, last);
        self.items.pop();
        let mut at = 0;
        loop {
            let left = 2 * at + 1;
            if left >= last {
                return;
            }
            let right = left + 1;
            let child = if right < last && self.is_worse(right, left) { right } else { left };
            if !self.is_worse(child, at) {
                return;
            }
            self.items.swap(at, child);
            at = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_nan_last() {
        let values = [3.0, f64::NAN, 5.0, 1.0, 4.0];
        let members = || values.iter().copied().zip(0..);
        let rows = |found: Vec<(f64, usize)>| found.into_iter().map(|(_, row)| row).collect::<Vec<_>>();
        assert_eq!(rows(best(members(), 2, false)), [2, 4]);
        assert_eq!(rows(best(members(), 2, true)), [3, 0]);
        assert_eq!(rows(best(members(), 9, false)), [2, 4, 0, 3, 1]);
        assert!(best(members(), 0, true).is_empty());
    }

    #[test]
    fn a_number_of_places_must_be_one() {
        assert_eq!([places(2.9).unwrap(), places(0.5).unwrap(), places(-3.0).unwrap()], [2, 0, 0]);
        assert!(places(f64::NAN).is_err() && places(1e300).is_err());
    }

    #[test]
    fn values_of_a_group_are_aggregated_in_order() {
        let mut values = [1.0, 2.0, 4.0, f64::NAN];
        assert_eq!((min(&mut values, 0.0), max(&mut values, 0.0), count(&mut values, 0.0)), (1.0, 4.0, 4.0));
        let values = &mut [2.0, 4.0];
        assert_eq!((avg(values, 0.0), stdvar(values, 0.0), stddev(values, 0.0)), (3.0, 1.0, 1.0));
        assert_eq!(avg(&mut [f64::INFINITY, 1.0], 0.0), f64::INFINITY);
    }
}
