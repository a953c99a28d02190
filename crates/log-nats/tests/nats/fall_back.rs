//! A log that is not the one that was read.

use std::{path::Path, process::Command, sync::Arc};

use tempfile::TempDir;
use weir_core::{
    ErrorKind,
    port::{Log, Records},
    progress::Claim,
};
use weir_store_embedded::{EmbeddedStore, Options};
use weir_test_servers::nats;

use crate::world::{self, ONE, STREAM};

const PARTITIONS: u16 = 16;

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(done.success(), "{} is not copied", from.display());
}

async fn claim(records: &Arc<EmbeddedStore>, log: &dyn Log) -> (Claim, weir_core::progress::Resume) {
    let records: Arc<dyn Records> = Arc::clone(records) as Arc<dyn Records>;
    let mut claim = Claim::take(records, "storage", STREAM, ONE).await.unwrap();
    let resume = claim.resume(log, STREAM, PARTITIONS).await.unwrap();
    (claim, resume)
}

/// The server comes back with an older store, as after a power cut, and other records follow: fewer than were lost, and
/// more. The reader says so, and its owner goes on under a new generation from where the log agrees.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_fell_back_under_its_owner_is_told_and_read_again_from_where_it_agrees() {
    for grown in [0, 1, 10] {
        let Some(server) = world::own(nats::Options::default()) else { return };
        let dir = TempDir::new().unwrap();
        let older = dir.path().join("older");
        let records = EmbeddedStore::open(dir.path().join("store"), Options::default()).unwrap();
        let log = world::connect(&world::config(&server.servers(), 1)).await.log();
        for id in 1..=3 {
            world::publish(&*log, ONE, id).await;
        }
        server.stop(0);
        copy(&server.store_of(0), &older);
        server.start_again(0).unwrap();
        for id in 4..=6 {
            world::publish(&*log, ONE, id).await;
        }
        let (mut owner, resume) = claim(&records, &*log).await;
        let mut reader = log.read_from(STREAM, ONE, resume.from).await.unwrap();
        let mut progress = resume.progress;
        for record in world::read(&mut *reader, 6).await {
            progress.passed(resume.generations.of(record.sequence), record.sequence, record.id);
        }
        owner.advance(progress, vec![]).await.unwrap();

        server.kill(0);
        copy(&older, &server.store_of(0));
        server.start_again(0).unwrap();
        for id in 101..101 + grown {
            world::publish(&*log, ONE, id).await;
        }
        let error = world::fails(&mut *reader).await;
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Aborted, "LOG_FELL_BACK"), "{error}");

        let (_, resume) = claim(&records, &*log).await;
        assert!(resume.lost.is_some());
        assert_eq!((resume.from, resume.generations.of(4), resume.generations.of(3)), (4, 2, 1));
        world::publish(&*log, ONE, 201).await;
        let mut reader = log.read_from(STREAM, ONE, resume.from).await.unwrap();
        let count = usize::try_from(grown).unwrap() + 1;
        let expected: Vec<u128> = (101..101 + grown).chain([201]).collect();
        assert_eq!(world::ids(&world::read(&mut *reader, count).await), expected);
    }
}

/// The stream is made again by whoever looks for it, and a reader of the old one is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_is_made_anew_and_its_reader_is_told() {
    let Some(servers) = world::one() else { return };
    let config = world::config(&servers, 1);
    let log = world::connect(&config).await.log();
    let before = log.identity(STREAM).await.unwrap();
    world::publish(&*log, ONE, 1).await;
    let mut reader = log.read_from(STREAM, ONE, 1).await.unwrap();
    world::read(&mut *reader, 1).await;
    world::admin(&servers).await.delete_stream(format!("{}_readings", config.prefix)).await.unwrap();
    let error = world::fails(&mut *reader).await;
    assert_eq!(error.reason(), "LOG_FELL_BACK", "{error}");
    assert_ne!(log.identity(STREAM).await.unwrap(), before);
    assert_eq!(world::publish(&*log, ONE, 2).await, 1);
    let mut reader = log.read_from(STREAM, ONE, 1).await.unwrap();
    assert_eq!(world::ids(&world::read(&mut *reader, 1).await), [2]);
}

/// A leader that lags tells an end that is too low, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_below_a_known_one_is_asked_for_again_before_it_is_believed() {
    let Some(servers) = world::one() else { return };
    let log = world::connect(&world::config(&servers, 1)).await.log();
    world::publish(&*log, ONE, 1).await;
    let (bounds, ()) = tokio::join!(log.bounds_with(STREAM, 2), async {
        assert_eq!(log.bounds(STREAM).await.unwrap().last, 1, "asked after the other, and answered after it");
        world::publish(&*log, ONE, 2).await;
    });
    assert_eq!(bounds.unwrap().last, 2);
}
