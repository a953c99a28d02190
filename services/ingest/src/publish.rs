//! What HTTP and gRPC publish alike.

use std::{sync::Arc, time::Duration};

use weir_core::{Error, Result};

/// How long a request waits for room before it is told to come back: the time of a few frames, so that a burst goes
/// through and a standstill is told.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// W3C trace context, version 00.
const TRACE_CONTEXT_MAX: usize = 55;

/// A sender's `traceparent`; none where it is empty.
///
/// # Errors
/// `TRACEPARENT_INVALID` where it is longer than version 00 has it.
pub(crate) fn trace_context(traceparent: &str) -> Result<Option<Arc<str>>> {
    if traceparent.len() > TRACE_CONTEXT_MAX {
        let text =
            format!("traceparent has {} bytes; it may have at most {TRACE_CONTEXT_MAX}", traceparent.len());
        return Err(Error::invalid("traceparent", "TRACEPARENT_INVALID", text).with_limit(TRACE_CONTEXT_MAX));
    }
    Ok(Some(traceparent).filter(|text| !text.is_empty()).map(Arc::from))
}
