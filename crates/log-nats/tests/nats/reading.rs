//! Readers while their server comes and goes.

use std::time::Duration;

use weir_test_servers::nats;

use crate::world::{self, ONE, STREAM, TWO};

/// Killed and stopped, between batches and while it waits: each record comes once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_goes_on_over_restarts_of_its_server() {
    let Some(server) = world::own(nats::Options::default()) else { return };
    let log = world::connect(&world::config(&server.servers(), 1)).await.log();
    let mut reader = log.read_from(STREAM, ONE, 1).await.unwrap();
    let mut expected = 1..;
    for round in 0..6 {
        for _ in 0..20 {
            world::publish(&*log, ONE, expected.next().unwrap()).await;
        }
        let before = expected.start - 20;
        let first = world::read(&mut *reader, 1).await;
        assert_eq!(world::ids(&first)[0], before, "round {round}");
        if round % 2 == 0 {
            server.kill(0);
        } else {
            server.stop(0);
        }
        server.start_again(0).unwrap();
        if first.len() < 20 {
            let rest = world::read(&mut *reader, 20 - first.len()).await;
            assert_eq!(world::ids(&rest), (before + first.len() as u128..expected.start).collect::<Vec<_>>());
        }
    }
}

/// A wait that is given up, again and again, loses and repeats nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_is_given_up_loses_nothing() {
    let Some(servers) = world::one() else { return };
    let log = world::connect(&world::config(&servers, 1)).await.log();
    let mut reader = log.read_from(STREAM, ONE, 1).await.unwrap();
    let mut found = vec![];
    let publishing = async {
        for id in 1..=300 {
            world::publish(&*log, if id % 3 == 0 { TWO } else { ONE }, id).await;
        }
    };
    let reading = async {
        let mut tries = 0;
        while found.len() < 200 {
            tries += 1;
            let patience = Duration::from_micros(tries * 50 % 3_000);
            if let Ok(batch) = tokio::time::timeout(patience, reader.next(40, Duration::from_secs(1))).await {
                found.extend(world::ids(&batch.unwrap().records));
            }
        }
    };
    tokio::time::timeout(world::PATIENCE, async { tokio::join!(publishing, reading) }).await.unwrap();
    assert_eq!(found, (1..=300).filter(|id| id % 3 != 0).collect::<Vec<u128>>());
}

/// Another program's message in the stream is given, under an id of its own, so that whoever decodes it refuses it.
#[tokio::test]
async fn a_message_of_a_stranger_is_a_record_with_an_id() {
    let Some(servers) = world::one() else { return };
    let config = world::config(&servers, 1);
    let log = world::connect(&config).await.log();
    let admin = world::admin(&servers).await;
    let subject = format!("{}.log.readings.1", config.prefix);
    admin.publish(subject, "stranger".into()).await.unwrap().await.unwrap();
    world::publish(&*log, ONE, 7).await;
    let mut reader = log.read_from(STREAM, ONE, 1).await.unwrap();
    let found = world::read(&mut *reader, 2).await;
    assert_eq!(&*found[0].bytes, b"stranger");
    assert_eq!(log.ids(STREAM, &[1, 2]).await.unwrap(), [Some(found[0].id), Some(found[1].id)]);
}
