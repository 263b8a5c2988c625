//! The response future: reads, calls, looks, waits, and round again.
use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tokio::time::{Sleep, sleep};
use tollgate_core::{
    body::{Patience, Peek, ReadRequest, Replay},
    call::WaitReason,
    classify::Classify,
    clock,
    extensions::{GaveUp, GaveUpReason, Reason, Refused, ServedBy, TimedOut},
    wire::{
        outcome::{SameModel, Verdict, judge},
        prompt::{Endpoint, endpoint},
    },
};
use tower_service::Service;

use crate::{decide::Decision, layer::Shared, run::Run, under_way::UnderWay};

/// The future of [`RetryOnRateLimit`](crate::RetryOnRateLimit): the first answer that is worth
/// handing on.
///
/// # Cancel safety
///
/// Dropping it ends the call and leaves nothing behind.
#[pin_project]
pub struct ResponseFuture<S, F, C, B, RB: Body> {
    // Before the run: what is held of an answer goes before the ledger is closed.
    #[pin]
    state: State<F, B, RB>,
    run: Option<Run<S, C>>,
}

#[pin_project(project = StateProj)]
enum State<F, B, RB: Body> {
    Reading {
        #[pin]
        read: ReadRequest<B>,
    },
    Calling {
        #[pin]
        future: F,
        patience: Option<Box<Patience>>,
    },
    Peeking {
        #[pin]
        peek: Peek<RB>,
    },
    Sleeping {
        #[pin]
        sleep: Sleep,
        waited: (Duration, WaitReason),
    },
    Readying {
        waited: (Duration, WaitReason),
        patience: Option<Box<Patience>>,
    },
    /// A request that cannot be sent twice.
    Passing {
        #[pin]
        future: F,
        known: Option<Known>,
    },
    Done,
}

/// What is known of a request that passes unread to an endpoint that we know.
struct Known {
    endpoint: Endpoint,
    attempt: UnderWay,
    patience: Option<Box<Patience>>,
    shared: Arc<Shared>,
}

impl<S, F, C, B: Body, RB: Body> ResponseFuture<S, F, C, B, RB> {
    /// Reads the request with a service that is ready.
    pub(crate) fn reading(request: Request<B>, run: Run<S, C>) -> Self {
        let read = ReadRequest::new(request);
        Self {
            state: State::Reading { read },
            run: Some(run),
        }
    }

    /// Sends the request on at once and unread.
    pub(crate) fn passing(
        shared: &Arc<Shared>,
        request: Request<B>,
        call: impl FnOnce(Request<B>) -> F,
    ) -> Self {
        shared.stats.attempt();
        let (mut parts, body) = request.into_parts();
        let known = match endpoint(&parts.method, &parts.uri) {
            // Not ours to touch, not even its extensions.
            Endpoint::Other => None,
            endpoint => {
                let mut attempt = UnderWay::of(&mut parts);
                attempt.begin(shared.policy.attempts);
                let patience = Patience::new(&shared.policy.timeouts, &attempt.call, false);
                Some(Known {
                    endpoint,
                    attempt,
                    patience,
                    shared: shared.clone(),
                })
            }
        };
        let future = call(Request::from_parts(parts, body));
        Self {
            state: State::Passing { future, known },
            run: None,
        }
    }
}

impl<S, C, B, RB> Future for ResponseFuture<S, S::Future, C, B, RB>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    C: Classify<S::Error>,
    B: Body + From<Bytes>,
    RB: Body<Data = Bytes> + Unpin,
{
    type Output = Result<Response<Replay<RB>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let done = loop {
            let next = match this.state.as_mut().project() {
                StateProj::Reading { read } => match ready!(read.poll_read(cx)) {
                    Err(parts) => {
                        let endpoint = endpoint(&parts.method, &parts.uri);
                        let refused = Refused::new(Reason::BodyFailed);
                        break Ok(refused.into_response(endpoint, Replay::document));
                    }
                    Ok(request) => {
                        let run = this.run.as_mut().expect("a run until it is done");
                        run.take(request);
                        match run.held(Duration::ZERO) {
                            Ok(None) => {
                                let request = run.next(None);
                                // It came ready from `RetryOnRateLimit::call`.
                                let future = run.service.call(request);
                                let patience = run.patience();
                                State::Calling { future, patience }
                            }
                            Ok(Some(wait)) => {
                                run.unready();
                                sleeping(wait, WaitReason::Gate)
                            }
                            Err(refused) => break Ok(run.refuse(refused)),
                        }
                    }
                },
                StateProj::Calling { future, patience } => {
                    let run = this.run.as_mut().expect("a run until it is done");
                    match future.poll(cx) {
                        Poll::Ready(Ok(response)) => {
                            run.answered(response.status());
                            let peek = run.peek(response, patience.take());
                            State::Peeking { peek }
                        }
                        Poll::Ready(Err(error)) => {
                            let verdict = run.fault(&error);
                            match run.decide(&verdict, None) {
                                Decision::Retry { wait, reason, .. } => sleeping(wait, reason),
                                _ => break Err(error),
                            }
                        }
                        Poll::Pending => {
                            let Some(patience) = patience else {
                                return Poll::Pending;
                            };
                            let timed_out = ready!(patience.poll_lost(cx));
                            let (response, verdict) = run.lost(timed_out);
                            // The attempt goes before anything else is done: it holds a connection.
                            this.state.as_mut().set(State::Done);
                            match conclude(run, response, &verdict) {
                                ControlFlow::Continue(next) => next,
                                ControlFlow::Break(response) => break Ok(response),
                            }
                        }
                    }
                }
                StateProj::Peeking { peek } => {
                    let run = this.run.as_mut().expect("a run until it is done");
                    let (response, verdict) = ready!(peek.poll(cx));
                    match conclude(run, response, &verdict) {
                        ControlFlow::Continue(next) => next,
                        ControlFlow::Break(response) => break Ok(response),
                    }
                }
                StateProj::Sleeping { mut sleep, waited } => {
                    ready!(sleep.as_mut().poll(cx));
                    let run = this.run.as_mut().expect("a run until it is done");
                    match run.held(waited.0) {
                        Ok(None) => State::Readying {
                            waited: *waited,
                            patience: run.patience_to_begin(),
                        },
                        // Others were refused in the meantime.
                        Ok(Some(more)) => {
                            waited.0 = waited.0.saturating_add(more);
                            sleep.reset(tokio::time::Instant::now() + more);
                            continue;
                        }
                        Err(refused) => break Ok(run.refuse(refused)),
                    }
                }
                StateProj::Readying { waited, patience } => {
                    let run = this.run.as_mut().expect("a run until it is done");
                    match run.service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {
                            let request = run.next(Some(*waited));
                            let future = run.service.call(request);
                            let patience = run.patience();
                            State::Calling { future, patience }
                        }
                        Poll::Ready(Err(error)) => break Err(error),
                        Poll::Pending => {
                            let Some(patience) = patience else {
                                return Poll::Pending;
                            };
                            let timed_out = ready!(patience.poll_lost(cx));
                            let (response, verdict) = run.lost(timed_out);
                            match conclude(run, response, &verdict) {
                                ControlFlow::Continue(next) => next,
                                ControlFlow::Break(response) => break Ok(response),
                            }
                        }
                    }
                }
                StateProj::Passing { future, known } => match future.poll(cx) {
                    Poll::Ready(Ok(response)) => {
                        break Ok(passed(response.map(Replay::passing), known));
                    }
                    Poll::Ready(Err(error)) => break Err(error),
                    Poll::Pending => {
                        let waiting = known.as_mut().and_then(|known| {
                            let patience = known.patience.as_mut()?;
                            Some((known.endpoint, patience))
                        });
                        let Some((endpoint, patience)) = waiting else {
                            return Poll::Pending;
                        };
                        let timed_out = ready!(patience.poll_lost(cx));
                        let response = timed_out.into_response(endpoint, Replay::document);
                        break Ok(passed(response, known));
                    }
                },
                StateProj::Done => panic!("polled again after it was ready"),
            };
            this.state.set(next);
        };
        this.state.set(State::Done);
        *this.run = None;
        Poll::Ready(done)
    }
}

/// Takes an attempt's answer: the next state, or the answer to hand on.
fn conclude<S, F, C, B, RB: Body>(
    run: &mut Run<S, C>,
    mut response: Response<Replay<RB>>,
    verdict: &Verdict,
) -> ControlFlow<Response<Replay<RB>>, State<F, B, RB>> {
    if Refused::of(&response).is_some() {
        run.refused(verdict);
        run.sign(&mut response, None);
        return ControlFlow::Break(response);
    }
    run.elsewhere = ServedBy::of(&response).is_some_and(|by| by.position > 0);
    let gave_up = match run.decide(verdict, Some(response.headers())) {
        // The response goes before the sleep: it holds a connection and a charge.
        Decision::Retry { wait, reason, .. } => {
            return ControlFlow::Continue(sleeping(wait, reason));
        }
        Decision::GiveUp(gave_up) => Some(gave_up),
        Decision::Served => None,
    };
    run.sign(&mut response, gave_up);
    ControlFlow::Break(response)
}

fn sleeping<F, B, RB: Body>(wait: Duration, reason: WaitReason) -> State<F, B, RB> {
    State::Sleeping {
        sleep: sleep(wait),
        waited: (wait, reason),
    }
}

/// An answer to a request that could not be sent twice, as it came; if it is one that would have
/// been tried again, it says why it was not.
fn passed<RB: Body>(
    mut response: Response<Replay<RB>>,
    known: &mut Option<Known>,
) -> Response<Replay<RB>> {
    let Some(known) = known else {
        return response;
    };
    let status = response.status();
    let verdict = match TimedOut::of(&response) {
        Some(timed_out) => Verdict::timeout(timed_out.what),
        None => judge(status, response.headers(), None, clock::wall()),
    };
    if let Some(mut patience) = known.patience.take() {
        patience.head();
        patience.handed_on();
        response = response.map(|body| body.with_patience(Some(patience)));
    }
    known.attempt.answered(status);
    known.attempt.judged(&verdict, None);
    known.shared.stats.judged(&verdict.outcome, None);
    let call = known.attempt.call.clone();
    let ours = Refused::of(&response).is_some();
    let again = !matches!(
        known.shared.policy.overrides.advice(&verdict).same_model,
        SameModel::Done | SameModel::Never
    );
    let extensions = response.extensions_mut();
    extensions.insert(call);
    if again && !ours {
        let mut gave_up = GaveUp::new(GaveUpReason::NotReplayable);
        gave_up.wait = verdict.retry_after.map(|stated| stated.wait);
        extensions.insert(gave_up);
        known.shared.stats.gave_up(gave_up.reason);
    }
    response
}

impl<S, F, C, B, RB: Body> fmt::Debug for ResponseFuture<S, F, C, B, RB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Reading { .. } => "reading",
            State::Calling { .. } => "calling",
            State::Peeking { .. } => "peeking",
            State::Sleeping { .. } => "sleeping",
            State::Readying { .. } => "readying",
            State::Passing { .. } => "passing",
            State::Done => "done",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
