//! A peer that comes and goes, is slow, fails, and renews its certificates.

use std::{fs, sync::Arc, time::Duration};

use futures::future::join_all;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use weir_clients::{Identity, Peer, RegistryClient, certificates};
use weir_core::{DeviceId, Error, ErrorKind, Result, TenantId, port::Registry, principal::Principal};
use weir_grpc::{ServiceKey, tls::Files};

use crate::support::{Directory, Mood, PATIENCE, Process, any_port, eventually, key};

fn registry(addresses: &[String], key: &ServiceKey) -> (Peer, RegistryClient) {
    let peer = Peer::new("registry", addresses, &Identity::Key(key.clone())).unwrap();
    (peer.clone(), RegistryClient::new(peer))
}

fn at(process: &Process) -> String {
    format!("http://{}", process.address)
}

fn reason<T>(result: Result<T>) -> String {
    result.err().expect("it fails").reason().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_there_is_unavailable_until_it_is_and_again_when_it_has_gone() {
    let (key, directory) = (key(), Arc::new(Directory::default()));
    let first = Process::start(any_port(), &key, None, &directory).await;
    let address = first.address;
    let (peer, client) = registry(&[at(&first)], &key);
    first.kill().await;
    for _ in 0..3 {
        eventually("its calls are unavailable", async || client.authenticate("t").await.is_err()).await;
        let error = client.authenticate("t").await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "PEER_UNREACHABLE"));
        let named = error.message().contains("registry") && error.message().contains(&address.to_string());
        assert!(named, "{error}");
        assert_eq!(reason(peer.wait_ready(Duration::from_millis(1)).await), "PEER_UNREACHABLE");
        let process = Process::start(address, &key, None, &directory).await;
        peer.wait_ready(PATIENCE).await.unwrap();
        let holder = client.authenticate("t").await.unwrap();
        assert!(matches!(holder, Principal::Token { id, .. } if id == "t"));
        process.kill().await;
        eventually("it is seen to be gone", async || peer.wait_ready(Duration::ZERO).await.is_err()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_to_every_replica_and_none_fails_when_one_is_killed() {
    let (key, directories) = (key(), [(); 3].map(|()| Arc::new(Directory::default())));
    let mut processes = Vec::new();
    for directory in &directories {
        processes.push(Process::start(any_port(), &key, None, directory).await);
    }
    let addresses: Vec<_> = processes.iter().map(at).collect();
    let (_, client) = registry(&addresses, &key);
    eventually("every replica is called", async || {
        join_all((0..20).map(|_| client.authenticate("t")))
            .await
            .into_iter()
            .for_each(|called| drop(called.unwrap()));
        directories.iter().all(|directory| directory.calls() > 0)
    })
    .await;
    let killed = processes.pop().unwrap();
    let address = killed.address;
    let kill = tokio::spawn(killed.kill());
    for n in 0..300 {
        client.authenticate("t").await.unwrap_or_else(|error| panic!("call {n}: {error:?}"));
    }
    kill.await.unwrap();
    let before = directories[2].calls();
    let _back = Process::start(address, &key, None, &directories[2]).await;
    eventually("who comes back is called again", async || {
        client.authenticate("t").await.unwrap();
        directories[2].calls() > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_for_a_moment_is_asked_again_and_what_is_an_answer_is_not() {
    let (key, directory) = (key(), Arc::new(Directory::default()));
    let process = Process::start(any_port(), &key, None, &directory).await;
    let (_, client) = registry(&[at(&process)], &key);
    let away = Error::unavailable("the store is away");
    let conflict = Error::new(ErrorKind::Aborted, "SESSION_ENDED", "gone");
    for (mood, calls, expected) in [
        (Mood::Fails(3, away.clone()), 4, None),
        (Mood::Fails(usize::MAX, away), 4, Some("UNAVAILABLE")),
        (Mood::Fails(usize::MAX, conflict), 1, Some("SESSION_ENDED")),
        (Mood::Fails(usize::MAX, Error::not_found("x")), 1, Some("NOT_FOUND")),
        (Mood::Fails(usize::MAX, Error::invalid("token", "BAD", "x")), 1, Some("BAD")),
    ] {
        directory.mood(mood.clone());
        let before = directory.calls();
        let called = client.authenticate("t").await;
        assert_eq!(called.as_ref().err().map(Error::reason), expected, "{mood:?}");
        assert_eq!(directory.calls() - before, calls, "{mood:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_fails_everything_gets_few_calls_more_than_were_made() {
    let (key, directory) = (key(), Arc::new(Directory::default()));
    let process = Process::start(any_port(), &key, None, &directory).await;
    let (peer, client) = registry(&[at(&process)], &key);
    peer.wait_ready(PATIENCE).await.unwrap();
    directory.mood(Mood::Fails(usize::MAX, Error::unavailable("down")));
    let made = 2_000;
    for _ in 0..made / 100 {
        let called = join_all((0..100).map(|_| client.authenticate("t"))).await;
        assert!(called.iter().all(Result::is_err));
    }
    // A fifth of them more, and a few a second; without a budget it would be four times as many.
    assert!((made..made * 2).contains(&directory.calls()), "{} calls", directory.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_nothing_is_told_the_deadline_and_given_up() {
    let (key, directory) = (key(), Arc::new(Directory::default()));
    let process = Process::start(any_port(), &key, None, &directory).await;
    let (_, client) = registry(&[at(&process)], &key);
    directory.mood(Mood::Silent);
    let error = client.authenticate("t").await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "PEER_TIMEOUT"));
    assert!(directory.timeout.lock().unwrap().is_some(), "no grpc-timeout came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_hangs_is_passed_by() {
    let (key, hung, well) = (key(), Arc::new(Directory::default()), Arc::new(Directory::default()));
    hung.mood(Mood::Silent);
    let first = Process::start(any_port(), &key, None, &hung).await;
    let second = Process::start(any_port(), &key, None, &well).await;
    let (_, client) = registry(&[at(&first), at(&second)], &key);
    let called = join_all((0..40).map(|_| client.authenticate("t"))).await;
    assert!(hung.calls() > 0 && well.calls() > 0, "both were called");
    // While one hangs it has the more calls, so the next ones go to the other.
    let failed = called.iter().filter(|called| called.is_err()).count();
    assert!(failed < 10, "{failed} of 40 failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_answer_is_a_defect_of_the_peer_and_no_word_on_what_was_asked() {
    let (key, directory) = (key(), Arc::new(Directory::default()));
    let process = Process::start(any_port(), &key, None, &directory).await;
    let (_, client) = registry(&[at(&process)], &key);
    let (tenant, device) = (TenantId::new("acme").unwrap(), DeviceId::new("d").unwrap());
    let kinds = [
        client.device(&tenant, &device).await.map(drop),
        client.profile(&tenant, "room").await.map(drop),
        client.select(&tenant, &"".parse().unwrap(), None, 10).await.map(drop),
    ];
    for result in kinds {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Internal);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_are_taken_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let files = Files { cert: file("cert"), key: file("key"), ca: file("ca") };
    let renew = || {
        let bundle = certificates::make(&["127.0.0.1".to_owned()]).unwrap();
        fs::write(&files.ca, &bundle.ca).unwrap();
        fs::write(&files.cert, &bundle.cert).unwrap();
        fs::write(&files.key, &bundle.key).unwrap();
        bundle.ca
    };
    let (key, directory) = (key(), Arc::new(Directory::default()));
    renew();
    let process = Process::start(any_port(), &key, Some(&files), &directory).await;
    let urls = [format!("https://{}", process.address)];
    let identity = Identity::Certificate { files: files.clone(), server_name: None };
    let client = RegistryClient::new(Peer::new("registry", &urls, &identity).unwrap());
    client.authenticate("t").await.unwrap();
    // Another authority, which a stranger to the old one trusts alone: server and client take it while they run.
    let authority = renew();
    eventually("the listener shows the new certificate", async || {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority));
        let endpoint = Endpoint::from_shared(urls[0].clone()).unwrap().tls_config(tls).unwrap();
        endpoint.connect().await.is_ok()
    })
    .await;
    eventually("the new certificates are used", async || client.authenticate("t").await.is_ok()).await;
    fs::write(&files.cert, "half writ").unwrap();
    eventually("files that cannot be used change nothing", async || {
        client.authenticate("t").await.unwrap();
        fs::metadata(&files.cert).unwrap().modified().unwrap().elapsed().unwrap() > Duration::from_secs(4)
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_a_peer_is_told_by_its_key() {
    let by_key = Identity::Key(key());
    let missing =
        Files { cert: "/nowhere/cert".into(), key: "/nowhere/key".into(), ca: "/nowhere/ca".into() };
    let by_certificate = Identity::Certificate { files: missing, server_name: None };
    for (address, identity) in [
        ("127.0.0.1:8081", &by_key),
        ("https://127.0.0.1:8081", &by_key),
        ("http://127.0.0.1:8081", &by_certificate),
        ("http://", &by_key),
        ("http:///x", &by_key),
        ("http://a/b", &by_key),
        ("ftp://a", &by_key),
        ("", &by_key),
    ] {
        let error = Peer::new("registry", &[address.to_owned()], identity).err().unwrap();
        assert_eq!(
            (error.reason(), error.field()),
            ("PEER_ADDRESS_INVALID", Some("peers.registry")),
            "{address}"
        );
    }
    assert_eq!(reason(Peer::new("registry", &[], &by_key)), "PEER_ADDRESS_INVALID");
    let unreadable = Peer::new("registry", &["https://a".to_owned()], &by_certificate);
    let error = unreadable.err().unwrap();
    assert_eq!(error.reason(), "TLS_FILE_UNREADABLE");
    assert!(error.message().contains("/nowhere/cert"), "{error}");
}
