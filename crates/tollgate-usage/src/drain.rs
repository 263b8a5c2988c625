//! Reading an answer to its end after its caller has left.
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::{runtime::Handle, time::timeout};
use tower_layer::Layer;
use tower_service::Service;

/// What becomes of answers whose callers leave: they are read to their end, within bounds. A
/// handle: made first, passed to a [`DrainLayer`], asked for how it fares.
///
/// ```
/// use std::time::Duration;
/// use tollgate_usage::{Drain, DrainLayer, UsageRecorderLayer, UsageTotals};
/// use tower::ServiceBuilder;
///
/// let drain = Drain::new().within(Duration::from_secs(30)).at_once(100);
/// let stack = ServiceBuilder::new()
///     // Outermost, so that all layers inside see the end of the answer.
///     .layer(DrainLayer::new(drain.clone()))
///     .layer(UsageRecorderLayer::new(UsageTotals::new()));
/// assert_eq!(drain.snapshot().finished, 0);
/// # drop(stack);
/// ```
#[derive(Clone)]
pub struct Drain {
    time: Duration,
    bytes: u64,
    at_once: usize,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    running: AtomicUsize,
    finished: AtomicU64,
    cut_off: AtomicU64,
    refused: AtomicU64,
}

/// How many answers were read to their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainSnapshot {
    /// Answers that are being read now.
    pub running: usize,
    /// Answers that came to their end, be it an error.
    pub finished: u64,
    /// Answers that were too long or took too long.
    pub cut_off: u64,
    /// Answers that were closed at once: too many were being read, or no runtime was there.
    pub refused: u64,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(60),
            bytes: 16 << 20,
            at_once: 64,
            counts: Arc::default(),
        }
    }
}

impl Drain {
    /// Up to 60 seconds and 16 MiB each, 64 at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The longest that an answer is read after its caller has left; default 60 seconds.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// The most that is read of an answer after its caller has left, in bytes; default 16 MiB.
    #[must_use]
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// How many answers are read at the same time; default 64. Further ones are closed.
    #[must_use]
    pub fn at_once(mut self, answers: usize) -> Self {
        self.at_once = answers;
        self
    }

    /// How it fares now.
    #[must_use]
    pub fn snapshot(&self) -> DrainSnapshot {
        let counts = &self.counts;
        DrainSnapshot {
            running: counts.running.load(Relaxed),
            finished: counts.finished.load(Relaxed),
            cut_off: counts.cut_off.load(Relaxed),
            refused: counts.refused.load(Relaxed),
        }
    }

    /// Goes on with what a caller has left. May be called from within `Drop`.
    fn take_over<F, B>(&self, rest: Rest<F, B>)
    where
        F: Send + 'static,
        B: Send + 'static,
        Rest<F, B>: Future<Output = bool>,
    {
        let running = &self.counts.running;
        let room = |now: usize| (now < self.at_once).then_some(now + 1);
        let place = running.fetch_update(Relaxed, Relaxed, room);
        let (Ok(runtime), Ok(_)) = (Handle::try_current(), place) else {
            if place.is_ok() {
                running.fetch_sub(1, Relaxed);
            }
            self.counts.refused.fetch_add(1, Relaxed);
            return;
        };
        let place = Place(Arc::clone(&self.counts));
        let time = self.time;
        runtime.spawn(async move {
            let whole = timeout(time, rest).await.unwrap_or(false);
            let counts = &place.0;
            let count = if whole {
                &counts.finished
            } else {
                &counts.cut_off
            };
            count.fetch_add(1, Relaxed);
        });
    }
}

/// One of those at once; given back also if the runtime drops the task.
struct Place(Arc<Counts>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("time", &self.time)
            .field("bytes", &self.bytes)
            .field("at_once", &self.at_once)
            .field("now", &self.snapshot())
            .finish()
    }
}

/// What is left of a call. Its output: whether it came to an end within the bytes that are allowed.
enum Rest<F, B> {
    Calling(Pin<Box<F>>, u64),
    Reading(Pin<Box<B>>, u64),
}

impl<F, B, E> Future for Rest<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            match &mut *self {
                Self::Calling(future, left) => match ready!(future.as_mut().poll(cx)) {
                    Ok(response) => {
                        let rest = Self::Reading(Box::pin(response.into_body()), *left);
                        self.set(rest);
                    }
                    Err(_) => return Poll::Ready(true),
                },
                Self::Reading(body, left) => {
                    if body.is_end_stream() {
                        return Poll::Ready(true);
                    }
                    let Some(Ok(frame)) = ready!(body.as_mut().poll_frame(cx)) else {
                        return Poll::Ready(true);
                    };
                    let len = frame.data_ref().map_or(0, Buf::remaining) as u64;
                    match left.checked_sub(len) {
                        Some(rest) => *left = rest,
                        None => return Poll::Ready(false),
                    }
                }
            }
        }
    }
}

/// Reads answers to their end whose callers have left. See [`Drain`].
///
/// Without it everything is closed as soon as the caller drops it, which ends most providers'
/// generation early: what was generated until then is charged and its usage never stated. With it
/// the record is whole, and so is what is paid for.
///
/// It asks more than the other layers do: a future and a body that are `Send` and `'static`, and a
/// tokio runtime where they are dropped.
#[derive(Clone, Debug)]
pub struct DrainLayer {
    drain: Drain,
}

impl DrainLayer {
    /// Reads to the end within the bounds of `drain`.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self { drain }
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = DrainAbandoned<S>;

    fn layer(&self, inner: S) -> DrainAbandoned<S> {
        let drain = self.drain.clone();
        DrainAbandoned { inner, drain }
    }
}

/// The service of a [`DrainLayer`].
#[derive(Clone, Debug)]
pub struct DrainAbandoned<S> {
    inner: S,
    drain: Drain,
}

impl<S> DrainAbandoned<S> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, RB> Service<Request<B>> for DrainAbandoned<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Future: Send + 'static,
    RB: Body + Send + 'static,
{
    type Response = Response<DrainBody<RB>>;
    type Error = S::Error;
    type Future = DrainFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        DrainFuture(Kept {
            inner: Some(Box::pin(self.inner.call(request))),
            drain: self.drain.clone(),
            abandon: |drain, future| drain.take_over(Rest::Calling(future, drain.bytes)),
        })
    }
}

/// What is not dropped but gone on with.
struct Kept<T> {
    inner: Option<Pin<Box<T>>>,
    drain: Drain,
    /// Chosen where the bounds are known, so that `Drop` needs none.
    abandon: fn(&Drain, Pin<Box<T>>),
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            (self.abandon)(&self.drain, inner);
        }
    }
}

/// The future of a call that is gone on with when it is dropped.
///
/// # Cancel safety
///
/// Dropping it hands the call to a task, within the bounds of [`Drain`].
///
/// # Panics
///
/// When polled again after it was ready.
pub struct DrainFuture<F>(Kept<F>);

impl<F, RB, E> Future for DrainFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    RB: Body + Send + 'static,
{
    type Output = Result<Response<DrainBody<RB>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let kept = &mut self.0;
        let future = kept.inner.as_mut().expect("a call that is not answered");
        let result = ready!(future.as_mut().poll(cx));
        kept.inner = None;
        Poll::Ready(result.map(|response| {
            response.map(|body| {
                DrainBody(Kept {
                    inner: Some(Box::pin(body)),
                    drain: kept.drain.clone(),
                    abandon: |drain, body| {
                        if !body.is_end_stream() {
                            drain.take_over(Rest::<NoCall<RB>, RB>::Reading(body, drain.bytes));
                        }
                    },
                })
            })
        }))
    }
}

/// The future of a body whose call was answered.
type NoCall<RB> = std::future::Ready<Result<Response<RB>, std::convert::Infallible>>;

/// An answer's body that is read to its end when it is dropped.
///
/// # Cancel safety
///
/// Dropping it hands the body to a task, within the bounds of [`Drain`].
pub struct DrainBody<B>(Kept<B>);

impl<B: Body> Body for DrainBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let kept = &mut self.0;
        let Some(body) = kept.inner.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(body.as_mut().poll_frame(cx));
        // There is nothing more to come.
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            kept.inner = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .inner
            .as_ref()
            .is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let ended = || SizeHint::with_exact(0);
        self.0
            .inner
            .as_ref()
            .map_or_else(ended, |body| body.size_hint())
    }
}

impl<F> fmt::Debug for DrainFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainFuture").finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for DrainBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainBody").finish_non_exhaustive()
    }
}
