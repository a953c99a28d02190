//! Label selectors in the syntax of Kubernetes: `type=room,floor in (1,2),!retired`.
//!
//! Grammar: requirements joined by commas, each `k`, `!k`, `k=v`, `k==v`, `k!=v`, `k in (a,b)` or `k notin (a,b)`; as in
//! Kubernetes, `!=` and `notin` also match where the key is absent. Source: Kubernetes, "Labels and Selectors".

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Labels of a device.
pub type Labels = BTreeMap<String, String>;

/// Longest selector, in bytes: a URL's practical length.
pub const MAX_LEN: usize = 2_048;

/// A parsed selector; the empty one matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Selector {
    /// Whether `labels` meet every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
        })
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() > MAX_LEN {
            return Err(invalid(text, &format!("it is longer than {MAX_LEN} bytes")).with_limit(MAX_LEN));
        }
        split_top_level(text)
            .into_iter()
            .map(str::trim)
            .filter(|part| !part.is_empty() || !text.trim().is_empty())
            .map(|part| requirement(part).ok_or_else(|| invalid(text, &format!("cannot read {part:?}"))))
            .collect::<Result<_>>()
            .map(Self)
    }
}

/// Splits at commas outside parentheses.
fn split_top_level(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(move |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn requirement(part: &str) -> Option<Requirement> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Requirement::Absent(label_key(key)?));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Requirement::NotIn(label_key(key)?, vec![label_value(value)?]));
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Some(Requirement::In(label_key(key)?, vec![label_value(value)?]));
    }
    if let Some(list) = part.strip_suffix(')') {
        let (head, list) = list.split_once('(')?;
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        let values = list.split(',').map(label_value).collect::<Option<Vec<_>>>()?;
        return match operator {
            "in" => Some(Requirement::In(label_key(key)?, values)),
            "notin" => Some(Requirement::NotIn(label_key(key)?, values)),
            _ => None,
        };
    }
    Some(Requirement::Exists(label_key(part)?))
}

fn label_key(text: &str) -> Option<String> {
    let text = text.trim();
    is_label_key(text).then(|| text.to_owned())
}

fn label_value(text: &str) -> Option<String> {
    let text = text.trim();
    is_label_value(text).then(|| text.to_owned())
}

/// Whether `text` can be a label's key: 1 to 63 of `[A-Za-z0-9_./-]`.
pub fn is_label_key(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-'))
}

/// Whether `text` can be a label's value: up to 63 of `[A-Za-z0-9_.-]`, possibly empty.
pub fn is_label_value(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn invalid(text: &str, what: &str) -> Error {
    let shown: String = text.chars().take(100).collect();
    Error::invalid(
        "label_selector",
        "SELECTOR_INVALID",
        format!("label selector {shown:?}: {what}; expected such as type=room,floor in (1,2),!retired"),
    )
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::Exists(key) => write!(f, "{key}")?,
                Requirement::Absent(key) => write!(f, "!{key}")?,
                Requirement::In(key, values) => match values.as_slice() {
                    [value] => write!(f, "{key}={value}")?,
                    values => write!(f, "{key} in ({})", values.join(","))?,
                },
                Requirement::NotIn(key, values) => match values.as_slice() {
                    [value] => write!(f, "{key}!={value}")?,
                    values => write!(f, "{key} notin ({})", values.join(","))?,
                },
            }
        }
        Ok(())
    }
}
impl TryFrom<String> for Selector {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Selector> for String {
    fn from(selector: Selector) -> String {
        selector.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_operator_selects_as_in_kubernetes() {
        let room = labels(&[("type", "room"), ("floor", "2")]);
        for (selector, expected) in [
            ("", true),
            ("type=room,floor in (1,2)", true),
            ("type==room, floor notin (1)", true),
            ("type!=room", false),
            ("missing!=x", true),
            ("type", true),
            ("!type", false),
            ("floor in (3)", false),
        ] {
            assert_eq!(selector.parse::<Selector>().unwrap().matches(&room), expected, "{selector}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for bad in ["a,,b", "a in 1,2", "a ~ b", "=x", "a in (1", "a b"] {
            let error = bad.parse::<Selector>().unwrap_err();
            assert_eq!(error.field(), Some("label_selector"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_selector_or_an_error_and_prints_back(text in "[a-z=!(), in]{0,40}") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
            }
        }
    }
}
