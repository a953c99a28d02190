//! Signals while their server comes and goes.

use futures::StreamExt as _;
use weir_core::{
    TenantId,
    port::{Signal, SignalStream, Topic},
};
use weir_test_servers::nats;

use crate::world;

fn signal(tenant: &str) -> Signal {
    Signal::RulesChanged { tenant: TenantId::new(tenant).unwrap() }
}

async fn next(stream: &mut SignalStream) -> Option<Signal> {
    tokio::time::timeout(world::PATIENCE, stream.next()).await.unwrap().unwrap()
}

/// First the gap, then what is published after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_is_a_gap_and_then_signals_are_back() {
    let Some(server) = world::own(nats::Options::default()) else { return };
    let config = world::config(&server.servers(), 1);
    let (publisher, subscriber) = (world::connect(&config).await, world::connect(&config).await);
    let mut heard = subscriber.signals().subscribe(Topic::Rules).await;
    publisher.signals().publish(signal("before")).await;
    assert_eq!(next(&mut heard).await, Some(signal("before")));
    server.kill(0);
    assert_eq!(next(&mut heard).await, None);
    publisher.signals().publish(signal("lost")).await; // never fails, never waits
    server.start_again(0).unwrap();
    // A gap each for the loss, the reconnect, and the publisher's own; whatever is published after the last is heard.
    let mut tries = 0;
    let mut heard_after = false;
    while !heard_after && tries < 600 {
        tries += 1;
        publisher.signals().publish(signal(&format!("after-{tries}"))).await;
        let waited = tokio::time::timeout(std::time::Duration::from_millis(100), heard.next()).await;
        heard_after = matches!(waited, Ok(Some(Some(Signal::RulesChanged { tenant }))) if tenant.as_str().starts_with("after"));
    }
    assert!(heard_after, "no signal came after the restart");
}

/// The subscriber's connection is well; the publisher's was cut, and what it published meanwhile is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_was_cut_off_tells_that_signals_are_missing() {
    let Some(server) = world::own(nats::Options::default()) else { return };
    let config = world::config(&server.servers(), 1);
    let proxy = world::proxy::Proxy::to(&server.servers()[0]).await;
    let subscriber = world::connect(&config).await;
    let publisher =
        world::connect(&weir_log_nats::Config { servers: vec![proxy.address()], ..config.clone() }).await;
    let mut heard = subscriber.signals().subscribe(Topic::Rules).await;
    publisher.signals().publish(signal("before")).await;
    assert_eq!(next(&mut heard).await, Some(signal("before")));
    proxy.cut();
    while publisher.log().writable().await.is_ok() {}
    publisher.signals().publish(signal("lost")).await;
    proxy.heal();
    assert_eq!(next(&mut heard).await, None);
}

/// Of another release, perhaps: something was said that is not understood.
#[tokio::test]
async fn a_message_that_is_not_understood_is_a_gap() {
    let Some(servers) = world::one() else { return };
    let config = world::config(&servers, 1);
    let bus = world::connect(&config).await;
    let mut heard = bus.signals().subscribe(Topic::Rules).await;
    let client = async_nats::connect(servers).await.unwrap();
    client.publish(format!("{}.signal.rules", config.prefix), "{\"v\":9}".into()).await.unwrap();
    assert_eq!(next(&mut heard).await, None);
}
