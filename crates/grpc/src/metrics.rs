//! Rate, errors and duration of every method, measured in one layer around all services.
//!
//! A method is a label only where the contracts have it: what a stranger calls is `other`. A call ends with its last
//! trailers; one whose answers nobody waits for ends as `CANCELLED`. The duration of a call that streams is until its
//! answers begin, for how long they go on is the caller's choice.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use weir_core::{Error, Result};
use weir_metrics::{Registrar, Sampled, buckets};

/// What is no method of the contracts.
const OTHER: &str = "other";
/// Methods that are not of the contracts and are served all the same.
const STANDARD: [(&str, bool); 4] = [
    ("grpc.health.v1.Health/Check", false),
    ("grpc.health.v1.Health/Watch", true),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", true),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", true),
];

/// What is measured of calls, and of the connections that they come over.
pub struct ServerMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    /// Whether each known method streams.
    methods: HashMap<String, bool>,
    /// Connections that have a seat.
    pub connections: Sampled,
    /// Seats.
    pub connections_max: IntGauge,
    /// Connections that were refused or ended because all seats were taken.
    pub connections_refused: IntCounter,
    /// When the certificates of the listener end.
    pub certificate_expiry: Sampled,
}

impl ServerMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// As of [`Registrar`]; `Internal` where the contracts' descriptors cannot be read.
    pub fn new(registrar: &Registrar<'_>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            requests: registrar.counters(
                "weir_grpc_requests_total",
                "calls by method (other: none of the contracts) and gRPC status code",
                &["method", "code"],
            )?,
            seconds: registrar.histograms(
                "weir_grpc_request_seconds",
                "how long a call took, by method; of one that streams: until its answers began",
                &["method"],
                &buckets::LATENCY,
            )?,
            methods: methods()?,
            connections: registrar.sampled("weir_grpc_connections", "open connections of the gRPC listener")?,
            connections_max: registrar
                .gauge("weir_grpc_connections_max", "connections that the gRPC listener may have open")?,
            connections_refused: registrar.counter(
                "weir_grpc_connections_refused_total",
                "connections that were refused, or closed before their first call, because too many were open",
            )?,
            certificate_expiry: registrar.sampled_by(
                "weir_tls_certificate_expiry_seconds",
                "when a certificate of the gRPC listener ends (not after), as unix time: server, authority",
                "certificate",
            )?,
        }))
    }

    fn begin(self: &Arc<Self>, path: &str) -> Call {
        let known = self.methods.get_key_value(path.trim_start_matches('/'));
        let (method, streams) = known.map_or((OTHER, true), |(method, streams)| (method.as_str(), *streams));
        Call {
            began: Instant::now(),
            seconds: Some(self.seconds.with_label_values(&[method])),
            method: method.to_owned(),
            streams,
            metrics: Arc::clone(self),
            ended: false,
        }
    }
}

/// Every method of the contracts (`package.Service/Method`), and whether it streams.
fn methods() -> Result<HashMap<String, bool>> {
    let descriptors = FileDescriptorSet::decode(weir_proto::DESCRIPTORS)
        .map_err(|source| Error::internal("the descriptors cannot be read").with_source(source))?;
    let mut methods: HashMap<String, bool> =
        STANDARD.iter().map(|(method, streams)| ((*method).to_owned(), *streams)).collect();
    for file in &descriptors.file {
        for service in &file.service {
            methods.extend(service.method.iter().map(|method| {
                let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                (name, method.client_streaming() || method.server_streaming())
            }));
        }
    }
    Ok(methods)
}

/// A call under way; counted when it ends, however it does.
struct Call {
    metrics: Arc<ServerMetrics>,
    method: String,
    streams: bool,
    began: Instant,
    /// Until the duration is told.
    seconds: Option<Histogram>,
    ended: bool,
}

impl Call {
    /// The answer begins.
    fn answers(&mut self) {
        if self.streams {
            self.tell_duration();
        }
    }

    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            self.tell_duration();
            self.metrics.requests.with_label_values(&[&self.method, name(code)]).inc();
        }
    }

    fn tell_duration(&mut self) {
        if let Some(seconds) = self.seconds.take() {
            seconds.observe(self.began.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// The name of a status code, as gRPC's documents have it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Measures every call. The outermost layer, so that what others refuse is counted too.
#[derive(Clone)]
pub struct MetricsLayer(Arc<ServerMetrics>);

impl MetricsLayer {
    /// Counts in `metrics`.
    pub fn new(metrics: Arc<ServerMetrics>) -> Self {
        Self(metrics)
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Measured<S>;
    fn layer(&self, inner: S) -> Self::Service {
        Measured { inner, metrics: Arc::clone(&self.0) }
    }
}

/// A service behind [`MetricsLayer`].
#[derive(Clone)]
pub struct Measured<S> {
    inner: S,
    metrics: Arc<ServerMetrics>,
}

impl<S> Service<http::Request<Body>> for Measured<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut call = self.metrics.begin(request.uri().path());
        let answering = self.inner.call(request);
        Box::pin(async move {
            let answer = answering.await?;
            call.answers();
            // An error without a body has its status among the headers.
            if let Some(status) = Status::from_header_map(answer.headers()) {
                call.end(status.code());
                return Ok(answer);
            }
            Ok(answer.map(|body| Body::new(Answers { body, call })))
        })
    }
}

/// The answers to a call, watched for their end.
struct Answers {
    body: Body,
    call: Call,
}

impl http_body::Body for Answers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let status = Status::from_header_map(trailers);
                    self.call.end(status.map_or(Code::Unknown, |status| status.code()));
                }
            }
            Poll::Ready(Some(Err(status))) => self.call.end(status.code()),
            Poll::Ready(None) => self.call.end(Code::Ok),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use prometheus::Registry;
    use tower::ServiceExt as _;

    use super::*;

    async fn call(metrics: &Arc<ServerMetrics>, path: &str, answer: http::Response<Body>) {
        let answer = Arc::new(std::sync::Mutex::new(Some(answer)));
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let answer = answer.lock().unwrap().take().unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        let service = MetricsLayer::new(Arc::clone(metrics)).layer(service);
        let request = http::Request::builder().uri(path).body(Body::empty()).unwrap();
        drop(service.oneshot(request).await.unwrap());
    }

    #[tokio::test]
    async fn what_a_stranger_calls_is_one_label_and_a_refusal_is_counted_by_its_code() {
        let registry = Registry::new();
        let metrics = ServerMetrics::new(&Registrar::new(&registry)).unwrap();
        for n in 0..100 {
            let refusal = Status::unauthenticated("who are you").into_http();
            call(&metrics, &format!("/no.such.Service/Method{n}"), refusal).await;
        }
        let refusal = Status::unauthenticated("who are you").into_http();
        call(&metrics, "/weir.registry.v1.DeviceService/ListDevices", refusal).await;
        call(&metrics, "/weir.registry.v1.DeviceService/ListDevices", http::Response::new(Body::empty()))
            .await;
        let count = |method: &str, code: &str| metrics.requests.with_label_values(&[method, code]).get();
        assert_eq!(count(OTHER, "UNAUTHENTICATED"), 100);
        let method = "weir.registry.v1.DeviceService/ListDevices";
        assert_eq!(count(method, "UNAUTHENTICATED"), 1);
        assert_eq!(count(method, "CANCELLED"), 1, "nobody read its end");
        assert_eq!(metrics.seconds.with_label_values(&[method]).get_sample_count(), 2);
        let series: usize = registry.gather().iter().map(|family| family.get_metric().len()).sum();
        assert!(series < 10, "{series} series");
    }
}
