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

/// The text for standard error: what went wrong, and the part of the input that is at fault where the text does not name it.
/// A message of several lines (a condition with a caret below it) keeps them, and the rest gets a line of its own.
pub fn line(error: &Error) -> String {
    let message = error.message().trim_end();
    let field = error.field().filter(|field| !field.is_empty() && !message.contains(*field));
    let field = field.map_or_else(String::new, |field| format!("(field {field}) "));
    let between = if message.contains('\n') { '\n' } else { ' ' };
    format!("weir: {message}{between}{field}[{}]", error.reason())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_kind_and_a_mistake_in_typing_is_usage() {
        for (error, expected) in [
            (usage("give --addr"), 64),
            (Error::invalid("mqtt.port", "CONFIG_INVALID", "wrong"), 64),
            (Error::not_found("device room-1"), 2),
            (Error::unavailable("gone"), 3),
            (Error::new(ErrorKind::DeadlineExceeded, "DEADLINE_EXCEEDED", "late"), 3),
            (Error::new(ErrorKind::FailedPrecondition, "UNREACHABLE", "nobody there"), 3),
            (Error::invalid("id", "ID_INVALID", "wrong"), 1),
            (Error::already_exists("device room-1"), 1),
            (Error::permission_denied("no"), 1),
            (Error::unauthenticated("who"), 1),
            (Error::data_loss("lost"), 1),
            (Error::internal("defect"), 1),
        ] {
            assert_eq!(code(&error), expected, "{error}");
        }
    }

    #[test]
    fn a_message_of_one_line_is_told_on_one_line() {
        let error = Error::invalid("device.id", "ID_INVALID", "an id is 1 to 128 characters long");
        assert_eq!(line(&error), "weir: an id is 1 to 128 characters long (field device.id) [ID_INVALID]");
        assert_eq!(
            line(&Error::invalid("id", "ID_INVALID", "id is empty")),
            "weir: id is empty [ID_INVALID]"
        );
    }

    #[test]
    fn a_caret_stays_below_what_it_points_at_and_nothing_follows_it() {
        let message = "condition:1:6: \">\" is not expected here\n  CO2 >> 1000\n       ^";
        let error = Error::invalid("rule.condition", "RULE_INVALID", message);
        assert_eq!(line(&error), format!("weir: {message}\n(field rule.condition) [RULE_INVALID]"));
    }
}
