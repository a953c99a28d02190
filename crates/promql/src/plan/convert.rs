//! From the parser's tree to a plan.

use std::time::{Duration, UNIX_EPOCH};

use promql_parser::{
    label::{METRIC_NAME, Matchers},
    parser::{
        self, AggregateExpr, AtModifier, BinaryExpr, Call, Expr as Parsed, LabelModifier, Offset,
        SubqueryExpr, VectorMatchCardinality, VectorSelector, token,
    },
};
use regex::Regex;
use weir_core::Result;

use super::{
    Aggregate, Binary, Each, Expr, Group, Kind, Matching, Op, Over, Plan, Range, RangeOf, Relabel, RelabelBy,
    Selector, Time, functions,
};
use crate::{
    errors::{invalid, unsupported},
    eval::{Aggregation, aggregate, over_time},
    labels::{Labels, is_label_name},
    matcher::{Matcher, Op as MatchOp},
    steps::SUBQUERY_STEP_MS,
    text,
};

/// How deep expressions may be nested: planning and evaluation recurse, and take half of a thread's 2 MiB for this where the
/// compiler does not optimize.
const DEPTH_MAX: usize = 100;
/// The longest range or offset, in milliseconds: a thousand years, so that sums of instants stay far from overflowing.
const DURATION_MS_MAX: u128 = 31_536_000_000_000;

/// The one function of Prometheus 2 that the parser does not know: Prometheus 3 has another name for it.
const RENAMED: &str = "holt_winters";

/// Reads a query that is asked from `start` to `end`, in milliseconds, and tells how many selectors it has.
///
/// # Errors
/// `QUERY_INVALID`, `QUERY_NOT_SUPPORTED`, `QUERY_TOO_LARGE`.
pub(crate) fn plan(query: &str, start: i64, end: i64) -> Result<(Plan, usize)> {
    let parsed = parse(query)?;
    let mut planner = Planner { start, end, selectors: 0, depth: 0 };
    let plan = match inner(&parsed) {
        Parsed::MatrixSelector(_) | Parsed::Subquery(_) => Plan::Range(planner.range(&parsed)?),
        _ => Plan::Expr(planner.expr(&parsed)?),
    };
    Ok((plan, planner.selectors))
}

/// The matchers of a series selector such as `temp{device="room-1"}`.
///
/// # Errors
/// `QUERY_INVALID` for what is none; `QUERY_NOT_SUPPORTED`, `QUERY_TOO_LARGE`.
pub(crate) fn matchers_of(selector: &str) -> Result<Vec<Matcher>> {
    match parse(selector)? {
        Parsed::VectorSelector(VectorSelector { name, matchers, offset: None, at: None }) => {
            matchers_from(name.as_deref(), &matchers)
        }
        _ => Err(invalid(format!("{selector:?} is not a series selector"))),
    }
}

fn parse(query: &str) -> Result<Parsed> {
    text::check(query)?;
    // The parser panics on durations that do not fit; a query may not end more than itself.
    let parsed = std::panic::catch_unwind(|| parser::parse(query));
    let parsed = parsed.unwrap_or_else(|_| Err("a number is out of range".to_owned()));
    parsed.map_err(|message| match message.contains(RENAMED) {
        true => unsupported(format!("function {RENAMED}()")),
        false => invalid(format!("invalid parameter \"query\": {message}")),
    })
}

fn matchers_from(name: Option<&str>, matchers: &Matchers) -> Result<Vec<Matcher>> {
    if !matchers.or_matchers.is_empty() {
        return Err(unsupported("\"or\" between matchers"));
    }
    let name = name.map(|name| Matcher::equal(METRIC_NAME, name));
    Ok(name.into_iter().chain(matchers.matchers.iter().map(Matcher::from_parsed)).collect())
}

/// What parentheses hold.
fn inner(mut parsed: &Parsed) -> &Parsed {
    while let Parsed::Paren(paren) = parsed {
        parsed = &paren.expr;
    }
    parsed
}

struct Planner {
    /// What `@ start()` and `@ end()` mean: of a range the end that was asked for, also where no step falls on it.
    start: i64,
    end: i64,
    selectors: usize,
    depth: usize,
}

impl Planner {
    fn expr(&mut self, parsed: &Parsed) -> Result<Expr> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(
                invalid(format!("expressions are nested deeper than {DEPTH_MAX}")).with_limit(DEPTH_MAX)
            );
        }
        let expr = match inner(parsed) {
            Parsed::NumberLiteral(number) => Expr::Number(number.val),
            Parsed::StringLiteral(text) => Expr::Text(text.val.clone()),
            Parsed::VectorSelector(selector) => Expr::Instant(Selector {
                index: self.next_selector(),
                matchers: matchers_from(selector.name.as_deref(), &selector.matchers)?,
                time: self.time(selector.offset.as_ref(), selector.at.as_ref())?,
            }),
            Parsed::Unary(unary) => Expr::Negate(Box::new(self.expr(&unary.expr)?)),
            Parsed::Binary(binary) => self.binary(binary)?,
            Parsed::Aggregate(aggregate) => self.aggregate(aggregate)?,
            Parsed::Call(call) => self.call(call)?,
            Parsed::MatrixSelector(_) | Parsed::Subquery(_) => {
                return Err(invalid("expected a scalar or an instant vector, got a range vector"));
            }
            Parsed::Paren(_) | Parsed::Extension(_) => return Err(unsupported("this expression")),
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn of_kind(&mut self, parsed: &Parsed, kind: Kind, place: &str) -> Result<Expr> {
        let expr = self.expr(parsed)?;
        if expr.kind() == kind {
            return Ok(expr);
        }
        let name = |kind| match kind {
            Kind::Scalar => "scalar",
            Kind::Vector => "instant vector",
            Kind::Text => "string",
        };
        Err(invalid(format!("expected type {} in {place}, got {}", name(kind), name(expr.kind()))))
    }

    fn next_selector(&mut self) -> usize {
        self.selectors += 1;
        self.selectors - 1
    }

    fn time(&self, offset: Option<&Offset>, at: Option<&AtModifier>) -> Result<Time> {
        let offset = match offset {
            None => 0,
            Some(Offset::Pos(duration)) => millis(*duration)?,
            Some(Offset::Neg(duration)) => -millis(*duration)?,
        };
        let at = match at {
            None => None,
            Some(AtModifier::Start) => Some(self.start),
            Some(AtModifier::End) => Some(self.end),
            Some(AtModifier::At(at)) => Some(match at.duration_since(UNIX_EPOCH) {
                Ok(after) => millis(after)?,
                Err(before) => -millis(before.duration())?,
            }),
        };
        Ok(Time { offset, at })
    }

    fn range(&mut self, parsed: &Parsed) -> Result<Range> {
        match inner(parsed) {
            Parsed::MatrixSelector(matrix) => {
                let matchers = matchers_from(matrix.vs.name.as_deref(), &matrix.vs.matchers)?;
                Ok(Range {
                    of: RangeOf::Series(self.next_selector(), matchers),
                    length: millis(matrix.range)?,
                    time: self.time(matrix.vs.offset.as_ref(), matrix.vs.at.as_ref())?,
                })
            }
            Parsed::Subquery(SubqueryExpr { expr, offset, at, range, step }) => {
                let step = step.map(millis).transpose()?.unwrap_or(SUBQUERY_STEP_MS);
                Ok(Range {
                    of: RangeOf::Subquery(self.of_kind(expr, Kind::Vector, "a subquery")?, step),
                    length: millis(*range)?,
                    time: self.time(offset.as_ref(), at.as_ref())?,
                })
            }
            _ => Err(invalid("expected a range vector, such as temp[5m]")),
        }
    }

    fn binary(&mut self, parsed: &BinaryExpr) -> Result<Expr> {
        let op = operator(parsed.op.id()).ok_or_else(|| unsupported(format!("operator {}", parsed.op)))?;
        let (lhs, rhs) = (self.expr(&parsed.lhs)?, self.expr(&parsed.rhs)?);
        if lhs.kind() == Kind::Text || rhs.kind() == Kind::Text {
            return Err(invalid("binary expression must contain only scalar and instant vector types"));
        }
        let scalars = lhs.kind() == Kind::Scalar && rhs.kind() == Kind::Scalar;
        let return_bool = parsed.return_bool();
        if scalars && op.is_comparison() && !return_bool {
            return Err(invalid("comparisons between scalars must use BOOL modifier"));
        }
        if op.is_set() && (lhs.kind() == Kind::Scalar || rhs.kind() == Kind::Scalar) {
            return Err(invalid(format!(
                "set operator {} not allowed in binary scalar expression",
                parsed.op
            )));
        }
        Ok(Expr::Binary(Box::new(Binary { op, lhs, rhs, return_bool, matching: matching(parsed)? })))
    }

    fn aggregate(&mut self, parsed: &AggregateExpr) -> Result<Expr> {
        let (without, labels) = match &parsed.modifier {
            None => (false, vec![]),
            Some(LabelModifier::Include(labels)) => (false, labels.labels.clone()),
            Some(LabelModifier::Exclude(labels)) => (true, labels.labels.clone()),
        };
        let of = self.of_kind(&parsed.expr, Kind::Vector, "aggregation expression")?;
        let (by, kind) = match parsed.op.id() {
            token::T_COUNT_VALUES => {
                let label =
                    parsed.param.as_deref().map(|param| literal(param, "count_values")).transpose()?;
                let label = label.unwrap_or_default();
                check_label("count_values", &label)?;
                return Ok(Expr::Aggregate(Box::new(Aggregate {
                    by: Aggregation::CountValues(label),
                    param: None,
                    of,
                    without,
                    labels,
                })));
            }
            token::T_SUM => (Aggregation::Each(aggregate::sum), None),
            token::T_AVG => (Aggregation::Each(aggregate::avg), None),
            token::T_MIN => (Aggregation::Each(aggregate::min), None),
            token::T_MAX => (Aggregation::Each(aggregate::max), None),
            token::T_COUNT => (Aggregation::Each(aggregate::count), None),
            token::T_GROUP => (Aggregation::Each(aggregate::group), None),
            token::T_STDDEV => (Aggregation::Each(aggregate::stddev), None),
            token::T_STDVAR => (Aggregation::Each(aggregate::stdvar), None),
            token::T_QUANTILE => (Aggregation::Each(aggregate::quantile), Some(Kind::Scalar)),
            token::T_TOPK => (Aggregation::Top { least: false }, Some(Kind::Scalar)),
            token::T_BOTTOMK => (Aggregation::Top { least: true }, Some(Kind::Scalar)),
            _ => return Err(unsupported(format!("aggregation {}", parsed.op))),
        };
        let param = match (kind, &parsed.param) {
            (Some(kind), Some(param)) => Some(self.of_kind(param, kind, "aggregation parameter")?),
            (Some(_), None) => return Err(invalid(format!("{} needs a parameter", parsed.op))),
            (None, Some(_)) => return Err(invalid(format!("{} takes no parameter", parsed.op))),
            (None, None) => None,
        };
        Ok(Expr::Aggregate(Box::new(Aggregate { by, param, of, without, labels })))
    }

    fn call(&mut self, call: &Call) -> Result<Expr> {
        let (name, args) = (call.func.name, call.args.args.as_slice());
        if let Some(expr) = self.call_on_vector(name, args)? {
            return Ok(expr);
        }
        if let Some(expr) = self.call_on_range(name, args)? {
            return Ok(expr);
        }
        match (name, args) {
            ("time", []) => Ok(Expr::Time),
            ("pi", []) => Ok(Expr::Number(std::f64::consts::PI)),
            ("scalar", [of]) => Ok(Expr::Scalar(Box::new(self.of_kind(of, Kind::Vector, "scalar()")?))),
            ("vector", [of]) => Ok(Expr::Vector(Box::new(self.of_kind(of, Kind::Scalar, "vector()")?))),
            ("absent", [of]) => {
                let vector = self.of_kind(of, Kind::Vector, "absent()")?;
                let labels = match &vector {
                    Expr::Instant(selector) => absent_labels(&selector.matchers),
                    _ => Labels::default(),
                };
                Ok(Expr::Absent(Box::new(vector), labels))
            }
            ("sort" | "sort_desc", [of]) => {
                let vector = self.of_kind(of, Kind::Vector, "sort()")?;
                Ok(Expr::Sort(Box::new(vector), name == "sort_desc"))
            }
            ("timestamp", [of]) => {
                let vector = self.of_kind(of, Kind::Vector, "timestamp()")?;
                if matches!(&vector, Expr::Instant(Selector { time: Time { at: Some(_), offset }, .. }) if *offset != 0)
                {
                    // Prometheus looks at the instant without the offset, in samples that it read for that with it.
                    return Err(unsupported("timestamp() of a selector with both @ and offset"));
                }
                Ok(Expr::Timestamp(Box::new(vector)))
            }
            ("label_replace", [of, to, replacement, from, regex]) => {
                let by =
                    replace(&literal(replacement, name)?, &literal(from, name)?, &literal(regex, name)?)?;
                self.relabel(of, &literal(to, name)?, by, name)
            }
            ("label_join", [of, to, separator, from @ ..]) => {
                let from = from.iter().map(|from| literal(from, name)).collect::<Result<Vec<_>>>()?;
                from.iter().try_for_each(|from| check_label(name, from))?;
                let by = RelabelBy::Join { separator: literal(separator, name)?, from };
                self.relabel(of, &literal(to, name)?, by, name)
            }
            _ => Err(unsupported(format!("function {name}()"))),
        }
    }

    fn call_on_vector(&mut self, name: &str, args: &[Box<Parsed>]) -> Result<Option<Expr>> {
        if let Some(function) = functions::date(name) {
            let of = match args {
                [] => Expr::Vector(Box::new(Expr::Time)),
                [of] => self.of_kind(of, Kind::Vector, name)?,
                _ => return Err(invalid(format!("{name}() takes one argument at most"))),
            };
            let each = Each { function, of, params: vec![], is_clamp: false, reads_time: true };
            return Ok(Some(Expr::Each(Box::new(each))));
        }
        let (Some(each), [of, params @ ..]) = (functions::each(name), args) else { return Ok(None) };
        if params.len() < each.params.0 || params.len() > each.params.1 {
            return Err(invalid(format!("{name}() takes another number of arguments")));
        }
        let of = self.of_kind(of, Kind::Vector, &format!("call to function {name:?}"))?;
        let params = params
            .iter()
            .map(|param| self.of_kind(param, Kind::Scalar, &format!("call to function {name:?}")))
            .collect::<Result<Vec<_>>>()?;
        let is_clamp = name == "clamp";
        Ok(Some(Expr::Each(Box::new(Each {
            function: each.function,
            of,
            params,
            is_clamp,
            reads_time: false,
        }))))
    }

    fn call_on_range(&mut self, name: &str, args: &[Box<Parsed>]) -> Result<Option<Expr>> {
        let place = format!("call to function {name:?}");
        let (function, range, param) = match (name, args) {
            ("quantile_over_time", [param, range]) => (over_time::quantile as _, range, Some(param)),
            ("predict_linear", [range, param]) => (over_time::predict_linear as _, range, Some(param)),
            ("absent_over_time", [range]) => {
                let range = self.range(range)?;
                let labels = match &range.of {
                    RangeOf::Series(_, matchers) => absent_labels(matchers),
                    RangeOf::Subquery(..) => Labels::default(),
                };
                return Ok(Some(Expr::AbsentOver(Box::new(range), labels)));
            }
            (_, [range]) => match functions::over(name) {
                Some(function) => (function, range, None),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        let param = param.map(|param| self.of_kind(param, Kind::Scalar, &place)).transpose()?;
        Ok(Some(Expr::Over(Box::new(Over {
            function,
            keeps_name: name == "last_over_time",
            reads_time: name == "predict_linear",
            range: self.range(range)?,
            param,
        }))))
    }

    fn relabel(&mut self, of: &Parsed, to: &str, by: RelabelBy, name: &str) -> Result<Expr> {
        check_label(name, to)?;
        let of = self.of_kind(of, Kind::Vector, &format!("call to function {name:?}"))?;
        Ok(Expr::Relabel(Box::new(Relabel { of, to: to.to_owned(), by })))
    }
}

fn replace(replacement: &str, from: &str, regex: &str) -> Result<RelabelBy> {
    text::check_regex(regex)?;
    let regex = Regex::new(&text::anchored(regex))
        .map_err(|_| invalid(format!("invalid regular expression in label_replace(): {regex}")))?;
    Ok(RelabelBy::Replace { from: from.to_owned(), regex, replacement: replacement.to_owned() })
}

fn check_label(function: &str, name: &str) -> Result<()> {
    match is_label_name(name) {
        true => Ok(()),
        false => Err(invalid(format!("invalid label name {name:?} in {function}()"))),
    }
}

fn literal(parsed: &Parsed, function: &str) -> Result<String> {
    match inner(parsed) {
        Parsed::StringLiteral(text) => Ok(text.val.clone()),
        _ => Err(invalid(format!("expected type string in call to function {function:?}"))),
    }
}

fn millis(duration: Duration) -> Result<i64> {
    match duration.as_millis() {
        millis @ ..=DURATION_MS_MAX => Ok(i64::try_from(millis).unwrap_or(i64::MAX)),
        _ => Err(invalid(format!("a time of {} s is out of range", duration.as_secs()))),
    }
}

fn operator(id: parser::token::TokenId) -> Option<Op> {
    Some(match id {
        token::T_ADD => Op::Add,
        token::T_SUB => Op::Sub,
        token::T_MUL => Op::Mul,
        token::T_DIV => Op::Div,
        token::T_MOD => Op::Mod,
        token::T_POW => Op::Pow,
        token::T_ATAN2 => Op::Atan2,
        token::T_EQLC => Op::Eq,
        token::T_NEQ => Op::Ne,
        token::T_GTR => Op::Gt,
        token::T_LSS => Op::Lt,
        token::T_GTE => Op::Ge,
        token::T_LTE => Op::Le,
        token::T_LAND => Op::And,
        token::T_LOR => Op::Or,
        token::T_LUNLESS => Op::Unless,
        _ => return None,
    })
}

fn matching(parsed: &BinaryExpr) -> Result<Matching> {
    let Some(modifier) = &parsed.modifier else { return Ok(Matching::default()) };
    if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
        return Err(unsupported("modifier fill"));
    }
    let (on, labels) = match &modifier.matching {
        None => (false, vec![]),
        Some(LabelModifier::Include(labels)) => (true, labels.labels.clone()),
        Some(LabelModifier::Exclude(labels)) => (false, labels.labels.clone()),
    };
    let group = match &modifier.card {
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => Group::None,
        VectorMatchCardinality::ManyToOne(labels) => Group::Left(labels.labels.clone()),
        VectorMatchCardinality::OneToMany(labels) => Group::Right(labels.labels.clone()),
    };
    Ok(Matching { on, labels, group })
}

/// The labels that a selector asks for exactly, as Prometheus gives them to what is absent: of a label that is asked for
/// twice nothing is known.
fn absent_labels(matchers: &[Matcher]) -> Labels {
    let mut seen: Vec<&str> = vec![];
    let mut labels = Labels::default();
    for Matcher { name, op, value } in matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
        if matches!(op, MatchOp::Equal) && !seen.contains(&name.as_str()) {
            labels = labels.with(name, value);
            seen.push(name);
        } else {
            labels = labels.with(name, "");
        }
    }
    labels
}
