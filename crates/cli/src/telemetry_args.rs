//! What `weir telemetry …` takes.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::convert::parse_span;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stream the points of a time range; all of them without --limit
    #[command(after_help = "Examples:
  weir telemetry query --device room-1 --metric CO2 --from 2015-02-04 --to 2015-02-05
  weir telemetry query --device room-1 --from 1h --descending --limit 10
  weir telemetry query -l type=room -o csv > rooms.csv")]
    Query {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        range: Range,
        /// How many points at most
        #[arg(long, value_name = "COUNT")]
        limit: Option<u32>,
        /// Newest first
        #[arg(long)]
        descending: bool,
    },
    /// Aggregate a range by step
    #[command(
        after_help = "Example:\n  weir telemetry aggregate --device room-1 --metric CO2 --from 2015-02-04 --to 2015-02-05 --step 1h --fn avg,max --percentile 95"
    )]
    Aggregate {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        range: Range,
        /// The length of a step: 5m, 1h, 1d; one over the whole range if not given
        #[arg(long, value_name = "SPAN", value_parser = parse_span)]
        step: Option<Duration>,
        /// What to compute; several with commas
        #[arg(long = "fn", value_name = "FUNCTION", value_enum, value_delimiter = ',', default_values = ["count", "min", "max", "avg"])]
        functions: Vec<Function>,
        /// Percentiles, 0 to 100; several with commas
        #[arg(long = "percentile", value_name = "PERCENT", value_delimiter = ',')]
        percentiles: Vec<f64>,
        /// IANA time zone for steps of whole days
        #[arg(long, default_value = "", value_name = "ZONE", hide_default_value = true)]
        time_zone: String,
    },
    /// Show the newest value of each metric, by event time
    #[command(
        after_help = "Examples:\n  weir telemetry latest --device room-1\n  weir telemetry latest -l type=room -o json"
    )]
    Latest {
        #[command(flatten)]
        of: Of,
    },
    /// Follow points as they are stored
    #[command(
        after_help = "Examples:\n  weir telemetry tail --device room-1\n  weir telemetry tail -l type=room --metric CO2 -o csv"
    )]
    Tail {
        #[command(flatten)]
        of: Of,
    },
    /// Publish one reading for a device (scope write)
    #[command(
        after_help = "Example:\n  weir telemetry publish room-1 temp=21.5 open=true --ts 2015-02-04T17:51:00Z"
    )]
    Publish {
        /// The device
        device: String,
        /// A number, true, false, or text
        #[arg(required = true, value_name = "METRIC=VALUE", value_parser = crate::convert::parse_pair)]
        values: Vec<(String, String)>,
        /// Event time: RFC 3339, 2015-02-04 (UTC), 1h for an hour ago, or an epoch; its arrival at the server if not given
        #[arg(long, value_name = "TIME")]
        ts: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct Of {
    /// A device; may be given more than once
    #[arg(long, required_unless_present = "selector")]
    pub(crate) device: Vec<String>,
    /// Devices with these labels
    #[arg(short = 'l', long, default_value = "", value_name = "SELECTOR", hide_default_value = true)]
    pub(crate) selector: String,
    /// A metric; may be given more than once; all if not given
    #[arg(long)]
    pub(crate) metric: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Range {
    /// From this event time on: RFC 3339, 2015-02-04 (UTC), 1h for an hour ago, now, or epoch seconds or milliseconds (0, or
    /// at least 100000000: a bare year is refused)
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Before this event time, in the same forms
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Function {
    /// How many values
    Count,
    /// The least
    Min,
    /// The greatest
    Max,
    /// The mean
    Avg,
    /// The sum
    Sum,
    /// The value with the lowest event time
    First,
    /// The value with the highest event time
    Last,
    /// The population standard deviation
    Stddev,
    /// The increase per second
    Rate,
}
