//! `weir prove`: shows that this Weir loses nothing.

use std::{sync::Arc, time::Duration};

use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use weir_core::{Error, ErrorKind, Result, TenantId, name};
use weir_drive::{
    Place, Via,
    ledger::{Counts, Ledger},
    prove::{self, Options, Proof, Report},
};
use weir_grpc::{convert::from_duration, from_status};
use weir_proto::registry::v1 as pb;

use crate::{context::Caller, convert::parse_span, drive::Via as ViaArg, exit::usage, output};

/// The tenant that is made for it where the token may make tenants and none is named.
const CANARY: &str = "prove";
/// The canary's token works no longer than this, should the run not get to revoke it.
const TOKEN_TTL: Duration = Duration::from_secs(86_400);

/// `weir prove`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  weir prove --minutes 5
  weir prove --minutes 1 --via mqtt --devices 50 --rate 20
  weir prove --tenant acme --keep

Devices of its own send by a schedule over every edge, correct some readings and send others late; then everything is read
back and compared with what was acknowledged. Kill what you like meanwhile: nothing acknowledged may be lost. Ctrl-C ends
early and shows what is known so far.")]
pub struct Prove {
    /// How long to send
    #[arg(long, default_value_t = 5.0, value_name = "NUMBER")]
    minutes: f64,
    /// Over which protocol; may be given more than once; all whose address is known if not given
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    via: Vec<ViaArg>,
    /// Devices over each protocol
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    devices: u32,
    /// Messages a second of each device
    #[arg(long, default_value_t = 10.0, value_name = "NUMBER")]
    rate: f64,
    /// Readings in one message over gRPC
    #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch: u32,
    /// After the end, how long messages without an answer are sent again
    #[arg(long, default_value = "60s", value_name = "SPAN", value_parser = parse_span)]
    retry_for: Duration,
    /// Leave devices and data behind
    #[arg(long)]
    keep: bool,
    /// Address of the MQTT listener; else the context's
    #[arg(long, value_name = "HOST:PORT")]
    mqtt_addr: Option<String>,
    /// Address of the HTTP device API; else the context's
    #[arg(long, value_name = "HOST:PORT")]
    http_addr: Option<String>,
    /// Address of the admin listener, which tells the durability in force; else the context's
    #[arg(long, value_name = "HOST:PORT")]
    admin_addr: Option<String>,
}

/// Where it sends, and what must be undone.
struct Canary {
    place: Place,
    token: Option<String>,
}

pub(crate) async fn run(args: Prove, caller: &Caller) -> Result<()> {
    if !(args.minutes > 0.0 && args.minutes <= 10_000.0 && args.rate > 0.0 && args.rate <= 10_000.0) {
        return Err(usage("--minutes and --rate must be above 0 and at most 10000"));
    }
    let mqtt = caller.mqtt(args.mqtt_addr.as_deref()).ok();
    let http = caller.http(args.http_addr.as_deref()).ok();
    let via = protocols(&args, mqtt.is_some(), http.is_some())?;
    let canary = canary(caller, mqtt, http).await?;
    let options =
        Options { via, devices: args.devices, rate: args.rate, batch: args.batch, settle: args.retry_for };
    let proof = match Proof::start(&canary.place, &options).await {
        Ok(proof) => proof,
        Err(error) => {
            revoke(caller, &canary).await;
            return Err(error);
        }
    };
    let ledger = proof.ledger();
    let report = watch(proof, &ledger, Duration::from_secs_f64(args.minutes * 60.0)).await;
    if !args.keep {
        prove::clean_up(&canary.place, &ledger).await;
        revoke(caller, &canary).await;
    }
    let admin = args.admin_addr.or_else(|| caller.context.admin.clone());
    let durability = match &admin {
        Some(admin) => prove::durability(admin).await,
        None => None,
    };
    show(&canary.place.tenant, &report?, durability)
}

fn protocols(args: &Prove, mqtt: bool, http: bool) -> Result<Vec<Via>> {
    let known = |via: &Via| match via {
        Via::Mqtt => mqtt,
        Via::Http => http,
        Via::Grpc => true,
    };
    if args.via.is_empty() {
        return Ok(Via::ALL.into_iter().filter(known).collect());
    }
    let mut chosen: Vec<Via> = Vec::new();
    for via in args.via.iter().map(|via| Via::from(*via)) {
        if !known(&via) {
            return Err(usage(format!(
                "the context has no {via:?} address; give --mqtt-addr or --http-addr"
            )));
        }
        if !chosen.contains(&via) {
            chosen.push(via);
        }
    }
    Ok(chosen)
}

/// The tenant named by `--tenant`, or a canary made by a token that may; else the token's own.
async fn canary(caller: &Caller, mqtt: Option<String>, http: Option<String>) -> Result<Canary> {
    let may_make = caller.own().scopes.iter().any(|scope| scope == "platform");
    if caller.names_tenant() || !may_make {
        let place = Place { connection: caller.connection.clone(), tenant: caller.tenant()?, mqtt, http };
        return Ok(Canary { place, token: None });
    }
    let tenant = TenantId::new(CANARY)?;
    let request = pb::CreateTenantRequest { tenant_id: CANARY.to_owned(), ..Default::default() };
    match caller.connection.tenants().create_tenant(request).await.map_err(from_status) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {} // of an earlier run
        made => made.map(drop)?,
    }
    let request = pb::CreateTokenRequest {
        parent: name::tenant(&tenant),
        scopes: vec![pb::Scope::Admin.into()],
        display_name: "weir prove".to_owned(),
        ttl: Some(from_duration(TOKEN_TTL)),
    };
    let made = caller.connection.tokens().create_token(request).await.map_err(from_status)?.into_inner();
    let connection = caller.connection.with_token(&made.secret)?;
    let place = Place { connection, tenant, mqtt, http };
    Ok(Canary { place, token: made.token.map(|token| token.name) })
}

async fn revoke(caller: &Caller, canary: &Canary) {
    if let Some(name) = canary.token.clone() {
        // It ends by itself within a day.
        drop(caller.connection.tokens().revoke_token(pb::RevokeTokenRequest { name }).await);
    }
}

/// Waits for the end or for Ctrl-C, then reads back; a second Ctrl-C gives up reading.
async fn watch(proof: Proof, ledger: &Arc<Ledger>, length: Duration) -> Result<Report> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let acknowledged = proof.acknowledged();
    let ticks = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            bar.set_message(format!("{} readings acknowledged", HumanCount(acknowledged())));
        }
    };
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        () = interrupted() => output::note("stopping early; Ctrl-C again to give up reading back"),
        () = ticks => {}
    }
    bar.set_message("reading everything back");
    let report = tokio::select! {
        report = proof.finish() => report,
        () = interrupted() => {
            bar.finish_and_clear();
            said(&ledger.counts())?;
            Err(Error::new(ErrorKind::Cancelled, "INTERRUPTED", "interrupted before everything was read back"))
        }
    };
    bar.finish_and_clear();
    report
}

fn said(counts: &Counts) -> Result<()> {
    output::line(&format!("attempted            {}", counts.attempted))?;
    output::line(&format!("acknowledged         {}", counts.acked))?;
    output::line(&format!("refused              {}", counts.refused))?;
    output::line(&format!("unknown              {}", counts.unknown))
}

fn show(tenant: &TenantId, report: &Report, durability: Option<Vec<String>>) -> Result<()> {
    let verdict = &report.verdict;
    output::line(&format!("tenant               {tenant}"))?;
    said(&report.counts)?;
    output::line(&format!("read back            {}", verdict.found))?;
    output::line(&format!("lost                 {}", verdict.lost))?;
    output::line(&format!("duplicated           {}", verdict.duplicated))?;
    output::line(&format!("phantom              {}", verdict.phantom))?;
    output::line(&format!("corrupt              {}", verdict.corrupt))?;
    let times = report.queryable.map_or_else(
        || "unknown: no probe was answered".to_owned(),
        |times| times.map(|time| format!("{:.1} ms", time.as_secs_f64() * 1e3)).join(" / "),
    );
    output::line(&format!("publish → queryable  {times}  (p50 / p99)"))?;
    for (via, gap) in &report.gaps {
        let seconds = gap.length.as_secs_f64();
        output::line(&format!("longest gap          {seconds:.2} s without acknowledgements over {via:?}"))?;
    }
    if report.reconnects + report.late > 0 {
        output::line(&format!(
            "felt                 {} reconnects, {} messages late",
            report.reconnects, report.late
        ))?;
    }
    report.complaints.iter().try_for_each(|what| output::line(&format!("  a device was told: {what}")))?;
    match durability {
        Some(lines) if !lines.is_empty() => lines.iter().try_for_each(|line| output::line(line))?,
        _ => output::line("durability           unknown: give --admin-addr, its /readyz tells")?,
    }
    verdict.examples.iter().try_for_each(|example| output::line(&format!("  WRONG: {example}")))?;
    if report.unreadable > 0 {
        output::line(&format!("unreadable           {} probes at their own position", report.unreadable))?;
    }
    if verdict.is_clean() && report.unreadable == 0 {
        return Ok(());
    }
    Err(Error::data_loss("what was read back is not what was acknowledged"))
}

async fn interrupted() {
    drop(tokio::signal::ctrl_c().await); // without signals it runs until its end
}
