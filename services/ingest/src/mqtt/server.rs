//! What all MQTT connections of this process share.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use prometheus::IntCounter;
use tokio_util::sync::CancellationToken;
use weir_core::{Error, ErrorKind, Result};

use crate::{access::DeviceAccess, doorbell::Doorbells, edge::Edge, metrics::Protocol};

/// What is spoken here.
pub(super) const PROTOCOL: Protocol = Protocol::Mqtt;

/// What all MQTT connections of this process share.
pub(super) struct Server {
    pub(super) edge: Arc<Edge>,
    /// Rung where a device may have lost its access.
    pub(super) changes: Arc<Doorbells>,
    /// How many changes were seen: a connection that opens while one comes in asks again.
    changes_seen: AtomicU64,
    connected: AtomicUsize,
    connections_max: usize,
    pub(super) packet_max: usize,
    pub(super) command_payload_max: usize,
    /// Packets that clients sent, by their type on the wire.
    packets: [Option<IntCounter>; 16],
    pub(super) stop: CancellationToken,
}

/// One authenticated connection, counted until dropped.
pub(super) struct Connected(Arc<Server>);

impl Server {
    pub(super) fn new(edge: Arc<Edge>, stop: CancellationToken) -> Arc<Self> {
        let limits = &edge.config.limits;
        let bytes = |size: weir_config::ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
        Arc::new(Self {
            changes: Arc::default(),
            changes_seen: AtomicU64::new(0),
            connected: AtomicUsize::new(0),
            connections_max: limits.connections,
            packet_max: bytes(limits.packet),
            command_payload_max: bytes(limits.command_payload),
            packets: edge.metrics.mqtt.by_type(),
            edge,
            stop,
        })
    }

    /// Counts an authenticated connection.
    ///
    /// # Errors
    /// `CONNECTIONS_LIMIT` at the bound.
    pub(super) fn connect(self: &Arc<Self>) -> Result<Connected> {
        let max = self.connections_max;
        if self.connected.fetch_add(1, Ordering::AcqRel) >= max {
            self.connected.fetch_sub(1, Ordering::AcqRel);
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                "CONNECTIONS_LIMIT",
                format!("the limit of {max} open connections is reached"),
            )
            .with_limit(max));
        }
        self.edge.metrics.connections.with_label_values(&[PROTOCOL.as_str()]).inc();
        Ok(Connected(Arc::clone(self)))
    }

    /// Counts a CONNECT that was refused.
    pub(super) fn refused(&self, error: &Error) {
        self.edge.metrics.refused(PROTOCOL, error);
        self.edge.metrics.mqtt.refused("connect");
    }

    /// Counts a publication that was refused.
    pub(super) fn refused_of(&self, who: &DeviceAccess, error: &Error) {
        let metrics = &self.edge.metrics;
        metrics.refused(PROTOCOL, error);
        metrics.mqtt.refused("publish");
        metrics.tenants.refused(&who.device.tenant);
    }

    /// Counts a packet, as it came.
    pub(super) fn came(&self, packet: &[u8]) {
        let kind = packet.first().map_or(0, |first| usize::from(first >> 4)); // MQTT 5.0, 2.1.1
        if let Some(Some(counter)) = self.packets.get(kind) {
            counter.inc();
        }
    }

    /// Counts a change; see [`Server::changes_seen`].
    pub(super) fn saw_change(&self) {
        self.changes_seen.fetch_add(1, Ordering::AcqRel);
    }

    /// Differs from what it was before wherever a change came in between.
    pub(super) fn changes_seen(&self) -> u64 {
        self.changes_seen.load(Ordering::Acquire)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::AcqRel);
        self.0.edge.metrics.connections.with_label_values(&[PROTOCOL.as_str()]).dec();
    }
}
