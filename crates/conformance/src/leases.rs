//! The suite of [`weir_core::port::Leases`].
//!
//! Precondition of every function: nobody else is in a group. `leases_suite!` makes a test of each. What happens to members
//! that die or stall depends on what an engine's processes are, and is tested beside each engine.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a suite fails by panicking, as a test does"
)]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt as _, join_all};
use weir_core::port::{Leases, Member, Membership, View};

/// Starts what stands for one more process.
pub type Processes = Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Leases>> + Send + Sync>;

/// Makes a test of every function of the suite. `$open` is an `async fn() -> (Processes, G)`; the guard `G` lives as long
/// as the test.
#[macro_export]
macro_rules! leases_suite {
    ($open:path) => {
        $crate::leases_suite!(
            $open:
            a_member_is_in_its_own_view_and_it_comes_once,
            members_of_a_group_come_to_see_the_same,
            groups_are_apart,
            who_leaves_is_out_of_every_view,
            a_view_that_was_waited_for_in_vain_comes_later,
        );
    };
    ($open:path: $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some((processes, _guard)) = $crate::Opened::opened($open().await) else { return };
                $crate::leases::$name(processes).await;
            }
        )+
    };
}

/// Longer than any engine needs on a slow machine; only a failure waits as long.
const PATIENCE: Duration = Duration::from_secs(30);

async fn join(processes: &Processes, group: &str) -> Box<dyn Membership> {
    processes().await.join(group).await.unwrap()
}

/// Waits until a member sees just these.
async fn sees(membership: &mut dyn Membership, expected: &[Member]) {
    let mut expected = expected.to_vec();
    expected.sort();
    let mut last = View::default();
    let wait = async {
        while last.members != expected {
            let view = membership.changed().await;
            assert_ne!(view, last, "the same view twice");
            last = view;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, wait).await.is_ok();
    assert!(in_time, "{:?} sees {last:?} and not {expected:?}", membership.me());
}

/// The first call gives it; the second waits, because nothing changes.
pub async fn a_member_is_in_its_own_view_and_it_comes_once(processes: Processes) {
    let mut one = join(&processes, "storage").await;
    let me = one.me().clone();
    let view = one.changed().await;
    assert_eq!(view.members, [me]);
    assert_eq!(one.changed().now_or_never(), None);
    one.leave().await;
}

/// Whoever came first and whoever came last, in the order of ids.
pub async fn members_of_a_group_come_to_see_the_same(processes: Processes) {
    let mut all = vec![];
    for _ in 0..3 {
        all.push(join(&processes, "storage").await);
    }
    let members: Vec<Member> = all.iter().map(|one| one.me().clone()).collect();
    let ids: BTreeSet<_> = members.iter().map(|member| member.id).collect();
    assert_eq!(ids.len(), 3, "{members:?}");
    join_all(all.iter_mut().map(|one| sees(&mut **one, &members))).await;
}

/// A member of one is in no view of another.
pub async fn groups_are_apart(processes: Processes) {
    let mut storage = join(&processes, "storage").await;
    let mut analytics = join(&processes, "analytics").await;
    let mut second = join(&processes, "analytics").await;
    let (a, b) = (analytics.me().clone(), second.me().clone());
    sees(&mut *analytics, &[a.clone(), b.clone()]).await;
    sees(&mut *second, &[a, b]).await;
    let alone = [storage.me().clone()];
    sees(&mut *storage, &alone).await;
    assert_eq!(storage.changed().now_or_never(), None);
}

/// And may come back as another member.
pub async fn who_leaves_is_out_of_every_view(processes: Processes) {
    let mut stays = join(&processes, "storage").await;
    let mut leaves = join(&processes, "storage").await;
    let (a, b) = (stays.me().clone(), leaves.me().clone());
    sees(&mut *stays, &[a.clone(), b.clone()]).await;
    sees(&mut *leaves, &[a.clone(), b]).await;
    leaves.leave().await;
    sees(&mut *stays, std::slice::from_ref(&a)).await;
    let mut back = join(&processes, "storage").await;
    let b = back.me().clone();
    sees(&mut *stays, &[a.clone(), b.clone()]).await;
    sees(&mut *back, &[a, b]).await;
}

/// A wait that is given up loses nothing.
pub async fn a_view_that_was_waited_for_in_vain_comes_later(processes: Processes) {
    let mut one = join(&processes, "storage").await;
    let a = one.me().clone();
    sees(&mut *one, std::slice::from_ref(&a)).await;
    for _ in 0..10 {
        assert_eq!(one.changed().now_or_never(), None);
    }
    let second = join(&processes, "storage").await;
    while one.changed().now_or_never().is_none() {
        tokio::task::yield_now().await;
    }
    drop(second);
    sees(&mut *one, &[a]).await;
}
