//! The stream under the engine: between its loop and the socket (or the
//! channel, for an inner connection).
//!
//! * **Writes never make the loop wait.** What the socket does not take is
//!   buffered here and sent while the loop reads; producers wait for room before
//!   they hand over the next chunk ([`Flow::room`]). If the loop waited, it would
//!   not see the window adjustments that free its peer.
//! * **Reads can be held back**: at a node connection altogether, at a user's
//!   paced: closed for a moment after each round of probes of stalled channels.
//!   (Holding a user's connection altogether would stop its live channels too.)
//! * **It can be killed**, which is the only way to end the engine's loop that
//!   no peer can delay, and after a goodbye it lingers for [`LINGER`] only.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::flow::{Flow, Side};

/// Shortest and longest time for which reading stops after a round of probes:
/// short enough not to be felt on a live channel beside, long enough that a
/// stalled upload costs next to no CPU.
const PACE_MIN: Duration = Duration::from_millis(5);
const PACE_MAX: Duration = Duration::from_millis(20);

/// Fewer bytes than this between two rounds means that only probes came.
const PROBES_ONLY: usize = 256;

/// Read at most this much at once. The engine reads a packet in two steps; with
/// a buffer between, many packets cost one system call.
const READ_AHEAD: usize = 64 << 10;

/// A peer that leaves more than this unread while it goes on asking is not
/// reading at all. Honest use stays below: each of 64 channels may hand over one
/// chunk of 32 KiB beyond the room that it waited for.
const MAX_UNSENT: usize = 4 << 20;

/// A buffer that grew beyond this is given back once it is empty.
const KEEP: usize = 16 << 10;

/// How long a connection that has said goodbye waits for the peer to close:
/// closing at once could destroy the goodbye on its way (a reset).
const LINGER: Duration = Duration::from_secs(2);

pub(super) struct EngineStream<S> {
    inner: S,
    flow: Arc<Flow>,
    unsent: BytesMut,
    /// Something was written that `inner` has not flushed. An SSH channel, under an
    /// inner connection, takes bytes and then waits for its window with them.
    unflushed: bool,
    ahead: BytesMut,
    pace: Pace,
    linger: Option<Pin<Box<Sleep>>>,
}

/// Between two rounds of probes.
struct Pace {
    interval: Duration,
    until: Option<Pin<Box<Sleep>>>,
    got: usize,
}

impl Pace {
    const fn new() -> Self {
        Pace {
            interval: PACE_MIN,
            until: None,
            got: 0,
        }
    }

    /// A round of probes is over: stop reading for a while.
    fn start(&mut self) {
        self.interval = if self.got < PROBES_ONLY {
            (self.interval * 3 / 2).min(PACE_MAX)
        } else {
            PACE_MIN
        };
        self.got = 0;
        self.until = Some(Box::pin(sleep_until(Instant::now() + self.interval)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(until) = &mut self.until {
            ready!(until.as_mut().poll(cx));
            self.until = None;
        }
        Poll::Ready(())
    }
}

impl<S> EngineStream<S> {
    pub(super) fn new(inner: S, flow: Arc<Flow>) -> Self {
        EngineStream {
            inner,
            flow,
            unsent: BytesMut::new(),
            unflushed: false,
            ahead: BytesMut::new(),
            pace: Pace::new(),
            linger: None,
        }
    }

    /// Whether reading may go on; if not, the reader will be woken.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.flow.is_held() {
            self.pace = Pace::new();
            return Poll::Ready(());
        }
        match self.flow.side() {
            Side::Node => Poll::Pending,
            Side::User => {
                if self.flow.take_pace() {
                    self.pace.start();
                }
                self.pace.poll(cx)
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> EngineStream<S> {
    /// Sends what is buffered. Pending is not an error: the next read goes on.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.inner).poll_write(cx, &self.unsent) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.unsent.advance(n),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.flow.set_unsent(self.unsent.len());
                    return Poll::Pending;
                }
            }
        }
        if self.unsent.capacity() > KEEP {
            self.unsent = BytesMut::new();
        }
        self.flow.set_unsent(0);
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// As `poll_send`, for callers that must not wait.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn check_killed(&self) -> io::Result<()> {
        if self.flow.is_killed() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// Fills the engine's buffer, through the read-ahead for small requests.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            if buf.remaining() >= READ_AHEAD / 2 {
                return Pin::new(&mut self.inner).poll_read(cx, buf);
            }
            self.ahead.reserve(READ_AHEAD);
            let polled = {
                let read = self.inner.read_buf(&mut self.ahead);
                pin!(read).poll(cx)
            };
            if self.ahead.is_empty() {
                // Nothing there: an idle connection keeps no buffer.
                self.ahead = BytesMut::new();
                return polled.map_ok(|_| ());
            }
        }
        let n = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for EngineStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        // Registered before anything is looked at, so that no change is missed.
        me.flow.register_reader(cx);
        me.check_killed()?;
        // While the loop waits for input it is here that the rest is sent.
        if me.unflushed {
            me.send(cx)?;
        }
        if let Some(linger) = &mut me.linger {
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        } else {
            ready!(me.poll_open(cx));
        }
        let before = buf.filled().len();
        ready!(me.poll_fill(cx, buf))?;
        me.flow.hear();
        me.pace.got += buf.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for EngineStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        me.check_killed()?;
        if !me.unsent.is_empty() {
            me.send(cx)?;
        }
        me.unflushed = true;
        if me.unsent.is_empty()
            && let Poll::Ready(result) = Pin::new(&mut me.inner).poll_write(cx, buf)
        {
            return Poll::Ready(result);
        }
        if me.unsent.len() + buf.len() > MAX_UNSENT {
            return Poll::Ready(Err(io::Error::other("the peer does not read")));
        }
        me.unsent.extend_from_slice(buf);
        me.flow.set_unsent(me.unsent.len());
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        me.check_killed()?;
        Poll::Ready(me.send(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        me.flow.register_reader(cx);
        me.check_killed()?;
        let linger = me
            .linger
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + LINGER)));
        if linger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(me.poll_send(cx))?;
        Pin::new(&mut me.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::flow::Caps;

    /// Takes one write at once, and is done with it only at the third flush: as a
    /// channel that waits for its window.
    #[derive(Default)]
    struct Reluctant {
        written: Vec<u8>,
        held: VecDeque<u8>,
        flushes: usize,
    }

    impl AsyncRead for Reluctant {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            // The peer answers once it has got everything.
            if self.written.is_empty() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            buf.put_slice(b"answer");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Reluctant {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.held.extend(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes < 3 {
                return Poll::Pending;
            }
            let held = std::mem::take(&mut self.held);
            self.written.extend(held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn flow(side: Side) -> Arc<Flow> {
        let caps = Caps {
            channels: 1,
            sessions: 1,
        };
        Flow::new(side, caps)
    }

    #[tokio::test]
    async fn what_the_inner_stream_holds_back_is_sent_while_the_loop_reads() {
        let mut stream = EngineStream::new(Reluctant::default(), flow(Side::User));
        stream.write_all(b"question").await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
        assert_eq!(stream.inner.written, b"question");
    }

    #[tokio::test]
    async fn writing_never_waits_for_a_peer_that_does_not_read_but_has_an_end() {
        let (near, _far) = tokio::io::duplex(16);
        let flow = flow(Side::User);
        let mut stream = EngineStream::new(near, Arc::clone(&flow));
        let chunk = [0; 64 << 10];
        for _ in 0..MAX_UNSENT / chunk.len() {
            stream.write_all(&chunk).await.unwrap();
        }
        stream.write_all(&chunk).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_killed_stream_fails_the_read_that_waits() {
        let (near, _far) = tokio::io::duplex(16);
        let flow = flow(Side::Node);
        let mut stream = EngineStream::new(near, Arc::clone(&flow));
        let reading = tokio::spawn(async move { stream.read_u8().await });
        tokio::task::yield_now().await;
        flow.kill();
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_arrives() {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let mut stream = EngineStream::new(near, flow(Side::User));
        let sending = tokio::spawn(async move {
            stream.write_all(&[7; 100 << 10]).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), 100 << 10);
        sending.await.unwrap();
    }
}
