//! The routes: each reads its parameters, asks once, and writes the answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::Response,
    routing::{any, get},
};
use serde_json::json;
use weir_core::{Error, Result, Timestamp};
use weir_promql::is_label_name;

use super::{
    answer::{outcome, refuse, success, unsupported},
    request::Asked,
};
use crate::Service;

/// The release of Prometheus whose API this is: tools ask for it to know what they may ask for.
const COMPATIBLE_WITH: &str = "2.42.0";

type Answer = Response<Body>;

impl Service {
    /// The HTTP API of Prometheus under [`super::PREFIX`]. Before it every request must get its caller's principal
    /// (`weir_grpc::AuthLayer`).
    pub fn http_routes(self: &Arc<Self>) -> Router {
        let api = Router::new()
            .route("/query", get(query).post(query))
            .route("/query_range", get(query_range).post(query_range))
            .route("/series", get(series).post(series))
            .route("/labels", get(labels).post(labels))
            .route("/label/{name}/values", get(label_values))
            .route("/metadata", get(metadata))
            .route("/status/buildinfo", get(build_info))
            .route("/query_exemplars", get(exemplars).post(exemplars))
            .route("/rules", get(rules))
            .route("/alerts", get(alerts))
            .fallback(nothing);
        Router::new()
            .nest("/prometheus/api/v1", api)
            .route("/prometheus/", get(healthy))
            .route("/prometheus/-/healthy", get(healthy))
            .route("/prometheus/-/ready", get(healthy))
            .route("/prometheus/{*path}", any(nothing))
            .with_state(Arc::clone(self))
    }
}

fn give(answer: Result<Answer>) -> Answer {
    answer.unwrap_or_else(|error| refuse(&error))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(0).saturating_add(since)
}

async fn query(State(service): State<Arc<Service>>, asked: Asked) -> Answer {
    give(
        async {
            let (query, timeout) =
                (asked.instant(now())?, asked.timeout(service.config.query.promql_timeout)?);
            service.promql(&asked.tenant, query, timeout).await.map(outcome)
        }
        .await,
    )
}

async fn query_range(State(service): State<Arc<Service>>, asked: Asked) -> Answer {
    give(
        async {
            let (query, timeout) = (asked.range()?, asked.timeout(service.config.query.promql_timeout)?);
            service.promql(&asked.tenant, query, timeout).await.map(outcome)
        }
        .await,
    )
}

async fn series(State(service): State<Arc<Service>>, asked: Asked) -> Answer {
    give(
        async {
            let listed = asked.listed()?;
            if listed.selectors.is_empty() {
                let message = "no match[] parameter provided";
                return Err(Error::invalid("match[]", "SELECTOR_MISSING", message));
            }
            let found = service.prometheus_series(&asked.tenant, &listed).await?;
            success(&found.iter().map(|labels| labels.iter().collect::<BTreeMap<_, _>>()).collect::<Vec<_>>())
        }
        .await,
    )
}

async fn labels(State(service): State<Arc<Service>>, asked: Asked) -> Answer {
    give(
        async {
            let found = service.prometheus_series(&asked.tenant, &asked.listed()?).await?;
            let names = found.iter().flat_map(|labels| labels.iter().map(|(name, _)| name));
            success(&names.collect::<BTreeSet<_>>())
        }
        .await,
    )
}

async fn label_values(State(service): State<Arc<Service>>, Path(name): Path<String>, asked: Asked) -> Answer {
    give(
        async {
            if !is_label_name(&name) {
                let message = format!("invalid label name: {name:?}");
                return Err(Error::invalid("name", "LABEL_INVALID", message));
            }
            let found = service.prometheus_series(&asked.tenant, &asked.listed()?).await?;
            let values = found.iter().map(|labels| labels.get(&name)).filter(|value| !value.is_empty());
            success(&values.collect::<BTreeSet<_>>())
        }
        .await,
    )
}

async fn metadata(State(service): State<Arc<Service>>, asked: Asked) -> Answer {
    give(
        async {
            let limit = match asked.param("limit").map(str::parse::<i64>) {
                None => usize::MAX,
                Some(Ok(limit)) => usize::try_from(limit).unwrap_or(usize::MAX), // negative: all, as in Prometheus
                Some(Err(_)) => {
                    return Err(Error::invalid("limit", "LIMIT_INVALID", "limit must be a number"));
                }
            };
            let mut found = service.prometheus_metadata(&asked.tenant).await?;
            found.retain(|name, _| asked.param("metric").is_none_or(|metric| metric == name));
            success(&found.into_iter().take(limit).collect::<BTreeMap<_, _>>())
        }
        .await,
    )
}

/// Grafana asks for the version, and decides by it how it lists labels.
async fn build_info(_: Asked) -> Answer {
    give(success(&json!({
        "application": "Weir",
        "version": COMPATIBLE_WITH,
        "revision": concat!("weir ", env!("CARGO_PKG_VERSION")),
        "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
    })))
}

/// Stored telemetry has no exemplars: none is the answer.
async fn exemplars(_: Asked) -> Answer {
    give(success(&json!([])))
}

/// Rules of Weir are not written in `PromQL`, and are not shown here.
async fn rules(_: Asked) -> Answer {
    give(success(&json!({ "groups": [] })))
}

async fn alerts(_: Asked) -> Answer {
    give(success(&json!({ "alerts": [] })))
}

async fn healthy(_: Asked) -> &'static str {
    "Weir answers the HTTP API of Prometheus under /prometheus/api/v1.\n"
}

async fn nothing(uri: axum::http::Uri, _: Asked) -> Answer {
    refuse(&unsupported(uri.path()))
}
