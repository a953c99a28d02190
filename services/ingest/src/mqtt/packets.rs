//! Packets as the rest of this module sees them: one shape for both versions of MQTT.

use bytes::Bytes;
use mqtt_protocol_core::mqtt::{
    packet::{MqttString, Packet, Property, Qos, SubEntry, v3_1_1, v5_0},
    result_code::{DisconnectReasonCode, MqttError, PubackReasonCode},
};

/// The longest W3C `traceparent` of version 00.
const TRACEPARENT_MAX: usize = 55;

/// Which MQTT a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V3_1_1,
    V5,
}

impl Version {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::V3_1_1 => "mqtt/3.1.1",
            Self::V5 => "mqtt/5",
        }
    }
}

/// What a CONNECT asks for.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) client_id: String,
    pub(super) clean_start: bool,
    /// Seconds; 0 is none.
    pub(super) keep_alive: u16,
    /// The password, or the user name where there is no password.
    pub(super) token: Option<String>,
    /// Seconds that the session outlives the connection; MQTT 3.1.1 knows only 0 and for ever.
    pub(super) expiry: u32,
    pub(super) will: Option<Will>,
    /// Whether an authentication method of MQTT 5 was named; none is offered.
    pub(super) extended_authentication: bool,
}

/// What is published when the connection ends without a DISCONNECT.
#[derive(Debug)]
pub(super) struct Will {
    topic: String,
    payload: Vec<u8>,
    content_type: Option<String>,
}

impl Will {
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }
}

impl Hello {
    pub(super) fn v3_1_1(packet: &v3_1_1::Connect) -> Self {
        let will = |topic: &str| Will {
            topic: topic.to_owned(),
            payload: packet.will_payload().unwrap_or_default().to_vec(),
            content_type: None,
        };
        Self {
            client_id: packet.client_id().to_owned(),
            clean_start: packet.clean_session(),
            keep_alive: packet.keep_alive(),
            token: token(packet.user_name(), packet.password()),
            expiry: if packet.clean_session() { 0 } else { u32::MAX },
            will: packet.will_topic().map(will),
            extended_authentication: false,
        }
    }

    pub(super) fn v5(packet: &v5_0::Connect) -> Self {
        let mut hello = Self {
            client_id: packet.client_id().to_owned(),
            clean_start: packet.clean_start(),
            keep_alive: packet.keep_alive(),
            token: token(packet.user_name(), packet.password()),
            expiry: 0,
            will: packet.will_topic().map(|topic| Will {
                topic: topic.to_owned(),
                payload: packet.will_payload().unwrap_or_default().to_vec(),
                content_type: content_type(packet.will_props()).map(str::to_owned),
            }),
            extended_authentication: false,
        };
        for property in packet.props() {
            match property {
                Property::SessionExpiryInterval(seconds) => hello.expiry = seconds.val(),
                Property::AuthenticationMethod(_) => hello.extended_authentication = true,
                _ => {}
            }
        }
        hello
    }
}

fn token(user: Option<&str>, password: Option<&[u8]>) -> Option<String> {
    match (user, password) {
        (_, Some(password)) if !password.is_empty() => String::from_utf8(password.to_vec()).ok(),
        (user, _) => user.filter(|user| !user.is_empty()).map(str::to_owned),
    }
}

fn content_type(properties: &[Property]) -> Option<&str> {
    properties.iter().find_map(|property| match property {
        Property::ContentType(text) => Some(text.val()),
        _ => None,
    })
}

/// A message that a client publishes.
pub(super) enum Publish {
    V3_1_1(v3_1_1::Publish),
    V5(v5_0::Publish),
    Will(Will),
}

impl Publish {
    pub(super) fn topic(&self) -> &str {
        match self {
            Self::V3_1_1(packet) => packet.topic_name(),
            Self::V5(packet) => packet.topic_name(),
            Self::Will(will) => &will.topic,
        }
    }

    pub(super) fn payload(&self) -> &[u8] {
        match self {
            Self::V3_1_1(packet) => packet.payload().as_slice(),
            Self::V5(packet) => packet.payload().as_slice(),
            Self::Will(will) => &will.payload,
        }
    }

    pub(super) fn payload_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.payload())
    }

    /// How it is to be acknowledged, and under which packet identifier. A will is not.
    pub(super) fn acknowledge(&self) -> Acknowledge {
        let (qos, id) = match self {
            Self::V3_1_1(packet) => (packet.qos(), packet.packet_id()),
            Self::V5(packet) => (packet.qos(), packet.packet_id()),
            Self::Will(_) => (Qos::AtMostOnce, None),
        };
        match (qos, id) {
            (Qos::AtLeastOnce, Some(id)) => Acknowledge::Puback(id),
            (Qos::ExactlyOnce, Some(id)) => Acknowledge::Pubrec(id),
            _ => Acknowledge::Never,
        }
    }

    /// Empty where the client did not say.
    pub(super) fn content_type(&self) -> &str {
        match self {
            Self::V3_1_1(_) => None,
            Self::V5(packet) => content_type(packet.props()),
            Self::Will(will) => will.content_type.as_deref(),
        }
        .unwrap_or_default()
    }

    /// The W3C `traceparent` that an MQTT 5 client sent as a user property.
    pub(super) fn trace_context(&self) -> Option<&str> {
        let Self::V5(packet) = self else { return None };
        packet.props().iter().find_map(|property| match property {
            Property::UserProperty(pair) if pair.key() == "traceparent" => {
                Some(pair.val()).filter(|value| value.len() <= TRACEPARENT_MAX)
            }
            _ => None,
        })
    }
}

/// How a PUBLISH is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledge {
    /// QoS 0.
    Never,
    /// QoS 1.
    Puback(u16),
    /// QoS 2.
    Pubrec(u16),
}

/// One topic filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) filter: String,
    /// The QoS asked for.
    pub(super) qos: u8,
}

/// A packet from an authenticated client.
pub(super) enum Input {
    Publish(Publish),
    /// A QoS 2 PUBLISH that came again before its PUBREL.
    Repeated(u16),
    Pubrel(u16),
    /// An acknowledgement of ours; `refused` says why the client did not take it.
    Puback {
        id: u16,
        refused: Option<String>,
    },
    Subscribe {
        id: u16,
        entries: Vec<Entry>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    Ping,
    /// The client leaves; `expiry` (seconds) overrides that of the CONNECT.
    Disconnect {
        with_will: bool,
        expiry: Option<u32>,
    },
}

/// A client broke the protocol: the connection ends with this.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) code: DisconnectReasonCode,
    pub(super) message: String,
}

impl Input {
    /// What a packet of an authenticated client asks for.
    ///
    /// # Errors
    /// Where the client may not send it.
    pub(super) fn of(packet: Packet) -> Result<Self, Broken> {
        Ok(match packet {
            Packet::V3_1_1Publish(packet) => publish(Publish::V3_1_1(packet))?,
            Packet::V5_0Publish(packet) => publish(Publish::V5(packet))?,
            Packet::V3_1_1Pubrel(packet) => Input::Pubrel(packet.packet_id()),
            Packet::V5_0Pubrel(packet) => Input::Pubrel(packet.packet_id()),
            Packet::V3_1_1Puback(packet) => Input::Puback { id: packet.packet_id(), refused: None },
            Packet::V5_0Puback(packet) => Input::Puback {
                id: packet.packet_id(),
                refused: packet.reason_code().filter(PubackReasonCode::is_failure).map(|code| {
                    format!("the device refused it with reason code {:#04x} ({code})", code as u8)
                }),
            },
            Packet::V3_1_1Subscribe(packet) => subscribe(packet.packet_id(), packet.entries())?,
            Packet::V5_0Subscribe(packet) => {
                if packet
                    .props()
                    .iter()
                    .any(|property| matches!(property, Property::SubscriptionIdentifier(_)))
                {
                    return Err(Broken {
                        code: DisconnectReasonCode::SubscriptionIdentifiersNotSupported,
                        message: "subscription identifiers are not available".to_owned(),
                    });
                }
                subscribe(packet.packet_id(), packet.entries())?
            }
            Packet::V3_1_1Unsubscribe(packet) => unsubscribe(packet.packet_id(), packet.entries())?,
            Packet::V5_0Unsubscribe(packet) => unsubscribe(packet.packet_id(), packet.entries())?,
            Packet::V3_1_1Pingreq(_) | Packet::V5_0Pingreq(_) => Input::Ping,
            Packet::V3_1_1Disconnect(_) => Input::Disconnect { with_will: false, expiry: None },
            Packet::V5_0Disconnect(packet) => disconnect(&packet),
            other => {
                return Err(Broken {
                    code: DisconnectReasonCode::ProtocolError,
                    message: format!("a {:?} packet is not expected here", other.packet_type()),
                });
            }
        })
    }
}

fn publish(publish: Publish) -> Result<Input, Broken> {
    match publish.acknowledge() {
        Acknowledge::Puback(0) | Acknowledge::Pubrec(0) => Err(Broken::zero()),
        _ => Ok(Input::Publish(publish)),
    }
}

fn subscribe(id: u16, entries: &[SubEntry]) -> Result<Input, Broken> {
    if id == 0 {
        return Err(Broken::zero());
    }
    let entry = |entry: &SubEntry| Entry {
        filter: entry.topic_filter().to_owned(),
        qos: entry.sub_opts().qos() as u8,
    };
    Ok(Input::Subscribe { id, entries: entries.iter().map(entry).collect() })
}

fn unsubscribe(id: u16, filters: &[MqttString]) -> Result<Input, Broken> {
    if id == 0 {
        return Err(Broken::zero());
    }
    Ok(Input::Unsubscribe { id, filters: filters.iter().map(|filter| filter.as_str().to_owned()).collect() })
}

fn disconnect(packet: &v5_0::Disconnect) -> Input {
    let expiry = packet.props().iter().flatten().find_map(|property| match property {
        Property::SessionExpiryInterval(seconds) => Some(seconds.val()),
        _ => None,
    });
    let code = packet.reason_code().unwrap_or(DisconnectReasonCode::NormalDisconnection);
    Input::Disconnect { with_will: code != DisconnectReasonCode::NormalDisconnection, expiry }
}

impl Broken {
    pub(super) fn of(error: MqttError) -> Self {
        // The codes of the protocol are below 0x100; the library's own, above it, all mean bytes that cannot be read.
        let code = u8::try_from(error as u16)
            .ok()
            .and_then(|code| DisconnectReasonCode::try_from(code).ok())
            .unwrap_or(DisconnectReasonCode::MalformedPacket);
        Self { code, message: format!("the packet cannot be accepted: {error}") }
    }

    fn zero() -> Self {
        Self {
            code: DisconnectReasonCode::ProtocolError,
            message: "a packet identifier must not be 0".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_the_password_or_the_user_name_without_one() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(token(Some("anybody"), Some(b"wd_1_x")), text("wd_1_x"));
        assert_eq!(token(Some("wd_1_x"), None), text("wd_1_x"));
        assert_eq!(token(Some("wd_1_x"), Some(b"")), text("wd_1_x"));
        assert_eq!(token(Some("anybody"), Some(b"\xff")), None);
        assert_eq!(token(None, None), None);
    }
}
