//! `chaos`: what `cargo xtask chaos` runs. Faults by a seed, a ledger, and a table that must be clean.

use std::{
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use weir_core::{Error, Result};
use weir_tests::chaos::{
    control::{CONTROLS, Control},
    report::{Row, table},
    run::{self, Options, Ran},
    scenario::{Engines, SCENARIOS},
    workload::PATIENCE,
};

/// Shorter than this a scenario shows nothing.
const SHORTEST: Duration = Duration::from_secs(20);

/// Injects faults into real processes under load, and shows that nothing acknowledged is lost
#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    after_help = "Examples:\n  cargo xtask chaos --minutes 5\n  cargo xtask chaos --minutes 2 --seed 7 --scenario kill-any"
)]
struct Args {
    /// How long to inject faults, in all; starting and reading back come on top
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// One seed gives one schedule
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this scenario; may be given more than once
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<String>,
    /// Break this promise on purpose: the run must find losses, and succeeds only if it does
    #[arg(long, value_name = "NAME", conflicts_with = "scenarios")]
    control: Option<String>,
    /// The binary that can be told to break promises
    #[arg(long, env = "WEIR_SABOTAGED_BIN", value_name = "FILE")]
    sabotaged: Option<PathBuf>,
    /// Only on these engines; on each of them if not given
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// The binary under test
    #[arg(long, env = "WEIR_BIN", value_name = "FILE")]
    binary: PathBuf,
    /// Where data and logs go; a temporary directory if not given, which is kept where something is wrong
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// List the scenarios
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Engine {
    /// One process, embedded engines
    Embedded,
    /// Separate services on NATS JetStream and CQL
    NatsCql,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for scenario in SCENARIOS {
            say(&format!("scenario  {:<18} {}", scenario.name, scenario.about));
        }
        for control in CONTROLS {
            say(&format!("control   {:<18} {}", control.name, control.about));
        }
        return ExitCode::SUCCESS;
    }
    // Only fails where a provider is installed already, which nothing before this does.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                done = chaos(args) => done,
                // What was started ends with the clusters, which end here.
                () = interrupted() => { say("interrupted"); Ok(false) }
            }
        }),
        Err(error) => {
            say(&format!("chaos: cannot start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("chaos: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C, or the SIGTERM of whoever runs this.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

async fn chaos(args: Args) -> Result<bool> {
    let kept = args.dir.is_some();
    let dir =
        args.dir.unwrap_or_else(|| std::env::temp_dir().join(format!("weir-chaos-{}", std::process::id())));
    let control = args.control.as_deref().map(Control::find).transpose()?;
    let mut options = Options {
        length: Duration::from_secs_f64(args.minutes.max(0.0) * 60.0),
        seed: args.seed,
        scenarios: args.scenarios,
        engines: match args.engine {
            Some(Engine::Embedded) => vec![Engines::Embedded],
            Some(Engine::NatsCql) => vec![Engines::NatsCql],
            None => vec![Engines::NatsCql, Engines::Embedded],
        },
        binary: args.binary,
        dir: dir.clone(),
        env: Vec::new(),
        nats_default_sync: false,
        patience: PATIENCE,
        readings_only: false,
    };
    if let Some(control) = control {
        let sabotaged = args.sabotaged.ok_or_else(|| {
            Error::invalid("sabotaged", "USAGE", "a control needs --sabotaged; `cargo xtask chaos` gives it")
        })?;
        control.apply(&mut options, &sabotaged);
        say(&format!("control {}: {}", control.name, control.about));
    }
    let chosen = options.chosen()?;
    say(&format!("seed {}, data and logs in {}", options.seed, dir.display()));
    let share = (options.length / u32::try_from(chosen.len()).unwrap_or(1)).max(SHORTEST).min(options.length);
    let (mut rows, mut skipped, begin) = (Vec::<Row>::new(), false, Instant::now());
    for (number, (engines, scenario)) in (0..).zip(chosen.iter().copied().cycle()) {
        let used: Duration = rows.iter().map(|row| row.length).sum();
        if used >= options.length || number >= chosen.len() as u64 && rows.is_empty() {
            break;
        }
        say(&format!("== {} {}: {}", engines.name(), scenario.name, scenario.about));
        match run::one(&options, (engines, scenario), number, share).await {
            Ran::Skipped(name, why) => {
                say(&format!("SKIPPED {name}: {why}"));
                skipped = true;
            }
            Ran::Row(row) => {
                say(row.words().trim_end());
                let whole = row.failure.is_none();
                rows.push(*row);
                if !whole && rows.iter().filter(|row| row.failure.is_some()).count() > chosen.len() {
                    break; // it fails again and again: the rest of the time shows nothing new
                }
            }
        }
    }
    say(&format!("\n{}", table(&rows).trim_end()));
    let clean = !rows.is_empty() && rows.iter().all(Row::is_clean);
    // What is skipped on a developer's machine is a failure where everything must be there.
    let clean = clean && !(skipped && std::env::var_os("CI").is_some());
    let (good, verdict) = match (control, clean) {
        (None, true) => (true, "clean"),
        (None, false) => (false, "NOT CLEAN"),
        (Some(control), _) if control.was_noticed(&rows) => (true, "noticed, as it must be"),
        (Some(_), _) => (false, "NOT NOTICED: a promise was broken and nothing was found missing"),
    };
    say(&format!("{verdict}: seed {}, {} s in all", options.seed, begin.elapsed().as_secs()));
    if good && !kept {
        drop(std::fs::remove_dir_all(&dir));
    } else {
        say(&format!("data and logs are in {}", dir.display()));
    }
    Ok(good)
}

/// A line to standard output.
fn say(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}")); // a closed terminal has nobody to tell
}
