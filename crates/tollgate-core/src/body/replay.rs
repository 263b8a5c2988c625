//! A response body of which the beginning was read and is given back.
use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::{BodyError, Patience};
use crate::wire::outcome::TimeoutKind;

/// A body as it came: untouched, looked into, held whole, or a document of our own.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt, Empty};
/// use tollgate_core::body::Replay;
///
/// let body: Replay<Empty<Bytes>> = Replay::document(Bytes::from("{}"));
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(body.collect().await.unwrap().to_bytes(), "{}");
/// # });
/// ```
#[pin_project]
pub struct Replay<B: Body> {
    #[pin]
    kind: Kind<B>,
    /// How long its next frame is waited for; `None`: for ever.
    patience: Option<Box<Patience>>,
}

#[pin_project(project = KindProj)]
enum Kind<B: Body> {
    /// Our own document.
    Document(Option<Bytes>),
    /// Nothing was read.
    Passing(#[pin] B),
    /// The beginning was read, the rest is still to come.
    Peeked {
        front: VecDeque<Frame<Bytes>>,
        #[pin]
        rest: B,
    },
    /// All was read, up to the end or to an error.
    Buffered {
        front: VecDeque<Frame<Bytes>>,
        error: Option<B::Error>,
    },
}

impl<B: Body> Replay<B> {
    fn of(kind: Kind<B>) -> Self {
        Self {
            kind,
            patience: None,
        }
    }

    /// Ends in an error when this patience is lost.
    #[must_use]
    pub fn with_patience(mut self, patience: Option<Box<Patience>>) -> Self {
        self.patience = patience;
        self
    }

    /// A document of our own in place of a body.
    pub fn document(document: Bytes) -> Self {
        Self::of(Kind::Document(Some(document).filter(|d| !d.is_empty())))
    }

    /// A body that nobody looked into.
    pub fn passing(body: B) -> Self {
        Self::of(Kind::Passing(body))
    }

    /// A body whose first frames were read.
    pub fn peeked(front: VecDeque<Frame<Bytes>>, rest: B) -> Self {
        if front.is_empty() {
            return Self::passing(rest);
        }
        Self::of(Kind::Peeked { front, rest })
    }

    /// A body that was read to its end, or to the error it broke with.
    pub fn buffered(front: VecDeque<Frame<Bytes>>, error: Option<B::Error>) -> Self {
        Self::of(Kind::Buffered { front, error })
    }
}

fn data_len(front: &VecDeque<Frame<Bytes>>) -> u64 {
    front
        .iter()
        .filter_map(Frame::data_ref)
        .map(|data| data.len() as u64)
        .sum()
}

impl<B: Body<Data = Bytes>> Body for Replay<B> {
    type Data = Bytes;
    type Error = BodyError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut this = self.project();
        let polled = match this.kind.as_mut().project() {
            KindProj::Document(document) => {
                Poll::Ready(document.take().map(|document| Ok(Frame::data(document))))
            }
            KindProj::Passing(body) => body.poll_frame(cx),
            KindProj::Peeked { front, rest } => match front.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => rest.poll_frame(cx),
            },
            KindProj::Buffered { front, error } => {
                Poll::Ready(front.pop_front().map(Ok).or_else(|| error.take().map(Err)))
            }
        };
        let Some(patience) = this.patience.as_mut() else {
            return polled.map_err(BodyError::Inner);
        };
        if polled.is_ready() {
            patience.frame();
            return polled.map_err(BodyError::Inner);
        }
        let timed_out = ready!(patience.poll_lost(cx));
        // The connection goes at once, and what is left is an end.
        this.kind.set(Kind::Document(None));
        *this.patience = None;
        Poll::Ready(Some(Err(match timed_out.what {
            TimeoutKind::Total => BodyError::TotalTimeout,
            _ => BodyError::IdleTimeout,
        })))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Document(document) => document.is_none(),
            Kind::Passing(body) => body.is_end_stream(),
            Kind::Peeked { front, rest } => front.is_empty() && rest.is_end_stream(),
            Kind::Buffered { front, error } => front.is_empty() && error.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Document(document) => {
                SizeHint::with_exact(document.as_ref().map_or(0, |d| d.len() as u64))
            }
            Kind::Passing(body) => body.size_hint(),
            Kind::Peeked { front, rest } => {
                let front = data_len(front);
                let rest = rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(front));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(front)) {
                    hint.set_upper(upper);
                }
                hint
            }
            Kind::Buffered { front, error: None } => SizeHint::with_exact(data_len(front)),
            Kind::Buffered {
                front,
                error: Some(_),
            } => {
                // More was promised than came: only a lower bound is true.
                let mut hint = SizeHint::new();
                hint.set_lower(data_len(front));
                hint
            }
        }
    }
}

impl<B: Body + Default> Default for Replay<B> {
    fn default() -> Self {
        Self::passing(B::default())
    }
}

impl<B: Body> fmt::Debug for Replay<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Document(_) => "Replay::Document",
            Kind::Passing(_) => "Replay::Passing",
            Kind::Peeked { .. } => "Replay::Peeked",
            Kind::Buffered { .. } => "Replay::Buffered",
        })
    }
}
