//! What is on the bus already, and what a start makes of it.

use std::time::Duration;

use async_nats::jetstream::stream::{
    Config as StreamConfig, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType, SubjectTransform,
};
use futures::future::join_all;
use weir_config::{ByteSize, Durability};
use weir_core::ErrorKind;
use weir_log_nats::{Bus, Config, Options};

use crate::world::{self, ONE, STREAM};

/// As Weir makes it.
fn good(prefix: &str) -> StreamConfig {
    StreamConfig {
        name: format!("{prefix}_readings"),
        subjects: vec![format!("{prefix}.log.readings.*")],
        discard: DiscardPolicy::New,
        max_bytes: 64 << 20,
        duplicate_window: Duration::from_secs(1_200),
        ..StreamConfig::default()
    }
}

type Spoil = fn(&mut StreamConfig);

const BAD: [(&str, Spoil); 14] = [
    ("retention", |stream| stream.retention = RetentionPolicy::WorkQueue),
    ("retention", |stream| stream.retention = RetentionPolicy::Interest),
    ("storage", |stream| stream.storage = StorageType::Memory),
    ("discard", |stream| stream.discard = DiscardPolicy::Old),
    ("max_age", |stream| stream.max_age = Duration::from_secs(86_400)),
    ("max_msgs", |stream| stream.max_messages = 1_000_000),
    ("max_msgs_per_subject", |stream| stream.max_messages_per_subject = 10),
    ("max_msg_size", |stream| stream.max_message_size = 100_000),
    ("persist_mode", |stream| stream.persist_mode = Some(PersistenceMode::Async)),
    ("no_ack", |stream| stream.no_ack = true),
    ("deny_purge", |stream| stream.deny_purge = true),
    ("subject_transform", |stream| {
        let source = stream.subjects[0].clone();
        let destination = source.replace(".log.", ".other.").replace('*', "{{wildcard(1)}}");
        stream.subject_transform = Some(SubjectTransform { source, destination });
    }),
    ("duplicate_window", |stream| stream.duplicate_window = Duration::from_secs(120)),
    ("subjects", |stream| stream.subjects.push(format!("{}.more", stream.name))),
];

/// Each names the setting, and says what is needed.
#[tokio::test]
async fn an_existing_stream_that_would_break_a_promise_is_refused_by_the_name_of_its_setting() {
    let Some(servers) = world::one() else { return };
    let admin = world::admin(&servers).await;
    for (setting, spoil) in BAD {
        let config = world::config(&servers, 1);
        let mut stream = good(&config.prefix);
        spoil(&mut stream);
        admin.create_stream(stream).await.unwrap_or_else(|error| panic!("{setting}: {error}"));
        let error = Bus::connect(&config, world::options()).await.err().unwrap();
        assert_eq!(
            (error.kind(), error.reason(), error.field()),
            (ErrorKind::FailedPrecondition, "BUS_STREAM_UNSUITABLE", Some(setting)),
            "{error}"
        );
        assert!(error.message().contains(&format!("{}_readings", config.prefix)), "{error}");
        admin.delete_stream(format!("{}_readings", config.prefix)).await.unwrap();
    }
}

/// Somebody changes the stream while Weir runs.
#[tokio::test]
async fn a_stream_that_was_changed_since_the_start_is_told_as_not_durable() {
    let Some(servers) = world::one() else { return };
    let config = world::config(&servers, 1);
    let log = Bus::connect(&config, world::options()).await.unwrap().log();
    log.durable().await.unwrap();
    let admin = world::admin(&servers).await;
    let name = format!("{}_readings", config.prefix);
    let mut stream = admin.get_stream(&name).await.unwrap();
    let as_made = stream.info().await.unwrap().config.clone();
    let changed = StreamConfig { max_age: Duration::from_secs(86_400), ..as_made.clone() };
    admin.update_stream(&changed).await.unwrap();
    let error = log.durable().await.unwrap_err();
    assert_eq!((error.reason(), error.field()), ("BUS_STREAM_UNSUITABLE", Some("max_age")));
    admin.update_stream(&as_made).await.unwrap();
    log.durable().await.unwrap();
}

/// The name of the other stream is told.
#[tokio::test]
async fn a_stream_that_has_the_subjects_is_named() {
    let Some(servers) = world::one() else { return };
    let config = world::config(&servers, 1);
    let admin = world::admin(&servers).await;
    let name = format!("{}-other", config.prefix);
    let subjects = vec![format!("{}.log.>", config.prefix)];
    admin
        .create_stream(StreamConfig { name: name.clone(), subjects, ..StreamConfig::default() })
        .await
        .unwrap();
    let error = Bus::connect(&config, world::options()).await.err().unwrap();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, "BUS_SUBJECTS_TAKEN"));
    assert!(error.message().contains(&name), "{error}");
}

/// All of them see the same log afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_start_at_once() {
    let Some(servers) = world::three() else { return };
    let config = world::config(&servers, 3);
    let buses = join_all((0..8).map(|_| world::connect(&config))).await;
    let mut identities = vec![];
    for bus in &buses {
        identities.push(bus.log().identity(STREAM).await.unwrap());
    }
    assert!(identities.iter().all(|identity| *identity == identities[0]), "{identities:?}");
}

/// A limit follows the configuration, but never below what is held; replicas are raised and not lowered.
#[tokio::test]
async fn limits_and_replicas_follow_the_configuration_where_that_is_safe() {
    let Some(servers) = world::three() else { return };
    let config = world::config(&servers, 1);
    let with = |replicas, mib| {
        let config = Config { replicas, ..config.clone() };
        let options = Options { max_bytes: ByteSize::mib(mib), ..world::options() };
        async move { Bus::connect(&config, options).await.unwrap() }
    };
    let admin = world::admin(&servers).await;
    let name = format!("{}_readings", config.prefix);
    let log = with(1, 8).await.log();
    log.publish(STREAM, ONE, weir_core::Uid::random(), vec![1; 700_000].into()).await.unwrap();
    log.publish(STREAM, ONE, weir_core::Uid::random(), vec![1; 700_000].into()).await.unwrap();
    for (replicas, mib, expected) in [(1, 4, (4, 1)), (3, 16, (16, 3)), (1, 1, (16, 3)), (1, 2, (2, 3))] {
        with(replicas, mib).await;
        let found = admin.get_stream(&name).await.unwrap().cached_info().config.clone();
        assert_eq!((found.max_bytes >> 20, found.num_replicas), expected, "{replicas} replicas, {mib} MiB");
    }
}

/// One node cannot keep three replicas, of a new stream or of one that is there.
#[tokio::test]
async fn more_replicas_than_servers_are_refused() {
    let Some(server) = world::own(weir_test_servers::nats::Options::default()) else { return };
    let one = world::config(&server.servers(), 1);
    Bus::connect(&one, world::options()).await.unwrap();
    for config in [Config { replicas: 3, ..one }, world::config(&server.servers(), 3)] {
        let error = Bus::connect(&config, world::options()).await.err().unwrap();
        assert_eq!(
            (error.kind(), error.reason()),
            (ErrorKind::FailedPrecondition, "BUS_REFUSES_STREAM"),
            "{error}"
        );
    }
}

/// What is missing is named, with both ways out.
#[tokio::test]
async fn power_loss_durability_needs_the_declaration() {
    let Some(servers) = world::one() else { return };
    let options = || Options { durability: Durability::PowerLoss, ..world::options() };
    let config = world::config(&servers, 1);
    let error = Bus::connect(&config, options()).await.err().unwrap();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, "BUS_NOT_SYNCED"));
    assert_eq!(error.field(), Some("nats.sync_always"));
    let declared = Config { sync_always: true, ..config };
    let detail = Bus::connect(&declared, options()).await.unwrap().detail();
    assert!(detail.contains("power-loss") && detail.contains("nats.sync_always"), "{detail}");
}

/// After the time that it waits, `Unavailable`.
#[tokio::test]
async fn a_bus_that_is_not_there_is_told_as_away() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = world::config(&[format!("nats://{nobody}")], 1);
    config.connect_timeout = Duration::from_millis(600);
    let error = Bus::connect(&config, world::options()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains(&nobody.to_string()), "{error}");
}

/// A file with the password; a wrong one is refused at once.
#[tokio::test]
async fn a_password_comes_from_its_file() {
    let extra = "authorization { user: weir, password: secret }\n".to_owned();
    let Some(server) = world::own(weir_test_servers::nats::Options { extra, ..Default::default() }) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    let mut config = world::config(&server.servers(), 1);
    config.user = Some("weir".to_owned());
    config.password_file = Some(file.clone());
    std::fs::write(&file, "wrong\n").unwrap();
    let error = Bus::connect(&config, world::options()).await.err().unwrap();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, "BUS_REFUSES_CREDENTIALS"));
    std::fs::write(&file, "secret\n").unwrap();
    Bus::connect(&config, world::options()).await.unwrap();
}
