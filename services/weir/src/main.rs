//! `weir`: one binary for everything. This file knows flags and exit codes; what they do is elsewhere.

mod config;
mod demo;
mod dev;
mod engines;
mod init;
mod limits;
mod listeners;
mod measure;
mod migrate;
mod node;
mod operator;
mod peers;
mod pepper;
#[cfg(feature = "sabotage")]
mod sabotage;
mod serve;
mod signals;
mod targets;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use weir_cli::{Global, exit};
use weir_core::{Error, Result};

/// Weir: a self-hosted IoT platform. Devices send telemetry; Weir keeps it, watches it and acts on it.
#[derive(Debug, Parser)]
#[command(name = "weir", version, propagate_version = true, max_term_width = 120)]
#[command(after_help = "Start here:
  weir dev --demo     real sensor data, an alarm, a command: on this machine, in a minute
  weir dev            a Weir of your own on this machine

Exit codes: 0 ok, 1 refused, 2 not found, 3 unreachable, 64 usage")]
struct Weir {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine, on loopback, with a tenant and a token made for you
    Dev(dev::Args),
    /// Make what a real installation starts from: pepper, first tenant, first token, configuration
    Init(init::Args),
    /// Run services
    Serve(serve::Args),
    /// Bring the schema of a shared store to what this release reads and writes
    Migrate(migrate::Args),
    /// Run Weir on Kubernetes, as WeirClusters say
    Operator(operator::Args),
    /// Print the completion script of a shell
    #[command(
        after_help = "Examples:\n  weir completion bash > /etc/bash_completion.d/weir\n  weir completion zsh > ~/.zfunc/_weir\n  weir completion fish > ~/.config/fish/completions/weir.fish"
    )]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the JSON Schema of the configuration file
    #[command(hide = true, after_help = "Example:\n  weir config-schema > weir.schema.json")]
    ConfigSchema,
    /// Print every metric of every process, as JSON
    #[command(hide = true, after_help = "Example:\n  weir metrics-inventory | jq -r '.[].name'")]
    MetricsInventory,
    #[command(flatten)]
    Client(Box<weir_cli::Command>),
}

fn main() -> ExitCode {
    let weir = match Weir::try_parse() {
        Ok(weir) => weir,
        Err(error) => {
            drop(error.print()); // a closed terminal has nobody to tell
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    // Only fails where a provider is installed already, which nothing before this does.
    drop(rustls::crypto::ring::default_provider().install_default());
    match run(weir) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough: `weir … | head`.
        Err(error) if error.message().contains("Broken pipe") => ExitCode::SUCCESS,
        Err(error) => {
            signals::complain(&exit::line(&error));
            ExitCode::from(exit::code(&error))
        }
    }
}

fn run(weir: Weir) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::unavailable("cannot start the runtime").with_source(source))?;
    let done = runtime.block_on(async {
        match weir.command {
            Command::Dev(args) => dev::run(args).await,
            Command::Init(args) => init::run(args).await,
            Command::Serve(args) => serve::run(args).await,
            Command::Migrate(args) => migrate::run(args).await,
            Command::Operator(args) => operator::run(args).await,
            Command::Completion { shell } => {
                clap_complete::generate(shell, &mut Weir::command(), "weir", &mut std::io::stdout());
                Ok(())
            }
            Command::ConfigSchema => signals::say(&config::schema()?),
            Command::MetricsInventory => signals::say(&measure::inventory()?),
            Command::Client(command) => weir_cli::run(*command, &weir.global).await,
        }
    });
    runtime.shutdown_background(); // whatever still blocks must not hold the end
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_tree_of_commands_is_sound_and_each_has_an_example() {
        Weir::command().debug_assert();
        let mut open = vec![Weir::command()];
        while let Some(command) = open.pop() {
            open.extend(command.get_subcommands().cloned());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("weir "), "weir {} has no example", command.get_name());
        }
    }
}
