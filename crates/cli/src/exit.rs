//! Exit codes that scripts rely on, and how an error is told.

use weir_core::{Error, ErrorKind};

/// Wrong flags or configuration (EX_USAGE of sysexits.h).
pub const USAGE: u8 = 64;

/// The exit code of an error: 1 refused, 2 not found, 3 unreachable, 64 usage.
pub fn code(error: &Error) -> u8 {
    match (error.kind(), error.reason()) {
        (_, "USAGE" | "CONFIG_INVALID") => USAGE,
        (_, "UNREACHABLE") | (ErrorKind::Unavailable | ErrorKind::DeadlineExceeded, _) => 3,
        (ErrorKind::NotFound, _) => 2,
        _ => 1,
    }
}

/// A mistake in what was typed.
pub fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, "USAGE", message)
}

/// The line for standard error: what went wrong, and the part of the input that is at fault where the text does not name it.
pub fn line(error: &Error) -> String {
    let field = error.field().filter(|field| !field.is_empty() && !error.message().contains(*field));
    let field = field.map_or_else(String::new, |field| format!(" (field {field})"));
    format!("weir: {}{field} [{}]", error.message(), error.reason())
}
