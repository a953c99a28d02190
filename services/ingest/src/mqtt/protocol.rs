//! The protocol of one connection: `mqtt-protocol-core`'s state machine, without its automatic responses, since an
//! acknowledgement waits for the log.
//!
//! Its store of unacknowledged packets is not used either: what must survive a connection lives in the command queue.

use mqtt_protocol_core::mqtt::{
    Connection, Version as CoreVersion,
    common::Cursor,
    packet::{
        AssignedClientIdentifier, GenericPacketTrait, MaximumPacketSize, Packet, Property, ReasonString,
        ReceiveMaximum, ServerKeepAlive, SessionExpiryInterval, SharedSubscriptionAvailable,
        SubscriptionIdentifierAvailable, TopicAliasMaximum, UserProperty, v3_1_1, v5_0,
    },
    prelude::*,
    result_code::{
        ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode, MqttError, PubackReasonCode,
        PubcompReasonCode, PubrecReasonCode, SubackReasonCode, SubackReturnCode, UnsubackReasonCode,
    },
    role,
};
use weir_core::{Error, Position};

use super::{
    header,
    packets::{Acknowledge, Broken, Hello, Input, Version},
    reason,
};
use crate::explain::{EXPLAINED_MAX, cut, explain};

/// Topic aliases that a client may define: it needs one for each topic that it publishes to, and a device has few; a
/// gateway's busiest children get the rest. Each costs a topic's length.
const TOPIC_ALIAS_MAX: u16 = 32;

/// The protocol of one connection.
pub(super) struct Protocol {
    core: Connection<role::Server>,
    version: Version,
    /// Whether the client wants reason strings and user properties on acknowledgements.
    problem_information: bool,
    /// The largest packet that the client takes.
    peer_packet_max: usize,
}

/// What the server tells in a CONNACK.
#[derive(Debug, Default)]
pub(super) struct Welcome {
    pub(super) session_present: bool,
    pub(super) packet_max: usize,
    pub(super) receive_max: u16,
    /// Seconds, where they differ from what the client asked for.
    pub(super) expiry: Option<u32>,
    /// Seconds, where they differ from what the client asked for.
    pub(super) keep_alive: Option<u16>,
    pub(super) assigned_client_id: Option<String>,
}

impl Protocol {
    /// Reads a CONNECT of `level` 4 or 5, or says with which code it is refused.
    pub(super) fn accept(level: u8, connect: &[u8]) -> (Self, Result<Hello, ConnectReasonCode>) {
        let (version, core) = match level {
            5 => (Version::V5, CoreVersion::V5_0),
            _ => (Version::V3_1_1, CoreVersion::V3_1_1),
        };
        let mut protocol = Self {
            core: Connection::new(core),
            version,
            problem_information: true,
            peer_packet_max: usize::MAX,
        };
        // MQTT 5.0 and 3.1.1, 3.1.2-3: the library reads past it.
        if header::connect_flags(connect).is_some_and(|flags| flags & 1 == 1) {
            return (protocol, Err(ConnectReasonCode::MalformedPacket));
        }
        let mut error = MqttError::MalformedPacket;
        for event in protocol.core.recv(&mut Cursor::new(connect)) {
            match event {
                Event::NotifyPacketReceived(Packet::V3_1_1Connect(packet)) => {
                    return (protocol, Ok(Hello::v3_1_1(&packet)));
                }
                Event::NotifyPacketReceived(Packet::V5_0Connect(packet)) => {
                    protocol.remember(packet.props());
                    return (protocol, Ok(Hello::v5(&packet)));
                }
                Event::NotifyError(found) => error = found,
                _ => {}
            }
        }
        let code = match error {
            MqttError::ClientIdentifierNotValid => ConnectReasonCode::ClientIdentifierNotValid,
            MqttError::BadUserNameOrPassword => ConnectReasonCode::BadUserNameOrPassword,
            MqttError::UnsupportedProtocolVersion => ConnectReasonCode::UnsupportedProtocolVersion,
            MqttError::ProtocolError => ConnectReasonCode::ProtocolError,
            _ => ConnectReasonCode::MalformedPacket,
        };
        (protocol, Err(code))
    }

    fn remember(&mut self, properties: &[Property]) {
        for property in properties {
            match property {
                Property::RequestProblemInformation(wanted) => self.problem_information = wanted.val() != 0,
                Property::MaximumPacketSize(bytes) => self.peer_packet_max = bytes.val() as usize,
                _ => {}
            }
        }
    }

    pub(super) const fn version(&self) -> Version {
        self.version
    }

    pub(super) const fn peer_packet_max(&self) -> usize {
        self.peer_packet_max
    }

    /// Whether another PUBLISH of ours at QoS 1 may be under way.
    pub(super) fn may_publish(&self) -> bool {
        self.core.get_receive_maximum_vacancy_for_send() != Some(0)
    }

    /// Takes one whole packet. `None` is one that asks for nothing.
    ///
    /// # Errors
    /// Where the client broke the protocol.
    pub(super) fn receive(&mut self, packet: &[u8]) -> Result<Option<Input>, Broken> {
        let mut input = None;
        for event in self.core.recv(&mut Cursor::new(packet)) {
            match event {
                Event::NotifyPacketReceived(packet) => input = Some(Input::of(packet)?),
                Event::NotifyError(error) => return Err(Broken::of(error)),
                Event::RequestSendPacket { packet: Packet::V3_1_1Pubrec(packet), .. } => {
                    input = Some(Input::Repeated(packet.packet_id()));
                }
                Event::RequestSendPacket { packet: Packet::V5_0Pubrec(packet), .. } => {
                    input = Some(Input::Repeated(packet.packet_id()));
                }
                _ => {}
            }
        }
        Ok(input)
    }

    fn send(&mut self, packet: impl Into<Packet>, output: &mut Vec<u8>) -> bool {
        let before = output.len();
        for event in self.core.send(packet.into()) {
            if let Event::RequestSendPacket { packet, .. } = event {
                output.extend_from_slice(&packet.to_continuous_buffer());
            }
        }
        output.len() > before
    }

    /// Says that the client is welcome.
    ///
    /// # Errors
    /// A defect: our own CONNACK could not be made.
    pub(super) fn welcome(&mut self, welcome: Welcome, output: &mut Vec<u8>) -> Result<(), MqttError> {
        let sent = match self.version {
            Version::V3_1_1 => {
                let packet = v3_1_1::Connack::builder()
                    .session_present(welcome.session_present)
                    .return_code(ConnectReturnCode::Accepted)
                    .build()?;
                self.send(packet, output)
            }
            Version::V5 => {
                let packet = v5_0::Connack::builder()
                    .session_present(welcome.session_present)
                    .reason_code(ConnectReasonCode::Success)
                    .props(properties_of(welcome)?)
                    .build()?;
                self.send(packet, output)
            }
        };
        if sent { Ok(()) } else { Err(MqttError::PacketTooLarge) }
    }

    /// Says why the client is not welcome.
    pub(super) fn refuse(&self, error: &Error, output: &mut Vec<u8>) {
        match self.version {
            Version::V3_1_1 => refuse_3_1_1(reason::connack_3_1_1(error), output),
            Version::V5 => self.refuse_with(reason::connack(error), &explain(error), output),
        }
    }

    /// As [`Protocol::refuse`], for what is not an error of ours.
    pub(super) fn refuse_with(&self, code: ConnectReasonCode, message: &str, output: &mut Vec<u8>) {
        match (self.version, code) {
            (Version::V5, code) => refuse_5(code, message, self.peer_packet_max, output),
            (Version::V3_1_1, ConnectReasonCode::ClientIdentifierNotValid) => {
                refuse_3_1_1(ConnectReturnCode::IdentifierRejected, output);
            }
            (Version::V3_1_1, ConnectReasonCode::BadUserNameOrPassword) => {
                refuse_3_1_1(ConnectReturnCode::BadUserNameOrPassword, output);
            }
            (Version::V3_1_1, ConnectReasonCode::QuotaExceeded | ConnectReasonCode::ServerUnavailable) => {
                refuse_3_1_1(ConnectReturnCode::ServerUnavailable, output);
            }
            // MQTT 3.1.1, 3.1.4: a CONNECT that is not MQTT is closed without a CONNACK.
            (Version::V3_1_1, _) => {}
        }
    }

    /// Acknowledges a PUBLISH, or refuses it where this version can.
    pub(super) fn acknowledge(
        &mut self,
        how: Acknowledge,
        outcome: &Result<Option<Position>, Error>,
        output: &mut Vec<u8>,
    ) {
        let properties = self.outcome_properties(outcome);
        if !self.acknowledge_with(how, outcome.as_ref().err(), properties, output) {
            // The client's maximum packet size leaves no room for all properties, or for any.
            let words = self.outcome_properties(outcome).into_iter().take(1).collect();
            if !self.acknowledge_with(how, outcome.as_ref().err(), words, output) {
                self.acknowledge_with(how, outcome.as_ref().err(), Vec::new(), output);
            }
        }
    }

    fn outcome_properties(&self, outcome: &Result<Option<Position>, Error>) -> Vec<Property> {
        if self.version == Version::V3_1_1 || !self.problem_information {
            return Vec::new();
        }
        match outcome {
            Ok(None) => Vec::new(),
            Ok(Some(position)) => {
                let pos = UserProperty::new("pos", position.to_string().as_str());
                pos.ok().map(Into::into).into_iter().collect()
            }
            Err(error) => reason_string(&explain(error)).into_iter().chain(parts(error)).collect(),
        }
    }

    fn acknowledge_with(
        &mut self,
        how: Acknowledge,
        error: Option<&Error>,
        properties: Vec<Property>,
        output: &mut Vec<u8>,
    ) -> bool {
        let packet: Result<Packet, MqttError> = match (how, self.version) {
            (Acknowledge::Never, _) => return true,
            (Acknowledge::Puback(id), Version::V3_1_1) => {
                v3_1_1::Puback::builder().packet_id(id).build().map(Into::into)
            }
            (Acknowledge::Pubrec(id), Version::V3_1_1) => {
                v3_1_1::Pubrec::builder().packet_id(id).build().map(Into::into)
            }
            (Acknowledge::Puback(id), Version::V5) => v5_0::Puback::builder()
                .packet_id(id)
                .reason_code(error.map_or(PubackReasonCode::Success, reason::puback))
                .props(properties)
                .build()
                .map(Into::into),
            (Acknowledge::Pubrec(id), Version::V5) => v5_0::Pubrec::builder()
                .packet_id(id)
                .reason_code(error.map_or(PubrecReasonCode::Success, reason::pubrec))
                .props(properties)
                .build()
                .map(Into::into),
        };
        packet.is_ok_and(|packet| self.send(packet, output))
    }

    /// Ends the exchange of a QoS 2 PUBLISH.
    pub(super) fn complete(&mut self, id: u16, output: &mut Vec<u8>) {
        let packet: Result<Packet, MqttError> = match self.version {
            Version::V3_1_1 => v3_1_1::Pubcomp::builder().packet_id(id).build().map(Into::into),
            Version::V5 => v5_0::Pubcomp::builder()
                .packet_id(id)
                .reason_code(PubcompReasonCode::Success)
                .build()
                .map(Into::into),
        };
        let _ = packet.map(|packet| self.send(packet, output));
    }

    /// Answers a SUBSCRIBE.
    pub(super) fn subscribed(&mut self, id: u16, codes: Vec<SubackReasonCode>, output: &mut Vec<u8>) {
        let packet: Result<Packet, MqttError> = match self.version {
            Version::V3_1_1 => {
                let codes = codes
                    .into_iter()
                    .map(|code| SubackReturnCode::try_from(code as u8).unwrap_or(SubackReturnCode::Failure))
                    .collect::<Vec<_>>();
                v3_1_1::Suback::builder().packet_id(id).return_codes(codes).build().map(Into::into)
            }
            Version::V5 => v5_0::Suback::builder().packet_id(id).reason_codes(codes).build().map(Into::into),
        };
        let _ = packet.map(|packet| self.send(packet, output));
    }

    /// Answers an UNSUBSCRIBE: for each filter whether it was subscribed to.
    pub(super) fn unsubscribed(&mut self, id: u16, existed: &[bool], output: &mut Vec<u8>) {
        let code = |existed: &bool| match existed {
            true => UnsubackReasonCode::Success,
            false => UnsubackReasonCode::NoSubscriptionExisted,
        };
        let packet: Result<Packet, MqttError> = match self.version {
            Version::V3_1_1 => v3_1_1::Unsuback::builder().packet_id(id).build().map(Into::into),
            Version::V5 => v5_0::Unsuback::builder()
                .packet_id(id)
                .reason_codes(existed.iter().map(code).collect::<Vec<_>>())
                .build()
                .map(Into::into),
        };
        let _ = packet.map(|packet| self.send(packet, output));
    }

    /// Answers a PINGREQ.
    pub(super) fn pong(&mut self, output: &mut Vec<u8>) {
        match self.version {
            Version::V3_1_1 => self.send(v3_1_1::Pingresp::new(), output),
            Version::V5 => self.send(v5_0::Pingresp::new(), output),
        };
    }

    /// Publishes to the client. At QoS 1 it returns the packet identifier under which the client will acknowledge.
    ///
    /// # Errors
    /// Where the packet is larger than the client takes, or every identifier is in use.
    pub(super) fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        at_least_once: bool,
        again: bool,
        output: &mut Vec<u8>,
    ) -> Result<Option<u16>, MqttError> {
        use mqtt_protocol_core::mqtt::packet::Qos;
        let id = if at_least_once { Some(self.core.acquire_packet_id()?) } else { None };
        let qos = if at_least_once { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        let dup = at_least_once && again;
        let packet: Result<Packet, MqttError> = match self.version {
            Version::V3_1_1 => v3_1_1::Publish::builder().topic_name(topic).and_then(|builder| {
                let builder = builder.qos(qos).dup(dup).payload(payload);
                let builder = match id {
                    Some(id) => builder.packet_id(id),
                    None => builder,
                };
                builder.build().map(Into::into)
            }),
            Version::V5 => v5_0::Publish::builder().topic_name(topic).and_then(|builder| {
                let builder = builder.qos(qos).dup(dup).payload(payload);
                let builder = match id {
                    Some(id) => builder.packet_id(id),
                    None => builder,
                };
                builder.build().map(Into::into)
            }),
        };
        let sent = packet.is_ok_and(|packet| self.send(packet, output));
        if !sent {
            if let Some(id) = id {
                self.core.release_packet_id(id);
            }
            return Err(MqttError::PacketTooLarge);
        }
        Ok(id)
    }

    /// Says why the connection ends; MQTT 3.1.1 has no words for it.
    pub(super) fn disconnect(&self, code: DisconnectReasonCode, message: &str, output: &mut Vec<u8>) {
        if self.version == Version::V5 {
            let properties = reason_string(message).into_iter().collect();
            let with = |properties: Vec<Property>| {
                v5_0::Disconnect::builder().reason_code(code).props(properties).build()
            };
            let fits = |packet: &v5_0::Disconnect| packet.size() <= self.peer_packet_max;
            let packet = with(properties).ok().filter(fits).or_else(|| with(Vec::new()).ok().filter(fits));
            if let Some(packet) = packet {
                output.extend_from_slice(&packet.to_continuous_buffer());
            }
        }
    }
}

/// A CONNACK of MQTT 5 that refuses, also before a CONNECT was parsed.
pub(super) fn refuse_5(code: ConnectReasonCode, message: &str, packet_max: usize, output: &mut Vec<u8>) {
    let with = |properties: Vec<Property>| {
        v5_0::Connack::builder().session_present(false).reason_code(code).props(properties).build()
    };
    let fits = |packet: &v5_0::Connack| packet.size() <= packet_max;
    let packet = with(reason_string(message).into_iter().collect())
        .ok()
        .filter(fits)
        .or_else(|| with(Vec::new()).ok().filter(fits));
    if let Some(packet) = packet {
        output.extend_from_slice(&packet.to_continuous_buffer());
    }
}

/// A CONNACK of MQTT 3.1.1 that refuses.
pub(super) fn refuse_3_1_1(code: ConnectReturnCode, output: &mut Vec<u8>) {
    if let Ok(packet) = v3_1_1::Connack::builder().session_present(false).return_code(code).build() {
        output.extend_from_slice(&packet.to_continuous_buffer());
    }
}

fn properties_of(welcome: Welcome) -> Result<Vec<Property>, MqttError> {
    let mut properties: Vec<Property> = vec![
        ReceiveMaximum::new(welcome.receive_max.max(1))?.into(),
        MaximumPacketSize::new(u32::try_from(welcome.packet_max).unwrap_or(u32::MAX))?.into(),
        TopicAliasMaximum::new(TOPIC_ALIAS_MAX)?.into(),
        SubscriptionIdentifierAvailable::new(0)?.into(),
        SharedSubscriptionAvailable::new(0)?.into(),
    ];
    if let Some(seconds) = welcome.expiry {
        properties.push(SessionExpiryInterval::new(seconds)?.into());
    }
    if let Some(seconds) = welcome.keep_alive {
        properties.push(ServerKeepAlive::new(seconds)?.into());
    }
    if let Some(client_id) = welcome.assigned_client_id {
        properties.push(AssignedClientIdentifier::new(client_id.as_str())?.into());
    }
    Ok(properties)
}

fn reason_string(message: &str) -> Option<Property> {
    let text = Some(cut(message, EXPLAINED_MAX)).filter(|text| !text.is_empty())?;
    ReasonString::new(text).ok().map(Into::into)
}

/// The parts of a refusal, for programs.
fn parts(error: &Error) -> impl Iterator<Item = Property> {
    let parts = [("reason", Some(error.reason())), ("field", error.field()), ("limit", error.limit())];
    let given = parts.into_iter().filter_map(|(name, part)| Some((name, cut(part?, EXPLAINED_MAX / 2))));
    given.filter_map(|(name, part)| UserProperty::new(name, part).ok().map(Into::into))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const CONNECT_5: &[u8] = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00";
    const CONNECT_4: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00";

    fn connected(level: u8) -> Protocol {
        let bytes = if level == 5 { CONNECT_5 } else { CONNECT_4 };
        let (mut protocol, hello) = Protocol::accept(level, bytes);
        assert!(hello.is_ok());
        let welcome = Welcome { packet_max: 262_144, receive_max: 16, ..Welcome::default() };
        protocol.welcome(welcome, &mut Vec::new()).unwrap();
        protocol
    }

    #[test]
    fn a_client_that_takes_only_small_packets_gets_its_puback_without_a_reason() {
        let mut protocol = connected(5);
        let error = Error::invalid("[0].temp", "VALUE_INVALID", "x".repeat(2_000));
        let mut long = Vec::new();
        protocol.acknowledge(Acknowledge::Puback(7), &Err(error.clone()), &mut long);
        assert!((500..600).contains(&long.len()), "the reason string is there, and cut");
        let text = String::from_utf8_lossy(&long);
        for said in ["[0].temp: xxx", "VALUE_INVALID"] {
            assert!(text.contains(said), "{said} is not in {text:?}");
        }

        let small = b"\x10\x12\x00\x04MQTT\x05\x02\x00\x3c\x05\x27\x00\x00\x00\x10\x00\x00";
        let (mut protocol, hello) = Protocol::accept(5, small);
        assert!(hello.is_ok());
        assert!(
            protocol.welcome(Welcome { packet_max: 1_000, ..Welcome::default() }, &mut Vec::new()).is_err()
        );
        let mut output = Vec::new();
        protocol.refuse(&error, &mut output);
        assert_eq!(output, [0x20, 3, 0, 0x85, 0]);
    }

    #[test]
    fn a_connect_with_its_reserved_flag_set_is_refused() {
        for (level, connect) in [(4, CONNECT_4), (5, CONNECT_5)] {
            let mut connect = connect.to_vec();
            connect[9] |= 1;
            assert_eq!(Protocol::accept(level, &connect).1.err(), Some(ConnectReasonCode::MalformedPacket));
        }
    }

    #[test]
    fn a_packet_identifier_of_zero_is_a_protocol_error() {
        for level in [4, 5] {
            let broken = connected(level).receive(b"\x32\x07\x00\x01a\x00\x00\x00\x00").err().unwrap();
            assert_eq!(broken.code, DisconnectReasonCode::ProtocolError);
        }
    }

    proptest! {
        #[test]
        fn any_connect_is_taken_or_refused(level in 3_u8..7, mut bytes in vec(any::<u8>(), 0..200), good in any::<bool>()) {
            if good {
                let mut start = if level == 5 { CONNECT_5.to_vec() } else { CONNECT_4.to_vec() };
                start.append(&mut bytes);
                start[1] = u8::try_from((start.len() - 2).min(127)).unwrap();
                bytes = start;
            }
            match Protocol::accept(level, &bytes) {
                (mut protocol, Ok(_)) => {
                    let _ = protocol.welcome(Welcome { packet_max: 1_000, ..Welcome::default() }, &mut Vec::new());
                }
                (protocol, Err(code)) => protocol.refuse_with(code, "no", &mut Vec::new()),
            }
        }

        #[test]
        fn no_packet_of_a_client_makes_us_panic(
            level in 4_u8..6,
            packets in vec((any::<u8>(), vec(any::<u8>(), 0..60)), 0..20),
        ) {
            let mut protocol = connected(level);
            let mut output = Vec::new();
            for (first, body) in packets {
                let mut packet = vec![first, u8::try_from(body.len()).unwrap()];
                packet.extend(body);
                match protocol.receive(&packet) {
                    Ok(Some(Input::Publish(publish))) => {
                        let _ = (publish.topic(), publish.payload(), publish.content_type(), publish.trace_context());
                        protocol.acknowledge(publish.acknowledge(), &Ok(None), &mut output);
                    }
                    Ok(Some(Input::Pubrel(id))) => protocol.complete(id, &mut output),
                    Ok(Some(Input::Ping)) => protocol.pong(&mut output),
                    Ok(_) => { let _ = protocol.publish("v1/x", b"{}", first & 1 == 0, false, &mut output); }
                    Err(broken) => {
                        protocol.disconnect(broken.code, &broken.message, &mut output);
                        break;
                    }
                }
            }
        }
    }
}
