//! MQTT 3.1.1 and 5 on tokio.
//!
//! The protocol's state machine is `mqtt-protocol-core`, which does no I/O, with its automatic responses off: an
//! acknowledgement waits for the log. Each connection is one task with one loop ([`connection`]); a message costs no task.
//! Publications are taken in one after the other and acknowledged in that order, many in one write; a client that has
//! [`receive_max`](crate::config::MqttConfig) of them under way, or whose tenant is over its share of the window, is not
//! read from until there is room.
//!
//! | what a client may meet        | MQTT 5                                        | MQTT 3.1.1                       |
//! | ----------------------------- | --------------------------------------------- | -------------------------------- |
//! | bad token                     | CONNACK 0x86, with a reason string            | CONNACK 4                        |
//! | a token that is no device's   | CONNACK 0x87                                  | CONNACK 5                        |
//! | a will that cannot be published | CONNACK 0x90, for a child 0x87             | CONNACK 5                        |
//! | payload refused               | PUBACK or PUBREC 0x99 with a reason string    | kept as a dead letter, then ack  |
//! | unknown topic                 | 0x90                                          | kept as a dead letter, then ack  |
//! | `v1/children/` by a non-gateway | 0x87                                        | kept as a dead letter, then ack  |
//! | the log is full or away       | 0x97 or 0x83                                  | no ack: the connection is closed |
//! | packet over the limit         | CONNACK or DISCONNECT 0x95, body unread       | closed, body unread              |
//! | taken over, too many sessions | DISCONNECT 0x8E                               | closed                           |
//! | access lost                   | DISCONNECT 0x87, deleted: 0x98                | closed                           |
//!
//! At QoS 0 the wire has no words in either version: what is refused is kept as a dead letter too.
//!
//! A gateway's wildcards (`#`, `v1/#`, `v1/children/#`, `v1/children/+/…`) mean the children for which it has spoken on this
//! connection, before the SUBSCRIBE or after it: which devices are behind a gateway is known by nothing else. The commands
//! of a child that has not been heard of wait until it is, or until the gateway subscribes to it by its id; a new connection
//! begins anew. At most 1,023 children of one connection get commands.
//!
//! A revoked, disabled or deleted device is put out when the registry's signal arrives, within a second. A credential that
//! expires sends no signal: its connection ends with the next check, at most 30 s later.
//!
//! Not built: will delay (a will is published when its connection ends), and sessions that keep QoS 2 identifiers beyond
//! their connection (a PUBLISH resent on a new one is taken again; readings that carry their time are stored once anyway).

mod acks;
mod connection;
mod handshake;
mod header;
mod inbound;
mod io;
mod listener;
mod outbound;
mod packets;
mod protocol;
mod reason;
mod server;
mod subscribe;
mod topics;

pub(crate) use listener::serve;
