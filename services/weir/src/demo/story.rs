//! Tells what happens as the server reports it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};
use weir_core::{Result, name};
use weir_drive::Place;
use weir_grpc::{convert::to_timestamp, from_status};
use weir_proto::{
    analytics::v1::{Alarm, AlarmState, WatchAlarmsRequest},
    commands::v1::{Command, CommandState, WatchCommandsRequest},
};

use super::cast::Cast;
use crate::signals::say;

/// How long after the last reading the last consequences may take.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// Follows alarms and commands.
pub(crate) struct Story {
    told: Arc<Mutex<Told>>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Told {
    alarms: HashMap<String, AlarmState>,
    commands: HashMap<String, CommandState>,
}

impl Story {
    /// Begins to follow what happens to the cast's devices.
    ///
    /// # Errors
    /// What the server refuses.
    pub(crate) async fn follow(place: &Place, cast: &Cast) -> Result<Self> {
        let told = Arc::new(Mutex::new(Told::default()));
        let devices: Arc<[String]> = cast.players.iter().map(|player| player.device.clone()).collect();
        let parent = name::tenant(&place.tenant);
        let request = WatchAlarmsRequest { parent: parent.clone(), ..Default::default() };
        let mut alarms =
            place.connection.alarms().watch_alarms(request).await.map_err(from_status)?.into_inner();
        let request = WatchCommandsRequest { parent, ..Default::default() };
        let mut commands =
            place.connection.commands().watch_commands(request).await.map_err(from_status)?.into_inner();
        let (heard, ours) = (Arc::clone(&told), Arc::clone(&devices));
        let alarms = tokio::spawn(async move {
            while let Some(event) = alarms.message().await.map_err(from_status)? {
                if let Some(alarm) =
                    event.alarm.filter(|alarm| ours.iter().any(|device| id(&alarm.device) == device))
                {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).alarm(&alarm)?;
                }
            }
            Ok(())
        });
        let heard = Arc::clone(&told);
        let commands = tokio::spawn(async move {
            while let Some(event) = commands.message().await.map_err(from_status)? {
                if let Some(command) =
                    event.command.filter(|found| devices.iter().any(|device| id(&found.device) == device))
                {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).command(&command)?;
                }
            }
            Ok(())
        });
        Ok(Self { told, tasks: vec![alarms, commands] })
    }

    /// Waits until every engine has its alarm and every command and the room's alarms have ended, or for ten seconds.
    ///
    /// # Errors
    /// None of its own.
    pub(crate) async fn settle(&self, cast: &Cast) -> Result<()> {
        let until = Instant::now() + SETTLE_MAX;
        while Instant::now() < until {
            {
                let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                let open = told.alarms.values().filter(|state| **state != AlarmState::Cleared).count();
                let waiting = told.commands.values().filter(|state| !is_final(**state)).count();
                if open == cast.engines.len() && waiting == 0 && !told.commands.is_empty() {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Stops to follow.
    pub(crate) fn end(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

const fn is_final(state: CommandState) -> bool {
    matches!(
        state,
        CommandState::Succeeded | CommandState::Failed | CommandState::Expired | CommandState::Canceled
    )
}

impl Told {
    fn alarm(&mut self, alarm: &Alarm) -> Result<()> {
        if self.alarms.insert(alarm.name.clone(), alarm.state()) == Some(alarm.state()) {
            return Ok(());
        }
        let mut values: Vec<_> =
            alarm.values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        values.sort();
        match alarm.state() {
            AlarmState::Cleared => {
                tell(alarm.clear_time.as_ref(), &alarm.device, &format!("alarm {} cleared", id(&alarm.rule)))
            }
            _ => tell(
                alarm.raise_time.as_ref(),
                &alarm.device,
                &format!("ALARM {} raised: {}", id(&alarm.rule), values.join(", ")),
            ),
        }
    }

    fn command(&mut self, command: &Command) -> Result<()> {
        if self.commands.insert(command.name.clone(), command.state()) == Some(command.state()) {
            return Ok(());
        }
        let what = &command.command;
        let text = match command.state() {
            CommandState::Queued => format!("command {what} {} queued", command.payload),
            CommandState::Sent => format!("command {what} sent to the device"),
            CommandState::Delivered => format!("command {what} acknowledged by the device"),
            CommandState::Succeeded => format!("command {what} answered: {}", command.response),
            other => format!("command {what} ended as {}: {}", other.as_str_name(), command.error),
        };
        tell(None, &command.device, &text)
    }
}

fn tell(ts: Option<&prost_types::Timestamp>, device: &str, what: &str) -> Result<()> {
    let when = ts.and_then(|ts| to_timestamp("ts", ts).ok()).map_or_else(String::new, |ts| ts.to_string());
    say(&format!("  {when:<20}  {:<10}  {what}", id(device)))
}

fn id(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}
