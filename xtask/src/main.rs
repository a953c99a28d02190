//! `cargo xtask …`: what this repository does with itself. Only public tools are needed: cargo, and for `lint-proto` npm.

mod chart_schema;
mod check_deps;
mod config_docs;
mod crdgen;
mod dashboards;
mod image;
mod metrics_inventory;
mod run;
mod sbom;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every test: unit, property, conformance, and the system tests on the real binary
    Test {
        /// Given to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Everything that must hold before a change lands: format, clippy, arrows, contracts, documents, tests
    Ci,
    /// Inject faults into real processes under load, by a seed, and show that nothing acknowledged is lost
    #[command(disable_help_flag = true)]
    Chaos {
        /// Given to the harness; `cargo xtask chaos --help` tells what it takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Check which crate may use which (the table is in `xtask/src/check_deps.rs`)
    CheckDeps,
    /// Write docs/configuration.md from the configuration's types
    ConfigDocs {
        /// Only say whether it is up to date
        #[arg(long)]
        check: bool,
    },
    /// Write charts/weir/crds from the kinds' types
    Crdgen {
        /// Only say whether they are up to date
        #[arg(long)]
        check: bool,
    },
    /// Write docs/metrics.md from what each component registers
    MetricsInventory {
        /// Only say whether it is up to date
        #[arg(long)]
        check: bool,
    },
    /// Write deploy/grafana/dashboards
    Dashboards {
        /// Only say whether they are up to date
        #[arg(long)]
        check: bool,
    },
    /// Measure what is promised of speed, on real servers
    Perf {
        /// What to measure
        #[command(subcommand)]
        what: Perf,
    },
    /// Build the container image as a tar, without Docker, with its SBOM beside it
    Image(image::Args),
    /// Check the gRPC contracts with buf (fetched from npm)
    LintProto,
}

#[derive(Debug, Subcommand)]
enum Perf {
    /// Readings over gRPC streams against a raw asynchronous JetStream publish of the same bytes, in one run
    Frames,
    /// Ten times as many clients as saturate five processes: goodput, memory, losses, lag
    Overload,
}

fn main() -> ExitCode {
    let done = match Xtask::parse().command {
        Command::Test { rest } => run::test(&rest),
        Command::Chaos { rest } => run::chaos(&rest),
        Command::Ci => ci(),
        Command::CheckDeps => check_deps::run(),
        Command::ConfigDocs { check } => config_docs::run(check),
        Command::Crdgen { check } => crdgen::run(check),
        Command::Dashboards { check } => dashboards::run(check),
        Command::MetricsInventory { check } => metrics_inventory::run(check),
        Command::Perf { what: Perf::Frames } => run::perf("frames"),
        Command::Image(args) => image::run(&args),
        Command::Perf { what: Perf::Overload } => run::perf("overload"),
        Command::LintProto => run::lint_proto(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::complain(&format!("xtask: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn ci() -> Result<(), String> {
    run::step("format", || run::cargo(&["fmt", "--all", "--check"]))?;
    run::step("arrows", check_deps::run)?;
    run::step("clippy", || {
        run::cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
    })?;
    run::step("contracts", run::lint_proto)?;
    run::step("configuration reference", || config_docs::run(true))?;
    run::step("metrics inventory", || metrics_inventory::run(true))?;
    run::step("dashboards", || dashboards::run(true))?;
    run::step("custom resources", || crdgen::run(true))?;
    run::step("tests", || run::test(&[]))
}
