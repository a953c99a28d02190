//! An MQTT 5 client for devices: pipelined QoS 1 publishes, each with its own answer, and commands as they come.
//!
//! The protocol is `mqtt-protocol-core`; this is its socket. One task a connection; whoever publishes waits when the
//! server's receive maximum is reached.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use mqtt_protocol_core::mqtt::{
    self, Connection, Version,
    common::Cursor,
    connection::Event,
    packet::{Packet, Property, Qos, SubEntry, SubOpts, v5_0},
    prelude::*,
    role,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};
use weir_core::{Error, ErrorKind, Position, Result};

/// How long the server may take to answer a CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Publishes under way at most, where the server allows more: enough to fill its frames.
const IN_FLIGHT_MAX: usize = 64;
/// Commands that wait for the application; past it the socket is not read.
const INCOMING_MAX: usize = 64;
/// MQTT keep-alive in seconds.
const KEEP_ALIVE_S: u16 = 60;

/// Something that the server sent down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
}

/// A connected device.
pub struct Client {
    requests: mpsc::Sender<Request>,
    window: Arc<Semaphore>,
    incoming: mpsc::Receiver<Incoming>,
    task: JoinHandle<()>,
}

enum Request {
    Publish {
        topic: String,
        payload: Vec<u8>,
        answer: oneshot::Sender<Result<Option<Position>>>,
        permit: OwnedSemaphorePermit,
    },
    Subscribe {
        filter: String,
        answer: oneshot::Sender<Result<()>>,
    },
}

/// The answer to a publish: its position, once the server has it durable.
pub type Answer = oneshot::Receiver<Result<Option<Position>>>;

impl Client {
    /// Connects as the holder of `token`.
    ///
    /// # Errors
    /// `UNREACHABLE` where nobody answers; `Unauthenticated` where the token is refused.
    pub async fn connect(address: &str, client_id: &str, token: &str) -> Result<Self> {
        let unreachable = |what: String| Error::new(ErrorKind::Unavailable, "UNREACHABLE", what);
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| unreachable(format!("nobody answers at {address} (mqtt)")))?
            .map_err(|source| unreachable(format!("nobody answers at {address} (mqtt): {source}")))?;
        drop(stream.set_nodelay(true)); // only speed is lost without it
        let (read, write) = stream.into_split();
        let mut link = Link::new(read, write);
        let window = tokio::time::timeout(CONNECT_TIMEOUT, link.connect(client_id, token))
            .await
            .map_err(|_| unreachable(format!("{address} did not answer a CONNECT in time")))??;
        let (requests, receiver) = mpsc::channel(IN_FLIGHT_MAX);
        let (sender, incoming) = mpsc::channel(INCOMING_MAX);
        let task = tokio::spawn(async move { link.run(receiver, sender).await });
        Ok(Self { requests, window: Arc::new(Semaphore::new(window)), incoming, task })
    }

    /// Publishes at QoS 1; waits only for a place in the window.
    ///
    /// # Errors
    /// `Unavailable` where the connection has ended.
    pub async fn publish(&self, topic: &str, payload: Vec<u8>) -> Result<Answer> {
        let permit = Arc::clone(&self.window).acquire_owned().await.map_err(|_| closed())?;
        let (answer, receiver) = oneshot::channel();
        let request = Request::Publish { topic: topic.to_owned(), payload, answer, permit };
        self.requests.send(request).await.map_err(|_| closed())?;
        Ok(receiver)
    }

    /// Subscribes at QoS 1.
    ///
    /// # Errors
    /// `PermissionDenied` where the filter is refused; `Unavailable` where the connection has ended.
    pub async fn subscribe(&self, filter: &str) -> Result<()> {
        let (answer, receiver) = oneshot::channel();
        let request = Request::Subscribe { filter: filter.to_owned(), answer };
        self.requests.send(request).await.map_err(|_| closed())?;
        receiver.await.map_err(|_| closed())?
    }

    /// The next message from the server; none when the connection has ended.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Ends the connection after what is under way was written.
    pub async fn close(self) {
        drop(self.leave().await);
    }

    /// The same, and gives what came down meanwhile: the server has been told that it was received.
    pub async fn leave(mut self) -> Vec<Incoming> {
        drop(self.requests);
        let mut rest = Vec::new();
        let ended = async {
            while let Some(incoming) = self.incoming.recv().await {
                rest.push(incoming);
            }
        };
        drop(tokio::time::timeout(CONNECT_TIMEOUT, ended).await);
        self.task.abort(); // it has ended, or the server does not answer
        rest
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "CONNECTION_CLOSED", "the mqtt connection has ended")
}

/// The answer to a publish or subscribe that is under way.
enum Waiting {
    /// The place in the window is freed with the answer.
    Publish {
        answer: oneshot::Sender<Result<Option<Position>>>,
        _place: OwnedSemaphorePermit,
    },
    Subscribe(oneshot::Sender<Result<()>>),
}

struct Link {
    protocol: Connection<role::Client>,
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    waiting: HashMap<u16, Waiting>,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl Link {
    fn new(read: OwnedReadHalf, write: OwnedWriteHalf) -> Self {
        let mut protocol = Connection::<role::Client>::new(Version::V5_0);
        protocol.set_auto_pub_response(true);
        protocol.set_auto_ping_response(true);
        Self { protocol, read, write, waiting: HashMap::new(), out: Vec::new(), buffer: vec![0; 16 << 10] }
    }

    /// CONNECT and CONNACK; returns how many publishes may be under way.
    async fn connect(&mut self, client_id: &str, token: &str) -> Result<usize> {
        let connect = v5_0::Connect::builder()
            .client_id(client_id)
            .and_then(|builder| builder.user_name(client_id))
            .and_then(|builder| builder.password(token))
            .and_then(|builder| builder.clean_start(true).keep_alive(KEEP_ALIVE_S).build())
            .map_err(|error| Error::internal(format!("cannot build a CONNECT: {error:?}")))?;
        let events = self.protocol.send(connect.into());
        self.take_out(&events);
        self.flush().await?;
        loop {
            let packets = self.receive().await?;
            self.flush().await?;
            for packet in packets {
                if let Packet::V5_0Connack(connack) = packet {
                    return accepted(&connack);
                }
            }
        }
    }

    async fn run(mut self, mut requests: mpsc::Receiver<Request>, incoming: mpsc::Sender<Incoming>) {
        let mut ping = tokio::time::interval(Duration::from_secs(u64::from(KEEP_ALIVE_S) / 2));
        ping.tick().await;
        loop {
            tokio::select! {
                request = requests.recv() => {
                    let Some(request) = request else { break };
                    self.request(request);
                    while let Ok(request) = requests.try_recv() {
                        self.request(request);
                    }
                }
                packets = self.receive() => {
                    let Ok(packets) = packets else { return };
                    for packet in packets {
                        if self.packet(packet, &incoming).await.is_none() {
                            return;
                        }
                    }
                }
                _ = ping.tick() => {
                    if let Ok(packet) = v5_0::Pingreq::builder().build() {
                        let events = self.protocol.send(packet.into());
                        self.take_out(&events);
                    }
                }
            }
            if self.flush().await.is_err() {
                return;
            }
        }
        self.finish(&incoming).await;
    }

    /// The application publishes no more: waits for what is under way, then says good-bye.
    async fn finish(&mut self, incoming: &mpsc::Sender<Incoming>) {
        while !self.waiting.is_empty() {
            let Ok(packets) = self.receive().await else { return };
            for packet in packets {
                let _gone = self.packet(packet, incoming).await; // it may not listen any more
            }
        }
        if let Ok(packet) = v5_0::Disconnect::builder().build() {
            let events = self.protocol.send(packet.into());
            self.take_out(&events);
            drop(self.flush().await); // the server may have gone first
        }
    }

    fn request(&mut self, request: Request) {
        let Ok(id) = self.protocol.acquire_packet_id() else { return };
        let (packet, waiting): (Option<Packet>, _) = match request {
            Request::Publish { topic, payload, answer, permit } => {
                let packet = v5_0::Publish::builder()
                    .topic_name(topic)
                    .and_then(|builder| builder.qos(Qos::AtLeastOnce).packet_id(id).payload(payload).build());
                (packet.ok().map(Into::into), Waiting::Publish { answer, _place: permit })
            }
            Request::Subscribe { filter, answer } => {
                let entry = SubEntry::new(filter, SubOpts::new().set_qos(Qos::AtLeastOnce));
                let packet = entry
                    .and_then(|entry| v5_0::Subscribe::builder().packet_id(id).entries(vec![entry]).build());
                (packet.ok().map(Into::into), Waiting::Subscribe(answer))
            }
        };
        if let Some(packet) = packet {
            let events = self.protocol.send(packet);
            self.take_out(&events);
            self.waiting.insert(id, waiting);
        }
    }

    /// Takes one packet; none where the application no longer listens.
    async fn packet(&mut self, packet: Packet, incoming: &mpsc::Sender<Incoming>) -> Option<()> {
        match packet {
            Packet::V5_0Puback(puback) => {
                if let Some(Waiting::Publish { answer, .. }) = self.waiting.remove(&puback.packet_id()) {
                    drop(answer.send(published(&puback))); // whoever asked may have gone
                }
            }
            Packet::V5_0Suback(suback) => {
                if let Some(Waiting::Subscribe(answer)) = self.waiting.remove(&suback.packet_id()) {
                    drop(answer.send(subscribed(&suback)));
                }
            }
            Packet::V5_0Publish(publish) => {
                let payload = Bytes::copy_from_slice(publish.payload().as_slice());
                let topic = publish.topic_name().to_owned();
                incoming.send(Incoming { topic, payload }).await.ok()?;
            }
            _ => {}
        }
        Some(())
    }

    /// Reads what has come and gives its packets.
    async fn receive(&mut self) -> Result<Vec<Packet>> {
        let read = self.read.read(&mut self.buffer).await.map_err(|_| closed())?;
        if read == 0 {
            return Err(closed());
        }
        let data = self.buffer.get(..read).unwrap_or_default().to_vec();
        let mut cursor = Cursor::new(data.as_slice());
        let mut packets = Vec::new();
        while (cursor.position() as usize) < data.len() {
            let events = self.protocol.recv(&mut cursor);
            self.take_out(&events);
            for event in events {
                match event {
                    Event::NotifyPacketReceived(packet) => packets.push(packet),
                    Event::NotifyError(error) => return Err(closed().context(format!("{error:?}"))),
                    _ => {}
                }
            }
        }
        Ok(packets)
    }

    fn take_out(&mut self, events: &[Event]) {
        for event in events {
            if let Event::RequestSendPacket { packet, .. } = event {
                self.out.extend(packet.to_continuous_buffer());
            }
        }
    }

    async fn flush(&mut self) -> Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = self.write.write_all(&self.out).await.map_err(|_| closed());
        self.out.clear();
        written
    }
}

fn accepted(connack: &v5_0::Connack) -> Result<usize> {
    use mqtt::result_code::ConnectReasonCode as Code;
    if connack.reason_code() != Code::Success {
        let message = reason(connack.props()).unwrap_or_else(|| format!("{:?}", connack.reason_code()));
        let kind = match connack.reason_code() {
            Code::BadUserNameOrPassword | Code::NotAuthorized => ErrorKind::Unauthenticated,
            _ => ErrorKind::Unavailable,
        };
        return Err(Error::new(kind, "CONNECTION_REFUSED", message));
    }
    let maximum = connack.props().iter().find_map(|property| match property {
        Property::ReceiveMaximum(maximum) => Some(usize::from(maximum.val())),
        _ => None,
    });
    Ok(maximum.unwrap_or(usize::from(u16::MAX)).min(IN_FLIGHT_MAX))
}

fn published(puback: &v5_0::Puback) -> Result<Option<Position>> {
    use mqtt::result_code::PubackReasonCode as Code;
    let none = Vec::new();
    let properties = puback.props().as_ref().unwrap_or(&none);
    match puback.reason_code().unwrap_or(Code::Success) {
        Code::Success | Code::NoMatchingSubscribers => {
            let position = properties.iter().find_map(|property| match property {
                Property::UserProperty(pair) if pair.key() == "pos" => pair.val().parse().ok(),
                _ => None,
            });
            Ok(position)
        }
        code => {
            let kind = match code {
                Code::QuotaExceeded => ErrorKind::ResourceExhausted,
                Code::NotAuthorized => ErrorKind::PermissionDenied,
                Code::UnspecifiedError | Code::ImplementationSpecificError => ErrorKind::Unavailable,
                _ => ErrorKind::InvalidArgument,
            };
            let message = reason(properties).unwrap_or_else(|| format!("{code:?}"));
            Err(Error::new(kind, format!("{code:?}").to_uppercase(), message))
        }
    }
}

fn subscribed(suback: &v5_0::Suback) -> Result<()> {
    match suback.reason_codes().first() {
        Some(code) if code.is_success() => Ok(()),
        code => Err(Error::permission_denied(format!("the subscription was refused: {code:?}"))),
    }
}

fn reason(properties: &[Property]) -> Option<String> {
    properties.iter().find_map(|property| match property {
        Property::ReasonString(text) => Some(text.val().to_owned()),
        _ => None,
    })
}
