//! A device's answer to a command, as the wire has it.
//!
//! The whole payload is the answer: one JSON document, or CBOR that says the same. An object with `"ok": false`, or with
//! the status `"failed"` or `"error"`, says that the device did not do it, and its `error` why; any other document says
//! that it did. What is no document at all is an answer that makes no sense: the command fails and nothing waits for it.

use bytes::Bytes;
use serde_json::Value;
use weir_core::{Error, Timestamp, command::Answer};

use crate::decode::Format;

/// The longest `error` that is kept; the payload has all of it.
const ERROR_MAX: usize = 1_024;

/// The answer in `payload`, and what is wrong with it where it makes no sense.
pub(crate) fn parse(payload: &[u8], payload_max: usize, received_at: Timestamp) -> (Answer, Option<Error>) {
    match document(payload, payload_max) {
        Ok((document, bytes)) => {
            let error = failure(&document);
            let ok = error.is_none();
            (Answer { ok, payload: bytes, error: error.unwrap_or_default(), received_at }, None)
        }
        Err(error) => {
            let text = format!("the answer makes no sense: {error}");
            (Answer { ok: false, payload: Bytes::new(), error: text, received_at }, Some(error))
        }
    }
}

fn document(payload: &[u8], payload_max: usize) -> Result<(Value, Bytes), Error> {
    if payload.len() > payload_max {
        let text = format!("an answer of {} bytes is over the limit of {payload_max} bytes", payload.len());
        return Err(Error::invalid("payload", "ANSWER_TOO_LARGE", text).with_limit(payload_max));
    }
    let wrong = |text: String| Error::invalid("payload", "ANSWER_INVALID", text);
    match Format::sniff(payload) {
        Format::Json => {
            let document = serde_json::from_slice(payload)
                .map_err(|source| wrong(format!("an answer must be one JSON document: {source}")))?;
            Ok((document, Bytes::copy_from_slice(payload)))
        }
        Format::Cbor => {
            let document: Value = ciborium::from_reader(payload)
                .map_err(|source| wrong(format!("an answer in CBOR must say what JSON can: {source}")))?;
            let bytes = serde_json::to_vec(&document).map_err(|source| wrong(source.to_string()))?;
            Ok((document, bytes.into()))
        }
    }
}

/// Why the device did not do it, where the document says so.
fn failure(document: &Value) -> Option<String> {
    let object = document.as_object()?;
    let status = object.get("status").and_then(Value::as_str).unwrap_or_default();
    if object.get("ok") != Some(&Value::Bool(false)) && !matches!(status, "failed" | "error") {
        return None;
    }
    let error = match object.get("error") {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "the device says that it failed".to_owned(),
    };
    Some(error.chars().take(ERROR_MAX).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(payload: &[u8]) -> (Answer, Option<Error>) {
        parse(payload, 64, Timestamp::from_micros(7))
    }

    #[test]
    fn a_document_is_a_success_unless_it_says_otherwise() {
        for done in
            ["{}", r#"{"ok":true}"#, r#"{"rpm":900,"status":"done"}"#, "null", "42", r#""fine""#, "[1]"]
        {
            let (answer, wrong) = of(done.as_bytes());
            assert!(answer.ok && wrong.is_none(), "{done}");
            assert_eq!(answer.payload, done, "its own words");
        }
        for failed in [r#"{"ok":false,"error":"jammed"}"#, r#"{"status":"failed","error":"jammed"}"#] {
            let (answer, wrong) = of(failed.as_bytes());
            assert!(!answer.ok && wrong.is_none(), "{failed}");
            assert_eq!(answer.error, "jammed");
        }
    }

    #[test]
    fn cbor_says_the_same() {
        let (answer, _) = of(b"\xa2bok\xf4eerrorfjammed");
        assert_eq!((answer.ok, answer.error.as_str()), (false, "jammed"));
        assert_eq!(answer.payload, r#"{"error":"jammed","ok":false}"#);
    }

    #[test]
    fn what_makes_no_sense_fails_and_says_why() {
        for (payload, reason) in
            [(&b""[..], "ANSWER_INVALID"), (b"{", "ANSWER_INVALID"), (&[b' '; 65], "ANSWER_TOO_LARGE")]
        {
            let (answer, wrong) = of(payload);
            assert!(!answer.ok && answer.payload.is_empty());
            assert_eq!(wrong.unwrap().reason(), reason);
        }
        assert_eq!(of(&[b' '; 65]).1.unwrap().limit(), Some("64"));
    }

    proptest! {
        #[test]
        fn the_payload_kept_is_always_json_or_none(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (answer, wrong) = of(&payload);
            prop_assert_eq!(answer.payload.is_empty(), wrong.is_some());
            prop_assert!(wrong.is_some() || serde_json::from_slice::<Value>(&answer.payload).is_ok());
        }
    }
}
