//! Look into a response until it is known what it means, then give it back whole.
use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, response::Parts};
use http_body::{Body, Frame};
use pin_project::pin_project;
use tokio::time::{Sleep, sleep};

use super::{
    Patience, Replay,
    goal::{Goal, LookedInto, Seen},
};
use crate::wire::{
    outcome::Verdict,
    prompt::{Endpoint, RequestFacts},
};

/// How far to look.
///
/// ```
/// use tollgate_core::body::PeekPolicy;
///
/// let policy = PeekPolicy { hold_answer: None, ..PeekPolicy::default() };
/// assert_eq!(policy.stream_cap, 32 * 1024);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeekPolicy {
    /// Most bytes of an error document that are read; default 64 KiB.
    pub error_cap: usize,
    /// Most bytes of a stream that are held before its first content event; default 32 KiB.
    pub stream_cap: usize,
    /// Longest to look into one body before it is passed on as it is; default 30 s.
    ///
    /// For an answer that is held whole ([`hold_answer`](Self::hold_answer)) it counts from one
    /// frame to the next.
    pub timeout: Duration,
    /// Most bytes of an answer that is no stream that are held until it is whole, so that one that
    /// breaks can be asked for again; default 8 MiB. A larger one is passed as it comes. `None`:
    /// hold none.
    pub hold_answer: Option<usize>,
    /// Whether streams are held until they are whole, too, up to the bytes of
    /// [`hold_answer`](Self::hold_answer): for callers that read all before they use any of it;
    /// default no.
    pub hold_streams: bool,
    /// Whether a held answer that is not a whole JSON document, or a held stream without its end,
    /// counts as broken; default yes.
    pub validate: bool,
}

impl Default for PeekPolicy {
    fn default() -> Self {
        Self {
            error_cap: 64 * 1024,
            stream_cap: 32 * 1024,
            timeout: Duration::from_secs(30),
            hold_answer: Some(8 * 1024 * 1024),
            hold_streams: false,
            validate: true,
        }
    }
}

/// Looks into one response: a future of the response with its beginning given back and a
/// [`Verdict`] in its extensions.
///
/// An error's document is read; a stream is held until its first content event; another answer is
/// held whole. A response with a verdict from a layer further in that has looked into its body is
/// not looked into again, nor is a refusal of our own, nor an answer without a body, of a path we
/// do not know, of audio, or of a job that runs elsewhere.
///
/// # Panics
///
/// If polled again after it was ready.
///
/// # Cancel safety
///
/// Dropping it drops the response.
#[pin_project]
pub struct Peek<B: Body> {
    parts: Option<Parts>,
    body: Option<B>,
    front: VecDeque<Frame<Bytes>>,
    held: usize,
    goal: Goal,
    #[pin]
    timeout: Option<Sleep>,
    policy_timeout: Duration,
    endpoint: Endpoint,
    patience: Option<Box<Patience>>,
}

impl<B: Body<Data = Bytes> + Unpin> Peek<B> {
    /// Looks into the answer to a request with these facts; `None`: the request was not read, so
    /// only the head is judged.
    pub fn new(response: Response<B>, facts: Option<&RequestFacts>, policy: &PeekPolicy) -> Self {
        let goal = Goal::of(&response, facts, policy);
        let (parts, body) = response.into_parts();
        Self {
            parts: Some(parts),
            body: Some(body),
            front: VecDeque::new(),
            held: 0,
            goal,
            timeout: None,
            policy_timeout: policy.timeout,
            endpoint: facts.map_or(Endpoint::Other, |facts| facts.endpoint),
            patience: None,
        }
    }

    /// Holds the answer to the timeouts of its attempt, here and after it was handed on.
    ///
    /// Patience that is lost while the body is looked into makes the answer a 504 with
    /// [`TimedOut`](crate::extensions::TimedOut) in its extensions; what had come is dropped.
    #[must_use]
    pub fn patience(mut self, mut patience: Option<Box<Patience>>) -> Self {
        if let Some(patience) = &mut patience {
            patience.head();
            self.policy_timeout = self.policy_timeout.max(patience.least_look());
        }
        self.patience = patience;
        self
    }
}

impl<B: Body<Data = Bytes> + Unpin> Future for Peek<B> {
    type Output = (Response<Replay<B>>, Verdict);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let body = this.body.as_mut().expect("polled again after it was ready");
        let seen = loop {
            if !this.goal.looks() {
                break Seen::Enough;
            }
            if body.is_end_stream() {
                break Seen::End;
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(None) => break Seen::End,
                Poll::Ready(Some(Err(error))) => break Seen::Error(error),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(patience) = this.patience {
                        patience.frame();
                    }
                    if this.goal.is_whole() {
                        this.timeout.set(None);
                    }
                    let mut enough = false;
                    if let Some(data) = frame.data_ref() {
                        if data.is_empty() {
                            // Nothing to give back, and any number of them could come.
                            continue;
                        }
                        *this.held = this.held.saturating_add(data.len());
                        enough = this.goal.take(data, *this.held);
                        if let Some(patience) = this.patience {
                            if this.goal.content_started() {
                                patience.content();
                            }
                        }
                    }
                    // Trailers end a body: it must not be polled after them.
                    let end = frame.is_trailers();
                    this.front.push_back(frame);
                    if end {
                        break Seen::End;
                    }
                    if enough {
                        break Seen::Enough;
                    }
                }
                Poll::Pending => {
                    if let Some(patience) = this.patience {
                        if let Poll::Ready(timed_out) = patience.poll_lost(cx) {
                            drop((this.body.take(), this.parts.take()));
                            let verdict = Verdict::timeout(timed_out.what);
                            let mut response =
                                timed_out.into_response(*this.endpoint, Replay::document);
                            response.extensions_mut().insert(verdict.clone());
                            let looked = LookedInto { to_its_end: true };
                            response.extensions_mut().insert(looked);
                            return Poll::Ready((response, verdict));
                        }
                    }
                    // Made only when there is something to wait for: most bodies are there at once.
                    if this.timeout.is_none() {
                        this.timeout.set(Some(sleep(*this.policy_timeout)));
                    }
                    let timeout = this.timeout.as_mut().as_pin_mut();
                    if timeout.is_some_and(|timeout| timeout.poll(cx).is_ready()) {
                        break Seen::Enough;
                    }
                    return Poll::Pending;
                }
            }
        };
        let mut parts = this.parts.take().expect("polled again after it was ready");
        let body = this.body.take().expect("polled again after it was ready");
        let front = std::mem::take(this.front);
        let verdict = this.goal.verdict(&parts, &front, &seen);
        let looked = this.goal.looks().then(|| this.goal.looked_into(&seen));
        let body = match seen {
            Seen::Enough => Replay::peeked(front, body),
            Seen::End => Replay::buffered(front, None),
            Seen::Error(error) => Replay::buffered(front, Some(error)),
        };
        let mut patience = this.patience.take();
        if let Some(patience) = &mut patience {
            patience.handed_on();
        }
        let body = body.with_patience(patience);
        parts.extensions.insert(verdict.clone());
        if let Some(looked) = looked {
            parts.extensions.insert(looked);
        }
        Poll::Ready((Response::from_parts(parts, body), verdict))
    }
}

impl<B: Body> fmt::Debug for Peek<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peek")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}
