//! A socket with its two buffers. Nothing is held for a connection that is silent: what arrives lands on the stack first
//! and only then in a buffer as large as what arrived.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

use super::header;

/// One read takes at most this much: some hundred small packets, and small enough for the stack.
const READ_MAX: usize = 16 * 1024;

/// How long a peer may take to take our last words and to close: longer than a round trip over a satellite.
const LINGER: Duration = Duration::from_secs(2);

/// How much is read and thrown away meanwhile: a peer that is in the middle of a packet sees our words, not a reset.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// A socket and what was read and is to be written.
pub(super) struct Io<S> {
    stream: S,
    input: Vec<u8>,
    /// How much of `input` was taken already.
    taken: usize,
    /// What is to be written; append to it.
    pub(super) output: Vec<u8>,
    written: usize,
}

/// What happened on a socket.
#[derive(Debug)]
pub(super) enum Moved {
    /// Something was read.
    Read,
    /// Everything was written.
    Flushed,
    /// The peer has closed, or the connection broke.
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Io<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, input: Vec::new(), taken: 0, output: Vec::new(), written: 0 }
    }

    /// The next whole packet, once it is there.
    ///
    /// # Errors
    /// Where its fixed header is refused; its body is then never read.
    pub(super) fn packet(&mut self, packet_max: usize) -> Result<Option<&[u8]>, header::Refused> {
        let Some(len) = header::packet_len(self.untaken(), packet_max)? else { return Ok(None) };
        if self.untaken().len() < len {
            return Ok(None);
        }
        let from = self.taken;
        self.taken += len;
        Ok(self.input.get(from..self.taken))
    }

    /// What was read and is not taken yet.
    pub(super) fn untaken(&self) -> &[u8] {
        self.input.get(self.taken..).unwrap_or_default()
    }

    /// Bytes that its buffers take.
    pub(super) fn held(&self) -> usize {
        self.input.capacity() + self.output.capacity()
    }

    /// Bytes that the peer has not taken yet.
    pub(super) fn unwritten(&self) -> usize {
        self.output.len() - self.written
    }

    /// Gives back what a burst made the buffers grow to.
    pub(super) fn shrink(&mut self) {
        self.compact();
        self.input.shrink_to_fit();
        self.output.shrink_to_fit();
    }

    fn compact(&mut self) {
        self.input.drain(..self.taken);
        self.taken = 0;
    }

    /// Writes what is to be written, and reads if `read`; returns at the first that got somewhere.
    pub(super) async fn moved(&mut self, read: bool) -> Moved {
        poll_fn(|cx| {
            if self.unwritten() > 0
                && let Poll::Ready(done) = self.poll_flush(cx)
            {
                return Poll::Ready(if done.is_ok() { Moved::Flushed } else { Moved::Closed });
            }
            if !read {
                return Poll::Pending;
            }
            self.poll_fill(cx).map(|filled| match filled {
                Ok(true) => Moved::Read,
                Ok(false) | Err(_) => Moved::Closed,
            })
        })
        .await
    }

    /// Reads once; false at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [MaybeUninit::<u8>::uninit(); READ_MAX];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Ok(false));
        }
        self.compact();
        self.input.extend_from_slice(read.filled());
        Poll::Ready(Ok(true))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unwritten() > 0 {
            let rest = self.output.get(self.written..).unwrap_or_default();
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.output.clear();
        self.written = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Writes the rest and closes. Reads on for a while: a socket closed with bytes unread is reset, and the peer would
    /// never see why.
    pub(super) async fn finish(mut self) {
        self.input = Vec::new();
        self.taken = 0;
        let mut said_all = self.unwritten() == 0;
        let mut thrown = 0;
        let _ = timeout(LINGER, async {
            loop {
                if std::mem::take(&mut said_all) && self.stream.shutdown().await.is_err() {
                    return;
                }
                match self.moved(true).await {
                    Moved::Flushed => said_all = true,
                    Moved::Read => {
                        thrown += self.input.len();
                        self.input.clear();
                    }
                    Moved::Closed => return,
                }
                if thrown >= LINGER_BYTES {
                    return;
                }
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn packets_come_out_whole_however_they_were_cut() {
        let (mut peer, ours) = duplex(64);
        let mut io = Io::new(ours);
        for part in [&b"\xc0"[..], b"\x00\xe0\x00\x40", b"\x02\x00", b"\x07"] {
            peer.write_all(part).await.unwrap();
            assert!(matches!(io.moved(true).await, Moved::Read));
        }
        let mut packets = Vec::new();
        while let Some(packet) = io.packet(1_000).unwrap() {
            packets.push(packet.to_vec());
        }
        assert_eq!(packets, [b"\xc0\x00".to_vec(), b"\xe0\x00".to_vec(), b"\x40\x02\x00\x07".to_vec()]);
        assert!(io.untaken().is_empty());
        io.shrink();
        assert_eq!(io.held(), 0);
    }

    #[tokio::test]
    async fn a_peer_in_the_middle_of_a_packet_still_sees_our_last_words() {
        let (mut peer, ours) = duplex(16);
        let mut io = Io::new(ours);
        io.output.extend_from_slice(b"our last words, longer than the pipe");
        let finished = tokio::spawn(io.finish());
        peer.write_all(&[7; 100]).await.unwrap();
        let mut seen = Vec::new();
        peer.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"our last words, longer than the pipe");
        drop(peer);
        finished.await.unwrap();
    }
}
