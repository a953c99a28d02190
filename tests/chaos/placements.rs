//! How many of each service there are, and which one somebody talks to, changes nothing that can be seen from outside.

use std::{path::PathBuf, process::Command, time::Duration};

use serde_json::json;
use tokio::time::timeout;
use weir_core::{TenantId, name};
use weir_drive::{Place, mqtt::Client, provision};
use weir_proto::commands::v1 as pb;
use weir_tests::cluster::{Cluster, Shape};

use crate::{TURN, skipped};

/// Longer than anything takes on a slow machine; only a failure waits as long.
const PATIENCE: Duration = Duration::from_secs(120);
/// Rules over both files: thresholds that hold for a while, windows, changes, silence within the data.
const RULES: [(&str, &[&str]); 5] = [
    ("stuffy", &["--when", "CO2 > 1000", "--for", "5m", "--clear-when", "CO2 < 800"]),
    ("mean", &["--when", "avg(CO2, \"30m\") > 700", "--clear-for", "3m"]),
    ("hot", &["--when", "m4 > 1412", "--for", "3m", "--clear-for", "5m"]),
    ("worn", &["--when", "avg(m11, \"10m\") > 47.9"]),
    ("jump", &["--when", "delta(m9, \"5m\") > 12"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn alarms_and_commands_are_the_same_in_every_placement() {
    let _turn = TURN.lock().await;
    drop(rustls::crypto::ring::default_provider().install_default()); // by the first test alone
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    };
    let binary = weir_tests::binary();
    let single = Cluster::embedded(&at("single"), &binary, false, false, &[]).await.unwrap();
    let expected = alarms_of_a_replay(&single).await;
    drop(single);
    let shape =
        Shape { nats: 1, cql: 1, replicas: 2, edges: 3, disks: false, clocks: false, sync_always: false };
    let cluster = match Cluster::shared(&at("many"), &binary, &shape, &[]).await {
        Ok(cluster) => cluster,
        Err(error) => return drop(skipped(&error.to_string())),
    };
    let found = alarms_of_a_replay(&cluster).await;
    assert_eq!(found, expected, "the alarms of many processes and those of one");
    a_command_reaches_its_device_wherever_both_are(&cluster).await;
}

async fn places(cluster: &Cluster) -> Vec<Place> {
    cluster.places(&TenantId::new("default").unwrap(), cluster.token()).await.unwrap()
}

/// Each file goes in at another edge, the first half of one here and the rest there; everything that can be said of the
/// alarms but ids and wall-clock times.
async fn alarms_of_a_replay(cluster: &Cluster) -> Vec<String> {
    let places = places(cluster).await;
    let edge = |number: usize| places.get(number % places.len()).unwrap();
    for (id, condition) in RULES {
        weir(cluster, edge(0), &[&["rule", "create", id][..], condition].concat());
    }
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../services/weir/data");
    let text = std::fs::read_to_string(data.join("office.csv")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let (head, rows) = lines.split_first().unwrap();
    for (number, half) in rows.chunks(rows.len().div_ceil(2)).enumerate() {
        let file = cluster.dir().join(format!("office-{number}.csv"));
        std::fs::write(&file, format!("{head}\n{}\n", half.join("\n"))).unwrap();
        let file = file.display().to_string();
        weir(
            cluster,
            edge(number),
            &["replay", &file, "--device", "room", "--create", "--time-column", "date"],
        );
    }
    let file = data.join("engines.txt").display().to_string();
    let measured = (1..=21).map(|number| format!("m{number}")).collect::<Vec<_>>().join(",");
    let columns = format!("engine,cycle,o1,o2,o3,{measured}");
    let begin = ["--time-column", "cycle", "--start", "2024-01-01T00:00:00Z", "--interval", "1m"];
    let args = ["replay", &file, "--columns", &columns, "--device-column", "engine", "--create"];
    weir(cluster, edge(2), &[&args[..], &begin].concat());
    settled_alarms(cluster, &places).await
}

/// The alarms once every edge tells the same ones, twice.
async fn settled_alarms(cluster: &Cluster, places: &[Place]) -> Vec<String> {
    let mut before = Vec::new();
    let told = timeout(PATIENCE, async {
        loop {
            let all: Vec<Vec<String>> = places.iter().map(|place| alarms(cluster, place)).collect();
            let first = all.first().cloned().unwrap();
            if !first.is_empty() && all.iter().all(|told| *told == first) && before == first {
                return first;
            }
            before = first;
            tokio::time::sleep(Duration::from_secs(2)).await; // longer than an owner takes for what is left of a replay
        }
    });
    told.await.expect("every edge tells the same alarms")
}

fn alarms(cluster: &Cluster, place: &Place) -> Vec<String> {
    let told = weir(cluster, place, &["alarm", "list", "-o", "csv"]);
    // The first column is the id.
    let mut rows: Vec<String> =
        told.lines().map(|row| row.split_once(',').map_or(row, |(_, rest)| rest).to_owned()).collect();
    rows.sort();
    rows
}

/// `weir`, typed at one edge.
fn weir(cluster: &Cluster, place: &Place, args: &[&str]) -> String {
    let mqtt = place.mqtt.clone().unwrap();
    let grpc = mqtt.replace(":1883", ":8081");
    let mut command = Command::new(weir_tests::binary());
    command.args(args).args(["--addr", &grpc, "--token", cluster.token()]);
    if args.first() == Some(&"replay") {
        command.args(["--mqtt-addr", &mqtt]);
    }
    let home = cluster.dir().join("home");
    let output = command.env("XDG_CONFIG_HOME", &home).env("HOME", &home).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "weir {}: {complaint}", args.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

async fn a_command_reaches_its_device_wherever_both_are(cluster: &Cluster) {
    let places = places(cluster).await;
    let first = places.first().unwrap();
    let id = "actor";
    provision::create(first, &[id.to_owned()], &std::collections::HashMap::new()).await.unwrap();
    let token = provision::token(first, id).await.unwrap().secret;
    for (here, edge) in places.iter().enumerate() {
        let mut client = Client::connect(edge.mqtt.as_deref().unwrap(), id, &token).await.unwrap();
        client.subscribe("v1/commands/request/+/+").await.unwrap();
        for (there, controller) in places.iter().enumerate() {
            let what = format!("device at edge {here}, command at edge {there}");
            let request = pb::SendCommandRequest {
                device: name::child(&controller.tenant, "devices", id),
                command: "turn".to_owned(),
                payload: json!({"from": there}).to_string(),
                request_id: format!("{here}-{there}"),
                ..Default::default()
            };
            let sent =
                controller.connection.commands().send_command(request).await.expect(&what).into_inner();
            let given = timeout(PATIENCE, client.next()).await.expect(&what).expect(&what);
            assert_eq!(given.payload, json!({"from": there}).to_string(), "{what}");
            let id = given.topic.split('/').nth(3).expect(&what);
            let topic = format!("v1/commands/response/{id}");
            let answer = client.publish(&topic, b"{\"ok\":true}".to_vec());
            answer.await.expect(&what).await.expect(&what).expect(&what);
            let name = sent.command.expect(&what).name;
            for place in &places {
                succeeded(place, &name, &what).await;
            }
        }
        client.leave().await;
    }
}

async fn succeeded(place: &Place, name: &str, what: &str) {
    let done = timeout(PATIENCE, async {
        loop {
            let request = pb::GetCommandRequest { name: name.to_owned() };
            let command = place.connection.commands().get_command(request).await.expect(what).into_inner();
            if command.command.is_some_and(|command| command.state() == pb::CommandState::Succeeded) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    done.await.unwrap_or_else(|_| panic!("{what}: it is not SUCCEEDED"));
}
