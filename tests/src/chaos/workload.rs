//! What runs while faults are injected: tenants, devices over every edge, waves, commands; and how it all is judged.

use std::{sync::Arc, time::Duration};

use weir_core::{Clock as _, Error, Result, SystemClock, TenantId, Timestamp, name};
use weir_drive::{
    Place, Via,
    lane::patiently,
    ledger::{Counts, Gap, Ledger, Source, Verdict, audit},
    open_loop::{Load, Options, Sender},
    provision,
    random::mix,
};
use weir_grpc::from_status;
use weir_proto::registry::v1 as pb;

use super::{alarms, alarms::Alarms, commands, commands::Commands, edits, edits::Edits, poison};
use crate::cluster::Cluster;

/// How long setting up and reading back go on trying: longer than any recovery.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Devices that are made at the same time.
const MAKING: usize = 8;

/// How much of what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Tenants, each with the same devices.
    pub tenants: u32,
    /// Devices of each tenant over MQTT.
    pub mqtt: u32,
    /// Over HTTP.
    pub http: u32,
    /// Over gRPC.
    pub grpc: u32,
    /// Messages a second of each device.
    pub rate: f64,
    /// Readings in one message over gRPC.
    pub batch: u32,
    /// Whether rules run beside.
    pub rules: bool,
    /// Whether commands run beside.
    pub commands: bool,
    /// Whether people edit rules beside.
    pub edits: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            tenants: 2,
            mqtt: 8,
            http: 4,
            grpc: 4,
            rate: 10.0,
            batch: 50,
            rules: true,
            commands: true,
            edits: false,
        }
    }
}

/// Everything under way.
pub struct Workload {
    ledger: Ledger,
    /// By tenant: how its data is read.
    readers: Vec<Place>,
    loads: Vec<Load>,
    alarms: Option<Alarms>,
    commands: Option<Commands>,
    edits: Option<Edits>,
}

/// How it fared.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Messages by what was said of them.
    pub counts: Counts,
    /// What is wrong with what can be read.
    pub verdict: Verdict,
    /// Longest times without an acknowledgement: mqtt, http, grpc.
    pub gaps: [Option<Gap>; 3],
    /// Alarms.
    pub alarms: alarms::Outcome,
    /// Commands.
    pub commands: commands::Outcome,
    /// People's work.
    pub edits: edits::Outcome,
    /// Records that are no frames.
    pub poison: poison::Outcome,
    /// The longest time without an acknowledgement of a plain client of the bus, where one ran.
    pub raw: Option<Gap>,
    /// Messages that left late, and the latest of them.
    pub late: (u64, Duration),
    /// Messages that were due and never left.
    pub behind: u64,
    /// Connections opened again.
    pub reconnects: u64,
    /// What servers complained of.
    pub complaints: Vec<String>,
}

impl Workload {
    /// Makes tenants and devices of a run, and starts everything. `run` names them: two runs on one cluster differ in it.
    ///
    /// # Errors
    /// What cannot be made.
    pub async fn start(cluster: &Cluster, plan: &Plan, run: u64) -> Result<Self> {
        let epoch = SystemClock.now().as_micros() / 1_000_000 * 1_000_000;
        let epoch = Timestamp::from_micros(epoch).saturating_sub(Duration::from_secs(30 * 86_400));
        let mut ledger = Ledger::default();
        let (mut readers, mut senders) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
        let (mut alarms, mut commands, mut edits) = (None, None, None);
        for tenant in 0..plan.tenants {
            let places = tenant_places(cluster, &format!("chaos-{:08x}-{tenant}", run as u32)).await?;
            let reader = places.first().cloned().ok_or_else(|| Error::internal("there is no edge"))?;
            let made = devices(plan);
            let ids: Vec<String> = made.iter().map(|(id, _)| id.clone()).collect();
            patiently(PATIENCE, async || provision::create(&reader, &ids, &audit::labels(run)).await).await?;
            let tokens = tokens(&reader, &made).await?;
            for (number, ((id, via), token)) in made.iter().zip(tokens).enumerate() {
                let source = Source { run, tenant, device: u32::try_from(number).unwrap_or(u32::MAX) };
                let sender = Sender {
                    account: ledger.open(source, id, epoch),
                    places: places.clone(),
                    via: *via,
                    token,
                };
                let at = Via::ALL.iter().position(|known| known == via).unwrap_or(0);
                senders.get_mut(at).into_iter().for_each(|list| list.push(sender.clone()));
            }
            if tenant == 0 && plan.rules {
                alarms = Some(Alarms::start(places.clone(), mix(run)).await?);
            }
            if tenant == 0 && plan.edits {
                edits = Some(Edits::start(places.clone(), mix(run ^ 2)).await?);
            }
            if tenant == 0 && plan.commands {
                commands = Some(Commands::start(places, mix(run ^ 1)).await?);
            }
            readers.push(reader);
        }
        let loads = Via::ALL
            .into_iter()
            .zip(senders)
            .map(|(via, senders)| Load::start(senders, &options(plan, via, run), Arc::clone(&ledger.gaps)));
        Ok(Self { loads: loads.collect(), ledger, readers, alarms, commands, edits })
    }

    /// Readings acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.loads.iter().map(|load| load.felt.tally.acknowledged_count()).sum()
    }

    /// The load ends; what nobody answered is sent again; everything is read back. The cluster must be healed by now.
    ///
    /// # Errors
    /// Where something cannot be read however often it is tried.
    pub async fn finish(self, patience: Duration) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let ended = self.loads.into_iter().map(|load| tokio::spawn(load.stop())).collect::<Vec<_>>();
        for load in ended {
            let felt =
                load.await.map_err(|source| Error::internal("a load panicked").with_source(source))??;
            outcome.late = (outcome.late.0 + felt.late(), outcome.late.1.max(felt.latest()));
            outcome.behind += felt.behind();
            outcome.reconnects += felt.reconnects();
            outcome.complaints.extend(felt.complaints());
        }
        outcome.gaps = Via::ALL.map(|via| self.ledger.gaps.longest(via));
        outcome.counts = self.ledger.counts();
        outcome.verdict = audit::all(&self.ledger, &self.readers, patience).await?;
        if let Some(alarms) = self.alarms {
            outcome.alarms = alarms.finish().await?;
        }
        if let Some(commands) = self.commands {
            outcome.commands = commands.finish().await?;
        }
        if let Some(edits) = self.edits {
            outcome.edits = edits.finish().await?;
        }
        Ok(outcome)
    }
}

fn options(plan: &Plan, via: Via, seed: u64) -> Options {
    let base = Options { rate: plan.rate, seed: mix(seed ^ via as u64), ..Options::default() };
    match via {
        Via::Mqtt => base,
        Via::Http => Options { window: 1, ..base }, // one request after the other, as a device does
        Via::Grpc => Options { batch: plan.batch, ..base },
    }
}

/// The devices of one tenant.
fn devices(plan: &Plan) -> Vec<(String, Via)> {
    let of = |via, count: u32| {
        let name = match via {
            Via::Mqtt => "mqtt",
            Via::Http => "http",
            Via::Grpc => "grpc",
        };
        (0..count).map(move |number| (format!("{name}-{number}"), via))
    };
    of(Via::Mqtt, plan.mqtt).chain(of(Via::Http, plan.http)).chain(of(Via::Grpc, plan.grpc)).collect()
}

async fn tokens(place: &Place, devices: &[(String, Via)]) -> Result<Vec<String>> {
    use futures::{StreamExt as _, stream};
    let tokens: Vec<Result<String>> = stream::iter(devices)
        .map(|(id, via)| async move {
            match via {
                Via::Grpc => Ok(String::new()), // the API token publishes
                _ => Ok(patiently(PATIENCE, async || provision::token(place, id).await).await?.secret),
            }
        })
        .buffered(MAKING)
        .collect()
        .await;
    tokens.into_iter().collect()
}

/// Makes a tenant and a token for it; its places at every edge.
async fn tenant_places(cluster: &Cluster, id: &str) -> Result<Vec<Place>> {
    let tenant = TenantId::new(id)?;
    let platform = cluster.places(&tenant, cluster.token()).await?;
    let platform = platform.first().ok_or_else(|| Error::internal("there is no edge"))?;
    patiently(PATIENCE, async || {
        let request = pb::CreateTenantRequest {
            tenant_id: id.to_owned(),
            request_id: format!("chaos-{id}"),
            ..Default::default()
        };
        platform.connection.tenants().create_tenant(request).await.map_err(from_status)
    })
    .await?;
    let token = patiently(PATIENCE, async || {
        let request = pb::CreateTokenRequest {
            parent: name::tenant(&tenant),
            scopes: vec![pb::Scope::Admin.into()],
            display_name: "chaos".to_owned(),
            ttl: None,
        };
        platform.connection.tokens().create_token(request).await.map_err(from_status)
    })
    .await?
    .into_inner()
    .secret;
    cluster.places(&tenant, &token).await
}
