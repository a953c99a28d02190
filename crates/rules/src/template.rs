//! Payloads of commands: a JSON document whose strings may hold `${expression}`.
//!
//! A string that is one `${…}` and nothing else takes the value with its type (`null` where it is unknown); in a longer
//! string the value is written as text. `$${` is a plain `${`. Names of an object are never templates.

use serde_json::{Map, Value};

use crate::{
    check::{self, Scope, Tables},
    eval::View,
    expr::Any,
    problem::{Place, Problem},
};

/// A payload, checked.
#[derive(Debug, Clone)]
pub(crate) enum Template {
    Plain(Value),
    Value(Box<Any>),
    Text(Vec<Piece>),
    List(Vec<Template>),
    Object(Vec<(String, Template)>),
}

#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Plain(String),
    Value(Any),
}

impl Template {
    /// Checks `text`, the value of `field`.
    pub(crate) fn check(
        field: &str,
        text: &str,
        scope: Scope<'_>,
        tables: &mut Tables,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        match serde_json::from_str(text) {
            Ok(document) => build(field, document, Scope { alarm: true, ..scope }, tables, problems),
            Err(error) => {
                let place = Place {
                    line: error.line().max(1),
                    column: error.column().max(1),
                    length: 1,
                    text: text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default().to_owned(),
                };
                let problem = Problem::of(field, format!("this is not JSON: {error}")).at(place);
                problems.push(problem.hint("such as {\"speed\": \"${co2 / 10}\"}"));
                None
            }
        }
    }

    /// Fills it in.
    pub(crate) fn render(&self, view: &View<'_>) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Value(value) => value.eval(view),
            Self::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Plain(plain) => text.push_str(plain),
                        Piece::Value(value) => match value.eval(view) {
                            Value::String(value) => text.push_str(&value),
                            other => text.push_str(&other.to_string()),
                        },
                    }
                }
                Value::String(text)
            }
            Self::List(items) => items.iter().map(|item| item.render(view)).collect(),
            Self::Object(entries) => {
                Value::Object(entries.iter().map(|(key, item)| (key.clone(), item.render(view))).collect())
            }
        }
    }
}

/// `serde_json` refuses documents deeper than 128, so this recursion is bounded.
fn build(
    field: &str,
    document: Value,
    scope: Scope<'_>,
    tables: &mut Tables,
    problems: &mut Vec<Problem>,
) -> Option<Template> {
    match document {
        Value::String(text) => string(field, &text, scope, tables, problems),
        Value::Array(items) => {
            let items: Vec<Option<Template>> = items
                .into_iter()
                .enumerate()
                .map(|(index, item)| build(&format!("{field}[{index}]"), item, scope, tables, problems))
                .collect();
            items.into_iter().collect::<Option<_>>().map(Template::List)
        }
        Value::Object(entries) => object(field, entries, scope, tables, problems),
        plain => Some(Template::Plain(plain)),
    }
}

fn object(
    field: &str,
    entries: Map<String, Value>,
    scope: Scope<'_>,
    tables: &mut Tables,
    problems: &mut Vec<Problem>,
) -> Option<Template> {
    let entries: Vec<Option<(String, Template)>> = entries
        .into_iter()
        .map(|(key, item)| {
            let item = build(&format!("{field}.{key}"), item, scope, tables, problems);
            item.map(|item| (key, item))
        })
        .collect();
    entries.into_iter().collect::<Option<_>>().map(Template::Object)
}

fn string(
    field: &str,
    text: &str,
    scope: Scope<'_>,
    tables: &mut Tables,
    problems: &mut Vec<Problem>,
) -> Option<Template> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (head, tail) = (rest.get(..at)?, rest.get(at + 2..)?);
        if let Some(head) = head.strip_suffix('$') {
            plain.push_str(head);
            plain.push_str("${");
            rest = tail;
            continue;
        }
        plain.push_str(head);
        let Some(end) = end_of_expression(tail) else {
            problems.push(
                Problem::of(field, "a ${ without its }").hint("write $${ for the characters themselves"),
            );
            return None;
        };
        if !plain.is_empty() {
            pieces.push(Piece::Plain(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Value(check::any(field, tail.get(..end)?, scope, tables, problems)?));
        rest = tail.get(end + 1..)?;
    }
    plain.push_str(rest);
    if pieces.is_empty() {
        return Some(Template::Plain(Value::String(plain)));
    }
    if !plain.is_empty() {
        pieces.push(Piece::Plain(plain));
    }
    Some(match (pieces.pop(), pieces.is_empty()) {
        (Some(Piece::Value(only)), true) => Template::Value(Box::new(only)),
        (last, _) => Template::Text(pieces.into_iter().chain(last).collect()),
    })
}

/// The place of the `}` that ends an expression: not one inside quotes.
fn end_of_expression(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            _ => {}
        }
    }
    None
}
