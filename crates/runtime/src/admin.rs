//! The admin listener: `/livez`, `/readyz`, `/metrics`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weir_core::{Error, Result};

use crate::{Service, brief::Brief};

/// What the admin listener tells.
#[derive(Clone)]
pub struct Admin {
    services: Arc<Vec<Arc<dyn Service>>>,
    metrics: Registry,
    detail: Arc<Vec<String>>,
    accepting: Arc<AtomicBool>,
}

impl Admin {
    /// Tells about `services` and `metrics`; not ready until [`Admin::accepting`]. `detail` is shown beside readiness: what
    /// stays true as long as the process runs, such as what an acknowledgement survives.
    pub fn new(services: Vec<Arc<dyn Service>>, metrics: Registry, detail: Vec<String>) -> Self {
        Self { services: Arc::new(services), metrics, detail: Arc::new(detail), accepting: Arc::default() }
    }

    /// Says whether every listener accepts: true after start, false again before the end.
    pub fn accepting(&self, accepting: bool) {
        self.accepting.store(accepting, Ordering::Release);
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// `Unavailable` where the listener breaks.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<()> {
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self);
        axum::serve(Brief::new(listener), router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
            .map_err(|source| Error::unavailable("the admin listener broke").with_source(source))
    }

    /// Every reason why this process is not ready.
    pub async fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.accepting.load(Ordering::Acquire) {
            reasons.push("listeners: not accepting".to_owned());
        }
        for service in self.services.iter() {
            if let Err(reason) = service.ready().await {
                reasons.push(format!("{}: {reason}", service.name()));
            }
        }
        reasons
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let reasons = admin.not_ready().await;
    let (status, lines) = match reasons.is_empty() {
        true => (StatusCode::OK, vec!["ready".to_owned()]),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons),
    };
    let lines: Vec<_> = lines.iter().chain(admin.detail.iter()).map(String::as_str).collect();
    (status, lines.join("\n") + "\n")
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    match TextEncoder::new().encode_to_string(&admin.metrics.gather()) {
        Ok(text) => (StatusCode::OK, [("content-type", prometheus::TEXT_FORMAT)], text),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [("content-type", "text/plain")], error.to_string())
        }
    }
}
