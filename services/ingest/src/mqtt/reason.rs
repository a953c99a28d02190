//! Errors as MQTT says them: the one exhaustive mapping from our closed set of kinds.
//!
//! Source: MQTT 5.0, section 2.4 (reason codes); MQTT 3.1.1, table 3.1 (connect return codes).

use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode, PubackReasonCode, PubrecReasonCode,
    SubackReasonCode,
};
use weir_core::{Error, ErrorKind};

/// The field of an error about the topic of a will.
pub(super) const WILL_TOPIC: &str = "will.topic";

/// How one kind of error is said on each packet that can say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Codes {
    publish: PubackReasonCode,
    connect: ConnectReasonCode,
    /// MQTT 3.1.1's CONNACK.
    connect_3_1_1: ConnectReturnCode,
    /// Whether the input is wrong whatever the state of the system: over 3.1.1, which cannot say so, such a message is
    /// kept as a dead letter and acknowledged; any other is not acknowledged and the connection ends.
    final_refusal: bool,
}

/// The mapping.
const fn codes(kind: ErrorKind) -> Codes {
    use ConnectReasonCode as Connect;
    use ConnectReturnCode as Return;
    use ErrorKind as Kind;
    use PubackReasonCode as Publish;
    let (publish, connect, connect_3_1_1, final_refusal) = match kind {
        Kind::InvalidArgument => (
            Publish::PayloadFormatInvalid,
            Connect::ClientIdentifierNotValid,
            Return::IdentifierRejected,
            true,
        ),
        Kind::NotFound => (Publish::TopicNameInvalid, Connect::NotAuthorized, Return::NotAuthorized, true),
        Kind::PermissionDenied => {
            (Publish::NotAuthorized, Connect::NotAuthorized, Return::NotAuthorized, true)
        }
        Kind::Unauthenticated => {
            (Publish::NotAuthorized, Connect::BadUserNameOrPassword, Return::BadUserNameOrPassword, false)
        }
        Kind::ResourceExhausted => {
            (Publish::QuotaExceeded, Connect::QuotaExceeded, Return::ServerUnavailable, false)
        }
        // A disabled device or child.
        Kind::FailedPrecondition => {
            (Publish::ImplementationSpecificError, Connect::NotAuthorized, Return::NotAuthorized, true)
        }
        Kind::AlreadyExists | Kind::Unimplemented => (
            Publish::ImplementationSpecificError,
            Connect::ImplementationSpecificError,
            Return::ServerUnavailable,
            true,
        ),
        Kind::Aborted | Kind::Unavailable | Kind::DeadlineExceeded | Kind::Cancelled => (
            Publish::ImplementationSpecificError,
            Connect::ServerUnavailable,
            Return::ServerUnavailable,
            false,
        ),
        Kind::DataLoss | Kind::Internal => {
            (Publish::UnspecifiedError, Connect::UnspecifiedError, Return::ServerUnavailable, false)
        }
    };
    Codes { publish, connect, connect_3_1_1, final_refusal }
}

/// For a PUBACK. Wrong input is the topic's where the error says so, else the payload's.
pub(super) fn puback(error: &Error) -> PubackReasonCode {
    if error.kind() == ErrorKind::InvalidArgument && error.field() == Some("topic") {
        return PubackReasonCode::TopicNameInvalid;
    }
    codes(error.kind()).publish
}

/// For a PUBREC, whose codes are those of a PUBACK.
pub(super) fn pubrec(error: &Error) -> PubrecReasonCode {
    PubrecReasonCode::try_from(puback(error) as u8).unwrap_or(PubrecReasonCode::UnspecifiedError)
}

/// For a CONNACK of MQTT 5.
pub(super) fn connack(error: &Error) -> ConnectReasonCode {
    if error.kind() == ErrorKind::InvalidArgument && error.field() == Some(WILL_TOPIC) {
        return ConnectReasonCode::TopicNameInvalid;
    }
    codes(error.kind()).connect
}

/// For a CONNACK of MQTT 3.1.1.
pub(super) fn connack_3_1_1(error: &Error) -> ConnectReturnCode {
    if error.field() == Some(WILL_TOPIC) && is_final(error.kind()) {
        return ConnectReturnCode::NotAuthorized; // it has no code for a topic
    }
    codes(error.kind()).connect_3_1_1
}

/// For a SUBACK, which has fewer codes: a child that does not exist is one that the device may not hear of.
pub(super) fn suback(error: &Error) -> SubackReasonCode {
    match error.kind() {
        ErrorKind::NotFound => SubackReasonCode::NotAuthorized,
        kind => SubackReasonCode::try_from(codes(kind).publish as u8)
            .unwrap_or(SubackReasonCode::UnspecifiedError),
    }
}

/// For a DISCONNECT of a device that may no longer be here: it was deleted, or its credential is not good any more.
pub(super) fn disconnect(error: &Error) -> DisconnectReasonCode {
    match error.kind() {
        ErrorKind::NotFound => DisconnectReasonCode::AdministrativeAction,
        _ => DisconnectReasonCode::NotAuthorized,
    }
}

/// Whether a message that failed so can never succeed; see [`Codes::final_refusal`].
pub(super) const fn is_final(kind: ErrorKind) -> bool {
    codes(kind).final_refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_topic_and_a_wrong_payload_have_their_own_codes() {
        let topic = Error::invalid("topic", "TOPIC_UNKNOWN", "x");
        let payload = Error::invalid("[3].values.temp", "VALUE_INVALID", "x");
        assert_eq!(puback(&topic) as u8, 0x90);
        assert_eq!(puback(&payload) as u8, 0x99);
        assert_eq!(pubrec(&payload) as u8, 0x99);
        assert_eq!(puback(&Error::permission_denied("x")) as u8, 0x87);
        assert_eq!(puback(&Error::new(ErrorKind::ResourceExhausted, "QUOTA", "x")) as u8, 0x97);
    }

    #[test]
    fn a_bad_token_is_told_apart_from_a_server_that_is_away() {
        let of = |kind| Error::new(kind, "X", "x");
        for (kind, code, code_3_1_1) in [
            (ErrorKind::Unauthenticated, 0x86, 4),
            (ErrorKind::PermissionDenied, 0x87, 5),
            (ErrorKind::Unavailable, 0x88, 3),
        ] {
            assert_eq!((connack(&of(kind)) as u8, connack_3_1_1(&of(kind)) as u8), (code, code_3_1_1));
        }
    }

    #[test]
    fn what_a_retry_can_heal_is_never_a_dead_letter() {
        for kind in [
            ErrorKind::ResourceExhausted,
            ErrorKind::Aborted,
            ErrorKind::Unavailable,
            ErrorKind::DeadlineExceeded,
        ] {
            assert!(kind.retryable() && !is_final(kind), "{kind:?}");
        }
    }
}
