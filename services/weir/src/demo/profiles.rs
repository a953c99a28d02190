//! What the demo's devices measure, and in which units.
//!
//! Sources: Candanedo and Feldheim, "Accurate occupancy detection of an office room", 2016, for the room; Saxena et al.,
//! "Damage Propagation Modeling", 2008, table 2, for the engines. Units are UCUM.

use weir_core::{ErrorKind, Result, name};
use weir_drive::Place;
use weir_grpc::from_status;
use weir_proto::registry::v1 as pb;

/// The profile of the room.
pub(crate) const ROOM: &str = "demo-room";
/// The profile of the engines.
pub(crate) const ENGINE: &str = "demo-engine";

/// Name, unit and meaning.
type Metric = (&'static str, &'static str, &'static str);

const ROOM_METRICS: [Metric; 6] = [
    ("Temperature", "Cel", "temperature of the air"),
    ("Humidity", "%", "relative humidity of the air"),
    ("Light", "lx", "light"),
    ("CO2", "[ppm]", "carbon dioxide in the air"),
    ("HumidityRatio", "kg/kg", "water vapour by dry air"),
    ("Occupancy", "1", "1 while somebody is in the room"),
];
const ENGINE_METRICS: [Metric; 6] = [
    ("T24", "[degR]", "total temperature at the outlet of the low-pressure compressor"),
    ("T30", "[degR]", "total temperature at the outlet of the high-pressure compressor"),
    ("T50", "[degR]", "total temperature at the outlet of the low-pressure turbine"),
    ("Ps30", "[psi]", "static pressure at the outlet of the high-pressure compressor"),
    ("phi", "[lb_av]/s/[psi]", "fuel flow by static pressure"),
    ("BPR", "1", "bypass ratio"),
];

/// Makes the profiles that are not there from an earlier run.
///
/// # Errors
/// What the server refuses.
pub(crate) async fn make(place: &Place) -> Result<()> {
    for (id, metrics) in [(ROOM, ROOM_METRICS), (ENGINE, ENGINE_METRICS)] {
        let declared = metrics.map(|(name, unit, description)| pb::Metric {
            name: name.to_owned(),
            r#type: pb::MetricType::Double.into(),
            unit: unit.to_owned(),
            description: description.to_owned(),
            ..Default::default()
        });
        let request = pb::CreateProfileRequest {
            parent: name::tenant(&place.tenant),
            profile_id: id.to_owned(),
            profile: Some(pb::Profile { metrics: declared.into(), ..Default::default() }),
            ..Default::default()
        };
        match place.connection.profiles().create_profile(request).await.map_err(from_status) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            created => drop(created?),
        }
    }
    Ok(())
}
