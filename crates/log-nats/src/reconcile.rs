//! What must be on the bus: made where it is missing, changed where that is safe, refused where it would break a promise.

use std::time::Duration;

use async_nats::jetstream::{
    kv,
    stream::{Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType},
};
use weir_core::{Error, ErrorKind, Result, Stream};

use crate::{
    bus::Shared,
    error::{Failure, code},
    leases::LEASE,
};

/// A publisher tries the same id for at most 10 min (`ingest.intake.retry_for`): twice that.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(20 * 60);
/// The largest frame is under 768 KiB; this leaves room for its headers.
const MESSAGE_MIN: i32 = 800 * 1024;
/// Processes that start together change the same stream; each attempt that loses sees what the winner made.
const ATTEMPTS: usize = 10;
/// Between two attempts.
const ATTEMPT_EVERY: Duration = Duration::from_millis(100);
/// How long a watcher can learn that a lease expired.
const MARKER: Duration = Duration::from_secs(60);

/// Makes a stream what it must be.
///
/// # Errors
/// `FailedPrecondition` that names the setting; `Unavailable` of the bus.
pub(crate) async fn stream(shared: &Shared, stream: Stream) -> Result<()> {
    let wanted = wanted(shared, stream);
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let outcome = match shared.api.info(&wanted.name).await {
            Ok(info) => settle(shared, &wanted, &info).await,
            Err(failure) if failure.code() == code::STREAM_NOT_FOUND => create(shared, &wanted).await,
            Err(failure) => Err(failure.into()),
        };
        match outcome {
            Err(error) if error.kind().retryable() => last = Some(error),
            done => return done,
        }
        tokio::time::sleep(ATTEMPT_EVERY).await;
    }
    Err(last.unwrap_or_else(|| Error::unavailable(format!("stream {} cannot be made", wanted.name))))
}

fn wanted(shared: &Shared, stream: Stream) -> Config {
    Config {
        name: shared.stream_name(stream),
        subjects: vec![shared.subject_of(stream, "*")],
        description: Some("a log of Weir; it is trimmed by Weir alone".to_owned()),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        max_bytes: i64::try_from(shared.options.max_bytes.0).unwrap_or(i64::MAX),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        num_replicas: usize::from(shared.config.replicas),
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    }
}

async fn create(shared: &Shared, wanted: &Config) -> Result<()> {
    let what = format!("make stream {}", wanted.name);
    let made = shared.api.call::<Info>(&what, &format!("STREAM.CREATE.{}", wanted.name), wanted).await;
    match made {
        Ok(_) => {
            tracing::info!(stream = wanted.name, replicas = wanted.num_replicas, "made a stream on the bus");
            Ok(())
        }
        Err(failure) if failure.code() == code::SUBJECTS_OVERLAP => Err(taken(shared, wanted).await),
        // Where somebody else made it just now with other limits, that is looked at again.
        Err(failure) => Err(refused(failure)),
    }
}

/// Says which refusals no waiting changes.
fn refused(failure: Failure) -> Error {
    match failure {
        Failure::Refused { what, refusal } if is_permanent(refusal.code) => {
            let text = format!("cannot {what}: the bus says: {} ({})", refusal.description, refusal.code);
            Error::new(ErrorKind::FailedPrecondition, "BUS_REFUSES_STREAM", text)
        }
        failure => failure.into(),
    }
}

/// Refusals of a stream that waiting does not change: bad configuration, no room, too many replicas for the servers
/// (10074) or the account.
fn is_permanent(code: u64) -> bool {
    matches!(
        code,
        10052 | 10074 | code::INSUFFICIENT_RESOURCES | code::STORAGE_EXCEEDED | code::ACCOUNT_EXCEEDED
    )
}

async fn taken(shared: &Shared, wanted: &Config) -> Error {
    let subjects = wanted.subjects.join(", ");
    let others = match wanted.subjects.first() {
        Some(subject) => shared.api.streams_of(subject).await.unwrap_or_default(),
        None => vec![],
    };
    let text = format!(
        "stream {} needs subjects {subjects}, which belong to stream {}: delete that stream or its subjects, or choose \
         another nats.prefix",
        wanted.name,
        others.join(", ")
    );
    Error::new(ErrorKind::FailedPrecondition, "BUS_SUBJECTS_TAKEN", text).with_field("nats.prefix")
}

async fn settle(shared: &Shared, wanted: &Config, found: &Info) -> Result<()> {
    if let Some(broken) = broken_promise(wanted, &found.config) {
        return Err(broken);
    }
    let Some(updated) = update(wanted, found) else { return Ok(()) };
    let what = format!("change stream {}", wanted.name);
    let changed = shared.api.call::<Info>(&what, &format!("STREAM.UPDATE.{}", wanted.name), &updated).await;
    changed.map_err(refused)?;
    tracing::info!(
        stream = wanted.name,
        max_bytes = updated.max_bytes,
        replicas = updated.num_replicas,
        "changed a stream on the bus"
    );
    Ok(())
}

/// Whether a stream still keeps what it acknowledges as it must: its settings, and as many replicas that are up to date.
///
/// # Errors
/// `FailedPrecondition`: `BUS_STREAM_UNSUITABLE` that names the setting, `BUS_REPLICAS_MISSING`; `Unavailable` of the bus.
pub(crate) async fn check(shared: &Shared, stream: Stream) -> Result<()> {
    let wanted = wanted(shared, stream);
    let found = shared.api.info(&wanted.name).await.map_err(Error::from)?;
    if let Some(broken) = broken_promise(&wanted, &found.config) {
        return Err(broken);
    }
    let followers = found.cluster.iter().flat_map(|cluster| &cluster.replicas);
    let current = 1 + followers.filter(|replica| replica.current && !replica.offline).count();
    if found.config.num_replicas >= wanted.num_replicas && current >= wanted.num_replicas {
        return Ok(());
    }
    let text = format!(
        "stream {} is kept by {current} replicas that are up to date, and {} are configured (nats.replicas)",
        wanted.name, wanted.num_replicas
    );
    Err(Error::new(ErrorKind::FailedPrecondition, "BUS_REPLICAS_MISSING", text).with_field("nats.replicas"))
}

/// The settings to change, where something is to change.
fn update(wanted: &Config, found: &Info) -> Option<Config> {
    let mut updated = found.config.clone();
    if u64::try_from(wanted.max_bytes).unwrap_or(u64::MAX) >= found.state.bytes {
        updated.max_bytes = wanted.max_bytes;
    } else if wanted.max_bytes != found.config.max_bytes {
        tracing::warn!(
            stream = wanted.name,
            used = found.state.bytes,
            "log.max_bytes is below what the stream holds: not lowered"
        );
    }
    if wanted.num_replicas < found.config.num_replicas {
        tracing::warn!(
            stream = wanted.name,
            found = found.config.num_replicas,
            "the stream has more replicas than nats.replicas: not lowered"
        );
    }
    updated.num_replicas = updated.num_replicas.max(wanted.num_replicas);
    let same =
        updated.max_bytes == found.config.max_bytes && updated.num_replicas == found.config.num_replicas;
    (!same).then_some(updated)
}

/// The first setting of an existing stream under which a promise would not hold.
fn broken_promise(wanted: &Config, found: &Config) -> Option<Error> {
    let unlimited = |limit: i64| limit <= 0;
    let checks: [(bool, &str, String, &str); 18] = [
        (found.retention == wanted.retention, "retention", format!("{:?}", found.retention), "Limits"),
        (found.storage == wanted.storage, "storage", format!("{:?}", found.storage), "File"),
        (found.discard == wanted.discard, "discard", format!("{:?}", found.discard), "New"),
        (!found.discard_new_per_subject, "discard_new_per_subject", "true".to_owned(), "false"),
        (found.max_age.is_zero(), "max_age", format!("{:?}", found.max_age), "0 (no age)"),
        (unlimited(found.max_messages), "max_msgs", found.max_messages.to_string(), "-1 (no limit)"),
        (
            unlimited(found.max_messages_per_subject),
            "max_msgs_per_subject",
            found.max_messages_per_subject.to_string(),
            "-1 (no limit)",
        ),
        (found.max_consumers <= 0, "max_consumers", found.max_consumers.to_string(), "-1 (no limit)"),
        (
            found.max_message_size <= 0 || found.max_message_size >= MESSAGE_MIN,
            "max_msg_size",
            found.max_message_size.to_string(),
            "-1, or at least 819200",
        ),
        (
            found.persist_mode != Some(PersistenceMode::Async),
            "persist_mode",
            "async".to_owned(),
            "default: an ack must mean stored",
        ),
        (!found.no_ack, "no_ack", "true".to_owned(), "false: an ack must mean stored"),
        (!found.sealed, "sealed", "true".to_owned(), "false"),
        (!found.deny_purge, "deny_purge", "true".to_owned(), "false: trimming purges"),
        (!found.allow_message_counter, "allow_msg_counter", "true".to_owned(), "false"),
        (found.mirror.is_none(), "mirror", "set".to_owned(), "none"),
        (found.sources.as_ref().is_none_or(Vec::is_empty), "sources", "set".to_owned(), "none"),
        (found.subject_transform.is_none(), "subject_transform", "set".to_owned(), "none"),
        (
            found.duplicate_window >= wanted.duplicate_window,
            "duplicate_window",
            format!("{:?}", found.duplicate_window),
            "at least 20m (twice what a publish is tried again for)",
        ),
    ];
    if let Some((_, setting, value, needed)) = checks.into_iter().find(|(kept, ..)| !kept) {
        return Some(unsuitable(&wanted.name, setting, &value, needed));
    }
    if found.subjects != wanted.subjects {
        return Some(unsuitable(
            &wanted.name,
            "subjects",
            &found.subjects.join(", "),
            &wanted.subjects.join(", "),
        ));
    }
    None
}

fn unsuitable(stream: &str, setting: &str, value: &str, needed: &str) -> Error {
    let text = format!(
        "stream {stream} on the bus has {setting} {value}, and needs {needed}: change it (`nats stream edit {stream}`), or \
         where the server does not allow that, move what it holds away and delete it, or choose another nats.prefix"
    );
    Error::new(ErrorKind::FailedPrecondition, "BUS_STREAM_UNSUITABLE", text).with_field(setting)
}

/// Makes the bucket of leases.
///
/// # Errors
/// As of [`stream`].
pub(crate) async fn leases(shared: &Shared) -> Result<()> {
    let bucket = bucket_name(shared);
    let name = format!("KV_{bucket}");
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match shared.api.info(&name).await {
            Ok(info) => {
                let age = info.config.max_age;
                let marked = info.config.subject_delete_marker_ttl.is_some();
                return match (age == LEASE, marked) {
                    (true, true) => Ok(()),
                    (false, _) => {
                        Err(unsuitable(&name, "max_age", &format!("{age:?}"), &format!("{LEASE:?}")))
                    }
                    (true, false) => Err(unsuitable(&name, "subject_delete_marker_ttl", "none", "60s")),
                };
            }
            Err(failure) if failure.code() == code::STREAM_NOT_FOUND => {
                let made = shared.jetstream.create_key_value(kv::Config {
                    bucket: bucket.clone(),
                    description: "leases of Weir's processes".to_owned(),
                    history: 1,
                    max_age: LEASE,
                    limit_markers: Some(MARKER),
                    storage: StorageType::File,
                    num_replicas: usize::from(shared.config.replicas),
                    ..kv::Config::default()
                });
                // A failure is looked at again: most likely another process has made it.
                last = made
                    .await
                    .err()
                    .map(|error| Error::unavailable(format!("cannot make bucket {bucket}: {error}")));
                if last.is_none() {
                    return Ok(());
                }
            }
            Err(failure) => last = Some(failure.into()),
        }
        tokio::time::sleep(ATTEMPT_EVERY).await;
    }
    Err(last.unwrap_or_else(|| Error::unavailable(format!("bucket {bucket} cannot be made"))))
}

/// The name of the bucket of leases.
pub(crate) fn bucket_name(shared: &Shared) -> String {
    format!("{}_leases", shared.config.prefix)
}
