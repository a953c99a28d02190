//! Asks for every number of the story again, through the public API.

use std::{fmt::Write as _, time::Duration};

use tokio::time::Instant;
use weir_core::{Result, name};
use weir_drive::Place;
use weir_grpc::{convert::to_timestamp, from_status};
use weir_proto::{
    analytics::v1::{Alarm, AlarmState, ListAlarmsRequest},
    commands::v1::{Command, CommandState, ListCommandsRequest},
    storage::v1::{DeviceFilter, QueryRequest},
};

use super::{
    cast::{Cast, Player, STUFFY, WORN},
    player::Played,
};

/// Storage follows the log within milliseconds; this is for a machine that is busy with other things.
const QUERYABLE_MAX: Duration = Duration::from_secs(10);

/// What held, in words, and what did not.
pub(crate) struct Verdict {
    lines: Vec<String>,
    acknowledged: usize,
    found: usize,
    /// Expectations that did not hold.
    pub(crate) failures: Vec<String>,
}

impl Verdict {
    /// The summary.
    pub(crate) fn summary(&self, took: Duration) -> String {
        let mut text = format!(
            "\nIn {:.0} s {} readings were acknowledged; {} of them were read back.\n",
            took.as_secs_f64(),
            self.acknowledged,
            self.found
        );
        for line in &self.lines {
            let written = writeln!(text, "  {line}");
            debug_assert!(written.is_ok(), "a string takes every line");
        }
        for failure in &self.failures {
            let written = writeln!(text, "  NOT AS EXPECTED: {failure}");
            debug_assert!(written.is_ok(), "a string takes every line");
        }
        text
    }

    fn expect(&mut self, held: bool, what: impl FnOnce() -> String) {
        if !held {
            self.failures.push(what());
        }
    }
}

/// Checks what was played against what the server says.
///
/// # Errors
/// What the server refuses.
pub(crate) async fn run(place: &Place, cast: &Cast, played: &[Played]) -> Result<Verdict> {
    let acknowledged = played.iter().map(|played| played.acknowledged).sum();
    let mut verdict = Verdict { lines: Vec::new(), acknowledged, found: 0, failures: Vec::new() };
    for player in &cast.players {
        let (sent, found) = (player.rows.len(), count(place, player).await?);
        verdict.found += found;
        verdict.expect(sent == found, || {
            format!("{} sent {sent} readings, {found} can be queried", player.device)
        });
    }
    room(place, cast, played, &mut verdict).await?;
    for engine in &cast.engines {
        let alarms = alarms(place, engine).await?;
        let rows = cast.players.iter().find(|player| player.device == *engine).map(|player| &player.rows);
        let (Some(alarm), Some(rows)) = (alarms.iter().find(|alarm| ends(&alarm.rule, WORN)), rows) else {
            verdict.failures.push(format!("{engine} failed without an alarm"));
            continue;
        };
        let raised = alarm
            .raise_time
            .as_ref()
            .map(|ts| to_timestamp("raise_time", ts))
            .transpose()?
            .unwrap_or_default();
        let after = rows.iter().filter(|row| row.ts > raised).count();
        verdict.expect(after > 0 && alarms.len() == 1, || {
            format!("{engine} has {} alarms, {after} flights before its end", alarms.len())
        });
        let (at, of) = (rows.len() - after, rows.len());
        verdict.lines.push(format!(
            "{engine:<10}  alarm {WORN} at flight {at} of {of}: {after} flights before its failure"
        ));
    }
    Ok(verdict)
}

async fn room(place: &Place, cast: &Cast, played: &[Played], verdict: &mut Verdict) -> Result<()> {
    let room = &cast.room;
    let alarms = alarms(place, room).await?;
    let commands = commands(place, room).await?;
    let stuffy = alarms.iter().filter(|alarm| ends(&alarm.rule, STUFFY)).count();
    let cleared = alarms.iter().filter(|alarm| alarm.state() == AlarmState::Cleared).count();
    let done = commands.iter().filter(|command| command.state() == CommandState::Succeeded).count();
    let answered = played.iter().find(|played| played.device == *room).map_or(0, |played| played.answered);
    verdict.lines.push(format!(
        "{room:<10}  alarm {STUFFY} {stuffy} times, {cleared} cleared; command ventilate {} times, {done} answered",
        commands.len()
    ));
    verdict
        .expect(stuffy > 0 && cleared == stuffy, || format!("{room} had {stuffy} alarms, {cleared} cleared"));
    verdict.expect(done == stuffy && answered == stuffy, || {
        format!("{room} had {stuffy} alarms, {} commands, {done} answered", commands.len())
    });
    Ok(())
}

fn ends(name: &str, id: &str) -> bool {
    name.rsplit('/').next() == Some(id)
}

/// How many readings of a device can be queried, waiting for storage to catch up.
async fn count(place: &Place, player: &Player) -> Result<usize> {
    let until = Instant::now() + QUERYABLE_MAX;
    loop {
        let request = QueryRequest {
            parent: name::tenant(&place.tenant),
            filter: Some(DeviceFilter {
                devices: vec![player.device.clone()],
                label_selector: String::new(),
            }),
            ..Default::default()
        };
        let mut answers =
            place.connection.telemetry().query(request).await.map_err(from_status)?.into_inner();
        let (mut found, mut last) = (0, None);
        while let Some(answer) = answers.message().await.map_err(from_status)? {
            for point in answer.points {
                found += usize::from(last != point.ts);
                last = point.ts;
            }
        }
        if found >= player.rows.len() || Instant::now() > until {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn alarms(place: &Place, device: &str) -> Result<Vec<Alarm>> {
    let request = ListAlarmsRequest {
        parent: name::tenant(&place.tenant),
        device: name::child(&place.tenant, "devices", device),
        page_size: 1_000,
        ..Default::default()
    };
    Ok(place.connection.alarms().list_alarms(request).await.map_err(from_status)?.into_inner().alarms)
}

async fn commands(place: &Place, device: &str) -> Result<Vec<Command>> {
    let request = ListCommandsRequest {
        parent: name::tenant(&place.tenant),
        device: name::child(&place.tenant, "devices", device),
        page_size: 1_000,
        ..Default::default()
    };
    Ok(place.connection.commands().list_commands(request).await.map_err(from_status)?.into_inner().commands)
}
