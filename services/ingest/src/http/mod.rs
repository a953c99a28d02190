//! The HTTP device API: telemetry up, commands down.
//!
//! HTTP/1.1 only: a device gains nothing from HTTP/2 without TLS, and its preface would have to be waited for. What a
//! connection may hold before its first good credential counts against the budget that it shares with MQTT.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    handler::Handler as _,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts},
    middleware::{self, Next},
    routing::{get, post},
};
use tokio_util::sync::CancellationToken;
use weir_core::{Error, ErrorKind, Result};

use self::{body::Bodies, commands::Epochs, server::Door};
use crate::{
    access::{Authenticated, DeviceAccess},
    answer,
    decode::Format,
    edge::Edge,
    intake::{Accepted, Source},
    metrics::{Protocol, Route},
    publish,
};

mod body;
mod commands;
mod problem;
mod server;

pub(crate) use server::serve;

/// What is spoken here.
const PROTOCOL: Protocol = Protocol::Http;
/// Where an accepted message stands in the log.
const POSITION: &str = "weir-position";

/// What all requests share.
pub(crate) struct Api {
    edge: Arc<Edge>,
    bodies: Arc<Bodies>,
    epochs: Epochs,
    /// Ends long polls, so that nobody waits for them.
    stop: CancellationToken,
}

type Answer = Response<Body>;

fn router(edge: Arc<Edge>, stop: CancellationToken) -> Router {
    let http = &edge.config.http;
    let bodies = Bodies::new(edge.config.limits.packet.as_usize(), http.bodies.as_usize(), http.body_timeout);
    let metrics = &edge.metrics.http;
    metrics.bodies_max.set(i64::try_from(http.bodies.0).unwrap_or(i64::MAX));
    let received = Arc::clone(&bodies);
    metrics.bodies.by(move || received.bytes() as f64);
    let counted = |route| middleware::from_fn_with_state(metrics.route(route), count);
    let [telemetry_of, child, next, ack, response, other] = [
        "/v1/telemetry",
        "/v1/children/{device}/telemetry",
        "/v1/commands",
        "/v1/commands/{id}/ack",
        "/v1/commands/{id}/response",
        "other",
    ]
    .map(counted);
    let api = Arc::new(Api { edge, bodies, epochs: Epochs::default(), stop });
    Router::new()
        .route("/v1/telemetry", post(telemetry).layer(telemetry_of))
        .route("/v1/children/{device}/telemetry", post(child_telemetry).layer(child))
        .route("/v1/commands", get(next_command).layer(next))
        .route("/v1/commands/{id}/ack", post(acknowledge).layer(ack))
        .route("/v1/commands/{id}/response", post(respond).layer(response))
        .fallback(no_such_path.layer(other.clone()))
        .method_not_allowed_fallback(no_such_method.layer(other))
        .with_state(api)
}

/// Counts a request of a route.
async fn count(State(route): State<Route>, request: Request, next: Next) -> Answer {
    let began = Instant::now();
    let answer = next.run(request).await;
    route.answered(answer.status().as_u16(), began.elapsed().as_secs_f64());
    answer
}

async fn telemetry(State(api): State<Arc<Api>>, request: Request) -> Answer {
    answer_of(&api, api.publish(request, None).await.map(accepted))
}

async fn child_telemetry(State(api): State<Arc<Api>>, child: Part, request: Request) -> Answer {
    let done = async { api.publish(request, Some(&part(child)?)).await };
    answer_of(&api, done.await.map(accepted))
}

async fn next_command(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let next = async {
        let (parts, _) = request.into_parts();
        if parts.method != Method::GET {
            return Err(not_allowed(&parts)); // HEAD, which would take a command and not show it
        }
        let changes = api.edge.access.changes(); // before it is let in, so that no change is missed
        let who = api.authenticated(&parts).await?;
        api.next_command(who, changes, parts.uri.query().unwrap_or_default()).await
    };
    answer_of(&api, next.await)
}

async fn acknowledge(State(api): State<Arc<Api>>, id: Part, request: Request) -> Answer {
    let done = async {
        let (parts, _) = request.into_parts();
        let device = api.authenticate(&parts).await?;
        api.acknowledge(&device, part(id)?.parse()?).await
    };
    answer_of(&api, done.await.map(|()| empty()))
}

async fn respond(State(api): State<Arc<Api>>, id: Part, request: Request) -> Answer {
    let done = async {
        let (parts, body) = request.into_parts();
        let device = api.authenticate(&parts).await?;
        let id = part(id)?.parse()?;
        Format::of(text(&parts.headers, header::CONTENT_TYPE.as_str()), &[])?;
        let body = api.bodies.read(body).await?;
        let max = api.edge.config.limits.command_payload.as_usize();
        let (answer, wrong) = answer::parse(&body, max, api.edge.clock.now());
        api.edge.commands.answered(&device.key(), id, answer).await?;
        api.give_back(&device.key()).await; // an answer implies delivery
        wrong.map_or(Ok(()), Err)
    };
    answer_of(&api, done.await.map(|()| empty()))
}

async fn no_such_path(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let path: String = request.uri().path().chars().take(200).collect();
    answer_of(&api, Err(Error::not_found(format!("path {path:?}"))))
}

async fn no_such_method(State(api): State<Arc<Api>>, request: Request) -> Answer {
    answer_of(&api, Err(not_allowed(&request.into_parts().0)))
}

fn not_allowed(request: &Parts) -> Error {
    let text = format!("{} is not a method of {:?}", request.method, request.uri.path());
    Error::new(ErrorKind::InvalidArgument, problem::METHOD, text)
}

/// A part of the path, which a client may have encoded badly.
type Part = std::result::Result<Path<String>, PathRejection>;

fn part(part: Part) -> Result<String> {
    let Path(part) = part.map_err(|rejection| {
        Error::new(ErrorKind::InvalidArgument, "PATH_INVALID", rejection.body_text().to_lowercase())
    })?;
    Ok(part)
}

impl Api {
    async fn publish(&self, request: Request, child: Option<&str>) -> Result<(Accepted, usize)> {
        let (parts, body) = request.into_parts();
        let own = self.authenticate(&parts).await?;
        let tenant = own.device.tenant.clone();
        let done = self.publish_as(own, &parts, body, child).await;
        done.inspect_err(|_| self.edge.metrics.tenants.refused(&tenant))
    }

    async fn publish_as(
        &self,
        own: DeviceAccess,
        parts: &Parts,
        body: Body,
        child: Option<&str>,
    ) -> Result<(Accepted, usize)> {
        let device = match child {
            Some(child) => self.edge.access.child(&own, child).await?,
            None => own,
        };
        let content_type = text(&parts.headers, header::CONTENT_TYPE.as_str());
        Format::of(content_type, &[])?; // refused before its body is read
        let trace = publish::trace_context(text(&parts.headers, "traceparent"))?;
        let body = self.bodies.read(body).await?;
        let mut message = self.edge.decoder.decode(&device, Format::of(content_type, &body)?, &body)?;
        message.trace_context = trace;
        let readings = message.readings.len();
        let source = Source::now(PROTOCOL, body.len());
        let accepted = self.edge.intake.enqueue_within(message, source, publish::PATIENCE).await?.await?;
        Ok((accepted, readings))
    }

    async fn authenticate(&self, request: &Parts) -> Result<DeviceAccess> {
        Ok(self.authenticated(request).await?.access)
    }

    /// The device that asks; its connection then no longer counts as unauthenticated.
    async fn authenticated(&self, request: &Parts) -> Result<Authenticated> {
        let authorization = text(&request.headers, header::AUTHORIZATION.as_str());
        let token = match authorization.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => {
                return Err(Error::unauthenticated(
                    "no bearer token: send the header `Authorization: Bearer wd_…`",
                ));
            }
        };
        let device = self.edge.access.authenticate(token).await?;
        if let Some(door) = request.extensions.get::<Door>() {
            door.let_in();
        }
        Ok(device)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn answer_of(api: &Api, done: Result<Answer>) -> Answer {
    done.unwrap_or_else(|error| {
        api.edge.metrics.refused(PROTOCOL, &error);
        problem::response(&error)
    })
}

fn accepted((accepted, readings): (Accepted, usize)) -> Answer {
    let position = accepted.position.to_string();
    let mut answer = json(&serde_json::json!({ "accepted": readings, "position": position }));
    if let Ok(position) = HeaderValue::try_from(position) {
        answer.headers_mut().insert(POSITION, position);
    }
    answer
}

fn json(value: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Body::from(value.to_string()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn empty() -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}
