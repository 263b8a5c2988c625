//! The response body.
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tollgate_core::body::{ObservedBody, Replay};

use crate::{cut::Cut, entry::Watch};

/// The answer's body, watched to its end.
///
/// The bytes are those of the inner body, frame by frame, except where the recorder has asked for
/// usage in the caller's place: then the chunk that came for it is taken out again, and a frame
/// waits until its last event is whole.
///
/// # Cancel safety
///
/// Dropping it records the call as [`Partial`](crate::Completion::Partial), unless the terminal
/// event has come.
#[pin_project]
pub struct ResponseBody<B: Body> {
    #[pin]
    inner: ObservedBody<Kind<B>, Watch>,
    cut: Option<Box<Cut<B::Error>>>,
}

/// Where the bytes come from.
#[pin_project(project = KindProj)]
pub(crate) enum Kind<B: Body> {
    /// The inner body, untouched.
    Plain(#[pin] B),
    /// One that was looked into, or a document of our own.
    Looked(#[pin] Replay<Pin<Box<B>>>),
}

impl<B: Body<Data = Bytes>> ResponseBody<B> {
    pub(crate) fn new(inner: Kind<B>, watch: Watch, cut: Option<Box<Cut<B::Error>>>) -> Self {
        Self {
            inner: ObservedBody::new(inner, watch),
            cut,
        }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let Some(cut) = this.cut else {
            return this.inner.poll_frame(cx);
        };
        loop {
            if let Some(frame) = cut.pop() {
                return Poll::Ready(Some(frame));
            }
            match ready!(this.inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => cut.push(data),
                    Err(trailers) => cut.end(Some(Ok(trailers))),
                },
                Some(Err(error)) => cut.end(Some(Err(error))),
                None if cut.is_empty() => return Poll::Ready(None),
                None => cut.end(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.cut.as_ref().is_none_or(|cut| cut.is_empty()) && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.cut {
            None => self.inner.size_hint(),
            Some(_) if self.is_end_stream() => SizeHint::with_exact(0),
            Some(cut) => cut.size_hint(&self.inner.size_hint()),
        }
    }
}

impl<B: Body<Data = Bytes>> Body for Kind<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project() {
            KindProj::Plain(body) => body.poll_frame(cx),
            KindProj::Looked(body) => body
                .poll_frame(cx)
                .map_err(|error| error.into_inner().expect("no timeout is set here")),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) => body.is_end_stream(),
            Self::Looked(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body) => body.size_hint(),
            Self::Looked(body) => body.size_hint(),
        }
    }
}

impl<B: Body + Default> Default for Kind<B> {
    fn default() -> Self {
        Self::Plain(B::default())
    }
}

impl<B: Body + Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self {
            inner: ObservedBody::default(),
            cut: None,
        }
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("cutting", &self.cut.is_some())
            .finish_non_exhaustive()
    }
}
