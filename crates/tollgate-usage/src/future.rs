//! The response future.
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, header, request::Parts};
use http_body::Body;
use pin_project::pin_project;
use tokio::time::Instant;
use tollgate_core::{
    body::{ReadRequest, Replay},
    extensions::{Reason, Refused},
};
use tower_service::Service;

use crate::{
    ResponseBody,
    body::Kind,
    cut::Cut,
    entry::Guard,
    inject::{self, Target},
    look::{Look, suspicious},
};

/// The future of a recorded call.
///
/// # Cancel safety
///
/// Dropping it drops the inner future and records the call as
/// [`Partial`](crate::Completion::Partial), without a status.
#[pin_project]
pub struct ResponseFuture<S, F, B, RB> {
    // Before the guard: an inner recorder reports first when all is dropped.
    #[pin]
    state: State<F, B, RB>,
    /// The instance that was made ready; `None` once nothing more can be sent.
    inner: Option<S>,
    /// The request as it came, while one with our question in it is under way.
    original: Option<Box<Original>>,
    /// Who is asked again without our question: its answer tells whether that was the fault.
    blamed: Option<Target>,
    guard: Guard,
}

struct Original {
    parts: Parts,
    body: Bytes,
    target: Target,
    /// The target has taken our question before.
    takes: bool,
}

#[pin_project(project = StateProj)]
enum State<F, B, RB> {
    /// The request's body is read.
    Reading(#[pin] ReadRequest<B>),
    /// The inner service has the request.
    Calling(#[pin] F),
    /// An error may blame our question.
    Looking(Look<RB>),
    /// It did: the inner service is made ready for the request as it came.
    Readying,
    /// Done.
    Done,
}

impl<S, F, B: Body, RB> ResponseFuture<S, F, B, RB> {
    /// Passes an unread request on.
    pub(crate) fn passing(future: F, guard: Guard) -> Self {
        Self {
            state: State::Calling(future),
            inner: None,
            original: None,
            blamed: None,
            guard,
        }
    }

    /// Reads the request and then calls `ready`.
    pub(crate) fn reading(ready: S, request: Request<B>, guard: Guard) -> Self {
        Self {
            state: State::Reading(ReadRequest::new(request)),
            inner: Some(ready),
            original: None,
            blamed: None,
            guard,
        }
    }
}

impl<S, B, RB> Future for ResponseFuture<S, S::Future, B, RB>
where
    S: Service<Request<B>, Response = Response<RB>>,
    B: Body + From<Bytes>,
    RB: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<RB>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Reading(read) => match ready!(read.poll_read(cx)) {
                    Ok((mut parts, mut body, facts)) => {
                        let entry = this.guard.entry();
                        entry.read(&facts);
                        if entry.settings().inject && inject::wanted(&parts, &facts) {
                            let targets = &entry.settings().targets;
                            let target = targets.target(&parts, &facts);
                            // It may take a second request to find out what a target takes.
                            let known = targets.takes(target);
                            let ask = known.unwrap_or(entry.may_send(2));
                            let original = ask.then(|| parts.clone());
                            let asking = ask.then(|| inject::ask(&mut parts, &body, &facts));
                            if let (Some(original), Some(asking)) = (original, asking.flatten()) {
                                *this.original = Some(Box::new(Original {
                                    parts: original,
                                    body,
                                    target,
                                    takes: known == Some(true),
                                }));
                                body = asking;
                            }
                        }
                        entry.sending();
                        let request = Request::from_parts(parts, B::from(body));
                        let inner = this.inner.as_mut().expect("the ready service");
                        let future = inner.call(request);
                        this.state.set(State::Calling(future));
                    }
                    Err(_head) => {
                        this.state.set(State::Done);
                        *this.inner = None;
                        let endpoint = this.guard.entry().endpoint();
                        let response = Refused::new(Reason::BodyFailed)
                            .into_response(endpoint, |document| {
                                Kind::Looked(Replay::document(document))
                            });
                        return Poll::Ready(Ok(answer(this.guard, response, false)));
                    }
                },
                StateProj::Calling(future) => match ready!(future.poll(cx)) {
                    Ok(response) if this.original.is_some() && suspicious(response.status()) => {
                        let patience = this.guard.entry().call().time_left(Instant::now());
                        this.state
                            .set(State::Looking(Look::new(response, patience)));
                    }
                    Ok(response) => {
                        this.state.set(State::Done);
                        *this.inner = None;
                        let original = this.original.take();
                        if response.status().is_success() {
                            let targets = &this.guard.entry().settings().targets;
                            match (this.blamed.take(), &original) {
                                (Some(target), _) => targets.learn(target, false),
                                (None, Some(o)) if !o.takes => targets.learn(o.target, true),
                                _ => {}
                            }
                        }
                        let asked = original.is_some();
                        let response = response.map(Kind::Plain);
                        return Poll::Ready(Ok(answer(this.guard, response, asked)));
                    }
                    Err(error) => {
                        this.state.set(State::Done);
                        *this.inner = None;
                        this.guard.failed();
                        return Poll::Ready(Err(error));
                    }
                },
                StateProj::Looking(look) => {
                    let (response, blamed) = ready!(look.poll_look(cx));
                    let again = blamed && this.guard.entry().may_send(1);
                    if again {
                        // The answer goes before the next request: it may hold a charge.
                        drop(response);
                        this.state.set(State::Readying);
                    } else {
                        this.state.set(State::Done);
                        *this.inner = None;
                        *this.original = None;
                        let response = response.map(Kind::Looked);
                        return Poll::Ready(Ok(answer(this.guard, response, false)));
                    }
                }
                StateProj::Readying => {
                    let inner = this.inner.as_mut().expect("the service that was called");
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        this.state.set(State::Done);
                        *this.inner = None;
                        this.guard.failed();
                        return Poll::Ready(Err(error));
                    }
                    let original = this.original.take().expect("the request as it came");
                    *this.blamed = Some(original.target);
                    this.guard.entry().sending();
                    let request = Request::from_parts(original.parts, B::from(original.body));
                    let future = inner.call(request);
                    this.state.set(State::Calling(future));
                }
                StateProj::Done => panic!("polled again after it was ready"),
            }
        }
    }
}

/// Makes the caller's answer of an inner one; `asked`: for usage, in the caller's place.
fn answer<RB: Body<Data = Bytes>>(
    guard: &mut Guard,
    mut response: Response<Kind<RB>>,
    asked: bool,
) -> Response<ResponseBody<RB>> {
    let entry = guard.entry();
    let tapping = entry.head(&mut response, asked);
    let cut = entry
        .tap()
        .filter(|_| asked && response.status().is_success())
        .map(|tap| Box::new(Cut::new(tap.clone())));
    if cut.is_some() {
        // What it states is longer than what the caller gets.
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let watch = guard.watch(tapping);
    response.map(|body| ResponseBody::new(body, watch, cut))
}

impl<S, F, B, RB> fmt::Debug for ResponseFuture<S, F, B, RB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field(
                "state",
                &match &self.state {
                    State::Reading(_) => "reading",
                    State::Calling(_) => "calling",
                    State::Looking(_) => "looking",
                    State::Readying => "readying",
                    State::Done => "done",
                },
            )
            .finish_non_exhaustive()
    }
}
