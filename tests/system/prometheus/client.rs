//! One of the two servers, as a client of its HTTP API sees it.

use serde_json::Value;

/// Asks a server.
pub(crate) struct Client {
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    base: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(base: String, token: Option<String>) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().http1_only().build().unwrap();
        Self { http, runtime: tokio::runtime::Runtime::new().unwrap(), base, token }
    }

    /// The answer to GET, with its status.
    pub(crate) fn get(&self, path: &str, params: &[(&str, &str)]) -> (u16, Value) {
        self.ask(
            reqwest::Method::GET,
            path,
            params,
            self.token.as_deref().map(|token| format!("Bearer {token}")),
        )
    }

    /// The answer to a form sent by POST.
    pub(crate) fn post(&self, path: &str, params: &[(&str, &str)]) -> (u16, Value) {
        self.ask(
            reqwest::Method::POST,
            path,
            params,
            self.token.as_deref().map(|token| format!("Bearer {token}")),
        )
    }

    /// The answer to a caller who shows `authorization`.
    pub(crate) fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        params: &[(&str, &str)],
        authorization: Option<String>,
    ) -> (u16, Value) {
        let encoded: Vec<String> =
            params.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let encoded = encoded.join("&");
        let mut request = match method {
            reqwest::Method::GET => self.http.get(format!("{}{path}?{encoded}", self.base)),
            _ => self
                .http
                .request(method, format!("{}{path}", self.base))
                .header("content-type", "application/x-www-form-urlencoded")
                .body(encoded),
        };
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap();
            (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
        })
    }

    /// A query at one instant in milliseconds.
    pub(crate) fn query(&self, query: &str, at: i64) -> Value {
        self.post("/api/v1/query", &[("query", query), ("time", &seconds(at))]).1
    }

    /// A query over a range, in milliseconds.
    pub(crate) fn query_range(&self, query: &str, (start, end, step): (i64, i64, i64)) -> Value {
        let params =
            [("query", query), ("start", &seconds(start)), ("end", &seconds(end)), ("step", &seconds(step))];
        self.get("/api/v1/query_range", &params).1
    }
}

fn seconds(millis: i64) -> String {
    format!("{:.3}", millis as f64 / 1_000.0)
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
