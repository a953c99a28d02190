//! One call: its deadline, its retries, and what its failure means to the one who asked a port.

use std::{
    error::Error as _,
    future::Future,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Response, Status, body::Body, transport::Channel};
use tonic_types::StatusExt as _;
use tower::{Service as _, ServiceExt as _, retry::budget::Budget as _};
use weir_core::{Error, ErrorKind, Result};
use weir_grpc::{from_status, to_status};

use super::Peer;

/// With two replicas of which one has just gone, the fourth attempt fails as well once in sixteen times; by then the peer
/// was looked at again.
const ATTEMPTS_MAX: u32 = 4;
/// About a round trip between data centres; twice as long before each next attempt.
const BACKOFF_MIN: Duration = Duration::from_millis(25);

/// The reason of a call that took too long.
const TIMEOUT: &str = "PEER_TIMEOUT";

/// A call that failed.
pub(crate) struct Failed {
    /// What it means.
    pub(crate) error: Error,
    /// Whether the same call may succeed.
    again: bool,
}

impl Peer {
    /// Makes a call that may be repeated, within `deadline` for all its attempts.
    ///
    /// # Errors
    /// What the peer says. `Unavailable` where it cannot be reached (`PEER_UNREACHABLE`), does not answer in time
    /// (`PEER_TIMEOUT`), or does not know this process as a service (`SERVICE_IDENTITY_REFUSED`).
    pub(crate) async fn call<T, R, F>(
        &self,
        deadline: Duration,
        message: T,
        send: impl Fn(Channel, Request<T>) -> F,
    ) -> Result<R>
    where
        T: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let until = Instant::now() + deadline;
        let (mut attempt, mut backoff) = (1, BACKOFF_MIN);
        let mut last = None;
        self.inner.budget.deposit();
        loop {
            let failed = match self.attempt(until, message.clone(), &send).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let pause = jitter(backoff).max(failed.error.retry_after().unwrap_or_default());
            let room = attempt < ATTEMPTS_MAX && Instant::now() + pause < until;
            if !failed.again || !room || !self.inner.budget.withdraw() {
                // What was said before the time ran out says more than that it did.
                return Err(last.filter(|_| failed.error.reason() == TIMEOUT).unwrap_or(failed.error));
            }
            last = Some(failed.error);
            tokio::time::sleep(pause).await;
            (attempt, backoff) = (attempt + 1, backoff * 2);
        }
    }

    async fn attempt<T, R, F>(
        &self,
        until: Instant,
        message: T,
        send: impl Fn(Channel, Request<T>) -> F,
    ) -> Result<R, Failed>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let call = async {
            self.reached().await.map_err(|error| Failed { error, again: true })?;
            let mut request = Request::new(message);
            request.set_timeout(until.saturating_duration_since(Instant::now()));
            if let Some(authorization) = &self.inner.authorization {
                request.metadata_mut().insert("authorization", authorization.clone());
            }
            let sent = send(self.inner.channel.clone(), request).await;
            sent.map(Response::into_inner).map_err(|status| self.failed(status))
        };
        timeout_at(until, call)
            .await
            .unwrap_or_else(|_| Err(Failed { error: self.timed_out(), again: false }))
    }

    /// Sends a user's call on, once: whether it may be repeated is theirs to know. It carries what it came with and nothing
    /// of this process.
    ///
    /// # Errors
    /// `UNAVAILABLE` that names the service where it cannot be reached; `DEADLINE_EXCEEDED` by the call's own deadline.
    pub(crate) async fn forward(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        self.reached().await.map_err(to_status)?;
        let sent = async { self.inner.channel.clone().ready_oneshot().await?.call(request).await }.await;
        sent.map_err(|error| match Status::from_error(error.into()) {
            late if is_late(&late) => to_status(Error::new(
                ErrorKind::DeadlineExceeded,
                "DEADLINE_EXCEEDED",
                "the call's deadline has passed",
            )),
            status => {
                self.inner.look.notify_one();
                to_status(self.unreachable(&cause(&status)))
            }
        })
    }

    /// The peer took too long: to its callers it is away, since they can do the same about it.
    pub(crate) fn timed_out(&self) -> Error {
        let message = format!("{} did not answer in time", self.inner.name);
        Error::new(ErrorKind::Unavailable, TIMEOUT, message)
    }

    /// What a status means.
    pub(crate) fn failed(&self, status: Status) -> Failed {
        if is_of_transport(&status) {
            self.inner.look.notify_one();
            return Failed { error: self.unreachable(&cause(&status)), again: true };
        }
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                let message = format!(
                    "{} at {} does not know this process as a service ({}); both need the same auth.service_key_file, or \
                     certificates of the same tls.ca_file",
                    self.inner.name,
                    self.inner.addresses,
                    status.message()
                );
                let error = Error::new(ErrorKind::Unavailable, "SERVICE_IDENTITY_REFUSED", message);
                Failed { error, again: false }
            }
            Code::Cancelled => Failed { error: self.timed_out(), again: true },
            code => Failed { error: from_status(status), again: code == Code::Unavailable },
        }
    }
}

/// Whether the status tells of a connection and not of an answer: what a service answers has a reason.
fn is_of_transport(status: &Status) -> bool {
    let of_transport = match status.code() {
        Code::Unavailable | Code::Unknown => true,
        Code::Cancelled | Code::Internal => status.source().is_some() && !is_late(status),
        _ => false,
    };
    of_transport && status.get_details_error_info().is_none()
}

/// Whether the status tells that the call's own deadline has passed, which tonic calls CANCELLED.
fn is_late(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The innermost cause, which is the one that says something.
fn cause(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

/// Between half of `backoff` and all of it, so that those who failed together do not come back together.
fn jitter(backoff: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish(); // seeded anew each time
    let half = backoff / 2;
    half + half.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use weir_grpc::to_status;

    use super::*;

    #[test]
    fn what_a_service_says_is_told_from_what_a_connection_does() {
        for error in [Error::unavailable("behind"), Error::internal("a defect")] {
            assert!(!is_of_transport(&to_status(error)));
        }
        assert!(is_of_transport(&Status::unavailable("tcp connect error")));
        assert!(is_of_transport(&Status::unknown("transport error")));
        assert!(!is_of_transport(&Status::internal("a message cannot be read")));
        assert!(!is_of_transport(&Status::not_found("")));
    }

    #[test]
    fn the_pause_before_the_next_attempt_is_between_half_and_all_of_it() {
        for _ in 0..1_000 {
            let pause = jitter(BACKOFF_MIN);
            assert!(BACKOFF_MIN / 2 <= pause && pause <= BACKOFF_MIN, "{pause:?}");
        }
    }
}
