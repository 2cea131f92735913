//! A channel as a stream of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::channel::{CHUNK, Gone, Inbox, Outbox};
use super::types::Event;

/// A channel's main stream as `AsyncRead` and `AsyncWrite`.
pub struct ChannelStream {
    inbox: Inbox,
    outbox: Outbox,
    read: Bytes,
    /// The write that waits for room, with what it was given.
    write: Option<Pending>,
}

type Pending = Pin<Box<dyn Future<Output = Result<(), Gone>> + Send>>;

impl ChannelStream {
    pub(super) fn new(inbox: Inbox, outbox: Outbox) -> Self {
        ChannelStream {
            inbox,
            outbox,
            read: Bytes::new(),
            write: None,
        }
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(write) = &mut self.write {
            let result = ready!(write.as_mut().poll(cx));
            self.write = None;
            result.map_err(|Gone| io::ErrorKind::BrokenPipe)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ChannelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        while me.read.is_empty() {
            match ready!(me.inbox.poll_next(cx)) {
                Some(Event::Data(data)) => me.read = data,
                Some(Event::Eof | Event::Close) | None => return Poll::Ready(Ok(())),
                Some(
                    Event::Stderr(_)
                    | Event::Request(_)
                    | Event::ExitStatus(_)
                    | Event::ExitSignal(_)
                    | Event::NodeAccepted(_)
                    | Event::NodeRefused(_),
                ) => {}
            }
        }
        let n = me.read.len().min(buf.remaining());
        buf.put_slice(me.read.get(..n).unwrap_or_default());
        me.read.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        ready!(me.poll_pending(cx))?;
        let chunk = Bytes::copy_from_slice(buf.get(..CHUNK).unwrap_or(buf));
        let n = chunk.len();
        let outbox = me.outbox.clone();
        me.write = Some(Box::pin(async move { outbox.data(chunk).await }));
        // Started at once; if it has to wait, the next call waits for it.
        match me.poll_pending(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(n)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_pending(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        ready!(me.poll_pending(cx))?;
        let outbox = me.outbox.clone();
        me.write = Some(Box::pin(async move {
            // A channel that is gone needs no EOF.
            let _ = outbox.eof().await;
            Ok(())
        }));
        me.poll_pending(cx)
    }
}
