//! The answer to a query, and its JSON.
//!
//! Source: Prometheus, "HTTP API", "Expression query result formats".

use std::fmt::Write as _;

use crate::{
    labels::Labels,
    number::{format_time, format_value},
    source::{Sample, Series},
};

/// The answer to a query.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// One number.
    Scalar(Sample),
    /// One sample of each series, in the order that the query asks for.
    Vector(Vec<Series>),
    /// Samples of each series, in the order of labels.
    Matrix(Vec<Series>),
    /// An instant in milliseconds, and a text.
    Text(i64, String),
}

impl Outcome {
    /// `{"resultType":…,"result":…}` in pieces: one for each series, so that nobody holds the whole text.
    pub fn into_json(self) -> Box<dyn Iterator<Item = String> + Send> {
        let (kind, series) = match self {
            Self::Scalar(sample) => return whole("scalar", &point(sample)),
            Self::Text(at, text) => {
                return whole("string", &format!("[{},{}]", format_time(at), quoted(&text)));
            }
            Self::Vector(series) => ("vector", series),
            Self::Matrix(series) => ("matrix", series),
        };
        let begin = format!("{{\"resultType\":\"{kind}\",\"result\":[");
        let pieces = series.into_iter().enumerate().map(move |(index, series)| {
            let comma = if index > 0 { "," } else { "" };
            let metric = labels_json(&series.labels);
            match series.samples.as_slice() {
                [sample] if kind == "vector" => {
                    format!("{comma}{{\"metric\":{metric},\"value\":{}}}", point(*sample))
                }
                samples => {
                    let mut piece = format!("{comma}{{\"metric\":{metric},\"values\":[");
                    for (index, sample) in samples.iter().enumerate() {
                        let comma = if index > 0 { "," } else { "" };
                        let _never = write!(piece, "{comma}{}", point(*sample)); // a String takes everything
                    }
                    piece.push_str("]}");
                    piece
                }
            }
        });
        Box::new(std::iter::once(begin).chain(pieces).chain(std::iter::once("]}".to_owned())))
    }
}

fn whole(kind: &str, result: &str) -> Box<dyn Iterator<Item = String> + Send> {
    Box::new(std::iter::once(format!("{{\"resultType\":\"{kind}\",\"result\":{result}}}")))
}

fn point(sample: Sample) -> String {
    format!("[{},\"{}\"]", format_time(sample.t), format_value(sample.v))
}

/// Labels as a JSON object.
pub fn labels_json(labels: &Labels) -> String {
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(outcome: Outcome) -> String {
        outcome.into_json().collect()
    }

    #[test]
    fn every_kind_of_answer_has_its_json() {
        let labels = Labels::new([("__name__", "temp"), ("at", "a\"b")]);
        let series = |samples| vec![Series { labels: labels.clone(), samples }];
        let (first, second) = (Sample { t: 1_000, v: 1.5 }, Sample { t: 1_500, v: f64::NAN });
        assert_eq!(
            json(Outcome::Vector(series(vec![first]))),
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"temp","at":"a\"b"},"value":[1,"1.5"]}]}"#
        );
        assert_eq!(
            json(Outcome::Matrix(series(vec![first, second]))),
            r#"{"resultType":"matrix","result":[{"metric":{"__name__":"temp","at":"a\"b"},"values":[[1,"1.5"],[1.500,"NaN"]]}]}"#
        );
        assert_eq!(json(Outcome::Scalar(first)), r#"{"resultType":"scalar","result":[1,"1.5"]}"#);
        assert_eq!(json(Outcome::Text(7, "a".into())), r#"{"resultType":"string","result":[0.007,"a"]}"#);
        assert_eq!(json(Outcome::Vector(vec![])), r#"{"resultType":"vector","result":[]}"#);
    }
}
