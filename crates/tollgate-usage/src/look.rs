//! A look at the error that may blame what we put into the request.
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode, response::Parts};
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};
use tollgate_core::body::Replay;

use crate::inject::blamed;

/// Most bytes of the error that are read.
const CAP: usize = 64 << 10;
/// Longest to wait for them, if the call has so much time.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Statuses with which a server says that it does not know a field.
pub(crate) fn suspicious(status: StatusCode) -> bool {
    status == StatusCode::BAD_REQUEST || status == StatusCode::UNPROCESSABLE_ENTITY
}

/// Reads the error's document, then gives the answer back whole.
///
/// The body is boxed, for a body that was polled can only be moved on if it is `Unpin`. This
/// happens once for each target that refuses.
pub(crate) struct Look<B> {
    parts: Option<Parts>,
    body: Option<Pin<Box<B>>>,
    front: VecDeque<Frame<Bytes>>,
    document: Vec<u8>,
    patience: Duration,
    timeout: Option<Pin<Box<Sleep>>>,
}

/// The answer as it came.
pub(crate) type Looked<B> = Response<Replay<Pin<Box<B>>>>;

impl<B: Body<Data = Bytes>> Look<B> {
    /// `left`: of the call's time.
    pub(crate) fn new(response: Response<B>, left: Option<Duration>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            parts: Some(parts),
            body: Some(Box::pin(body)),
            front: VecDeque::new(),
            document: Vec::new(),
            patience: left.map_or(TIMEOUT, |left| left.min(TIMEOUT)),
            timeout: None,
        }
    }

    /// The answer as it came, and whether it blames us.
    pub(crate) fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<(Looked<B>, bool)> {
        let body = self.body.as_mut().expect("polled again after it was ready");
        let end = loop {
            if body.is_end_stream() {
                break Some(None);
            }
            match body.as_mut().poll_frame(cx) {
                Poll::Ready(None) => break Some(None),
                Poll::Ready(Some(Err(error))) => break Some(Some(error)),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.document.extend_from_slice(data);
                    }
                    let trailers = frame.is_trailers();
                    self.front.push_back(frame);
                    if trailers {
                        // They are the end; a body need not be polled after it.
                        break Some(None);
                    }
                    if self.document.len() >= CAP {
                        break None;
                    }
                }
                Poll::Pending => {
                    let timeout = self
                        .timeout
                        .get_or_insert_with(|| Box::pin(sleep(self.patience)));
                    if timeout.as_mut().poll(cx).is_ready() {
                        break None;
                    }
                    return Poll::Pending;
                }
            }
        };
        let front = std::mem::take(&mut self.front);
        let rest = self.body.take().expect("polled again after it was ready");
        let body = match end {
            Some(error) => Replay::buffered(front, error),
            None => Replay::peeked(front, rest),
        };
        let parts = self.parts.take().expect("polled again after it was ready");
        let response = Response::from_parts(parts, body);
        Poll::Ready((response, blamed(&self.document)))
    }
}
