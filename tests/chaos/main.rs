//! The fault harness, in short: what `cargo xtask chaos` does for as long as one likes, a minute of it in every test run, and
//! the positive controls, without which its green would mean nothing.

// A panic is a test's report, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod placements;

use std::{path::PathBuf, time::Duration};

use tokio::sync::Mutex;
use weir_tests::chaos::{
    control::Control,
    report::{Row, table},
    run::{self, Options, Ran},
    scenario::Engines,
    workload::PATIENCE,
};

/// One cluster at a time: two would measure each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// Runs one scenario; none where it was SKIPPED on a developer's machine.
async fn run(engines: Engines, scenario: &str, seconds: u64, control: Option<&str>) -> Option<Row> {
    let _turn = TURN.lock().await;
    drop(rustls::crypto::ring::default_provider().install_default()); // by the first test alone
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options {
        length: Duration::from_secs(seconds),
        seed: 1,
        scenarios: vec![scenario.to_owned()],
        engines: vec![engines],
        binary: weir_tests::binary(),
        dir: dir.path().to_owned(),
        env: Vec::new(),
        nats_default_sync: false,
        patience: PATIENCE,
        readings_only: false,
    };
    if let Some(control) = control {
        let Some(sabotaged) = std::env::var_os("WEIR_SABOTAGED_BIN") else {
            return skipped("WEIR_SABOTAGED_BIN is not set; `cargo xtask test` builds that binary");
        };
        Control::find(control).unwrap().apply(&mut options, &PathBuf::from(sabotaged));
    }
    let chosen = options.chosen().unwrap();
    match run::one(&options, *chosen.first().unwrap(), 0, options.length).await {
        Ran::Skipped(_, why) => skipped(&why),
        Ran::Row(row) => Some(*row),
    }
}

fn skipped(why: &str) -> Option<Row> {
    assert!(std::env::var_os("CI").is_none(), "needed in CI: {why}");
    drop(std::io::Write::write_all(&mut std::io::stderr(), format!("SKIPPED: {why}\n").as_bytes()));
    None
}

fn must_be_clean(row: Option<Row>) {
    let Some(row) = row else { return };
    assert!(row.is_clean(), "\n{}{}", row.words(), table(std::slice::from_ref(&row)));
    assert!(
        row.outcome.counts.acked > 0 && row.outcome.alarms.expected > 0 && row.outcome.commands.accepted > 0
    );
}

async fn must_be_noticed(engines: Engines, scenario: &str, seconds: u64, name: &str) {
    let Some(row) = run(engines, scenario, seconds, Some(name)).await else { return };
    let control = Control::find(name).unwrap();
    assert!(control.was_noticed(std::slice::from_ref(&row)), "\n{}", row.words());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_single_process_is_killed_again_and_again() {
    let row = run(Engines::Embedded, "kill-any", 30, None).await;
    assert!(row.as_ref().is_none_or(|row| row.injected.kills > 2));
    must_be_clean(row);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_power_of_the_single_process_is_cut() {
    let row = run(Engines::Embedded, "power-cut", 20, None).await;
    assert!(row.as_ref().is_none_or(|row| row.injected.power_cuts > 0));
    must_be_clean(row);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_edit_rules_and_clear_alarms_while_the_single_process_is_killed() {
    let row = run(Engines::Embedded, "rule-edits", 25, None).await;
    assert!(row.as_ref().is_none_or(|row| row.injected.kills > 2 && row.outcome.edits.changes > 20));
    must_be_clean(row);
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_with_times_of_their_own_are_unaffected_by_a_clock_that_jumps() {
    let Some(row) = run(Engines::Embedded, "clock-jumps", 25, None).await else { return };
    assert!(row.is_clean(), "\n{}{}", row.words(), table(std::slice::from_ref(&row)));
    assert!(row.injected.jumps > 0 && row.outcome.counts.acked > 0 && row.outcome.alarms.expected > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_on_the_bus_is_kept_aside_and_costs_nobody_a_reading() {
    let row = run(Engines::NatsCql, "poison", 25, None).await;
    assert!(row.as_ref().is_none_or(|row| row.outcome.poison.expected > 5));
    must_be_clean(row);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_a_nats_server_is_cut_off() {
    let row = run(Engines::NatsCql, "nats-partition", 25, None).await;
    assert!(row.as_ref().is_none_or(|row| row.injected.cut_offs > 0));
    must_be_clean(row);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_before_the_log_has_it_is_noticed() {
    must_be_noticed(Engines::Embedded, "kill-any", 15, "acks-early").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_before_the_store_has_the_rows_is_noticed() {
    must_be_noticed(Engines::Embedded, "kill-any", 15, "progress-early").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_any_of_the_separate_services_is_killed() {
    let row = run(Engines::NatsCql, "kill-any", 40, None).await;
    must_be_clean(row);
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_that_syncs_after_its_answer_is_noticed_when_its_power_is_cut() {
    must_be_noticed(Engines::NatsCql, "power-cut-nats", 30, "nats-default-sync").await;
}
