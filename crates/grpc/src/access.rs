//! A stream of answers ends when its caller's access does.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};
use weir_core::{ErrorKind, port::Registry};

use crate::to_status;

/// Access ends within a second of its revocation. The registry answers from memory, and hears of a revocation at once.
const INTERVAL: Duration = Duration::from_secs(1);

/// An answer to a unary call has its data and its trailers.
const FRAMES_OF_ONE_ANSWER: u8 = 2;

/// The answers to one call, which end with `UNAUTHENTICATED` once the token no longer holds.
pub(crate) struct WhileAllowed {
    body: Body,
    registry: Arc<dyn Registry>,
    token: Arc<str>,
    /// Only made when an answer lets itself be waited for, or comes in many parts: a unary call never pays for it.
    lost: Option<BoxFuture<'static, Status>>,
    frames: u8,
    ended: bool,
}

impl WhileAllowed {
    pub(crate) fn new(body: Body, registry: Arc<dyn Registry>, token: Arc<str>) -> Self {
        Self { body, registry, token, lost: None, frames: 0, ended: false }
    }
}

async fn lost(registry: Arc<dyn Registry>, token: Arc<str>) -> Status {
    loop {
        tokio::time::sleep(INTERVAL).await;
        match registry.authenticate(&token).await {
            Err(error) if error.kind() == ErrorKind::Unauthenticated => return to_status(error),
            _ => {} // while the registry is away nobody is put out
        }
    }
}

impl http_body::Body for WhileAllowed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.frames = self.frames.saturating_add(1);
        if frame.is_pending() || self.frames > FRAMES_OF_ONE_ANSWER {
            let (registry, token) = (Arc::clone(&self.registry), Arc::clone(&self.token));
            let lost = self.lost.get_or_insert_with(|| Box::pin(lost(registry, token)));
            if let Poll::Ready(status) = Pin::new(lost).poll(cx) {
                self.ended = true; // a frame that was just taken goes with it: the cursor before it is where to go on
                let mut trailers = http::HeaderMap::new();
                return Poll::Ready(Some(match status.add_header(&mut trailers) {
                    Ok(()) => Ok(Frame::trailers(trailers)),
                    Err(status) => Err(status),
                }));
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
