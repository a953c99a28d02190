//! Commands to devices: their outbox key is their request id, so that however often one is sent it is one.

use bytes::Bytes;
use weir_core::{
    Error, Timestamp, Uid,
    port::{CommandSender, SendCommand},
};

use super::{Job, Row};

/// Sends once. `Ok(None)` where the command has outlived its time.
pub(super) async fn send(
    commands: &dyn CommandSender,
    row: &Row,
    now: Timestamp,
) -> Result<Option<Uid>, Error> {
    let Job::Command { name, payload, ttl, order } = &row.job else {
        return Err(Error::internal("an outbox row is no command"));
    };
    let Some(left) = ttl.checked_sub(now.since(row.created_at)).filter(|left| !left.is_zero()) else {
        return Ok(None);
    };
    let send = SendCommand {
        to: row.device.clone(),
        name: name.clone(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ttl: left,
        order: *order,
        request_id: row.key.to_string(),
        actor: format!("rule:{}", row.rule),
    };
    commands.send(send).await.map(|(id, _)| Some(id))
}
