//! Reads the request, tries the candidates one after another, gives back one answer.
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tollgate_core::{
    body::{Patience, Peek, ReadRequest, Replay},
    classify::Classify,
    extensions::{Reason, Refused, TimedOut},
    wire::{outcome::Verdict, prompt::endpoint},
};
use tower_service::Service;

use crate::run::{Config, Run, Step};

/// The response future of [`ModelFallback`](crate::ModelFallback).
///
/// # Cancel safety
///
/// Dropping it drops the attempt under way, gives back a probe, and leaves the call's ledger as it
/// was found.
#[pin_project]
pub struct ResponseFuture<S, C, B, RB>
where
    S: Service<Request<B>>,
    RB: Body,
{
    #[pin]
    state: State<S::Future, B, RB>,
    /// The instance that was made ready; kept for the later attempts.
    inner: Option<S>,
    ready: bool,
    run: Option<Run<S::Error>>,
    config: Option<Arc<Config<C>>>,
}

#[pin_project(project = StateProj)]
enum State<F, B, RB: Body> {
    /// Sent once, as it came.
    Passing(#[pin] F),
    Reading(#[pin] ReadRequest<B>),
    Readying(Option<Request<B>>, Option<Box<Patience>>),
    Calling(#[pin] F, Option<Box<Patience>>),
    Peeking(#[pin] Peek<RB>),
    Done,
}

impl<S, C, B, RB> ResponseFuture<S, C, B, RB>
where
    S: Service<Request<B>>,
    B: Body,
    RB: Body,
{
    pub(crate) fn passing(future: S::Future) -> Self {
        Self {
            state: State::Passing(future),
            inner: None,
            ready: false,
            run: None,
            config: None,
        }
    }

    pub(crate) fn new(ready: S, request: Request<B>, config: Arc<Config<C>>) -> Self {
        Self {
            state: State::Reading(ReadRequest::new(request)),
            inner: Some(ready),
            ready: true,
            run: None,
            config: Some(config),
        }
    }
}

impl<S, C, B, RB> Future for ResponseFuture<S, C, B, RB>
where
    S: Service<Request<B>, Response = Response<RB>>,
    C: Classify<S::Error>,
    B: Body + From<Bytes>,
    RB: Body<Data = Bytes> + Unpin,
{
    type Output = Result<Response<Replay<RB>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const DONE: &str = "polled again after it was ready";
        let mut this = self.project();
        let result = loop {
            let (answer, verdict) = match this.state.as_mut().project() {
                StateProj::Passing(future) => {
                    let response = ready!(future.poll(cx));
                    break response.map(|response| response.map(Replay::passing));
                }
                StateProj::Reading(read) => {
                    let config = this.config.as_deref().expect(DONE);
                    let (head, body, facts) = match ready!(read.poll_read(cx)) {
                        Ok(whole) => whole,
                        Err(head) => {
                            let endpoint = endpoint(&head.method, &head.uri);
                            let refused = Refused::new(Reason::BodyFailed);
                            break Ok(refused.into_response(endpoint, Replay::document));
                        }
                    };
                    let (run, parts, bytes) = Run::begin(head, body, facts, config);
                    *this.run = Some(run);
                    let request = Request::from_parts(parts, B::from(bytes));
                    // The first attempt goes to the instance that our caller has made ready.
                    this.state.set(State::Readying(Some(request), None));
                    continue;
                }
                StateProj::Readying(request, patience) => {
                    let inner = this.inner.as_mut().expect(DONE);
                    let ready = std::mem::take(this.ready) || {
                        match inner.poll_ready(cx) {
                            Poll::Ready(Ok(())) => true,
                            Poll::Ready(Err(error)) => break Err(error),
                            Poll::Pending => false,
                        }
                    };
                    if ready {
                        let future = inner.call(request.take().expect(DONE));
                        let config = this.config.as_deref().expect(DONE);
                        let run = this.run.as_ref().expect(DONE);
                        let patience = run.patience(&config.policy);
                        this.state.set(State::Calling(future, patience));
                        continue;
                    }
                    let run = this.run.as_ref().expect(DONE);
                    run.lost(ready!(poll_lost(patience, cx)))
                }
                StateProj::Calling(future, patience) => {
                    let config = this.config.as_deref().expect(DONE);
                    let run = this.run.as_ref().expect(DONE);
                    match future.poll(cx) {
                        Poll::Ready(Ok(response)) if run.looks() || patience.is_some() => {
                            let policy = run.peek_policy(&config.policy);
                            let peek = Peek::new(response, Some(run.facts()), &policy);
                            let peek = peek.patience(patience.take());
                            this.state.set(State::Peeking(peek));
                            continue;
                        }
                        Poll::Ready(Ok(response)) => (Ok(response.map(Replay::passing)), None),
                        Poll::Ready(Err(error)) => {
                            let verdict = Verdict::from(config.classify.classify(&error));
                            (Err(error), Some(verdict))
                        }
                        Poll::Pending => run.lost(ready!(poll_lost(patience, cx))),
                    }
                }
                StateProj::Peeking(peek) => {
                    let (response, verdict) = ready!(peek.poll(cx));
                    (Ok(response), Some(verdict))
                }
                StateProj::Done => panic!("{DONE}"),
            };
            // The attempt's future goes before the next one is made.
            this.state.set(State::Done);
            let config = this.config.as_deref().expect(DONE);
            let run = this.run.as_mut().expect(DONE);
            match run.answered(answer, verdict, config, cx) {
                Step::Done(result) => break result,
                Step::Send(parts, bytes) => {
                    let request = Request::from_parts(parts, B::from(bytes));
                    let patience = run.patience_to_begin();
                    this.state.set(State::Readying(Some(request), patience));
                }
            }
        };
        this.state.set(State::Done);
        *this.run = None;
        *this.inner = None;
        Poll::Ready(result)
    }
}

/// Ready when the attempt has been waited for long enough.
fn poll_lost(patience: &mut Option<Box<Patience>>, cx: &mut Context<'_>) -> Poll<TimedOut> {
    match patience {
        Some(patience) => patience.poll_lost(cx),
        None => Poll::Pending,
    }
}

impl<S, C, B, RB> fmt::Debug for ResponseFuture<S, C, B, RB>
where
    S: Service<Request<B>>,
    RB: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Passing(_) => "ResponseFuture::Passing",
            State::Reading(_) => "ResponseFuture::Reading",
            State::Readying(..) => "ResponseFuture::Readying",
            State::Calling(..) => "ResponseFuture::Calling",
            State::Peeking(_) => "ResponseFuture::Peeking",
            State::Done => "ResponseFuture::Done",
        })
    }
}
