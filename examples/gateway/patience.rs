//! How long a connection may keep its place without asking for anything, or without reading what it asked for.
//!
//! hyper has one timer for both: the time between two requests, and the time for a request's head. The first must be
//! longer than a proxy in front keeps connections for later (nginx and Amazon's balancers: 60 s), or requests meet
//! closed doors; the second must be short. So hyper keeps the first, and this the second.
use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    body::{Body, Frame, SizeHint},
    rt::{Read, ReadBufCursor, Write},
};
use pin_project::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// What has happened on a connection, as its requests tell it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    done: AtomicUsize,
}

impl Calls {
    /// A request's head is there.
    pub(crate) fn begin(&self) -> Open {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    fn begun(&self) -> usize {
        self.0.begun.load(Ordering::Relaxed)
    }

    fn none_open(&self) -> bool {
        self.0.done.load(Ordering::Relaxed) == self.begun()
    }
}

/// A request that is served, until this is dropped.
#[derive(Debug)]
pub(crate) struct Open(Calls);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// An answer's body, which keeps its request open.
#[pin_project]
#[derive(Debug)]
pub(crate) struct Answer<B> {
    #[pin]
    pub(crate) body: B,
    pub(crate) open: Open,
}

impl<B: Body<Data = Bytes>> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection on which a request's head, once begun, comes in time or breaks it; and so does the other side if it
/// takes nothing of an answer for too long.
#[pin_project]
pub(crate) struct Patient<S> {
    #[pin]
    inner: S,
    calls: Calls,
    head: Duration,
    /// Requests that had begun when a head's first bytes came, and when it must be whole.
    due: Option<(usize, Instant)>,
    timer: Option<Pin<Box<Sleep>>>,
    write: Duration,
    /// Runs while nothing can be written.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(crate) fn new(inner: S, calls: Calls, head: Duration, write: Duration) -> Self {
        Self {
            inner,
            calls,
            head,
            due: None,
            timer: None,
            write,
            stuck: None,
        }
    }
}

/// Breaks a connection on which nothing could be written for so long.
fn in_time(
    stuck: &mut Option<Pin<Box<Sleep>>>,
    most: Duration,
    written: Poll<io::Result<usize>>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if written.is_ready() {
        *stuck = None;
        return written;
    }
    let timer = stuck.get_or_insert_with(|| Box::pin(sleep(most)));
    timer
        .as_mut()
        .poll(cx)
        .map(|()| Err(io::ErrorKind::TimedOut.into()))
}

impl<S: Read> Read for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let read = this.inner.poll_read(cx, buf);
        // It came whole.
        if this
            .due
            .is_some_and(|(begun, _)| begun != this.calls.begun())
        {
            *this.due = None;
        }
        if read.is_ready() {
            if this.due.is_none() && this.calls.none_open() {
                *this.due = Instant::now()
                    .checked_add(*this.head)
                    .map(|at| (this.calls.begun(), at));
            }
            return read;
        }
        let Some((_, at)) = *this.due else {
            return Poll::Pending;
        };
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: Write> Write for Patient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = this.inner.poll_write(cx, buf);
        in_time(this.stuck, *this.write, written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = this.inner.poll_write_vectored(cx, bufs);
        in_time(this.stuck, *this.write, written, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn the_time_of_who_reads_begins_anew() {
        let hour = Duration::from_secs(3_600);
        let (here, mut there) = duplex(8);
        let mut patient = Patient::new(TokioIo::new(here), Calls::default(), hour, hour);
        let mut cx = Context::from_waker(Waker::noop());
        for full in [false, true, false, true] {
            let write = Pin::new(&mut patient).poll_write(&mut cx, b"12345678");
            assert_eq!(write.is_pending(), full);
            assert_eq!(patient.stuck.is_some(), full);
            if full {
                there.read_exact(&mut [0; 8]).await.expect("all of it");
            }
        }
    }
}
