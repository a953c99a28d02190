//! `weir dev --demo`: a recorded room and simulated engines, sped up, over real MQTT connections, told as they happen.
//!
//! A room gets stuffy: a rule raises an alarm and sends `ventilate`, the device answers, the alarm clears. Engines wear
//! out: a rule raises an alarm before each failure. At the end every number that was told is asked for again through the
//! public API; an expectation that did not hold is an error.

mod cast;
mod check;
mod player;
mod story;

use std::sync::Arc;

use weir_cli::context::Context;
use weir_clients::Connection;
use weir_core::{Error, ErrorKind, Result};
use weir_drive::Place;

use crate::{dev::program, signals::say};

/// Where the demo plays: this very process, through its public listeners.
///
/// # Errors
/// `UNREACHABLE` where it does not answer.
pub(crate) async fn place(context: &Context) -> Result<Place> {
    Ok(Place {
        connection: Connection::open(&context.addr, &context.token).await?,
        tenant: weir_core::TenantId::new("default")?,
        mqtt: context.mqtt.clone(),
        http: context.http.clone(),
    })
}

/// Plays once; then waits for ever unless `once`.
///
/// # Errors
/// `DEMO_FAILED` that says which expectations did not hold.
pub(crate) async fn run(place: &Place, once: bool) -> Result<()> {
    let cast = cast::assemble(place).await?;
    say(&cast.introduction())?;
    let story = story::Story::follow(place, &cast).await?;
    let begin = std::time::Instant::now();
    let mut played = Vec::new();
    for player in &cast.players {
        let player = Arc::clone(player);
        let place = place.clone();
        played.push(tokio::spawn(async move { player::play(&place, &player).await }));
    }
    let mut results = Vec::new();
    for task in played {
        results.push(task.await.map_err(|source| Error::internal("a player panicked").with_source(source))??);
    }
    let took = begin.elapsed();
    story.settle(&cast).await?;
    let verdict = check::run(place, &cast, &results).await?;
    story.end();
    say(verdict.summary(took).trim_end())?;
    say(&next_commands(&cast))?;
    if !verdict.failures.is_empty() {
        return Err(Error::new(ErrorKind::Internal, "DEMO_FAILED", verdict.failures.join("; ")));
    }
    if once {
        return Ok(());
    }
    say("\nWeir goes on; Ctrl-C ends it, the data stays.")?;
    std::future::pending().await
}

fn next_commands(cast: &cast::Cast) -> String {
    let (weir, room) = (program(), &cast.room);
    format!(
        "
See for yourself, while Weir runs:

  {weir} alarm list
  {weir} command list
  {weir} telemetry aggregate --device {room} --metric CO2 --from 2015-02-04 --to 2015-02-06 --step 1h --fn avg,max
  {weir} rule test {stuffy}
  {weir} rule get {worn} -o yaml",
        stuffy = cast::STUFFY,
        worn = cast::WORN,
    )
}
