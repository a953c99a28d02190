//! What the members of one frame add to the counters: gathered first, so that a message costs no atomic operation.

use prometheus::local::LocalHistogram;
use tokio::time::Instant;
use weir_core::TenantId;

use super::Source;
use crate::metrics::{Metrics, Protocol};

/// What the members of one acknowledged frame add.
pub(super) struct Tally<'a> {
    metrics: &'a Metrics,
    now: Instant,
    /// In the order of [`Protocol::ALL`]; none where nothing came over it.
    protocols: [Option<OfProtocol>; 3],
    /// Neighbours in a frame are mostly of one tenant: what was counted of the one that is its turn.
    run: Option<Run>,
}

struct OfProtocol {
    acks: u64,
    readings: u64,
    seconds: LocalHistogram,
}

struct Run {
    tenant: TenantId,
    readings: u64,
    bytes: u64,
}

impl<'a> Tally<'a> {
    pub(super) fn new(metrics: &'a Metrics) -> Self {
        Self { metrics, now: Instant::now(), protocols: [None, None, None], run: None }
    }

    /// A message of `readings` is acknowledged.
    pub(super) fn acked(&mut self, tenant: &TenantId, source: &Source, readings: u64) {
        let of = self.metrics.of(source.protocol);
        let [mqtt, http, grpc] = &mut self.protocols;
        let slot = match source.protocol {
            Protocol::Mqtt => mqtt,
            Protocol::Http => http,
            Protocol::Grpc => grpc,
        };
        let told =
            slot.get_or_insert_with(|| OfProtocol { acks: 0, readings: 0, seconds: of.seconds.local() });
        told.acks += 1;
        told.readings += readings;
        told.seconds.observe(self.now.saturating_duration_since(source.at).as_secs_f64());
        match &mut self.run {
            Some(run) if run.tenant == *tenant => {
                run.readings += readings;
                run.bytes += source.bytes;
            }
            _ => {
                self.end_run();
                self.run = Some(Run { tenant: tenant.clone(), readings, bytes: source.bytes });
            }
        }
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            self.metrics.tenants.accepted(&run.tenant, run.readings, run.bytes);
        }
    }

    /// Adds what was gathered: before anybody hears of an acknowledgement, so that who scrapes then finds it counted.
    pub(super) fn add(mut self) {
        self.end_run();
        for (protocol, told) in Protocol::ALL.into_iter().zip(&self.protocols) {
            if let Some(told) = told {
                let of = self.metrics.of(protocol);
                of.acks.inc_by(told.acks);
                of.readings.inc_by(told.readings);
                told.seconds.flush();
            }
        }
    }
}
