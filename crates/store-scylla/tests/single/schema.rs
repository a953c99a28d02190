//! The schema: made once, by one at a time, and refused where it is not this release's.

use scylla::client::{session::Session, session_builder::SessionBuilder};
use weir_core::{ErrorKind, Uid};
use weir_store_scylla::{Config, Durability, ScyllaStore, migrate};

use super::support::Server;

fn config(server: &Server) -> Config {
    let digits = Uid::random().to_string();
    server.config(&format!("weir_{digits}"))
}

async fn session(config: &Config) -> Session {
    SessionBuilder::new().known_nodes(&config.hosts).build().await.unwrap()
}

/// Removes a keyspace, so that a server given from outside is left as it was.
async fn forget(config: &Config) {
    let drop = format!("DROP KEYSPACE {}", config.keyspace);
    session(config).await.query_unpaged(drop, ()).await.unwrap();
}

async fn refusal(config: &Config) -> (ErrorKind, String, String) {
    let Err(error) = ScyllaStore::connect(config, Durability::Process).await else {
        panic!("connected to keyspace {}", config.keyspace)
    };
    (error.kind(), error.reason().to_owned(), error.message().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_planned_then_made_then_left_alone() {
    let Some(server) = super::server() else { return };
    let _whole = server.whole().await;
    let config = config(server);
    let (kind, reason, message) = refusal(&config).await;
    assert_eq!((kind, &*reason), (ErrorKind::FailedPrecondition, "SCHEMA_OLD"));
    assert!(message.contains("weir migrate"), "{message}");

    let plan = migrate::plan(&config).await.unwrap();
    assert!(plan[0].statements[0].contains("CREATE KEYSPACE") && plan.len() > 1, "{plan:?}");
    assert!(plan.iter().all(|step| step.statements.iter().all(|cql| !cql.contains("tablets"))));
    let mut told = vec![];
    let taken = migrate::run(&config, |step| told.push(step.clone())).await.unwrap();
    assert_eq!((taken, &told), (plan.len(), &plan));
    ScyllaStore::connect(&config, Durability::Process).await.unwrap();

    assert_eq!(migrate::plan(&config).await.unwrap(), []);
    let again = migrate::run(&config, |step| panic!("step {} again", step.number)).await.unwrap();
    assert_eq!(again, 0);
    forget(&config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_runners_one_works_and_the_other_finds_it_done() {
    let Some(server) = super::server() else { return };
    let _whole = server.whole().await;
    let config = config(server);
    let plan = migrate::plan(&config).await.unwrap();
    let (one, two) = tokio::join!(migrate::run(&config, |_| {}), migrate::run(&config, |_| {}));
    let mut taken = [one.unwrap(), two.unwrap()];
    taken.sort_unstable();
    assert_eq!(taken, [0, plan.len()]);
    ScyllaStore::connect(&config, Durability::Process).await.unwrap();
    forget(&config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_not_this_releases_is_refused_by_name() {
    let Some(server) = super::server() else { return };
    let _whole = server.whole().await;
    let config = config(server);
    let steps = migrate::run(&config, |_| {}).await.unwrap();
    let session = session(&config).await;
    let change = async |cql: String| session.query_unpaged(cql, ()).await.map(drop).unwrap();
    let table = format!("{}.schema_version", config.keyspace);

    change(format!("INSERT INTO {table} (scope, step, name) VALUES ('weir', {}, 'later')", steps + 1)).await;
    assert_eq!(refusal(&config).await.1, "SCHEMA_NEW");
    assert_eq!(migrate::plan(&config).await.unwrap_err().reason(), "SCHEMA_NEW");
    assert_eq!(migrate::run(&config, |_| {}).await.unwrap_err().reason(), "SCHEMA_NEW");

    for step in [steps + 1, steps] {
        change(format!("DELETE FROM {table} WHERE scope = 'weir' AND step = {step}")).await;
    }
    assert_eq!(refusal(&config).await.1, "SCHEMA_OLD");
    // A runner died after its last step and before it said so: the step is taken again, and harms nothing. It held the
    // lease, which runs out.
    let lease = format!("{}.schema_lease", config.keyspace);
    change(format!("INSERT INTO {lease} (scope, holder) VALUES ('weir', 0x01) USING TTL 2")).await;
    assert_eq!(migrate::run(&config, |_| {}).await.unwrap(), 1);
    ScyllaStore::connect(&config, Durability::Process).await.unwrap();
    forget(&config).await;
}
