//! One device on stage: sends its readings in order and answers its commands.

use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep_until};
use weir_core::Result;
use weir_drive::{
    Place, Reading, edge,
    mqtt::{Client, Incoming},
    provision,
};

use super::cast::Player;

/// How a device fared.
pub(crate) struct Played {
    /// Its id.
    pub(crate) device: String,
    /// Readings that were acknowledged.
    pub(crate) acknowledged: usize,
    /// Commands that it answered.
    pub(crate) answered: usize,
}

/// Plays a device until its last reading is acknowledged.
///
/// # Errors
/// What the server refuses, or why the connection failed.
pub(crate) async fn play(place: &Place, player: &Player) -> Result<Played> {
    let token = provision::token(place, &player.device).await?;
    let address = place.mqtt.as_deref().unwrap_or_default();
    let mut client = Client::connect(address, &player.device, &token.secret).await?;
    client.subscribe("v1/commands/request/+/+").await?;
    let mut played = Played { device: player.device.clone(), acknowledged: 0, answered: 0 };
    let mut answers = Vec::with_capacity(player.rows.len());
    let begin = Instant::now();
    for (number, row) in (0_u32..).zip(&player.rows) {
        let due = begin + player.pace * number;
        loop {
            tokio::select! {
                () = sleep_until(due) => break,
                Some(command) = client.next() => played.answered += answer(&client, &command).await?,
            }
        }
        let reading = Reading { ts: Some(row.ts), values: row.values.clone() };
        answers.push(client.publish("v1/telemetry", edge::payload(&[reading])).await?);
    }
    for answer in answers {
        answer
            .await
            .map_err(|_| weir_core::Error::unavailable("the connection ended before an answer"))??;
        played.acknowledged += 1;
    }
    // A command that the last readings caused may still be on its way.
    let until = Instant::now() + std::time::Duration::from_secs(2);
    loop {
        tokio::select! {
            () = sleep_until(until) => break,
            Some(command) = client.next() => played.answered += answer(&client, &command).await?,
        }
    }
    client.close().await;
    provision::revoke(place, &token).await?;
    Ok(played)
}

async fn answer(client: &Client, command: &Incoming) -> Result<usize> {
    let Some((id, name)) =
        command.topic.strip_prefix("v1/commands/request/").and_then(|rest| rest.split_once('/'))
    else {
        return Ok(0);
    };
    let asked: Json = serde_json::from_slice(&command.payload).unwrap_or_default();
    let answer = json!({"ok": true, "did": name, "asked": asked});
    client.publish(&format!("v1/commands/response/{id}"), answer.to_string().into_bytes()).await?;
    Ok(1)
}
