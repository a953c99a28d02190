//! The suite of [`weir_core::port::Signals`].
//!
//! Precondition of every function: nothing else publishes. `signals_suite!` makes a test of each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a suite fails by panicking, as a test does")]

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use weir_core::{
    TenantId, Uid,
    port::{Signal, SignalStream, Signals, Topic},
};

/// Makes a test of every function of the suite. `$open` is an `async fn() -> (Arc<dyn Signals>, G)`; the guard `G` lives as
/// long as the test.
#[macro_export]
macro_rules! signals_suite {
    ($open:path) => {
        $crate::signals_suite!(
            $open:
            every_subscriber_of_a_topic_gets_its_signals_and_no_others,
            a_signal_without_a_subscriber_is_no_error,
            a_subscriber_that_falls_behind_is_told_so,
        );
    };
    ($open:path: $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some((signals, _guard)) = $crate::Opened::opened($open().await) else { return };
                $crate::signals::$name(signals).await;
            }
        )+
    };
}

/// Longer than any engine needs on a slow machine; only a failure waits as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than any engine keeps for a subscriber that does not listen.
const FLOOD: u128 = 200_000;

fn waiting(uid: u128) -> Signal {
    Signal::CommandWaiting { tenant: TenantId::new("t").unwrap(), uid: Uid::from_u128(uid) }
}

async fn next(stream: &mut SignalStream) -> Option<Signal> {
    match tokio::time::timeout(PATIENCE, stream.next()).await {
        Ok(Some(signal)) => signal,
        Ok(None) => panic!("the subscription ended"),
        Err(_) => panic!("no signal came within {PATIENCE:?}"),
    }
}

/// In the order of their publishing.
pub async fn every_subscriber_of_a_topic_gets_its_signals_and_no_others(signals: Arc<dyn Signals>) {
    let mut first = signals.subscribe(Topic::Commands).await;
    let mut second = signals.subscribe(Topic::Commands).await;
    let mut rules = signals.subscribe(Topic::Rules).await;
    let changed = Signal::RulesChanged { tenant: TenantId::new("t").unwrap() };
    for signal in [waiting(1), changed.clone(), waiting(2)] {
        signals.publish(signal).await;
    }
    for stream in [&mut first, &mut second] {
        assert_eq!(next(stream).await, Some(waiting(1)));
        assert_eq!(next(stream).await, Some(waiting(2)));
    }
    assert_eq!(next(&mut rules).await, Some(changed));
}

/// It is a hint; a later subscriber does not get it.
pub async fn a_signal_without_a_subscriber_is_no_error(signals: Arc<dyn Signals>) {
    signals.publish(waiting(1)).await;
    let mut late = signals.subscribe(Topic::Commands).await;
    signals.publish(waiting(2)).await;
    assert_eq!(next(&mut late).await, Some(waiting(2)));
}

/// It gets all, or `None` in the place of what is missing; and then the newest.
pub async fn a_subscriber_that_falls_behind_is_told_so(signals: Arc<dyn Signals>) {
    let mut slow = signals.subscribe(Topic::Commands).await;
    for uid in 1..=FLOOD {
        signals.publish(waiting(uid)).await;
    }
    let (mut expected, mut gap) = (1, false);
    while expected <= FLOOD {
        match next(&mut slow).await {
            None => gap = true,
            Some(signal) => {
                let Signal::CommandWaiting { uid, .. } = signal else { panic!("{signal:?}") };
                assert!(uid.as_u128() == expected || gap, "{expected} is missing without a word");
                (expected, gap) = (uid.as_u128() + 1, false);
            }
        }
    }
}
