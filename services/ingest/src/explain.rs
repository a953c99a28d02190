//! A refusal in one text, for the wires that have room for no more.

use std::fmt::Write as _;

use weir_core::Error;

/// As much of a refusal as is told: enough for any of ours, cut so that a hostile input cannot make us echo it.
pub(crate) const EXPLAINED_MAX: usize = 512;

/// What is wrong, where, and past which limit: `[3].values.temp: a value must not be an array; …`.
pub(crate) fn explain(error: &Error) -> String {
    let mut text = match error.field() {
        Some(field) if !field.is_empty() => format!("{}: {}", cut(field, EXPLAINED_MAX / 2), error.message()),
        _ => error.message().to_owned(),
    };
    if let Some(limit) = error.limit().filter(|limit| !text.contains(limit)) {
        let room = EXPLAINED_MAX.saturating_sub(limit.len() + " (limit )".len());
        text.truncate(cut(&text, room).len());
        let _ = write!(text, " (limit {limit})"); // a String takes it all
    }
    text.truncate(cut(&text, EXPLAINED_MAX).len());
    text
}

/// The longest beginning of `text` with at most `max` bytes.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_and_limit_are_named_within_the_bound() {
        let error = Error::invalid("[3].values.temp", "ARRAY_REFUSED", "a value must not be an array");
        assert_eq!(explain(&error), "[3].values.temp: a value must not be an array");
        assert!(explain(&error.clone().with_limit(7)).ends_with(" (limit 7)"));
        let long = Error::invalid("ä".repeat(5_000), "X", "x".repeat(5_000)).with_limit(7);
        let text = explain(&long);
        assert!(
            text.len() <= EXPLAINED_MAX && text.contains(": xx") && text.ends_with("(limit 7)"),
            "{text}"
        );
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("äö", 3), "ä");
        assert_eq!(cut("ab", 3), "ab");
    }
}
