//! Requests: who asks, and with which parameters.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{Method, Response, header},
};
use weir_core::{
    Error, Result, TenantId, Timestamp,
    principal::{Principal, Scope},
};
use weir_promql::{
    Matcher, QUERY_BYTES_MAX, Query,
    param::{TIME_MAX, TIME_MIN, parse_duration, parse_time},
    parse_selector,
};

use super::answer::refuse;

/// The longest body: a query whose every sign is percent-encoded, and the other parameters.
const BODY_MAX: usize = 4 * QUERY_BYTES_MAX;
/// Parameters `match[]` of a request: a dashboard has one for each variable.
const SELECTORS_MAX: usize = 64;

/// A request of somebody who may read a tenant.
pub(super) struct Asked {
    /// The tenant of the caller's token: no other can be asked about.
    pub(super) tenant: TenantId,
    /// Parameters of the body, then those of the URL.
    params: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequest<S> for Asked {
    type Rejection = Response<Body>;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        Self::read(request).await.map_err(|error| refuse(&error))
    }
}

/// Which series, and when.
pub(super) struct Listed {
    /// Of a series, one must be met; all series where there is none.
    pub(super) selectors: Vec<Vec<Matcher>>,
    /// From this instant, in milliseconds since the Unix epoch.
    pub(super) start: i64,
    /// To this instant.
    pub(super) end: i64,
}

impl Asked {
    async fn read(request: Request) -> Result<Self> {
        let caller = request.extensions().get::<Principal>();
        let caller = caller.ok_or_else(|| Error::unauthenticated("no token"))?;
        let tenant = caller.tenant()?.clone();
        caller.require(&tenant, Scope::Read)?;
        let url = request.uri().query().unwrap_or_default().to_owned();
        let is_form = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded")
        });
        let body = match is_form && request.method() == Method::POST {
            true => axum::body::to_bytes(request.into_body(), BODY_MAX).await.map_err(|source| {
                let message = format!("the body cannot be read, or has more than {BODY_MAX} bytes");
                Error::invalid("body", "BODY_TOO_LARGE", message).with_limit(BODY_MAX).with_source(source)
            })?,
            false => bytes::Bytes::new(),
        };
        let parse = |text: &[u8]| form_urlencoded::parse(text).into_owned().collect::<Vec<_>>();
        let mut params = parse(&body);
        params.extend(parse(url.as_bytes()));
        Ok(Self { tenant, params })
    }

    /// The first of a name that is not empty.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// The query at one instant: `query` and `time`, which is `now` where it is not given.
    ///
    /// # Errors
    /// `InvalidArgument` for what cannot be read; those of [`Query::instant`].
    pub(super) fn instant(&self, now: Timestamp) -> Result<Query> {
        let at = match self.param("time") {
            Some(time) => parse_time("time", time)?,
            None => now.as_micros().div_euclid(1_000),
        };
        Query::instant(self.param("query").unwrap_or_default(), at)
    }

    /// The query over a range: `query`, `start`, `end`, `step`.
    ///
    /// # Errors
    /// `InvalidArgument` for what cannot be read; those of [`Query::range`].
    pub(super) fn range(&self) -> Result<Query> {
        let time = |name: &str| parse_time(name, self.param(name).unwrap_or_default());
        let step = parse_duration("step", self.param("step").unwrap_or_default())?;
        Query::range(self.param("query").unwrap_or_default(), time("start")?, time("end")?, step)
    }

    /// How long the answer may take: `timeout`, and `most` at most.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no duration.
    pub(super) fn timeout(&self, most: Duration) -> Result<Duration> {
        let Some(timeout) = self.param("timeout") else { return Ok(most) };
        let millis = parse_duration("timeout", timeout)?;
        Ok(most.min(Duration::from_millis(u64::try_from(millis).unwrap_or(0))))
    }

    /// `match[]`, `start` and `end`.
    ///
    /// # Errors
    /// `InvalidArgument` for what cannot be read, and for more than 64 selectors.
    pub(super) fn listed(&self) -> Result<Listed> {
        let time =
            |name: &str, default: i64| self.param(name).map_or(Ok(default), |time| parse_time(name, time));
        let selectors: Vec<&str> = self
            .params
            .iter()
            .filter(|(name, _)| name == "match[]")
            .map(|(_, value)| value.as_str())
            .collect();
        if selectors.len() > SELECTORS_MAX {
            let message = format!("match[] is given {} times, the limit is {SELECTORS_MAX}", selectors.len());
            return Err(Error::invalid("match[]", "TOO_MANY_SELECTORS", message).with_limit(SELECTORS_MAX));
        }
        Ok(Listed {
            selectors: selectors.into_iter().map(parse_selector).collect::<Result<_>>()?,
            start: time("start", TIME_MIN)?,
            end: time("end", TIME_MAX)?,
        })
    }
}
