//! A crash at any point: the directory as it stands at that moment, opened again, ends with the very same rows.

use std::{fs, path::Path};

use weir_config::ByteSize;
use weir_core::{Message, Position, Value};
use weir_storage::Config;

use crate::harness::{Dice, Dump, World, config, message};

const DEVICES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Small bounds, so that buckets fill, devices are forgotten, and checkpoints fall between any two frames.
fn tight() -> Config {
    let mut config = config();
    config.writer.bucket = ByteSize(600);
    config.writer.read = ByteSize(1);
    config.writer.devices_cached = 4;
    config.writer.checkpoint_bytes = ByteSize::kib(1);
    config
}

/// On time, late, of the same ts, over a few days.
fn any_message(dice: &mut Dice, step: i64) -> Message {
    let id = DEVICES[dice.below(6) as usize];
    let mut made = message(id, &[]);
    for _ in 0..=dice.below(6) {
        let behind = if dice.below(3) == 0 { dice.below(200_000_000_000) as i64 } else { 0 };
        let ts = 1_700_000_000_000_000 + step * 400_000 - behind;
        let metric = ["x", "y", "z"][dice.below(3) as usize];
        made.readings.extend(message(id, &[(ts, &[(metric, Value::Int64(step))])]).readings);
    }
    made
}

async fn dump(world: &World, positions: &[Position]) -> Vec<Dump> {
    world.written(positions).await;
    let mut dumps = vec![];
    for id in DEVICES {
        dumps.push(world.dump(id).await);
    }
    dumps
}

/// Files as they are now: the store first, so that the log has at least what the store knows.
fn copy(from: &Path, to: &Path) {
    for part in ["store", "log"] {
        copy_all(&from.join(part), &to.join(part));
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_after_a_crash_at_any_point_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let crashes: Vec<tempfile::TempDir> = (0..8).map(|_| tempfile::tempdir().unwrap()).collect();
    let (mut dice, mut positions) = (Dice(20_240_501), vec![]);
    let world = World::open(dir.path(), tight()).await;
    for crash in &crashes {
        for _ in 0..60 {
            let made = any_message(&mut dice, positions.len() as i64);
            positions.push(world.publish(&[made]).await);
        }
        copy(dir.path(), crash.path());
    }
    let undisturbed = dump(&world, &positions).await;
    assert!(undisturbed.iter().all(|dump| dump.rows.len() > 100), "every device has rows");
    world.end().await;

    for (number, crash) in crashes.iter().enumerate() {
        // The log goes on with what was published after the crash: the undisturbed one.
        fs::remove_dir_all(crash.path().join("log")).unwrap();
        copy_all(&dir.path().join("log"), &crash.path().join("log"));
        let world = World::open(crash.path(), tight()).await;
        assert!(dump(&world, &positions).await == undisturbed, "crash {number} changed a row");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_restart_reads_nothing_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    let mut positions = vec![];
    for step in 0..50 {
        positions.push(world.publish(&[any_message(&mut Dice(step + 1), step as i64)]).await);
    }
    let before = dump(&world, &positions).await;
    world.end().await;
    let world = World::open(dir.path(), config()).await;
    assert_eq!(dump(&world, &positions).await, before);
    let written =
        world.metrics.gather().into_iter().find(|family| family.name() == "weir_storage_rows_written_total");
    assert_eq!(written.unwrap().get_metric()[0].get_counter().get_value(), 0.0);
    world.end().await;
}
