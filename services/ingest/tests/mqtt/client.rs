//! A client that speaks MQTT through the client side of `mqtt-protocol-core`, and raw bytes where it must not.

use std::{collections::VecDeque, net::SocketAddr};

use mqtt_protocol_core::mqtt::{
    Connection, Version,
    common::Cursor,
    packet::{
        GenericPacketTrait, Packet, Properties, Property, Qos, RequestProblemInformation, SubEntry, SubOpts,
        v3_1_1, v5_0,
    },
    prelude::*,
    role,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use weir_core::Uid;

use crate::edge::PATIENCE;

/// How a client introduces itself.
pub(crate) struct Hello<'a> {
    pub(crate) client_id: String,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<String>,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<(&'a str, &'a str)>,
    pub(crate) properties: Properties,
}

impl Hello<'_> {
    /// As device `id`, with its token as the password.
    pub(crate) fn of(id: &str) -> Self {
        Self {
            client_id: format!("client-of-{id}"),
            user: Some("anybody"),
            password: Some(format!("token-of-{id}")),
            clean: true,
            keep_alive: 60,
            will: None,
            properties: Vec::new(),
        }
    }
}

/// A CONNACK.
#[derive(Debug, Default)]
pub(crate) struct Welcome {
    pub(crate) code: u8,
    pub(crate) session_present: bool,
    pub(crate) properties: Properties,
}

/// A PUBACK, PUBREC, SUBACK, UNSUBACK or DISCONNECT.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) id: u16,
    pub(crate) codes: Vec<u8>,
    pub(crate) reason: String,
    /// The user properties `field` and `limit`.
    pub(crate) field: String,
    pub(crate) limit: String,
    /// The user property `pos`.
    pub(crate) position: Option<String>,
}

/// A command as it arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) packet: Option<u16>,
}

impl Arrived {
    /// The command's id, by its topic.
    pub(crate) fn command(&self) -> Uid {
        self.topic.rsplit('/').nth(1).unwrap().parse().unwrap()
    }
}

pub(crate) struct Client {
    stream: TcpStream,
    core: Connection<role::Client>,
    version: u8,
    input: Vec<u8>,
    /// Commands that came while an answer was awaited.
    inbox: VecDeque<Packet>,
}

impl Client {
    pub(crate) async fn dial(address: SocketAddr, version: u8) -> Self {
        let core = Connection::new(if version == 5 { Version::V5_0 } else { Version::V3_1_1 });
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, core, version, input: Vec::new(), inbox: VecDeque::new() }
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await; // a server that closed meanwhile is found out by reading
    }

    async fn send(&mut self, packet: impl Into<Packet>) {
        let mut bytes = Vec::new();
        for event in self.core.send(packet.into()) {
            match event {
                Event::RequestSendPacket { packet, .. } => bytes.extend(packet.to_continuous_buffer()),
                Event::NotifyError(error) => panic!("the client may not send this: {error}"),
                _ => {}
            }
        }
        self.raw(&bytes).await;
    }

    /// The next packet; none once the server has closed.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        timeout(PATIENCE, self.read_packet()).await.expect("a packet or the end of the connection never came")
    }

    async fn read_packet(&mut self) -> Option<Packet> {
        loop {
            if let Some(bytes) = self.whole_packet() {
                for event in self.core.recv(&mut Cursor::new(&bytes)) {
                    match event {
                        Event::NotifyPacketReceived(packet) => return Some(packet),
                        Event::NotifyError(error) => panic!("the server sent {bytes:02x?}: {error}"),
                        _ => {}
                    }
                }
            }
            let mut chunk = [0; 4_096];
            match self.stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
            }
        }
    }

    fn whole_packet(&mut self) -> Option<Vec<u8>> {
        let mut len = 0_usize;
        for (index, byte) in self.input.iter().skip(1).take(4).enumerate() {
            len |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let total = 2 + index + len;
                return (self.input.len() >= total).then(|| self.input.drain(..total).collect());
            }
        }
        None
    }

    /// Every byte until the server closes.
    pub(crate) async fn raw_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await;
        read.expect("the server never closed").unwrap();
        bytes
    }

    /// Says no more, and waits for the server to close.
    pub(crate) async fn hang_up(&mut self) {
        // It may be closed already: that is fine.
        let _ = self.stream.shutdown().await;
        let mut bytes = Vec::new();
        let _ =
            timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await.expect("the server never closed");
    }

    /// Waits for the server to close, whatever it says before.
    pub(crate) async fn closed(&mut self) {
        while self.next().await.is_some() {}
    }

    pub(crate) async fn hello(&mut self, hello: Hello<'_>) -> Welcome {
        if self.version == 5 {
            let mut builder = v5_0::Connect::builder()
                .client_id(hello.client_id.as_str())
                .unwrap()
                .clean_start(hello.clean)
                .keep_alive(hello.keep_alive)
                .props(hello.properties);
            if let Some(user) = hello.user {
                builder = builder.user_name(user).unwrap();
            }
            if let Some(password) = hello.password {
                builder = builder.password(password.into_bytes()).unwrap();
            }
            if let Some((topic, payload)) = hello.will {
                builder =
                    builder.will_message(topic, payload.as_bytes().to_vec(), Qos::AtMostOnce, false).unwrap();
            }
            self.send(builder.build().unwrap()).await;
        } else {
            let mut builder = v3_1_1::Connect::builder()
                .client_id(hello.client_id.as_str())
                .unwrap()
                .clean_session(hello.clean)
                .keep_alive(hello.keep_alive);
            if let Some(user) = hello.user {
                builder = builder.user_name(user).unwrap();
            }
            if let Some(password) = hello.password {
                builder = builder.password(password.into_bytes()).unwrap();
            }
            if let Some((topic, payload)) = hello.will {
                builder =
                    builder.will_message(topic, payload.as_bytes().to_vec(), Qos::AtMostOnce, false).unwrap();
            }
            self.send(builder.build().unwrap()).await;
        }
        self.welcome().await
    }

    pub(crate) async fn welcome(&mut self) -> Welcome {
        match self.next().await.expect("a CONNACK, not a silent close") {
            Packet::V3_1_1Connack(packet) => Welcome {
                code: packet.return_code() as u8,
                session_present: packet.session_present(),
                properties: Vec::new(),
            },
            Packet::V5_0Connack(packet) => Welcome {
                code: packet.reason_code() as u8,
                session_present: packet.session_present(),
                properties: packet.props().clone(),
            },
            other => panic!("a CONNACK was expected, not {other:?}"),
        }
    }

    /// Publishes and does not wait; the packet identifier above QoS 0.
    pub(crate) async fn start(&mut self, topic: &str, payload: &[u8], qos: Qos) -> u16 {
        self.start_with(topic, payload, qos, Vec::new()).await
    }

    pub(crate) async fn start_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: Qos,
        properties: Properties,
    ) -> u16 {
        let id = if qos == Qos::AtMostOnce { 0 } else { self.core.acquire_packet_id().unwrap() };
        if self.version == 5 {
            let mut builder = v5_0::Publish::builder()
                .topic_name(topic)
                .unwrap()
                .qos(qos)
                .payload(payload)
                .props(properties);
            if id > 0 {
                builder = builder.packet_id(id);
            }
            self.send(builder.build().unwrap()).await;
        } else {
            let mut builder = v3_1_1::Publish::builder().topic_name(topic).unwrap().qos(qos).payload(payload);
            if id > 0 {
                builder = builder.packet_id(id);
            }
            self.send(builder.build().unwrap()).await;
        }
        id
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &str) -> Said {
        let id = self.start(topic, payload.as_bytes(), Qos::AtLeastOnce).await;
        let said = self.said().await;
        assert_eq!(said.id, id);
        said
    }

    /// The next packet, which says how something went.
    pub(crate) async fn said(&mut self) -> Said {
        let mut packet = self.next().await;
        while let Some(command @ (Packet::V3_1_1Publish(_) | Packet::V5_0Publish(_))) = packet {
            self.inbox.push_back(command);
            packet = self.next().await;
        }
        match packet.expect("an answer, not the end of the connection") {
            Packet::V3_1_1Puback(packet) => Said { id: packet.packet_id(), ..Said::default() },
            Packet::V3_1_1Pubrec(packet) => Said { id: packet.packet_id(), ..Said::default() },
            Packet::V3_1_1Pubcomp(packet) => Said { id: packet.packet_id(), ..Said::default() },
            Packet::V3_1_1Suback(packet) => Said {
                id: packet.packet_id(),
                codes: packet.return_codes().into_iter().map(|code| code as u8).collect(),
                ..Said::default()
            },
            Packet::V3_1_1Unsuback(packet) => Said { id: packet.packet_id(), ..Said::default() },
            Packet::V5_0Puback(packet) => {
                let code = packet.reason_code().map_or(0, |code| code as u8);
                said(packet.packet_id(), vec![code], packet.props().iter().flatten())
            }
            Packet::V5_0Pubrec(packet) => {
                let code = packet.reason_code().map_or(0, |code| code as u8);
                said(packet.packet_id(), vec![code], packet.props().iter().flatten())
            }
            Packet::V5_0Pubcomp(packet) => Said { id: packet.packet_id(), ..Said::default() },
            Packet::V5_0Suback(packet) => {
                let codes = packet.reason_codes().into_iter().map(|code| code as u8).collect();
                said(packet.packet_id(), codes, packet.props().iter())
            }
            Packet::V5_0Unsuback(packet) => {
                let codes = packet.reason_codes().into_iter().map(|code| code as u8).collect();
                said(packet.packet_id(), codes, packet.props().iter())
            }
            Packet::V5_0Disconnect(packet) => {
                let code = packet.reason_code().map_or(0, |code| code as u8);
                said(0, vec![code], packet.props().iter().flatten())
            }
            other => panic!("an answer was expected, not {other:?}"),
        }
    }

    /// The DISCONNECT (MQTT 5), and then the end.
    pub(crate) async fn told_to_go(&mut self) -> Said {
        let said = self.said().await;
        assert_eq!((said.id, self.next().await), (0, None));
        said
    }

    pub(crate) async fn pubrel(&mut self, id: u16) -> Said {
        match self.version {
            5 => self.send(v5_0::Pubrel::builder().packet_id(id).build().unwrap()).await,
            _ => self.send(v3_1_1::Pubrel::builder().packet_id(id).build().unwrap()).await,
        }
        self.said().await
    }

    pub(crate) async fn subscribe(&mut self, filters: &[(&str, Qos)]) -> Vec<u8> {
        let id = self.core.acquire_packet_id().unwrap();
        let entry =
            |(filter, qos): &(&str, Qos)| SubEntry::new(*filter, SubOpts::default().set_qos(*qos)).unwrap();
        let entries: Vec<SubEntry> = filters.iter().map(entry).collect();
        match self.version {
            5 => self.send(v5_0::Subscribe::builder().packet_id(id).entries(entries).build().unwrap()).await,
            _ => {
                self.send(v3_1_1::Subscribe::builder().packet_id(id).entries(entries).build().unwrap()).await;
            }
        }
        let said = self.said().await;
        assert_eq!(said.id, id);
        said.codes
    }

    pub(crate) async fn unsubscribe(&mut self, filter: &str) -> Vec<u8> {
        let id = self.core.acquire_packet_id().unwrap();
        match self.version {
            5 => {
                let builder = v5_0::Unsubscribe::builder().packet_id(id).entries(vec![filter]).unwrap();
                self.send(builder.build().unwrap()).await;
            }
            _ => {
                let builder = v3_1_1::Unsubscribe::builder().packet_id(id).entries(vec![filter]).unwrap();
                self.send(builder.build().unwrap()).await;
            }
        }
        self.said().await.codes
    }

    /// The next command.
    pub(crate) async fn arrived(&mut self) -> Arrived {
        let packet = match self.inbox.pop_front() {
            Some(packet) => Some(packet),
            None => self.next().await,
        };
        match packet.expect("a command, not the end of the connection") {
            Packet::V3_1_1Publish(packet) => Arrived {
                topic: packet.topic_name().to_owned(),
                payload: String::from_utf8(packet.payload().as_slice().to_vec()).unwrap(),
                qos: packet.qos() as u8,
                dup: packet.dup(),
                packet: packet.packet_id(),
            },
            Packet::V5_0Publish(packet) => Arrived {
                topic: packet.topic_name().to_owned(),
                payload: String::from_utf8(packet.payload().as_slice().to_vec()).unwrap(),
                qos: packet.qos() as u8,
                dup: packet.dup(),
                packet: packet.packet_id(),
            },
            other => panic!("a command was expected, not {other:?}"),
        }
    }

    pub(crate) async fn puback(&mut self, arrived: &Arrived) {
        let id = arrived.packet.unwrap();
        match self.version {
            5 => self.send(v5_0::Puback::builder().packet_id(id).build().unwrap()).await,
            _ => self.send(v3_1_1::Puback::builder().packet_id(id).build().unwrap()).await,
        }
    }

    /// Proves that nothing came for it, that the connection lives, and that everything before was taken.
    pub(crate) async fn ping(&mut self) {
        match self.version {
            5 => self.send(v5_0::Pingreq::new()).await,
            _ => self.send(v3_1_1::Pingreq::new()).await,
        }
        assert!(self.inbox.is_empty(), "nothing should have come: {:?}", self.inbox);
        match self.next().await {
            Some(Packet::V3_1_1Pingresp(_) | Packet::V5_0Pingresp(_)) => {}
            other => panic!("a PINGRESP was expected, not {other:?}"),
        }
    }

    pub(crate) async fn leave(mut self) {
        match self.version {
            5 => self.send(v5_0::Disconnect::builder().build().unwrap()).await,
            _ => self.send(v3_1_1::Disconnect::new()).await,
        }
        self.closed().await;
    }
}

fn said<'a>(id: u16, codes: Vec<u8>, properties: impl Iterator<Item = &'a Property>) -> Said {
    let mut said = Said { id, codes, ..Said::default() };
    for property in properties {
        match property {
            Property::ReasonString(reason) => said.reason = reason.val().to_owned(),
            Property::UserProperty(pair) if pair.key() == "field" => said.field = pair.val().to_owned(),
            Property::UserProperty(pair) if pair.key() == "limit" => said.limit = pair.val().to_owned(),
            Property::UserProperty(pair) if pair.key() == "pos" => {
                said.position = Some(pair.val().to_owned())
            }
            _ => {}
        }
    }
    said
}

/// The property that asks for no reason strings.
pub(crate) fn no_problem_information() -> Property {
    RequestProblemInformation::new(0).unwrap().into()
}
