//! The client commands of `weir`: what a person or a script types against a running Weir.
//!
//! Each command is: connect as somebody, call, show. Nothing is decided here; a refusal is the server's, shown with what it
//! says. Exit codes: 0 ok, 1 refused, 2 not found, 3 unreachable, 64 usage.

pub mod context;
pub mod exit;

mod alarm;
mod command;
mod context_command;
mod convert;
mod credential;
mod dead_letter;
mod device;
mod drive;
mod file;
mod output;
mod page;
mod poison_frame;
mod profile;
mod prove;
mod rule;
mod rule_args;
mod rule_view;
mod session;
mod telemetry;
mod telemetry_args;
mod telemetry_view;
mod tenant;
mod token;
mod when;

pub use output::Format;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use context::Caller;
use weir_core::Result;

/// Flags that every client command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Address of the gRPC API; else WEIR_ADDR, else the context's
    #[arg(long, global = true, env = "WEIR_ADDR", value_name = "HOST:PORT", help_heading = "Connection")]
    pub addr: Option<String>,
    /// API token; else WEIR_TOKEN, else the context's
    #[arg(
        long,
        global = true,
        env = "WEIR_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Connection"
    )]
    pub token: Option<String>,
    /// The authority (PEM) that signed the server's certificate, for an address with https; else WEIR_CA_FILE, else the
    /// context's
    #[arg(long, global = true, env = "WEIR_CA_FILE", value_name = "FILE", help_heading = "Connection")]
    pub ca_file: Option<PathBuf>,
    /// Context to use instead of the current one
    #[arg(long, global = true, env = "WEIR_CONTEXT", value_name = "NAME", help_heading = "Connection")]
    pub context: Option<String>,
    /// Tenant; else the token's
    #[arg(long, global = true, value_name = "TENANT", help_heading = "Connection")]
    pub tenant: Option<String>,
    /// The output format
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT", help_heading = "Output")]
    pub output: Format,
}

/// The client commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tenants (scope platform)
    #[command(subcommand, after_help = "Examples:\n  weir tenant create acme\n  weir tenant list")]
    Tenant(tenant::Command),
    /// API tokens
    #[command(
        subcommand,
        after_help = "Examples:\n  weir token create --scope read --ttl 30d\n  weir token list"
    )]
    Token(token::Command),
    /// Device profiles
    #[command(
        subcommand,
        after_help = "Examples:\n  weir profile create meter --metric count:int64 --metric power:double:W\n  weir profile list"
    )]
    Profile(profile::Command),
    /// Devices and their credentials
    #[command(
        subcommand,
        after_help = "Examples:\n  weir device connect my-device\n  weir device list -l type=room"
    )]
    Device(device::Command),
    /// Stored telemetry: query, aggregate, latest, tail, publish
    #[command(
        subcommand,
        after_help = "Examples:\n  weir telemetry tail --device room-1\n  weir telemetry query --device room-1 --from 1h -o csv"
    )]
    Telemetry(telemetry_args::Command),
    /// Rules: what to watch for, and what to do
    #[command(
        subcommand,
        after_help = "Examples:\n  weir rule create hot --when 'temp > 30' --for 1m --command cool-down\n  weir rule test hot --from 7d"
    )]
    Rule(rule_args::Command),
    /// Alarms, open and cleared
    #[command(subcommand, after_help = "Examples:\n  weir alarm list --state raised\n  weir alarm watch")]
    Alarm(alarm::Command),
    /// Commands to devices
    #[command(
        subcommand,
        after_help = "Examples:\n  weir command invoke room-1 ventilate --payload '{\"speed\": 2}'\n  weir command list --device room-1"
    )]
    Command(command::Command),
    /// Sessions: who is connected
    #[command(subcommand, after_help = "Example:\n  weir session list --device room-1")]
    Session(session::Command),
    /// Refused payloads of devices that cannot be told so (MQTT 3.1.1)
    #[command(
        subcommand,
        after_help = "Examples:\n  weir dead-letter list\n  weir dead-letter list -o csv > refused.csv"
    )]
    DeadLetter(dead_letter::Command),
    /// Frames of the log that could not be decoded (scope platform)
    #[command(
        subcommand,
        after_help = "Examples:\n  weir poison-frame list\n  weir poison-frame replay 3-1-4711"
    )]
    PoisonFrame(poison_frame::Command),
    /// Contexts: which Weir to talk to, and as whom
    #[command(subcommand, after_help = "Examples:\n  weir context list\n  weir context use prod")]
    Context(context_command::Command),
    /// Stream a file of measurements to Weir, as the devices that made them
    Replay(Box<drive::Replay>),
    /// Make a fleet that sends telemetry and answers commands
    Simulate(drive::Simulate),
    /// Measure this Weir
    #[command(subcommand, after_help = "Example:\n  weir bench ingest --connections 100 --readings 500000")]
    Bench(drive::Bench),
    /// Show that this Weir loses nothing: load over every edge, and everything read back and compared
    Prove(prove::Prove),
}

/// Runs one client command.
///
/// # Errors
/// What the server or the connection says.
pub async fn run(command: Command, global: &Global) -> Result<()> {
    if let Command::Context(command) = command {
        return context_command::run(command, global);
    }
    let caller = Caller::open(global).await?;
    match command {
        Command::Tenant(command) => tenant::run(command, &caller).await,
        Command::Token(command) => token::run(command, &caller).await,
        Command::Profile(command) => profile::run(command, &caller).await,
        Command::Device(command) => device::run(command, &caller).await,
        Command::Telemetry(command) => telemetry::run(command, &caller).await,
        Command::Rule(command) => rule::run(command, &caller).await,
        Command::Alarm(command) => alarm::run(command, &caller).await,
        Command::Command(command) => command::run(command, &caller).await,
        Command::Session(command) => session::run(command, &caller).await,
        Command::DeadLetter(command) => dead_letter::run(command, &caller).await,
        Command::PoisonFrame(command) => poison_frame::run(command, &caller).await,
        Command::Context(_) => Ok(()), // needs no caller: done above
        Command::Replay(args) => drive::replay(*args, &caller).await,
        Command::Simulate(args) => drive::simulate(args, &caller).await,
        Command::Bench(command) => drive::bench(command, &caller).await,
        Command::Prove(args) => prove::run(args, &caller).await,
    }
}

#[cfg(test)]
mod help_tests;
