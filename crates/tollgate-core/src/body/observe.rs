//! A body that shows its frames to an observer and reports exactly one end.
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::{End, Observer};

/// A body under observation; see the [module](super) for the rules it keeps.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt, Full};
/// use tollgate_core::body::{End, ObservedBody, Observer};
///
/// struct Expect;
/// impl Observer for Expect {
///     fn data(&mut self, data: &Bytes) { assert_eq!(data, "hello"); }
///     fn end(&mut self, end: End) { assert_eq!(end, End::Complete); }
/// }
///
/// let body = ObservedBody::new(Full::new(Bytes::from("hello")), Expect);
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
/// # });
/// ```
#[pin_project]
pub struct ObservedBody<B, O: Observer> {
    // Before the watch: an inner observer reports first when all is dropped.
    #[pin]
    inner: B,
    ended: bool,
    watch: Watch<O>,
}

/// The observer until it has heard of the end. Dropping it is the fifth way to end.
struct Watch<O: Observer>(Option<O>);

impl<O: Observer> Watch<O> {
    fn end(&mut self, end: End) {
        if let Some(mut observer) = self.0.take() {
            observer.end(end);
        }
    }
}

impl<O: Observer> Drop for Watch<O> {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}

impl<B: Body<Data = Bytes>, O: Observer> ObservedBody<B, O> {
    /// Watches `inner`; one that is at its end already is reported at once.
    pub fn new(inner: B, observer: O) -> Self {
        let mut watch = Watch(Some(observer));
        let ended = inner.is_end_stream();
        if ended {
            watch.end(End::Complete);
        }
        Self {
            inner,
            ended,
            watch,
        }
    }
}

impl<B, O: Observer> ObservedBody<B, O> {
    /// Passes `inner` on without watching it.
    pub fn unobserved(inner: B) -> Self {
        Self {
            inner,
            ended: false,
            watch: Watch(None),
        }
    }

    /// The observer, until the end was reported to it.
    pub fn observer(&self) -> Option<&O> {
        self.watch.0.as_ref()
    }

    /// The body inside.
    pub fn get_ref(&self) -> &B {
        &self.inner
    }
}

impl<B: Body<Data = Bytes>, O: Observer> Body for ObservedBody<B, O> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        let end = match &frame {
            Some(Ok(frame)) => {
                if let Some(observer) = &mut this.watch.0 {
                    if let Some(data) = frame.data_ref() {
                        observer.data(data);
                    } else if let Some(trailers) = frame.trailers_ref() {
                        observer.trailers(trailers);
                    }
                }
                // Trailers are the last frame, and a reader that trusts `is_end_stream` never asks
                // for the `None` that would follow.
                (frame.is_trailers() || this.inner.is_end_stream()).then_some(End::Complete)
            }
            Some(Err(_)) => Some(End::Failed),
            None => Some(End::Complete),
        };
        if let Some(end) = end {
            *this.ended = true;
            this.watch.end(end);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended {
            SizeHint::with_exact(0)
        } else {
            self.inner.size_hint()
        }
    }
}

impl<B: Default, O: Observer> Default for ObservedBody<B, O> {
    fn default() -> Self {
        Self::unobserved(B::default())
    }
}

impl<B: fmt::Debug, O: Observer> fmt::Debug for ObservedBody<B, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservedBody")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
