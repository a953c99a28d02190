//! The functions by name.

use crate::{
    calendar,
    eval::{OverTime, over_time},
    number::{go_max, go_min},
};

/// A function of each value of a vector.
pub(super) struct Each {
    pub(super) function: fn(f64, [f64; 2]) -> f64,
    /// Scalars that may be given: at least, at most.
    pub(super) params: (usize, usize),
}

/// A function of each value, by name. A parameter that is not given is 1, which is what `round` needs.
pub(super) fn each(name: &str) -> Option<Each> {
    let function: fn(f64, [f64; 2]) -> f64 = match name {
        "clamp" => |v, [least, greatest]| go_max(least, go_min(greatest, v)),
        "clamp_max" => |v, [greatest, _]| go_min(greatest, v),
        "clamp_min" => |v, [least, _]| go_max(least, v),
        // By the inverse, as Prometheus does: it is exact for 0.1.
        "round" => |v, [to, _]| (v * (1.0 / to) + 0.5).floor() / (1.0 / to),
        _ => return plain(name).map(|function| Each { function, params: (0, 0) }),
    };
    let params = match name {
        "clamp" => (2, 2),
        "round" => (0, 1),
        _ => (1, 1),
    };
    Some(Each { function, params })
}

fn plain(name: &str) -> Option<fn(f64, [f64; 2]) -> f64> {
    Some(match name {
        "abs" => |v, _| v.abs(),
        "ceil" => |v, _| v.ceil(),
        "floor" => |v, _| v.floor(),
        "exp" => |v, _| v.exp(),
        "sqrt" => |v, _| v.sqrt(),
        "ln" => |v, _| v.ln(),
        "log2" => |v, _| v.log2(),
        "log10" => |v, _| v.log10(),
        "sgn" => |v, _| {
            if v > 0.0 {
                1.0
            } else if v < 0.0 {
                -1.0
            } else {
                v
            }
        },
        "sin" => |v, _| v.sin(),
        "cos" => |v, _| v.cos(),
        "tan" => |v, _| v.tan(),
        "asin" => |v, _| v.asin(),
        "acos" => |v, _| v.acos(),
        "atan" => |v, _| v.atan(),
        "sinh" => |v, _| v.sinh(),
        "cosh" => |v, _| v.cosh(),
        "tanh" => |v, _| v.tanh(),
        "asinh" => |v, _| v.asinh(),
        "acosh" => |v, _| v.acosh(),
        "atanh" => |v, _| v.atanh(),
        "deg" => |v, _| v * 180.0 / std::f64::consts::PI,
        "rad" => |v, _| v * std::f64::consts::PI / 180.0,
        _ => return None,
    })
}

/// A part of the date that a value is, in seconds since the Unix epoch; of the evaluation's own instant without a vector.
pub(super) fn date(name: &str) -> Option<fn(f64, [f64; 2]) -> f64> {
    Some(match name {
        "minute" => |v, _| calendar::minute(v),
        "hour" => |v, _| calendar::hour(v),
        "day_of_week" => |v, _| calendar::day_of_week(v),
        "day_of_month" => |v, _| calendar::day_of_month(v),
        "day_of_year" => |v, _| calendar::day_of_year(v),
        "days_in_month" => |v, _| calendar::days_in_month(v),
        "month" => |v, _| calendar::month(v),
        "year" => |v, _| calendar::year(v),
        _ => return None,
    })
}

/// A function of the samples of a window without further parameters, by name.
pub(super) fn over(name: &str) -> Option<OverTime> {
    Some(match name {
        "avg_over_time" => over_time::avg,
        "min_over_time" => over_time::min,
        "max_over_time" => over_time::max,
        "sum_over_time" => over_time::sum,
        "count_over_time" => over_time::count,
        "last_over_time" => over_time::last,
        "stddev_over_time" => over_time::stddev,
        "stdvar_over_time" => over_time::stdvar,
        "present_over_time" => over_time::present,
        "rate" => over_time::rate,
        "increase" => over_time::increase,
        "delta" => over_time::delta,
        "irate" => over_time::irate,
        "idelta" => over_time::idelta,
        "deriv" => over_time::deriv,
        "changes" => over_time::changes,
        "resets" => over_time::resets,
        _ => return None,
    })
}
