//! A request's body: bounded in bytes, in time, and over all requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use weir_core::{Error, ErrorKind, Result};

use super::problem::{TIMEOUT, TOO_LARGE};

/// What is read of a body that is refused, so that the client has sent it all and reads the answer; a longer one finds
/// the connection closed.
const DISCARD_MAX: usize = 4 << 20;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// A body that was received makes room at once.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What bodies may take.
pub(super) struct Bodies {
    /// One body.
    each_max: usize,
    /// All that are being received.
    all_max: usize,
    timeout: Duration,
    all: AtomicUsize,
}

/// The bytes of one body in [`Bodies::all`], given back when dropped.
struct Share {
    of: Arc<Bodies>,
    bytes: usize,
}

impl Bodies {
    pub(super) fn new(each_max: usize, all_max: usize, timeout: Duration) -> Arc<Self> {
        Arc::new(Self { each_max, all_max, timeout, all: AtomicUsize::new(0) })
    }

    /// Bytes of all that are being received.
    pub(super) fn bytes(&self) -> usize {
        self.all.load(Ordering::Acquire)
    }

    /// The whole of a body of at most `max` bytes.
    ///
    /// # Errors
    /// `PACKET_TOO_LARGE`; `REQUEST_TIMEOUT`; `BODIES_FULL`; `Cancelled` where the client went away.
    pub(super) async fn read(self: &Arc<Self>, mut body: Body) -> Result<Bytes> {
        match tokio::time::timeout(self.timeout, self.collect(&mut body)).await {
            Ok(Err(error)) if error.reason() == TOO_LARGE => {
                discard(body).await;
                Err(error)
            }
            Ok(done) => done,
            Err(_) => {
                let seconds = self.timeout.as_secs();
                let text = format!("the body did not arrive within {seconds} s");
                Err(Error::new(ErrorKind::DeadlineExceeded, TIMEOUT, text).with_limit(seconds))
            }
        }
    }

    async fn collect(self: &Arc<Self>, body: &mut Body) -> Result<Bytes> {
        let announced = hyper::body::Body::size_hint(body).lower();
        if announced > self.each_max as u64 {
            return Err(self.too_large());
        }
        let mut share = Share { of: Arc::clone(self), bytes: 0 };
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let gone = |source| {
                Error::new(ErrorKind::Cancelled, "BODY_CUT", "the body ended early").with_source(source)
            };
            let Ok(data) = frame.map_err(gone)?.into_data() else { continue }; // trailers
            if whole.len() + data.len() > self.each_max {
                return Err(self.too_large());
            }
            share.grow(data.len())?;
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    fn too_large(&self) -> Error {
        let max = self.each_max;
        Error::invalid("body", TOO_LARGE, format!("the body is over the limit of {max} bytes"))
            .with_limit(max)
    }
}

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        let max = self.of.all_max;
        if self.of.all.fetch_add(bytes, Ordering::AcqRel) + bytes > max {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                "BODIES_FULL",
                format!("the bodies that are being received have reached {max} bytes"),
            )
            .with_limit(max)
            .with_retry_after(FULL_RETRY_AFTER));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.all.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

async fn discard(mut body: Body) {
    let all = async {
        let mut left = DISCARD_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    drop(tokio::time::timeout(DISCARD_TIMEOUT, all).await); // either way it is refused
}
