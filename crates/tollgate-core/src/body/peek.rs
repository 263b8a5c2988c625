//! Look into a response until it is known what it means, then give it back whole.
use std::{
    collections::VecDeque,
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

use super::Replay;
use crate::{
    clock,
    extensions::Refused,
    wire::{
        answer::AnswerReader,
        outcome::{Verdict, judge, judge_in_band},
        prompt::{Endpoint, RequestFacts},
    },
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
    /// Whether a held answer that is not a whole JSON document counts as broken; default yes.
    pub validate: bool,
}

impl Default for PeekPolicy {
    fn default() -> Self {
        Self {
            error_cap: 64 * 1024,
            stream_cap: 32 * 1024,
            timeout: Duration::from_secs(30),
            hold_answer: Some(8 * 1024 * 1024),
            validate: true,
        }
    }
}

/// Looks into one response: a future of the response with its beginning given back and a
/// [`Verdict`] in its extensions.
///
/// An error's document is read; a stream is held until its first content event; another answer is
/// held whole. A response with a verdict for its status, from a layer further in, is not looked
/// into again, nor is a refusal of our own.
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
}

enum Goal {
    /// Known already.
    Known(Verdict),
    /// Known from the head.
    Head(Endpoint),
    /// Read an error's document.
    Document { endpoint: Endpoint, cap: usize },
    /// Read on until content begins.
    Content {
        reader: Box<AnswerReader>,
        cap: usize,
    },
    /// Read the whole answer.
    Whole {
        reader: Box<AnswerReader>,
        cap: usize,
        validate: bool,
    },
}

/// What ended the looking.
enum Seen<E> {
    Enough,
    End,
    Error(E),
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
        }
    }
}

impl Goal {
    fn of<B>(response: &Response<B>, facts: Option<&RequestFacts>, policy: &PeekPolicy) -> Self {
        let status = response.status();
        if let Some(verdict) = response.extensions().get::<Verdict>() {
            if verdict.status == status {
                return Self::Known(verdict.clone());
            }
        }
        let endpoint = facts.map_or(Endpoint::Other, |facts| facts.endpoint);
        let Some(facts) = facts else {
            return Self::Head(endpoint);
        };
        if Refused::of(response).is_some() {
            return Self::Head(endpoint);
        }
        if status.is_client_error() || status.is_server_error() {
            return Self::Document {
                endpoint,
                cap: policy.error_cap,
            };
        }
        if !status.is_success() || !endpoint.generates() || facts.background {
            return Self::Head(endpoint);
        }
        let reader = || Box::new(AnswerReader::new(endpoint, status, response.headers()));
        if facts.stream {
            return Self::Content {
                reader: reader(),
                cap: policy.stream_cap,
            };
        }
        match policy.hold_answer {
            Some(cap) => Self::Whole {
                reader: reader(),
                cap,
                validate: policy.validate,
            },
            None => Self::Head(endpoint),
        }
    }

    /// Takes a data frame; true if enough was seen.
    fn take(&mut self, data: &Bytes, held: usize) -> bool {
        match self {
            Self::Known(_) | Self::Head(_) => true,
            Self::Document { cap, .. } => held >= *cap,
            Self::Content { reader, cap } => {
                reader.feed(data);
                let answer = reader.answer();
                answer.content_started
                    || answer.complete
                    || answer.error.is_some()
                    || !answer.readable
                    || held >= *cap
            }
            Self::Whole { reader, cap, .. } => {
                reader.feed(data);
                held > *cap
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Future for Peek<B> {
    type Output = (Response<Replay<B>>, Verdict);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let seen = loop {
            let body = this.body.as_mut().expect("polled again after it was ready");
            if matches!(this.goal, Goal::Known(_) | Goal::Head(_)) {
                break Seen::Enough;
            }
            if body.is_end_stream() {
                break Seen::End;
            }
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(None) => break Seen::End,
                Poll::Ready(Some(Err(error))) => break Seen::Error(error),
                Poll::Ready(Some(Ok(frame))) => {
                    if matches!(this.goal, Goal::Whole { .. }) {
                        this.timeout.set(None);
                    }
                    let mut enough = false;
                    if let Some(data) = frame.data_ref() {
                        *this.held = this.held.saturating_add(data.len());
                        enough = this.goal.take(data, *this.held);
                    }
                    this.front.push_back(frame);
                    if enough {
                        break Seen::Enough;
                    }
                }
                Poll::Pending => {
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
        let verdict = verdict(this.goal, &parts, &front, &seen);
        let body = match seen {
            Seen::Enough => Replay::peeked(front, body),
            Seen::End => Replay::buffered(front, None),
            Seen::Error(error) => Replay::buffered(front, Some(error)),
        };
        parts.extensions.insert(verdict.clone());
        Poll::Ready((Response::from_parts(parts, body), verdict))
    }
}

fn verdict<E>(
    goal: &mut Goal,
    parts: &Parts,
    front: &VecDeque<Frame<Bytes>>,
    seen: &Seen<E>,
) -> Verdict {
    let head = |endpoint| judge(endpoint, parts.status, &parts.headers, None, clock::wall());
    match goal {
        Goal::Known(verdict) => verdict.clone(),
        Goal::Head(endpoint) => head(*endpoint),
        Goal::Document { endpoint, cap } => {
            let mut document = Vec::new();
            for data in front.iter().filter_map(Frame::data_ref) {
                document.extend_from_slice(&data[..data.len().min(*cap - document.len())]);
            }
            judge(
                *endpoint,
                parts.status,
                &parts.headers,
                Some(&document),
                clock::wall(),
            )
        }
        Goal::Content { reader, .. } => {
            if matches!(seen, Seen::End) {
                reader.end();
            }
            let answer = reader.answer();
            match (&answer.error, seen) {
                (Some(error), _) => {
                    judge_in_band(parts.status, &parts.headers, error, clock::wall())
                }
                (None, Seen::Error(_)) => Verdict::broken(parts.status),
                (None, Seen::End) if front.iter().all(|frame| !frame.is_data()) => {
                    // A stream that ends without a byte delivered nothing at all.
                    Verdict::broken(parts.status)
                }
                _ => Verdict::ok(parts.status),
            }
        }
        Goal::Whole {
            reader, validate, ..
        } => {
            if matches!(seen, Seen::End) {
                reader.end();
            }
            let answer = reader.answer();
            match (&answer.error, seen) {
                (Some(error), _) => {
                    judge_in_band(parts.status, &parts.headers, error, clock::wall())
                }
                (None, Seen::Error(_)) => Verdict::broken(parts.status),
                (None, Seen::End) if *validate && answer.readable && !answer.complete => {
                    Verdict::broken(parts.status)
                }
                // Passed on for its size or its slowness: whoever reads it will see how it ends.
                _ => Verdict::ok(parts.status),
            }
        }
    }
}

impl<B: Body> std::fmt::Debug for Peek<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peek")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}
