//! What creating and changing share: etags, field masks, repeated requests, and another try after a lost race.

use std::{future::Future, time::Duration};

use serde::Serialize;
use weir_core::{
    Error, ErrorKind, Result, Timestamp, Uid, json,
    managed::{self, ManagedBy},
};

/// How long a repeated create gives the first one's answer.
const REQUEST_AGE_MAX: Duration = Duration::from_secs(3_600);
/// Writers of one record meet rarely; who loses so often in a row is told.
const TRIES: usize = 8;

/// The version of a record as an etag.
pub(crate) fn etag(version: u64) -> String {
    format!("{version:x}")
}

/// Honours an etag, if one is given.
pub(crate) fn check_etag(what: &str, given: &str, version: u64) -> Result<()> {
    if given.is_empty() || given == etag(version) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::FailedPrecondition,
        "ETAG_MISMATCH",
        format!("{what} was changed since it was read: its etag is no longer {given:?}"),
    )
    .with_field("etag"))
}

/// The fingerprint of a create request; none without a request id.
pub(crate) fn fingerprint(request_id: &str, content: &impl Serialize, by: &ManagedBy) -> Result<Option<Uid>> {
    if request_id.is_empty() {
        return Ok(None);
    }
    Ok(Some(by.fingerprint(request_id, &json::to_bytes(content)?)))
}

/// Whether what is there was made by this very request, not too long ago.
pub(crate) fn repeats(
    request: Option<Uid>,
    made_by: Option<Uid>,
    created_at: Timestamp,
    now: Timestamp,
) -> bool {
    request.is_some() && request == made_by && now.since(created_at) <= REQUEST_AGE_MAX
}

/// Which fields an Update changes.
#[derive(Debug, Clone)]
pub(crate) struct Mask(Vec<String>);

impl Mask {
    /// The fields of a mask; all of `known` where it is empty. Who keeps the object changes only where it is named.
    pub(crate) fn new(paths: Option<Vec<String>>, known: &[&str]) -> Result<Self> {
        let paths = paths.unwrap_or_default();
        let is_known = |path: &String| known.contains(&path.as_str()) || path == managed::FIELD;
        if let Some(unknown) = paths.iter().find(|path| !is_known(path)) {
            let shown: String = unknown.chars().take(64).collect();
            return Err(Error::invalid(
                "update_mask",
                "FIELD_MASK_INVALID",
                format!(
                    "update_mask names {shown:?}; what can change is {}, {}",
                    known.join(", "),
                    managed::FIELD
                ),
            ));
        }
        if paths.is_empty() {
            return Ok(Self(known.iter().map(|field| (*field).to_owned()).collect()));
        }
        Ok(Self(paths))
    }

    /// Whether the caller takes the object over.
    pub(crate) fn takes_over(&self) -> bool {
        self.has(managed::FIELD)
    }

    pub(crate) fn has(&self, field: &str) -> bool {
        self.0.iter().any(|path| path == field)
    }
}

/// Runs `attempt` again while it loses a race for a record.
pub(crate) async fn retrying<T, F, A>(attempt: A) -> Result<T>
where
    F: Future<Output = Result<T>>,
    A: Fn() -> F,
{
    let mut last = None;
    for _ in 0..TRIES {
        match attempt().await {
            Err(error) if error.kind() == ErrorKind::Aborted => last = Some(error),
            done => return done,
        }
    }
    Err(last.unwrap_or_else(|| Error::internal("no attempt was made")))
}
