//! Promise 1: what is acknowledged survives kill -9, a torn tail is cut, damage is refused by file and offset.

use std::{fmt::Write as _, fs};

use weir_tests::{Weir, eventually};

const ROWS: u32 = 20_000;
/// Kills in one run: enough that several land in every phase of a write; `WEIR_TEST_KILLS` for more.
const KILLS: usize = 5;

#[test]
fn everything_acknowledged_survives_kills_during_a_replay_at_full_speed() {
    let kills = std::env::var("WEIR_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let mut weir = Weir::start();
    let mut text = "time,v\n".to_owned();
    for row in 0..ROWS * u32::try_from(kills).unwrap() / 5 {
        writeln!(text, "{},{row}", 1_424_044_800 + row).unwrap();
    }
    let rows = text.lines().count() - 1;
    let file = weir.home().join("data.csv");
    fs::write(&file, text).unwrap();
    let mut replay = weir
        .command(&["replay", file.to_str().unwrap(), "--device", "d", "--create"])
        .stdout(fs::File::create(weir.home().join("replay.out")).unwrap())
        .spawn()
        .unwrap();
    for kill in 0..kills {
        eventually("some more is acknowledged", || {
            let newest = weir.try_run(&["telemetry", "latest", "--device", "d", "-o", "csv"]);
            let newest = String::from_utf8_lossy(&newest.stdout).into_owned();
            let value = newest
                .lines()
                .nth(1)
                .and_then(|line| line.rsplit(',').next())
                .and_then(|text| text.parse::<f64>().ok());
            let ended = replay.try_wait().unwrap().is_some();
            (ended || value.is_some_and(|value| value as usize > rows * kill / (kills + 1))).then_some(())
        });
        weir.kill();
        weir.boot();
    }
    let done = replay.wait().unwrap();
    let told = fs::read_to_string(weir.home().join("replay.out")).unwrap();
    assert!(done.success() && !told.contains("lost"), "{told}");
    let found = eventually("all of it can be queried", || {
        let found = weir.rows(&["telemetry", "query", "--device", "d"]);
        (found.len() >= rows).then_some(found)
    });
    assert_eq!(found.len(), rows, "each is there once");
    assert!(found.iter().enumerate().all(|(row, found)| found["value"] == format!("{row}.0")));
}

#[test]
fn a_torn_tail_is_cut_and_a_flipped_byte_is_refused_by_file_and_offset() {
    let mut weir = Weir::start();
    weir.run(&["device", "create", "d"]);
    for value in 0..20 {
        weir.run(&[
            "telemetry",
            "publish",
            "d",
            &format!("v={value}"),
            "--ts",
            &format!("{}", 1_424_044_800 + value),
        ]);
    }
    weir.kill();
    let stream = weir.home().join("data/log/readings");
    let mut segments: Vec<_> = fs::read_dir(&stream)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "log" || extension == "segment" || extension == "seg")
        })
        .collect();
    segments.sort();
    let segment = segments.last().expect("a segment file").clone();
    let whole = fs::read(&segment).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;

    // A record that was begun and not finished, as a kill in the middle of a write leaves it.
    let mut torn = whole.get(..end).unwrap().to_vec();
    torn.extend([0x5a; 11]);
    fs::write(&segment, &torn).unwrap();
    weir.boot();
    eventually("all twenty are there", || {
        (weir.rows(&["telemetry", "query", "--device", "d"]).len() == 20).then_some(())
    });
    weir.run(&["telemetry", "publish", "d", "v=20", "--ts", "1424044820"]);
    weir.kill();

    let mut flipped = fs::read(&segment).unwrap();
    flipped[end / 2] ^= 0x10;
    fs::write(&segment, &flipped).unwrap();
    let complaint = weir.try_boot().expect("it refuses to start");
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(complaint.contains(name) && complaint.contains("offset"), "{complaint}");
}
