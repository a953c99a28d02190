//! Text to CEL's tree, by the `cel` crate's parser, with our own bounds and words.
//!
//! That parser (ANTLR) uses more than 100 KB of stack for each level of brackets in a debug build, and a stack overflow
//! ends the process. So brackets are counted first, and it runs on a thread of its own with enough stack for them.

use cel::{
    IdedExpr, ParseError,
    common::ast::{CallExpr, Expr, SourceInfo, operators},
    parser::Parser,
};

use crate::problem::{Place, Problem};

/// Longest expression, in bytes: several screens of text.
pub(crate) const SOURCE_MAX: usize = 4_096;
/// Most opening brackets: what [`STACK`] is enough for.
const BRACKETS_MAX: usize = 128;
/// Most `?:`, for the same reason.
const CONDITIONALS_MAX: usize = 64;
/// The parser's own limit, for the same reason.
const NESTING_MAX: u16 = 96;
/// Most nodes of a tree, so that its depth, and what one evaluation costs, is bounded.
const NODES_MAX: u64 = 512;
/// Twice what [`BRACKETS_MAX`] levels need in a debug build; only what is used is ever resident.
const STACK: usize = 32 << 20;

/// An expression with its text and the places of its parts.
pub(crate) struct Source<'a> {
    pub(crate) field: &'a str,
    pub(crate) text: &'a str,
    info: SourceInfo,
}

/// Parses `text`, which is the value of `field`.
pub(crate) fn parse<'a>(field: &'a str, text: &'a str) -> Result<(IdedExpr, Source<'a>), Box<Problem>> {
    check_bounds(field, text)?;
    let owned = text.to_owned();
    let parsed = std::thread::Builder::new()
        .name("rule-parser".to_owned())
        .stack_size(STACK)
        .spawn(move || Parser::new().max_recursion_depth(NESTING_MAX).parse_with_source_info(&owned))
        .map_err(|error| Problem::of(field, format!("cannot start a parser: {error}")))?
        .join()
        .map_err(|_| Problem::of(field, "the parser failed on this expression"))?;
    let (expr, info) = parsed.map_err(|errors| syntax_problem(field, text, &errors.errors))?;
    if count_nodes(&info) > NODES_MAX {
        let problem = Problem::of(field, format!("an expression may have at most {NODES_MAX} parts"));
        return Err(problem.limit(NODES_MAX).hint("split it into several rules").into());
    }
    Ok((expr, Source { field, text, info }))
}

fn check_bounds(field: &str, text: &str) -> Result<(), Box<Problem>> {
    if text.trim().is_empty() {
        return Err(Problem::of(field, "an expression is missing").hint("such as temp > 30").into());
    }
    let too_many = |what: &str, found: usize, limit: usize| {
        Err(Problem::of(field, format!("{found} {what} are more than {limit}")).limit(limit).into())
    };
    let brackets = text.bytes().filter(|b| matches!(b, b'(' | b'[' | b'{')).count();
    let conditionals = text.bytes().filter(|b| *b == b'?').count();
    match () {
        () if text.len() > SOURCE_MAX => too_many("bytes", text.len(), SOURCE_MAX),
        () if brackets > BRACKETS_MAX => too_many("opening brackets", brackets, BRACKETS_MAX),
        () if conditionals > CONDITIONALS_MAX => {
            too_many("conditionals (?:)", conditionals, CONDITIONALS_MAX)
        }
        () => Ok(()),
    }
}

/// Ids are given out from 1 without gaps, so the highest is their number.
fn count_nodes(info: &SourceInfo) -> u64 {
    (1..=NODES_MAX + 1).take_while(|id| info.offset_for(*id).is_some()).count() as u64
}

/// The first of the parser's complaints in plain words.
fn syntax_problem(field: &str, text: &str, errors: &[ParseError]) -> Problem {
    let Some(error) = errors.iter().find(|error| error.msg.starts_with("Syntax error")).or(errors.first())
    else {
        return Problem::of(field, "this is not an expression");
    };
    if error.msg.contains("Recursion limit") {
        let text = format!("an expression may be nested at most {NESTING_MAX} levels deep");
        return Problem::of(field, text).limit(NESTING_MAX);
    }
    let line = usize::try_from(error.pos.0).unwrap_or(1).max(1);
    let column = usize::try_from(error.pos.1).unwrap_or(1).max(1);
    let line_text = text.lines().nth(line - 1).unwrap_or_default();
    let quoted = error
        .msg
        .split_once('\'')
        .and_then(|(_, rest)| {
            rest.split_once("' expecting").map(|(token, _)| token).or(rest.strip_suffix('\''))
        })
        .unwrap_or_default()
        .trim();
    let known = error.msg.starts_with("Syntax error: ") && !quoted.is_empty();
    let message = match quoted {
        "<EOF>" => "the expression ends too early".to_owned(),
        token if known => format!("{token:?} is not expected here"),
        _ => error.msg.trim_start_matches("Syntax error: ").to_lowercase(),
    };
    let length = if quoted == "<EOF>" { 1 } else { quoted.chars().count().max(1) };
    let problem = Problem::of(field, message).at(Place { line, column, length, text: line_text.to_owned() });
    match fix(quoted, &error.msg, before(line_text, column)) {
        Some(fix) => problem.hint(fix),
        None => problem,
    }
}

fn before(line: &str, column: usize) -> Option<char> {
    line.chars().nth(column.checked_sub(2)?)
}

/// What people from other languages mean.
fn fix(token: &str, message: &str, before: Option<char>) -> Option<&'static str> {
    match token {
        "=" => Some("write == to compare"),
        "and" | "AND" | "&" => Some("write && for \"and\""),
        "or" | "OR" | "|" => Some("write || for \"or\""),
        "not" | "NOT" => Some("write ! for \"not\""),
        "<>" => Some("write != for \"not equal\""),
        "if" => Some("write condition ? a : b"),
        "<EOF>" => Some("something is missing at the end, such as a value, a quote or a bracket"),
        _ if token.starts_with(['"', '\'']) => Some("a text must end with the quote that it begins with"),
        _ if matches!(token, "d" | "h" | "m" | "s" | "ms") && before.is_some_and(|c| c.is_ascii_digit()) => {
            Some("a duration is text: \"5m\"")
        }
        _ if message.contains("reserved identifier") => {
            Some("the name is a reserved word of CEL; write m(\"name\")")
        }
        _ if message.contains("has()") => Some(
            "has() takes a label or an attribute: has(device.labels.floor); for a metric use absent(temp, \"10m\")",
        ),
        _ => None,
    }
}

impl Source<'_> {
    /// A problem with the part from `start` to `end` (bytes).
    fn problem(&self, start: usize, end: usize, message: impl Into<String>) -> Problem {
        let head = self.text.get(..start).unwrap_or(self.text);
        let line_start = head.rfind('\n').map_or(0, |at| at + 1);
        let line_text = self.text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let meant = self.text.get(start..end).and_then(|meant| meant.lines().next()).unwrap_or_default();
        Problem::of(self.field, message).at(Place {
            line: head.matches('\n').count() + 1,
            column: head.get(line_start..).unwrap_or_default().chars().count() + 1,
            length: meant.chars().count().max(1),
            text: line_text.to_owned(),
        })
    }

    /// A problem with an expression: its first token is underlined.
    pub(crate) fn at(&self, expr: &IdedExpr, message: impl Into<String>) -> Problem {
        let (start, end) = self.span(expr);
        self.problem(start, end, message)
    }

    /// A problem with a call's function: its name is underlined.
    pub(crate) fn at_name(&self, expr: &IdedExpr, name: &str, message: impl Into<String>) -> Problem {
        let (start, end) = self.name_span(expr, name);
        self.problem(start, end, message)
    }

    /// A problem with an operator.
    pub(crate) fn at_operator(&self, expr: &IdedExpr, message: impl Into<String>) -> Problem {
        let (start, end) = self.token(expr);
        self.problem(start, end, message)
    }

    /// The token that the parser notes for an expression: an operator, an opening bracket, or the thing itself.
    fn token(&self, expr: &IdedExpr) -> (usize, usize) {
        let (start, stop) = self.info.offset_for(expr.id).unwrap_or((0, 0));
        (start as usize, stop as usize + 1)
    }

    /// A call is noted at its opening bracket; the name stands before it.
    fn name_span(&self, expr: &IdedExpr, name: &str) -> (usize, usize) {
        let (bracket, end) = self.token(expr);
        let head = self.text.get(..bracket).unwrap_or_default().trim_end();
        match head.strip_suffix(name) {
            Some(before) => (before.len(), head.len()),
            None => (bracket, end),
        }
    }

    /// Where an expression begins, and its first token ends.
    fn span(&self, expr: &IdedExpr) -> (usize, usize) {
        match &expr.expr {
            Expr::Call(CallExpr { target: Some(target), .. }) => self.span(target),
            Expr::Call(CallExpr { func_name, args, .. }) if is_infix(func_name) => {
                args.first().map_or_else(|| self.token(expr), |first| self.span(first))
            }
            Expr::Call(CallExpr { func_name, .. }) => self.name_span(expr, func_name),
            Expr::Select(select) if !select.test => {
                let (start, _) = self.span(&select.operand);
                let (dot, _) = self.token(expr);
                (start, dot + 1 + select.field.len())
            }
            _ => self.token(expr),
        }
    }
}

fn is_infix(name: &str) -> bool {
    name == operators::IN || name.starts_with('_') && !name.contains(char::is_alphanumeric)
}
