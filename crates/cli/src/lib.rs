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
mod profile;
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
    /// Context to use instead of the current one
    #[arg(long, global = true, env = "WEIR_CONTEXT", value_name = "NAME", help_heading = "Connection")]
    pub context: Option<String>,
    /// Tenant; else the token's
    #[arg(long, global = true, value_name = "TENANT", help_heading = "Connection")]
    pub tenant: Option<String>,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT", help_heading = "Output")]
    pub output: Format,
}

/// The client commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tenants (scope platform)
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// API tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Device profiles
    #[command(subcommand)]
    Profile(profile::Command),
    /// Devices and their credentials
    #[command(subcommand)]
    Device(device::Command),
    /// Stored telemetry: query, aggregate, latest, tail, publish
    #[command(subcommand)]
    Telemetry(telemetry_args::Command),
    /// Rules: what to watch for, and what to do
    #[command(subcommand)]
    Rule(rule_args::Command),
    /// Alarms, open and cleared
    #[command(subcommand)]
    Alarm(alarm::Command),
    /// Commands to devices
    #[command(subcommand)]
    Command(command::Command),
    /// Who is connected
    #[command(subcommand)]
    Session(session::Command),
    /// Payloads that were refused where the wire cannot say so (MQTT 3.1.1)
    #[command(subcommand)]
    DeadLetter(dead_letter::Command),
    /// Which Weir, as whom
    #[command(subcommand)]
    Context(context_command::Command),
    /// Stream a file of measurements to Weir, as the devices that made them
    Replay(Box<drive::Replay>),
    /// Make a fleet that sends telemetry and answers commands
    Simulate(drive::Simulate),
    /// Measure this Weir
    #[command(subcommand)]
    Bench(drive::Bench),
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
        Command::Context(_) => Ok(()), // needs no caller: done above
        Command::Replay(args) => drive::replay(*args, &caller).await,
        Command::Simulate(args) => drive::simulate(args, &caller).await,
        Command::Bench(command) => drive::bench(command, &caller).await,
    }
}
