//! Promises 2 and 3: exactly once by event time, the value accepted last, the newest as latest — over every edge.

use std::collections::BTreeMap;

use weir_core::{Timestamp, Value};
use weir_drive::{Edge, Reading, Via, edge};
use weir_tests::{Weir, eventually};

const COUNT: usize = 2_000;

/// A number for each step that is the same on each run and shuffles well (Knuth's multiplicative hash).
fn scattered(step: usize) -> usize {
    step.wrapping_mul(2_654_435_761) % (1 << 31)
}

fn reading(number: usize, value: f64) -> Reading {
    Reading {
        ts: Some(Timestamp::from_micros(1_424_044_800_000_000 + number as i64 * 1_000_000)),
        values: vec![
            ("temp".to_owned(), Value::Double(value)),
            ("on".to_owned(), Value::Bool(number.is_multiple_of(2))),
        ],
    }
}

async fn send(edge: &Edge, messages: Vec<Vec<Reading>>) {
    let mut pending = Vec::new();
    for message in &messages {
        pending.push(edge.send(message).await.unwrap());
    }
    for mut answer in pending {
        assert!(edge::answer(&mut answer).await.unwrap().is_empty());
    }
}

#[test]
fn shuffled_resent_and_corrected_readings_come_back_exactly_once_over_each_edge() {
    let weir = Weir::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    drop(rustls::crypto::ring::default_provider().install_default());
    for (via, device) in [(Via::Mqtt, "m"), (Via::Http, "h"), (Via::Grpc, "g")] {
        let token = weir.device(device);
        let mut order: Vec<usize> = (0..COUNT).collect();
        order.sort_by_key(|number| scattered(*number));
        let first: Vec<_> = order.iter().map(|number| reading(*number, *number as f64)).collect();
        let resent: Vec<_> =
            order.iter().take(COUNT / 2).map(|number| reading(*number, *number as f64)).collect();
        let corrected: Vec<_> = (0..COUNT).step_by(10).map(|number| reading(number, -1.5)).collect();
        runtime.block_on(async {
            let place = weir.place().await;
            let edge = Edge::open(&place, via, device, &token).await.unwrap();
            send(&edge, first.chunks(10).map(<[_]>::to_vec).collect()).await;
            send(&edge, resent.chunks(7).map(<[_]>::to_vec).collect()).await;
            send(&edge, corrected.chunks(1).map(<[_]>::to_vec).collect()).await;
        });
        let expected: BTreeMap<(String, &str), String> = (0..COUNT)
            .flat_map(|number| {
                let one = reading(number, if number % 10 == 0 { -1.5 } else { number as f64 });
                let ts = one.ts.unwrap().to_string();
                [
                    ((ts.clone(), "temp"), format!("{:?}", one.values[0].1.as_f64().unwrap())),
                    ((ts, "on"), (number.is_multiple_of(2)).to_string()),
                ]
            })
            .collect();
        let rows = eventually("every reading can be queried", || {
            let rows = weir.rows(&["telemetry", "query", "--device", device]);
            let corrected = rows.iter().filter(|row| row["value"] == "-1.5").count();
            (rows.len() >= 2 * COUNT && corrected >= COUNT / 10).then_some(rows)
        });
        assert_eq!(rows.len(), expected.len(), "{via:?}");
        for row in &rows {
            let metric = if row["metric"] == "temp" { "temp" } else { "on" };
            assert_eq!(Some(&row["value"]), expected.get(&(row["ts"].clone(), metric)), "{row:?}");
            assert_eq!(row["type"], if metric == "temp" { "double" } else { "bool" });
        }
        let latest = weir.rows(&["telemetry", "latest", "--device", device, "--metric", "temp"]);
        assert_eq!(latest[0]["ts"], reading(COUNT - 1, 0.0).ts.unwrap().to_string());
    }
}

#[test]
fn a_limit_an_order_and_a_range_are_honoured() {
    let weir = Weir::start();
    weir.run(&["device", "create", "d"]);
    for minute in 0..5 {
        weir.run(&[
            "telemetry",
            "publish",
            "d",
            &format!("v={minute}"),
            "--ts",
            &format!("2015-02-04T00:0{minute}:00Z"),
        ]);
    }
    eventually("all five can be queried", || {
        (weir.rows(&["telemetry", "query", "--device", "d"]).len() == 5).then_some(())
    });
    let newest = weir.rows(&["telemetry", "query", "--device", "d", "--descending", "--limit", "2"]);
    assert_eq!(newest.iter().map(|row| row["value"].as_str()).collect::<Vec<_>>(), ["4.0", "3.0"]);
    let range = [
        "telemetry",
        "query",
        "--device",
        "d",
        "--from",
        "2015-02-04T00:01:00Z",
        "--to",
        "2015-02-04T00:03:00Z",
    ];
    assert_eq!(weir.rows(&range).len(), 2);
    let aggregate = [
        "telemetry",
        "aggregate",
        "--device",
        "d",
        "--from",
        "2015-02-04",
        "--to",
        "2015-02-05",
        "--fn",
        "count,sum,max",
    ];
    let rows = weir.rows(&aggregate);
    assert_eq!(
        (rows[0]["count"].as_str(), rows[0]["sum"].as_str(), rows[0]["max"].as_str()),
        ("5", "10.0", "4.0")
    );
}

#[test]
fn a_file_is_replayed_with_a_result_that_adds_up() {
    let weir = Weir::start();
    let file = weir.home().join("room.csv");
    std::fs::write(&file, "\"date\",\"temp\",\"CO2\"\n1,\"2015-02-04 17:51:00\",23.1,700\n2,2015-02-04 17:52:00,23.2,x\n3,bad,1,2\n").unwrap();
    let path = file.to_str().unwrap();
    let missing = weir.try_run(&["replay", path, "--device", "room"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("--create"));
    let done = weir.try_run(&["replay", path, "--device", "room", "--create"]);
    let told = String::from_utf8(done.stdout).unwrap();
    assert!(!done.status.success(), "a refused row is not success");
    let words: Vec<&str> = told.split_whitespace().collect();
    for expected in [["read", "3"], ["sent", "2"], ["acknowledged", "2"], ["refused", "1"]] {
        assert!(words.windows(2).any(|pair| pair == expected), "{told}");
    }
    assert!(told.contains("line 4"), "{told}");
    let rows = eventually("both rows can be queried", || {
        let rows = weir.rows(&["telemetry", "query", "--device", "room"]);
        (rows.len() == 4).then_some(rows)
    });
    assert_eq!(rows[0]["device"], "room");
    assert!(rows.iter().any(|row| row["type"] == "string" && row["value"] == "x"));
}
