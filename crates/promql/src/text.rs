//! What the text of a query may cost, checked before it is parsed: the parser builds its tree and compiles regular
//! expressions as it reads, so that afterwards it would be too late.

use promql_parser::util::unquote_string;
use regex::RegexBuilder;
use weir_core::Result;

use crate::errors::{invalid, too_much};

/// The longest query, in bytes: a panel that names a thousand devices in one regular expression fits.
pub const QUERY_BYTES_MAX: usize = 64 << 10;
/// Words, numbers, texts and signs of a query: the tree is no deeper, and dropping it recurses so often.
const TOKENS_MAX: usize = 2_000;
/// Regular expressions of a query.
const REGEXES_MAX: usize = 32;
/// Bytes of one compiled regular expression: an alternative of a thousand names takes less than half of it.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Checks the size of a query.
///
/// # Errors
/// `QUERY_TOO_LARGE` that names what there is too much of.
pub(crate) fn check(query: &str) -> Result<()> {
    if query.len() > QUERY_BYTES_MAX {
        let message = format!("the query has {} bytes, the limit is {QUERY_BYTES_MAX}", query.len());
        return Err(too_much(message, QUERY_BYTES_MAX));
    }
    let (mut tokens, mut regexes, mut before) = (0_usize, 0_usize, "");
    let mut durations = Durations::default();
    for token in Tokens(query) {
        tokens += 1;
        durations.check(token)?;
        if tokens > TOKENS_MAX {
            let message = format!("the query has more than {TOKENS_MAX} words and signs");
            return Err(too_much(message, TOKENS_MAX));
        }
        if matches!(before, "=~" | "!~") {
            regexes += 1;
            if regexes > REGEXES_MAX {
                let message = format!("the query has more than {REGEXES_MAX} regular expressions");
                return Err(too_much(message, REGEXES_MAX));
            }
            check_regex(&unquote_string(token).map_err(|_| invalid(format!("cannot read {token}")))?)?;
        }
        before = token;
    }
    Ok(())
}

/// Checks the size of a regular expression; one that cannot be read is the parser's to refuse.
///
/// # Errors
/// `QUERY_TOO_LARGE`.
pub(crate) fn check_regex(text: &str) -> Result<()> {
    match RegexBuilder::new(&anchored(text)).size_limit(REGEX_BYTES_MAX).build() {
        Err(regex::Error::CompiledTooBig(_)) => {
            let message =
                format!("a regular expression takes more than {REGEX_BYTES_MAX} bytes once compiled");
            Err(too_much(message, REGEX_BYTES_MAX))
        }
        _ => Ok(()),
    }
}

/// A regular expression that must match a whole value.
pub(crate) fn anchored(text: &str) -> String {
    format!("^(?:{text})$")
}

/// Where durations stand: in brackets, and after `offset`. The parser panics where a number there does not fit into a
/// duration; Prometheus 2 takes no plain numbers there.
#[derive(Default)]
struct Durations {
    in_brackets: bool,
    after_offset: bool,
    after_operand: bool,
}

impl Durations {
    fn check(&mut self, token: &str) -> Result<()> {
        let is_number = token.starts_with(|c: char| c.is_ascii_digit() || c == ':')
            || ["inf", "nan"].iter().any(|word| token.eq_ignore_ascii_case(word));
        let is_duration = token.bytes().all(|byte| byte.is_ascii_digit() || b"ywdhms:".contains(&byte))
            && token.parse::<f64>().is_err();
        if (self.in_brackets || self.after_offset) && is_number && !is_duration {
            return Err(invalid(format!("invalid parameter \"query\": {token} is no duration, such as 5m")));
        }
        match token {
            "[" => self.in_brackets = true,
            "]" => self.in_brackets = false,
            _ => {}
        }
        let is_sign = matches!(token, "+" | "-");
        self.after_offset = (token == "offset" && self.after_operand) || (self.after_offset && is_sign);
        self.after_operand =
            token.ends_with(|c: char| is_word(c) || matches!(c, '}' | ']' | ')' | '"' | '\'' | '`'));
        Ok(())
    }
}

/// The words and signs of a text, roughly as the lexer sees them: a regular expression's text is one of them.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let text = self.0.trim_start();
            let Some(comment) = text.strip_prefix('#') else {
                self.0 = text;
                break;
            };
            self.0 = comment.split_once('\n').map_or("", |(_, rest)| rest);
        }
        let first = self.0.chars().next()?;
        let len = match first {
            '"' | '\'' | '`' => quoted(self.0, first),
            _ if is_word(first) => self.0.find(|c| !is_word(c)).unwrap_or(self.0.len()),
            _ if self.0.starts_with("=~") || self.0.starts_with("!~") => 2,
            _ => first.len_utf8(),
        };
        let (token, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(token)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | ':' | '.')
}

/// The length of the quoted text at the beginning of `text`; all of it where it does not end.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote != '`' {
            escaped = true;
        } else if c == quote {
            return at + c.len_utf8();
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_comments_and_signs_are_told_apart() {
        let found: Vec<_> = Tokens("a{b=~\"c\\\"=~d\", e!~`f\\`} # =~\n+ 1.5e3").collect();
        assert_eq!(found, ["a", "{", "b", "=~", "\"c\\\"=~d\"", ",", "e", "!~", "`f\\`", "}", "+", "1.5e3"]);
    }

    #[test]
    fn a_number_where_a_duration_stands_is_refused() {
        for bad in [
            "a[5]",
            "a[1e400]",
            "a[5m:0.1]",
            "a[5m : 7]",
            "a[5m :9e99]",
            "a offset 1e400",
            "a{} offset - 5",
            "a[inf]",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in
            ["a[5m]", "a[1h30m:15s] offset -5m", "a[5m:]", "offset - 0.5", "a * 1e300", "a @ 5 offset 1w"]
        {
            assert!(check(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_costs_too_much_is_refused_by_name() {
        let nested = format!("{}1{}", "(".repeat(1_500), ")".repeat(1_500));
        let many = format!("a{{{}}}", vec!["b=~'c'"; 40].join(","));
        for (query, limit) in [
            ("a".repeat(QUERY_BYTES_MAX + 1), "65536"),
            (nested, "2000"),
            (many, "32"),
            (r#"a{b=~"(\\w{100}){100}"}"#.to_owned(), "1048576"),
        ] {
            assert_eq!(check(&query).unwrap_err().limit(), Some(limit));
        }
        assert!(check(r#"a{b=~"x.*|y"} + c"#).is_ok());
    }
}
