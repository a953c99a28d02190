//! Who plays: a room and four engines, new ones for each run, so that a second run on the same data tells the same story.

use std::{collections::HashMap, io::Cursor, sync::Arc, time::Duration};

use weir_core::{ErrorKind, Result, Timestamp, name};
use weir_drive::{
    Place, provision,
    source::{Options, Row, Source},
};
use weir_grpc::{convert::from_duration, from_status};
use weir_proto::{
    analytics::v1 as analytics,
    registry::v1::{GetDeviceRequest, GetDeviceResponse},
};

/// The rule of the room.
pub(crate) const STUFFY: &str = "stuffy";
/// The rule of the engines.
pub(crate) const WORN: &str = "worn";

const OFFICE: &str = include_str!("../../data/office.csv");
const ENGINES: &str = include_str!("../../data/engines.txt");
/// Names of the columns of `engines.txt`, after Saxena et al., "Damage Propagation Modeling", 2008, table 2.
const ENGINE_COLUMNS: &str = "unit,cycle,altitude,mach,tra,T2,T24,T30,T50,P2,P15,P30,Nf,Nc,epr,Ps30,phi,NRf,NRc,BPR,farB,\
                              htBleed,Nf_dmd,PCNfR_dmd,W31,W32";
/// The measurements of an engine that change as it wears.
const ENGINE_METRICS: [&str; 6] = ["T24", "T30", "T50", "Ps30", "phi", "BPR"];
/// The story is told in about this time: long enough to read along, short enough to wait for.
const PLAYING_TIME: Duration = Duration::from_secs(18);

/// A device with what it will send.
pub(crate) struct Player {
    /// Its id.
    pub(crate) device: String,
    /// Its readings in order of time.
    pub(crate) rows: Vec<Row>,
    /// The time between two of them on stage.
    pub(crate) pace: Duration,
}

/// Everybody.
pub(crate) struct Cast {
    /// The room's device id.
    pub(crate) room: String,
    /// The engines' device ids.
    pub(crate) engines: Vec<String>,
    /// All of them, with what they send.
    pub(crate) players: Vec<Arc<Player>>,
}

impl Cast {
    /// Who plays, in words.
    pub(crate) fn introduction(&self) -> String {
        let readings: usize = self.players.iter().map(|player| player.rows.len()).sum();
        format!(
            "
The story: {} is an office room (UCI, February 2015, a reading a minute).
{} are jet engines that run until they fail (NASA C-MAPSS, a reading a flight).
{} devices send {readings} readings over MQTT, sped up.

  rule {STUFFY}  CO2 > 1000 ppm for 5 min raises an alarm and sends the command ventilate; below 800 ppm it clears
  rule {WORN}    the mean of T50 over 10 flights above 1415 °R raises an alarm: time for the workshop
",
            self.room,
            self.engines.join(", "),
            self.players.len()
        )
    }
}

/// Makes devices and rules, and reads what will be sent.
///
/// # Errors
/// What the server refuses.
pub(crate) async fn assemble(place: &Place) -> Result<Cast> {
    let suffix = free_suffix(place).await?;
    let room = format!("office{suffix}");
    let mut players = vec![player(room.clone(), office()?)];
    let mut engines = Vec::new();
    for (unit, rows) in engine_rows()? {
        let device = format!("engine-{unit}{suffix}");
        engines.push(device.clone());
        players.push(player(device, rows));
    }
    provision::create(place, std::slice::from_ref(&room), &labels("room")).await?;
    provision::create(place, &engines, &labels("engine")).await?;
    rules(place).await?;
    Ok(Cast { room, engines, players })
}

fn player(device: String, rows: Vec<Row>) -> Arc<Player> {
    let pace = PLAYING_TIME / u32::try_from(rows.len()).unwrap_or(u32::MAX).max(1);
    Arc::new(Player { device, rows, pace })
}

fn labels(kind: &str) -> HashMap<String, String> {
    HashMap::from([("demo".to_owned(), kind.to_owned())])
}

/// Nothing at the first run, `-2` at the second.
async fn free_suffix(place: &Place) -> Result<String> {
    for run in 1_u32.. {
        let suffix = if run == 1 { String::new() } else { format!("-{run}") };
        let request =
            GetDeviceRequest { name: name::child(&place.tenant, "devices", format!("office{suffix}")) };
        match place.connection.devices().get_device(request).await.map_err(from_status) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(suffix),
            found => drop::<tonic::Response<GetDeviceResponse>>(found?),
        }
    }
    Ok(String::new())
}

fn office() -> Result<Vec<Row>> {
    let options = Options { device: Some("office".to_owned()), ..Options::default() };
    read(OFFICE, options)
}

fn engine_rows() -> Result<Vec<(String, Vec<Row>)>> {
    let options = Options {
        device_column: Some("unit".to_owned()),
        time_column: Some("cycle".to_owned()),
        columns: ENGINE_COLUMNS.split(',').map(str::to_owned).collect(),
        metrics: ENGINE_METRICS.map(str::to_owned).to_vec(),
        start: Some(Timestamp::parse_rfc3339("2015-01-01T00:00:00Z")?),
        interval: Some(Duration::from_secs(3_600)),
        ..Options::default()
    };
    let mut engines: Vec<(String, Vec<Row>)> = Vec::new();
    for row in read(ENGINES, options)? {
        match engines.iter_mut().find(|(unit, _)| *unit == row.device) {
            Some((_, rows)) => rows.push(row),
            None => engines.push((row.device.clone(), vec![row])),
        }
    }
    Ok(engines)
}

fn read(text: &'static str, options: Options) -> Result<Vec<Row>> {
    let mut source = Source::new(Box::new(Cursor::new(text)), options)?;
    let mut rows = Vec::new();
    while let Some(row) = source.next_row()? {
        rows.push(row);
    }
    Ok(rows)
}

async fn rules(place: &Place) -> Result<()> {
    let stuffy = analytics::Rule {
        display_name: "the air in the room is used up".to_owned(),
        label_selector: "demo=room".to_owned(),
        condition: "CO2 > 1000".to_owned(),
        for_duration: Some(from_duration(Duration::from_secs(300))),
        clear_when: "CO2 < 800".to_owned(),
        severity: analytics::Severity::Warning.into(),
        actions: vec![analytics::Action {
            id: "ventilate".to_owned(),
            on: vec![analytics::ActionTrigger::Raised.into()],
            kind: Some(analytics::action::Kind::Command(analytics::CommandAction {
                command: "ventilate".to_owned(),
                payload: r#"{"co2": "${CO2}"}"#.to_owned(),
                ..Default::default()
            })),
        }],
        ..Default::default()
    };
    let worn = analytics::Rule {
        display_name: "the engine is worn".to_owned(),
        label_selector: "demo=engine".to_owned(),
        condition: r#"count(T50, "10h") >= 10 && avg(T50, "10h") > 1415"#.to_owned(),
        clear_when: r#"avg(T50, "10h") < 1405"#.to_owned(), // as new: an engine does not mend itself
        severity: analytics::Severity::Major.into(),
        ..Default::default()
    };
    for (id, rule) in [(STUFFY, stuffy), (WORN, worn)] {
        let request = analytics::CreateRuleRequest {
            parent: name::tenant(&place.tenant),
            rule_id: id.to_owned(),
            rule: Some(rule),
            ..Default::default()
        };
        match place.connection.rules().create_rule(request).await.map_err(from_status) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {} // an earlier run's
            created => drop(created?),
        }
    }
    Ok(())
}
