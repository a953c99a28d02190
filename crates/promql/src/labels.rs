//! The labels of a series.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// The label that holds the name of the metric.
pub const METRIC_NAME: &str = "__name__";

type Pair = (Arc<str>, Arc<str>);

/// Labels in the order of their names, no name twice, no empty value: an empty label is one that is not there. Ordered as
/// Prometheus orders series. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(Arc<[Pair]>);

impl Labels {
    /// From names and values; of a name that comes twice the last value counts.
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let pairs: BTreeMap<Arc<str>, Arc<str>> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self(pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    /// The value of a label; empty where it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| &**known == name).map_or("", |(_, value)| value)
    }

    /// Names and values, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Only the labels with these names.
    #[must_use]
    pub fn only(&self, names: &[String]) -> Self {
        self.filtered(|name| names.iter().any(|kept| kept == name))
    }

    /// All but the labels with these names.
    #[must_use]
    pub fn without(&self, names: &[String]) -> Self {
        self.filtered(|name| names.iter().all(|removed| removed != name))
    }

    /// Without the name of the metric.
    #[must_use]
    pub fn without_name(&self) -> Self {
        if self.get(METRIC_NAME).is_empty() {
            self.clone()
        } else {
            self.filtered(|name| name != METRIC_NAME)
        }
    }

    /// With a label set; an empty value removes it.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let others = self.0.iter().filter(|(known, _)| &**known != name).cloned();
        Self::new(others.chain([(Arc::from(name), Arc::from(value))]))
    }

    fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }
}

/// As Prometheus writes a series: `{__name__="temp", device="room-1"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

/// Whether `text` can be the name of a label: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_label_name(text: &str) -> bool {
    let is_start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    text.bytes().next().is_some_and(is_start)
        && text.bytes().all(|byte| is_start(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_label_is_not_there_and_the_last_of_two_counts() {
        let labels = Labels::new([("b", "1"), ("a", "2"), ("b", "3"), ("c", "")]);
        assert_eq!(labels.to_string(), r#"{a="2", b="3"}"#);
        assert_eq!(labels.with("b", "").to_string(), r#"{a="2"}"#);
        assert_eq!(labels.get("c"), "");
    }

    #[test]
    fn series_are_ordered_by_name_then_value_then_length() {
        let order = [
            Labels::new([("a", "1")]),
            Labels::new([("a", "1"), ("b", "1")]),
            Labels::new([("a", "2")]),
            Labels::new([("b", "0")]),
        ];
        assert!(order.is_sorted());
    }
}
