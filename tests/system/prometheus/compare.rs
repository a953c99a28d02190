//! Two answers to the same query.

use std::collections::BTreeMap;

use serde_json::Value;

/// How far two numbers may be apart, as a part of the greater one.
const TOLERANCE: f64 = 1e-9;

/// How the answers are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alike {
    /// The same series with the same values.
    Same,
    /// The same, and neither holds anything.
    SameEmpty,
    /// Both refuse.
    BothRefuse,
    /// Weir says that it does not support this.
    NotSupported,
}

/// Compares the answer of Weir with that of Prometheus. `ordered`: the order of series counts.
///
/// # Errors
/// What is not the same.
pub(super) fn compare(weir: &Value, prometheus: &Value, ordered: bool) -> Result<Alike, String> {
    match (weir["status"].as_str(), prometheus["status"].as_str()) {
        (Some("error"), Some("error")) => return Ok(Alike::BothRefuse),
        (Some("error"), Some("success")) => {
            let error = weir["error"].as_str().unwrap_or_default();
            let clear = error.ends_with("is not supported by Weir") && weir["errorType"] == "bad_data";
            return if clear { Ok(Alike::NotSupported) } else { Err(format!("weir refuses: {error}")) };
        }
        (Some("success"), Some("success")) => {}
        _ => return Err(format!("weir {weir}, prometheus {prometheus}")),
    }
    let (weir, prometheus) = (&weir["data"], &prometheus["data"]);
    if weir["resultType"] != prometheus["resultType"] {
        return Err(format!("weir gives {}, prometheus {}", weir["resultType"], prometheus["resultType"]));
    }
    match weir["resultType"].as_str() {
        Some("vector" | "matrix") => series(&weir["result"], &prometheus["result"], ordered),
        Some("scalar") => samples(&weir["result"], &prometheus["result"]).map(|()| Alike::Same),
        _ if weir["result"] == prometheus["result"] => Ok(Alike::Same),
        _ => Err(format!("weir gives {}, prometheus {}", weir["result"], prometheus["result"])),
    }
}

fn series(weir: &Value, prometheus: &Value, ordered: bool) -> Result<Alike, String> {
    let (ours, theirs) = (weir.as_array().unwrap(), prometheus.as_array().unwrap());
    let by_labels = |series: &[Value]| -> BTreeMap<String, Value> {
        series.iter().map(|one| (one["metric"].to_string(), one.clone())).collect()
    };
    let (our, their) = (by_labels(ours), by_labels(theirs));
    if our.len() != ours.len() {
        return Err("weir gives a series twice".to_owned());
    }
    if !our.keys().eq(their.keys()) {
        return Err(format!("weir gives the series {:?}, prometheus {:?}", our.keys(), their.keys()));
    }
    for (labels, one) in &our {
        let told = |error| format!("{labels}: {error}");
        let other = &their[labels];
        if let Some(value) = one.get("value") {
            samples(value, &other["value"]).map_err(told)?;
            continue;
        }
        let (values, others) = (one["values"].as_array().unwrap(), other["values"].as_array().unwrap());
        if values.len() != others.len() {
            return Err(told(format!("{} samples, prometheus has {}", values.len(), others.len())));
        }
        values.iter().zip(others).try_for_each(|(a, b)| samples(a, b)).map_err(told)?;
    }
    if ordered {
        // Of equal values the order is open.
        ours.iter().zip(theirs).try_for_each(|(a, b)| samples(&a["value"], &b["value"]))?;
    }
    Ok(if our.is_empty() { Alike::SameEmpty } else { Alike::Same })
}

fn samples(weir: &Value, prometheus: &Value) -> Result<(), String> {
    if weir[0].as_f64() != prometheus[0].as_f64() {
        return Err(format!("at {}, prometheus at {}", weir[0], prometheus[0]));
    }
    let number = |value: &Value| value[1].as_str().and_then(|text| text.parse::<f64>().ok());
    let (Some(a), Some(b)) = (number(weir), number(prometheus)) else {
        return Err(format!("{weir} or {prometheus} is no number"));
    };
    let is_close = (a - b).abs() <= TOLERANCE * a.abs().max(b.abs());
    if a == b || is_close || (a.is_nan() && b.is_nan()) {
        return Ok(());
    }
    Err(format!("at {}: {a:?}, prometheus has {b:?}", weir[0]))
}
