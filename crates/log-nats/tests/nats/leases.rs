//! Members that die, stall and come back.

use weir_core::port::{Member, Membership, View};
use weir_log_nats::Config;
use weir_test_servers::nats;

use crate::world::{self, proxy::Proxy};

async fn sees(membership: &mut dyn Membership, expected: &[&Member]) {
    let mut expected: Vec<Member> = expected.iter().copied().cloned().collect();
    expected.sort();
    let mut last = View::default();
    let wait = async {
        loop {
            last = membership.changed().await;
            if last.members == expected {
                break;
            }
        }
    };
    let in_time = tokio::time::timeout(world::PATIENCE, wait).await.is_ok();
    assert!(in_time, "{:?} sees {last:?} and not {expected:?}", membership.me());
}

/// A member behind a proxy, and one that is not.
struct Pair {
    near: Box<dyn Membership>,
    far: Box<dyn Membership>,
    proxy: Proxy,
    _server: std::sync::Arc<nats::Bus>,
}

async fn pair() -> Option<Pair> {
    let server = world::own(nats::Options::default())?;
    let config = world::config(&server.servers(), 1);
    let proxy = Proxy::to(&server.servers()[0]).await;
    let behind = Config { servers: vec![proxy.address()], ..config.clone() };
    let mut near = world::connect(&config).await.leases().join("storage").await.unwrap();
    let mut far = world::connect(&behind).await.leases().join("storage").await.unwrap();
    let (a, b) = (near.me().clone(), far.me().clone());
    sees(&mut *near, &[&a, &b]).await;
    sees(&mut *far, &[&a, &b]).await;
    Some(Pair { near, far, proxy, _server: server })
}

/// Its key is deleted by its neighbour; its own view is empty when its lease cannot be held; then it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_connection_closed_is_out_of_the_view_and_back_after_it_reconnects() {
    let Some(mut pair) = pair().await else { return };
    let (a, b) = (pair.near.me().clone(), pair.far.me().clone());
    let cut = std::time::Instant::now();
    pair.proxy.cut();
    sees(&mut *pair.near, &[&a]).await;
    eprintln!("out of the view {:?} after its connection closed", cut.elapsed());
    sees(&mut *pair.far, &[]).await;
    eprintln!("stopped by itself {:?} after its connection closed", cut.elapsed());
    pair.proxy.heal();
    sees(&mut *pair.near, &[&a, &b]).await;
    sees(&mut *pair.far, &[&a, &b]).await;
}

/// Its connection is there and says nothing: only its key's end counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stalls_is_out_of_the_view_when_its_key_expires() {
    let Some(mut pair) = pair().await else { return };
    let (a, b) = (pair.near.me().clone(), pair.far.me().clone());
    let stalled = std::time::Instant::now();
    pair.proxy.stall();
    sees(&mut *pair.far, &[]).await;
    eprintln!("stopped by itself {:?} after it stalled", stalled.elapsed());
    sees(&mut *pair.near, &[&a]).await;
    eprintln!("out of the view {:?} after it stalled", stalled.elapsed());
    pair.proxy.heal();
    sees(&mut *pair.near, &[&a, &b]).await;
    sees(&mut *pair.far, &[&a, &b]).await;
}

/// The process lives on, and its membership is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_membership_that_was_dropped_is_out_of_the_view() {
    let Some(servers) = world::three() else { return };
    let config = world::config(&servers, 3);
    let mut stays = world::connect(&config).await.leases().join("storage").await.unwrap();
    let dropped = world::connect(&config).await.leases().join("storage").await.unwrap();
    let (a, b) = (stays.me().clone(), dropped.me().clone());
    sees(&mut *stays, &[&a, &b]).await;
    drop(dropped);
    sees(&mut *stays, &[&a]).await;
}

/// The bucket is lost with the server's store: it is made again, and the view is what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_was_deleted_is_made_again() {
    let Some(servers) = world::one() else { return };
    let config = world::config(&servers, 1);
    let mut one = world::connect(&config).await.leases().join("storage").await.unwrap();
    let a = one.me().clone();
    sees(&mut *one, &[&a]).await;
    world::admin(&servers).await.delete_key_value(format!("{}_leases", config.prefix)).await.unwrap();
    let mut two = loop {
        if let Ok(two) = world::connect(&config).await.leases().join("storage").await {
            break two;
        }
    };
    let b = two.me().clone();
    sees(&mut *two, &[&a, &b]).await;
    sees(&mut *one, &[&a, &b]).await;
}
