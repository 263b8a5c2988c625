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
use tollgate_core::{
    body::{ReadRequest, Replay},
    extensions::{Reason, Refused},
    wire::prompt::Facts,
};
use tower_service::Service;

use crate::{
    ResponseBody,
    body::Kind,
    cut::Cut,
    entry::Guard,
    inject,
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
    guard: Guard,
}

struct Original {
    parts: Parts,
    body: Bytes,
    facts: Facts,
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

impl<S, F, B: Body<Data: Into<Bytes>>, RB> ResponseFuture<S, F, B, RB> {
    /// Passes an unread request on.
    pub(crate) fn passing(future: F, guard: Guard) -> Self {
        Self {
            state: State::Calling(future),
            inner: None,
            original: None,
            guard,
        }
    }

    /// Reads the request and then calls `ready`.
    pub(crate) fn reading(ready: S, request: Request<B>, guard: Guard) -> Self {
        Self {
            state: State::Reading(ReadRequest::new(request)),
            inner: Some(ready),
            original: None,
            guard,
        }
    }
}

impl<S, B, RB> Future for ResponseFuture<S, S::Future, B, RB>
where
    S: Service<Request<B>, Response = Response<RB>>,
    B: Body<Data: Into<Bytes>> + From<Bytes>,
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
                        let settings = entry.settings();
                        if settings.inject
                            && inject::wanted(&parts, &facts)
                            && !settings.refusals.contains(&parts, &facts)
                        {
                            let original = parts.clone();
                            if let Some(asking) = inject::ask(&mut parts, &body, &facts) {
                                *this.original = Some(Box::new(Original {
                                    parts: original,
                                    body,
                                    facts,
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
                        this.state.set(State::Looking(Look::new(response)));
                    }
                    Ok(response) => {
                        this.state.set(State::Done);
                        *this.inner = None;
                        let asked = this.original.take().is_some();
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
                    let mut again = false;
                    if let Some(original) = this.original.as_ref().filter(|_| blamed) {
                        let entry = this.guard.entry();
                        entry
                            .settings()
                            .refusals
                            .insert(&original.parts, &original.facts);
                        again = entry.call().attempts_left(u32::MAX) > 0;
                    }
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
