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
    body::{Peek, ReadRequest, Replay},
    classify::Classify,
    extensions::{Reason, Refused},
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
    Readying(Option<Request<B>>),
    Calling(#[pin] F),
    Peeking(#[pin] Peek<RB>),
    Done,
}

impl<S, C, B, RB> ResponseFuture<S, C, B, RB>
where
    S: Service<Request<B>>,
    B: Body<Data: Into<Bytes>>,
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
    B: Body<Data: Into<Bytes>> + From<Bytes>,
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
                    this.state.set(State::Readying(Some(request)));
                    continue;
                }
                StateProj::Readying(request) => {
                    let inner = this.inner.as_mut().expect(DONE);
                    // The first attempt goes to the instance that our caller has made ready.
                    if !std::mem::take(this.ready) {
                        if let Err(error) = ready!(inner.poll_ready(cx)) {
                            break Err(error);
                        }
                    }
                    let future = inner.call(request.take().expect(DONE));
                    this.state.set(State::Calling(future));
                    continue;
                }
                StateProj::Calling(future) => {
                    let answer = ready!(future.poll(cx));
                    let config = this.config.as_deref().expect(DONE);
                    let run = this.run.as_ref().expect(DONE);
                    match answer {
                        Ok(response) if run.looks() => {
                            let policy = run.peek_policy(&config.policy);
                            let peek = Peek::new(response, Some(run.facts()), &policy);
                            this.state.set(State::Peeking(peek));
                            continue;
                        }
                        Ok(response) => (Ok(response.map(Replay::passing)), None),
                        Err(error) => {
                            let verdict = Verdict::from(config.classify.classify(&error));
                            (Err(error), Some(verdict))
                        }
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
                    this.state.set(State::Readying(Some(request)));
                }
            }
        };
        this.state.set(State::Done);
        *this.run = None;
        *this.inner = None;
        Poll::Ready(result)
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
            State::Readying(_) => "ResponseFuture::Readying",
            State::Calling(_) => "ResponseFuture::Calling",
            State::Peeking(_) => "ResponseFuture::Peeking",
            State::Done => "ResponseFuture::Done",
        })
    }
}
