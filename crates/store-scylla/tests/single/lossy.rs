//! A commit whose answer, or whose request, gets lost on the way.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use weir_core::{
    ErrorKind, Uid,
    port::{Records, Stored, Table, Write},
};
use weir_store_scylla::{Config, Durability, ScyllaStore};

use super::support::{Server, until};

const TABLE: Table = Table("lossy");
/// Frame header of version 4 of the CQL protocol: version, flags, stream (2), opcode, length (4).
const HEADER: usize = 9;
const BATCH: u8 = 0x0D;

/// What becomes of the next batches.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Nothing,
    /// Each is handed on, and the connection breaks instead of its answer.
    AnswerCut,
    /// The first is handed on, and its answer never comes.
    AnswerSwallowed,
    /// The connection breaks before it is handed on.
    RequestCut,
}

/// Between a client and a server; knows where frames begin.
struct Proxy {
    address: SocketAddr,
    loss: Arc<watch::Sender<Loss>>,
}

impl Proxy {
    async fn before(host: &str) -> Self {
        // At the server's own address: the driver learns a node's address from the node, and its port from this one.
        let (address, _) = host.rsplit_once(':').unwrap();
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let loss = Arc::new(watch::Sender::new(Loss::Nothing));
        let (host, shared) = (host.to_owned(), Arc::clone(&loss));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&host).await else { continue };
                tokio::spawn(relay(client, server, Arc::clone(&shared)));
            }
        });
        Self { address, loss }
    }

    /// The loss happens to the next batch, and to no other.
    fn lose(&self, loss: Loss) {
        self.loss.send_replace(loss);
    }
}

async fn relay(client: TcpStream, server: TcpStream, loss: Arc<watch::Sender<Loss>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let lost = Arc::new(watch::Sender::new(None));
    let losing = Arc::clone(&lost);
    let down = tokio::spawn(async move {
        while let Some(frame) = read(&mut from_server).await {
            let stream = [frame[2], frame[3]];
            match *losing.borrow() {
                Some((at, Loss::AnswerSwallowed)) if at == stream => continue,
                Some((at, _)) if at == stream => return, // and the connection with it
                _ => {}
            }
            if to_client.write_all(&frame).await.is_err() {
                return;
            }
        }
    });
    let up = tokio::spawn(async move {
        while let Some(frame) = read(&mut from_client).await {
            if frame[4] == BATCH {
                match loss.send_replace(Loss::Nothing) {
                    Loss::Nothing => {}
                    Loss::RequestCut => return,
                    loss => drop(lost.send_replace(Some(([frame[2], frame[3]], loss)))),
                }
            }
            if write(&mut to_server, &frame).await.is_none() {
                return;
            }
        }
    });
    // Whichever ends takes the other with it: both halves are dropped, and the sockets close.
    let (stop_down, stop_up) = (down.abort_handle(), up.abort_handle());
    tokio::select! {
        _ = down => stop_up.abort(),
        _ = up => stop_down.abort(),
    }
}

async fn read(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    from.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes(frame[5..9].try_into().ok()?);
    frame.resize(HEADER + usize::try_from(length).ok()?, 0);
    from.read_exact(&mut frame[HEADER..]).await.ok()?;
    Some(frame)
}

async fn write(to: &mut OwnedWriteHalf, frame: &[u8]) -> Option<()> {
    to.write_all(frame).await.ok()
}

/// A store behind a proxy, and one beside it.
async fn stores(server: &Server) -> (Proxy, Arc<ScyllaStore>, Arc<ScyllaStore>) {
    let beside = server.store().await;
    let proxy = Proxy::before(&server.hosts[0]).await;
    let config = Config {
        hosts: vec![proxy.address.to_string()],
        request_timeout: Duration::from_secs(2),
        ..server.config("weir_tests")
    };
    let behind = ScyllaStore::connect(&config, Durability::Process).await.unwrap();
    (proxy, behind, beside)
}

fn place() -> Vec<u8> {
    Uid::random().to_bytes().to_vec()
}

async fn get(store: &ScyllaStore, place: &[u8]) -> Option<Stored> {
    store.get(TABLE, place, b"k").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_written_is_answered_so_though_its_answer_was_lost() {
    let Some(server) = super::server() else { return };
    let _whole = server.whole().await;
    let (proxy, behind, beside) = stores(server).await;
    for loss in [Loss::AnswerCut, Loss::AnswerSwallowed] {
        let place = place();
        let mut version = 0;
        for step in ["insert", "put", "replace", "delete"] {
            let write = match step {
                "insert" => Write::insert("k", step),
                "put" => Write::put("k", step),
                "replace" => Write::replace("k", version, step),
                _ => Write::delete("k"),
            };
            proxy.lose(loss);
            let versions = behind.commit(TABLE, &place, vec![write]).await.unwrap();
            version = versions[0];
            assert_eq!(*proxy.loss.borrow(), Loss::Nothing, "no answer was lost");
            let found = get(&beside, &place).await;
            match step {
                "delete" => assert_eq!(found, None),
                _ => assert_eq!(found.map(|k| (k.value, k.version)), Some((step.into(), version))),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_did_not_arrive_is_tried_again_where_that_is_safe() {
    let Some(server) = super::server() else { return };
    let _whole = server.whole().await;
    let (proxy, behind, beside) = stores(server).await;
    let place = place();
    let first = beside.commit(TABLE, &place, vec![Write::put("k", "1")]).await.unwrap()[0];
    proxy.lose(Loss::RequestCut);
    let second = behind.commit(TABLE, &place, vec![Write::replace("k", first, "2")]).await.unwrap()[0];
    assert_eq!(get(&beside, &place).await.unwrap().version, second);

    // Without a version to expect it might be written twice, around somebody else's: so it is told as not known.
    proxy.lose(Loss::RequestCut);
    let error = behind.commit(TABLE, &place, vec![Write::put("k", "3")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("not known"), "{error}");
    assert_eq!(get(&beside, &place).await.unwrap().version, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_others_have_overwritten_is_never_told_wrong() {
    let Some(server) = super::server() else { return };
    let _whole = server.whole().await;
    let (proxy, behind, beside) = stores(server).await;
    let place = place();
    let first = beside.commit(TABLE, &place, vec![Write::put("k", "1")]).await.unwrap()[0];
    proxy.lose(Loss::AnswerSwallowed);
    let replace = behind.commit(TABLE, &place, vec![Write::replace("k", first, "mine")]);
    let overwrite = async {
        until("the commit without an answer is written", async || {
            get(&beside, &place).await.filter(|stored| stored.value == "mine")
        })
        .await;
        beside.commit(TABLE, &place, vec![Write::put("k", "theirs")]).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(replace, overwrite);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(get(&beside, &place).await.unwrap().value, "theirs");
}
