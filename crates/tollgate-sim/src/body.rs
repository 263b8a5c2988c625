//! A body that sends what it was told, when it was told, and breaks where it was told.
use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::SimError;

/// One thing that a [`SimBody`] does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Sends bytes as one frame.
    Data(Bytes),
    /// Sends trailers.
    Trailers(HeaderMap),
    /// Waits, on tokio's clock.
    Wait(Duration),
    /// Fails; what follows is never reached.
    Break(SimError),
    /// Sends nothing more and never ends.
    Stall,
}

/// How a body ended, for whoever watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyFate {
    /// It is still being read, or has not been looked at.
    Open,
    /// It was read to its end.
    Complete,
    /// It broke, as it was told to.
    Broken,
    /// The caller dropped it before its end.
    Dropped,
}

/// Makes steps as they are needed, so that a long stream is not held in memory.
pub(crate) trait Steps: Send + Sync {
    /// The next step; `None` ends the body.
    fn next(&mut self) -> Option<Step>;
}

/// Told once how the body ended.
pub(crate) trait Watch: Send + Sync {
    /// The body has ended this way.
    fn ended(self: Box<Self>, fate: BodyFate);
}

/// The response body of everything in this crate; good as a request body too.
///
/// It is `Unpin`, `Send` and `Sync`. A body made of data alone knows its exact size.
#[derive(Default)]
pub struct SimBody {
    steps: VecDeque<Step>,
    more: Option<Box<dyn Steps>>,
    sleep: Option<Pin<Box<Sleep>>>,
    watch: Option<Box<dyn Watch>>,
    flush: bool,
}

impl SimBody {
    /// A body that takes these steps.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let mut body = Self::default();
        body.steps.extend(steps);
        body
    }

    /// A body whose steps are made as it is read.
    pub(crate) fn lazy(more: Box<dyn Steps>) -> Self {
        let mut body = Self::default();
        body.more = Some(more);
        body
    }

    pub(crate) fn watched(mut self, watch: Box<dyn Watch>) -> Self {
        self.watch = Some(watch);
        self
    }

    /// Pauses before it breaks, so that a server has written what came before.
    #[cfg(feature = "server")]
    pub(crate) fn flush_before_break(mut self) -> Self {
        self.flush = true;
        self
    }

    fn end(&mut self, fate: BodyFate) {
        if let Some(watch) = self.watch.take() {
            watch.ended(fate);
        }
    }

    fn next_step(&mut self) -> Option<Step> {
        self.steps
            .pop_front()
            .or_else(|| self.more.as_mut().and_then(|more| more.next()))
    }
}

impl From<Bytes> for SimBody {
    fn from(bytes: Bytes) -> Self {
        let steps = (!bytes.is_empty()).then_some(Step::Data(bytes));
        Self::new(steps)
    }
}

impl From<String> for SimBody {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for SimBody {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = SimError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SimError>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            match self.next_step() {
                Some(Step::Data(bytes)) => {
                    // A reader may stop at `is_end_stream` and never poll again.
                    if self.is_end_stream() {
                        self.end(BodyFate::Complete);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Trailers(map)) => {
                    if self.is_end_stream() {
                        self.end(BodyFate::Complete);
                    }
                    return Poll::Ready(Some(Ok(Frame::trailers(map))));
                }
                Some(Step::Wait(time)) => {
                    self.sleep = Some(Box::pin(tokio::time::sleep(time)));
                }
                Some(Step::Break(error)) if std::mem::take(&mut self.flush) => {
                    self.steps.push_front(Step::Break(error));
                    self.sleep = Some(Box::pin(tokio::time::sleep(Duration::from_millis(1))));
                }
                Some(Step::Break(error)) => {
                    self.steps.clear();
                    self.more = None;
                    self.end(BodyFate::Broken);
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Step::Stall) => {
                    self.steps.push_front(Step::Stall);
                    return Poll::Pending;
                }
                None => {
                    self.more = None;
                    self.end(BodyFate::Complete);
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.more.is_none() && self.sleep.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let mut size = 0;
        let mut exact = self.more.is_none();
        for step in &self.steps {
            match step {
                Step::Data(bytes) => size += bytes.len() as u64,
                Step::Wait(_) => {}
                Step::Trailers(_) | Step::Break(_) | Step::Stall => exact = false,
            }
        }
        let mut hint = SizeHint::new();
        if exact {
            hint.set_exact(size);
        }
        hint
    }
}

impl Drop for SimBody {
    fn drop(&mut self) {
        let fate = if self.is_end_stream() {
            BodyFate::Complete
        } else {
            BodyFate::Dropped
        };
        self.end(fate);
    }
}

impl fmt::Debug for SimBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBody")
            .field("steps", &self.steps.len())
            .field("more", &self.more.is_some())
            .finish_non_exhaustive()
    }
}

/// Cuts all data into frames of `size` bytes, joined across frames where nothing stands between.
pub(crate) fn rechunk(steps: Vec<Step>, size: usize) -> Vec<Step> {
    assert!(size > 0, "a frame has at least one byte");
    let mut out = Vec::new();
    let mut run: Vec<u8> = Vec::new();
    let flush = |run: &mut Vec<u8>, out: &mut Vec<Step>| {
        let mut bytes = Bytes::from(std::mem::take(run));
        while !bytes.is_empty() {
            out.push(Step::Data(bytes.split_to(size.min(bytes.len()))));
        }
    };
    for step in steps {
        if let Step::Data(bytes) = step {
            run.extend_from_slice(&bytes);
        } else {
            flush(&mut run, &mut out);
            out.push(step);
        }
    }
    flush(&mut run, &mut out);
    out
}
