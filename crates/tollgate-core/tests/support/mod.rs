//! A body that does what it is told, and panics when it is polled after its end.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // not every test file uses all of it
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tollgate_core::body::BodyError;

#[derive(Clone, Debug)]
pub enum Do {
    Data(Bytes),
    Trailers(HeaderMap),
    Fail,
    /// Pending once.
    Wait,
    /// Pending for a while.
    Sleep(Duration),
    /// Pending for ever.
    Stall,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Failed;

#[derive(Debug)]
pub struct Strict {
    steps: VecDeque<Do>,
    /// Says that it is at its end as soon as it is, as `Full` does; else only by `None`.
    knows_its_end: bool,
    ended: bool,
    hint: Option<u64>,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Strict {
    pub fn new(steps: impl IntoIterator<Item = Do>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            knows_its_end: false,
            ended: false,
            hint: None,
            sleep: None,
        }
    }

    pub fn knowing_its_end(mut self) -> Self {
        self.knows_its_end = true;
        self
    }

    /// Claims an exact size.
    pub fn exactly(mut self, size: u64) -> Self {
        self.hint = Some(size);
        self
    }
}

impl Body for Strict {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        assert!(!self.ended, "polled after its end");
        assert!(
            !(self.knows_its_end && self.steps.is_empty()),
            "polled although it said that it was at its end"
        );
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        match self.steps.pop_front() {
            Some(Do::Data(data)) => {
                self.hint = self.hint.map(|size| size.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Do::Trailers(trailers)) => {
                self.ended = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Some(Do::Fail) => {
                self.ended = true;
                Poll::Ready(Some(Err(Failed)))
            }
            Some(Do::Wait) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Do::Sleep(time)) => {
                self.sleep = Some(Box::pin(tokio::time::sleep(time)));
                self.poll_frame(cx)
            }
            Some(Do::Stall) => {
                self.steps.push_front(Do::Stall);
                Poll::Pending
            }
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

pub fn data(text: impl Into<Bytes>) -> Do {
    Do::Data(text.into())
}

pub fn trailers() -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("x-trailer", http::HeaderValue::from_static("kept"));
    map
}

/// Cuts bytes at these places (taken modulo their length).
pub fn cut(whole: &Bytes, places: &[usize]) -> Vec<Bytes> {
    let mut places: Vec<usize> = places.iter().map(|at| at % (whole.len() + 1)).collect();
    places.extend([0, whole.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| whole.slice(pair[0]..pair[1]))
        .collect()
}

/// The innermost error, however often it was wrapped.
pub struct Inner(Option<Failed>);

impl From<Failed> for Inner {
    fn from(error: Failed) -> Self {
        Self(Some(error))
    }
}

impl<E: Into<Inner>> From<BodyError<E>> for Inner {
    fn from(error: BodyError<E>) -> Self {
        error.into_inner().map_or(Self(None), Into::into)
    }
}

/// All that came out of a body.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drained {
    pub bytes: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    pub error: Option<Failed>,
}

/// Reads to the end as hyper does: it trusts `is_end_stream` and stops at trailers and errors. The
/// size hint is held to its word at each step.
pub async fn drain<B>(body: B) -> Drained
where
    B: Body<Data = Bytes, Error: Into<Inner>> + Unpin,
{
    use http_body_util::BodyExt;
    let mut body = body;
    let mut drained = Drained::default();
    let mut hints = Vec::new();
    loop {
        hints.push((drained.bytes.len() as u64, body.size_hint()));
        if body.is_end_stream() {
            break;
        }
        match body.frame().await {
            None => break,
            Some(Err(error)) => {
                drained.error = error.into().0;
                break;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => drained.bytes.extend_from_slice(&data),
                Err(frame) => {
                    drained.trailers = frame.into_trailers().ok();
                    break;
                }
            },
        }
    }
    let total = drained.bytes.len() as u64;
    for (at, hint) in hints {
        let rest = total - at;
        assert!(
            hint.lower() <= rest || drained.error.is_some(),
            "{hint:?} with {rest} to come"
        );
        assert!(
            hint.upper().is_none_or(|upper| upper >= rest),
            "{hint:?} with {rest} to come"
        );
    }
    drained
}
