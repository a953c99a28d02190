//! A stream at its limit.

use bytes::Bytes;
use weir_config::ByteSize;
use weir_core::{ErrorKind, Uid};
use weir_log_nats::{Bus, Options};

use crate::world::{self, ONE, STREAM};

/// It refuses, forgets nothing, and takes records again when there is room.
#[tokio::test]
async fn a_full_stream_refuses_and_goes_on_after_a_trim() {
    let Some(servers) = world::one() else { return };
    let options = Options { max_bytes: ByteSize::mib(1), ..world::options() };
    let bus = Bus::connect(&world::config(&servers, 1), options).await.unwrap();
    let log = bus.log();
    let body = Bytes::from(vec![0; 100_000]);
    let mut accepted = 0;
    let error = loop {
        match log.publish(STREAM, ONE, Uid::random(), body.clone()).await {
            Ok(sequence) => accepted = sequence,
            Err(error) => break error,
        }
        assert!(accepted < 11, "more than the limit was accepted");
    };
    assert_eq!((error.kind(), error.reason()), (ErrorKind::ResourceExhausted, "LOG_FULL"));
    assert!(error.message().contains("1048576"), "{error}");
    let bounds = log.bounds(STREAM).await.unwrap();
    assert_eq!((bounds.first, bounds.last, bounds.bytes_max), (1, accepted, Some(1 << 20)));

    log.trim(STREAM, 5).await.unwrap();
    assert_eq!(log.publish(STREAM, ONE, Uid::random(), body).await.unwrap(), accepted + 1);
    let mut reader = log.read_from(STREAM, ONE, 6).await.unwrap();
    let found = world::read(&mut *reader, 5).await;
    assert_eq!(found[0].sequence, 6);
}

/// A trim past the end does not move the end: the next sequence is the next one.
#[tokio::test]
async fn a_trim_past_the_end_leaves_the_numbering() {
    let Some(servers) = world::one() else { return };
    let log = world::connect(&world::config(&servers, 1)).await.log();
    for id in 1..=3 {
        world::publish(&*log, ONE, id).await;
    }
    log.trim(STREAM, 1_000).await.unwrap();
    let bounds = log.bounds(STREAM).await.unwrap();
    assert_eq!((bounds.first, bounds.last), (4, 3));
    assert_eq!(world::publish(&*log, ONE, 4).await, 4);
}
