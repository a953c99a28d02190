//! CBOR (RFC 8949), read in one pass.
//!
//! Our own reader, because `ciborium` deserializes only what owns its state and would build a tree first. Definite and
//! indefinite lengths, half to double floats; tags say how a value is meant and are stepped over, but for big numbers.

use weir_core::{Error, Result};

use super::{
    context::{Context, Role},
    scalar::Raw,
};

/// An outer tag and one or two inner ones are seen; more are an attack on the stack or the clock.
const TAGS_MAX: usize = 8;

/// Reads a payload into `context`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(context: &mut Context<'_>) -> Result<()> {
    let mut reader = Reader { payload: context.payload, at: 0, scratch: Vec::new() };
    match reader.head(context)? {
        Head::Array(len) => {
            context.array()?;
            let mut items = Items::new(len);
            while reader.more(context, &mut items)? {
                match reader.head(context)? {
                    Head::Map(len) => reader.reading(context, len)?,
                    _ => return Err(form(context)),
                }
            }
            context.array_end()?;
        }
        Head::Map(len) => reader.reading(context, len)?,
        _ => return Err(form(context)),
    }
    match reader.payload.len() - reader.at {
        0 => Ok(()),
        more => Err(bad(context, format!("{more} bytes follow its end"))),
    }
}

fn form(context: &Context<'_>) -> Error {
    context.wrong("PAYLOAD_FORM", "a payload must be a map or an array of maps")
}

fn bad(context: &Context<'_>, text: impl std::fmt::Display) -> Error {
    context.wrong("PAYLOAD_INVALID", format!("the payload is not CBOR: {text}"))
}

/// A data item's head; `None` is an indefinite length.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Head {
    Positive(u64),
    Negative(u64),
    Bytes(Option<u64>),
    Text(Option<u64>),
    Array(Option<u64>),
    Map(Option<u64>),
    Bool(bool),
    Null,
    Float(f64),
    Break,
}

/// How many items are to come.
enum Items {
    Left(u64),
    UntilBreak,
}

impl Items {
    fn new(len: Option<u64>) -> Self {
        len.map_or(Self::UntilBreak, Self::Left)
    }
}

struct Reader<'p> {
    payload: &'p [u8],
    at: usize,
    /// The chunks of a string of indefinite length.
    scratch: Vec<u8>,
}

impl<'p> Reader<'p> {
    fn take(&mut self, context: &Context<'_>, len: u64) -> Result<&'p [u8]> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let taken = end.and_then(|end| self.payload.get(self.at..end));
        let taken = taken.ok_or_else(|| bad(context, "it ends too early"))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn number(&mut self, context: &Context<'_>, len: u64) -> Result<u64> {
        Ok(self.take(context, len)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The next head that is not a tag.
    fn head(&mut self, context: &Context<'_>) -> Result<Head> {
        for _ in 0..=TAGS_MAX {
            let initial = self.number(context, 1)?;
            let (major, low) = (initial >> 5, initial & 0x1f);
            let argument = match low {
                0..=23 => Some(low),
                24..=27 => Some(self.number(context, 1 << (low - 24))?),
                31 => None,
                _ => return Err(bad(context, format!("additional information {low} is reserved"))),
            };
            return Ok(match (major, argument) {
                (0, Some(number)) => Head::Positive(number),
                (1, Some(number)) => Head::Negative(number),
                (2, len) => Head::Bytes(len),
                (3, len) => Head::Text(len),
                (4, len) => Head::Array(len),
                (5, len) => Head::Map(len),
                (6, Some(2 | 3)) => return Err(context.wrong("TYPE_MISMATCH", "big numbers are refused")),
                (6, Some(_)) => continue,
                (7, None) => Head::Break,
                (7, Some(argument)) => simple(context, low, argument)?,
                _ => return Err(bad(context, "an integer or a tag has no indefinite length")),
            });
        }
        Err(bad(context, format!("more than {TAGS_MAX} tags on one item")))
    }

    /// Whether another item (in a map: a pair) follows.
    fn more(&mut self, context: &Context<'_>, items: &mut Items) -> Result<bool> {
        match items {
            Items::Left(0) => Ok(false),
            Items::Left(left) => {
                *left -= 1;
                Ok(true)
            }
            Items::UntilBreak if self.payload.get(self.at) == Some(&0xff) => {
                self.at += 1;
                Ok(false)
            }
            Items::UntilBreak if self.at >= self.payload.len() => Err(bad(context, "it ends too early")),
            Items::UntilBreak => Ok(true),
        }
    }

    /// A string's bytes; those of indefinite length are joined in `scratch`.
    fn string(&mut self, context: &Context<'_>, text: bool, len: Option<u64>) -> Result<Span<'p>> {
        if let Some(len) = len {
            return Ok(Span::Payload(self.take(context, len)?));
        }
        self.scratch.clear();
        loop {
            let chunk = match self.head(context)? {
                Head::Break => return Ok(Span::Scratch),
                Head::Text(Some(len)) if text => self.take(context, len)?,
                Head::Bytes(Some(len)) if !text => self.take(context, len)?,
                _ => return Err(bad(context, "a string has a chunk of another type")),
            };
            self.scratch.extend_from_slice(chunk);
        }
    }

    fn text<'s>(&'s self, context: &Context<'_>, span: &Span<'s>) -> Result<&'s str> {
        std::str::from_utf8(span.bytes(&self.scratch)).map_err(|_| bad(context, "a text is not UTF-8"))
    }

    fn reading(&mut self, context: &mut Context<'_>, len: Option<u64>) -> Result<()> {
        context.reading_begin()?;
        let mut pairs = Items::new(len);
        while self.more(context, &mut pairs)? {
            let span = self.key(context)?;
            let role = context.key(self.text(context, &span)?)?;
            match role {
                Role::Ts => self.ts(context)?,
                Role::Values | Role::Metric => self.value(context, role == Role::Values)?,
            }
            context.pop(0);
        }
        context.reading_end()
    }

    fn key(&mut self, context: &Context<'_>) -> Result<Span<'p>> {
        match self.head(context)? {
            Head::Text(len) => self.string(context, true, len),
            _ => Err(context.wrong("PAYLOAD_FORM", "a key must be text").with_field(context.nameless())),
        }
    }

    fn ts(&mut self, context: &mut Context<'_>) -> Result<()> {
        match self.head(context)? {
            Head::Array(_) | Head::Map(_) => Err(super::ts_form(context)),
            head => self.scalar(context, head, true),
        }
    }

    /// Recursion is bounded by the limit on nesting, which [`Context::enter`] keeps.
    fn value(&mut self, context: &mut Context<'_>, values: bool) -> Result<()> {
        match self.head(context)? {
            Head::Map(len) if values => {
                context.values_begin()?;
                self.nested(context, len)?;
                context.values_end();
                Ok(())
            }
            Head::Map(len) => self.nested(context, len),
            Head::Array(_) => Err(super::array_refused(context)),
            head => self.scalar(context, head, false),
        }
    }

    fn nested(&mut self, context: &mut Context<'_>, len: Option<u64>) -> Result<()> {
        context.enter()?;
        let mut pairs = Items::new(len);
        while self.more(context, &mut pairs)? {
            let span = self.key(context)?;
            let mark = context.push(self.text(context, &span)?);
            self.value(context, false)?;
            context.pop(mark);
        }
        context.leave();
        Ok(())
    }

    fn scalar(&mut self, context: &mut Context<'_>, head: Head, ts: bool) -> Result<()> {
        let span;
        let raw = match head {
            Head::Positive(number) => Raw::Int(i128::from(number)),
            Head::Negative(number) => Raw::Int(-1 - i128::from(number)),
            Head::Bool(value) => Raw::Bool(value),
            Head::Null => Raw::Null,
            Head::Float(value) => Raw::Float(value),
            Head::Text(len) => {
                span = self.string(context, true, len)?;
                Raw::Text(self.text(context, &span)?)
            }
            Head::Bytes(len) => {
                span = self.string(context, false, len)?;
                Raw::Bytes(span.bytes(&self.scratch))
            }
            Head::Array(_) | Head::Map(_) | Head::Break => {
                return Err(bad(context, "a break is out of place"));
            }
        };
        if ts { context.ts(&raw) } else { context.scalar(&raw) }
    }
}

/// Where a string's bytes are.
enum Span<'p> {
    Payload(&'p [u8]),
    Scratch,
}

impl<'p> Span<'p> {
    fn bytes<'s>(&self, scratch: &'s [u8]) -> &'s [u8]
    where
        'p: 's,
    {
        match self {
            Self::Payload(bytes) => bytes,
            Self::Scratch => scratch,
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // the argument has as many bits as `low` says
fn simple(context: &Context<'_>, low: u64, argument: u64) -> Result<Head> {
    Ok(match (low, argument) {
        (20, _) => Head::Bool(false),
        (21, _) => Head::Bool(true),
        (22 | 23, _) => Head::Null,
        (25, bits) => Head::Float(half(bits as u16)),
        (26, bits) => Head::Float(f64::from(f32::from_bits(bits as u32))),
        (27, bits) => Head::Float(f64::from_bits(bits)),
        (_, value) => return Err(bad(context, format!("simple value {value} means nothing"))),
    })
}

/// IEEE 754 binary16 (RFC 8949, appendix D).
fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => mantissa * 2_f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1_024.0) * 2_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}
