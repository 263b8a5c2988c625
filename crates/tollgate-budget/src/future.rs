//! The response future: read, count, admit, make ready, call.
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tollgate_core::{
    body::{ReadRequest, Tap, readable},
    call::{Call, Queued},
    classify::Classify,
    clock,
    extensions::{NotSent, Reason, Refused},
    principal::Principal,
    wire::{
        limits,
        outcome::{Outcome, Units, Verdict, judge},
        prompt::{Endpoint, Facts, endpoint},
        retry_after,
    },
};
use tower_service::Service;

use crate::{
    body::{ResponseBody, Settling},
    charging::{ChargeProfile, Charging, Cost, DropPolicy},
    count::Count,
    learned::Learned,
    scope::{Asking, Keys},
    store::{Ask, BudgetStore, Charge, Observation, Refusal, Reservation, Settlement},
    used::{self, Bill},
};

/// The response future of [`TokenBudget`](crate::TokenBudget).
///
/// # Cancel safety
///
/// Dropping it before the request is sent gives everything back; dropping it after that keeps the charge, for the
/// provider may have taken it.
#[pin_project]
pub struct ResponseFuture<S, F, St, A, C, B> {
    #[pin]
    state: State<F, A, B>,
    inner: S,
    store: St,
    classify: C,
    asked: Asked,
}

/// What is known of the request once it is on its way.
struct Asked {
    call: Call,
    endpoint: Endpoint,
    facts: Option<Facts>,
    profile: ChargeProfile,
    on_drop: DropPolicy,
    cost: Cost,
    bill: Bill,
    /// Where answers are noted, if anything is learned from them.
    learned: Option<Arc<Learned>>,
}

#[pin_project(project = StateProj)]
enum State<F, A, B> {
    /// The body is read, to see what it will cost.
    Reading {
        #[pin]
        read: ReadRequest<B>,
    },
    /// The prompt's tokens are counted, perhaps on another thread.
    Counting {
        count: Count,
        charging: Charging,
        bytes: u64,
        request: Option<Request<B>>,
    },
    /// Waiting for the budget.
    Admitting {
        #[pin]
        acquire: A,
        request: Option<Request<B>>,
        /// Once it has to wait.
        queued: Option<Queued>,
    },
    /// Admitted; waiting for the inner service.
    Readying {
        held: Option<(Reservation, Request<B>)>,
    },
    /// Sent.
    Calling {
        // Before the charge: what is inside ends first.
        #[pin]
        future: F,
        charge: Option<Charge>,
        attempt: Option<UnderWay>,
    },
    Done,
}

/// Ends the attempt that was begun here in the call's ledger, however the future ends.
struct UnderWay(Call);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.end_attempt();
    }
}

impl<S, F, St, A, C, B> ResponseFuture<S, F, St, A, C, B>
where
    St: BudgetStore<Acquire = A>,
    B: Body,
{
    pub(crate) fn new(
        inner: S,
        store: St,
        classify: C,
        mut request: Request<B>,
        read_cap: u64,
    ) -> Self {
        let call = Call::of(request.extensions_mut());
        let mut asked = Asked {
            call,
            endpoint: endpoint(request.method(), request.uri()),
            facts: None,
            profile: ChargeProfile::sum(),
            on_drop: DropPolicy::default(),
            cost: Cost::request(),
            bill: Bill::default(),
            learned: None,
        };
        let state = if readable(&request, read_cap) {
            State::Reading {
                read: ReadRequest::new(request),
            }
        } else {
            // Not to be read: it counts as a request, and its body passes untouched.
            let bytes = request.body().size_hint().lower();
            let ask = asked.ask(&store.charging(), bytes, None);
            let acquire = asked.acquire(&store, ask, &request);
            State::Admitting {
                acquire,
                request: Some(request),
                queued: None,
            }
        };
        Self {
            state,
            inner,
            store,
            classify,
            asked,
        }
    }
}

impl Asked {
    fn ask(&mut self, charging: &Charging, bytes: u64, exact: Option<u64>) -> Ask {
        let facts = self.facts.as_deref();
        if let Some(facts) = facts {
            self.endpoint = facts.endpoint;
            let input;
            (self.profile, self.cost, input) = charging.rule(facts, exact);
            self.learned = charging.learned().cloned();
            let worst = Cost { input, ..self.cost };
            (self.cost.used, self.bill) = charging.tariff.reserve(facts, &worst);
            if facts.endpoint == Endpoint::Images {
                self.cost.images = facts.answers.max(1).into();
            }
        } else {
            self.cost.used = used::unread(self.endpoint);
            self.cost.images = u64::from(self.endpoint == Endpoint::Images);
        }
        self.on_drop = charging.drop_policy();
        let mut ask = Ask::new(self.cost).priority(self.call.priority());
        ask.model = facts.and_then(|facts| facts.model.clone());
        ask.principal = self
            .call
            .principal()
            .or_else(|| facts.and_then(|facts| facts.user.as_deref().map(Principal::of)));
        ask.deadline = self.call.deadline();
        ask.max_wait = self.call.max_queue_wait();
        ask.bytes = bytes;
        ask.settles = self.profile.is_settling();
        ask
    }

    fn acquire<St: BudgetStore, B>(
        &self,
        store: &St,
        ask: Ask,
        request: &Request<B>,
    ) -> St::Acquire {
        let mut keys = Keys {
            tenant: self.call.tenant(),
            tag: self.call.tag(),
            ..Keys::default()
        };
        let asking = Asking {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
            facts: self.facts.as_deref(),
            call: &self.call,
        };
        store.look(&mut keys, &asking);
        store.acquire(ask.keys(keys))
    }

    fn refuse<RB>(&self, refused: Refused) -> Response<ResponseBody<RB>> {
        let mut response = refused.into_response(self.endpoint, ResponseBody::refused);
        response.extensions_mut().insert(self.call.clone());
        response
    }

    /// The answer's head has come: corrects the books by it, and settles or lets the body settle.
    fn answer<RB: Body<Data = Bytes>>(
        &self,
        mut response: Response<RB>,
        charge: Charge,
    ) -> Response<ResponseBody<RB>> {
        if response.extensions().get::<Call>().is_none() {
            response.extensions_mut().insert(self.call.clone());
        }
        // Refused by a budget further in, or answered nearer than the provider: it has not seen it.
        if Refused::of(&response).is_some() || NotSent::is_said_of(&response) {
            charge.cancel();
            return response.map(ResponseBody::passing);
        }
        let status = response.status();
        let wall = clock::wall();
        let verdict = match response.extensions().get::<Verdict>() {
            Some(verdict) if verdict.status == status => verdict.clone(),
            _ => judge(status, response.headers(), None, wall),
        };
        let limits = limits::from_headers(response.headers(), wall);
        let refusal = match &verdict.outcome {
            Outcome::RateLimited {
                what,
                retry_after,
                never_fits: false,
            } => Some(Refusal {
                what: what.as_ref(),
                wait: *retry_after,
            }),
            _ => None,
        };
        charge.observe(
            &Observation::new(&limits)
                .processing(processing(response.headers()))
                .refusal(refusal),
        );
        if refusal.is_some() {
            if let Some(shut_for) = charge.gated() {
                self.call.hold_gate(shut_for);
            }
        }
        match verdict.outcome.advice().units {
            Units::Settle => {}
            Units::TokensBack => {
                charge.tokens_back();
                return response.map(ResponseBody::passing);
            }
            Units::AllBack => {
                charge.cancel();
                return response.map(ResponseBody::passing);
            }
            _ => {
                charge.end(Settlement::Keep);
                return response.map(ResponseBody::passing);
            }
        }
        let tapped = Tap::of(&response);
        let read = self
            .facts
            .as_ref()
            .is_some_and(|facts| facts.endpoint.generates() && !facts.background);
        if !status.is_success() || !(read || tapped.is_some()) {
            charge.end(Settlement::Keep);
            return response.map(ResponseBody::passing);
        }
        let head_wait = retry_after::from_headers(response.headers(), wall).map(|r| r.wait);
        let (tap, tapping) = match tapped {
            Some(tap) => (tap, None),
            None => {
                let tap = Tap::new(self.endpoint, status, response.headers());
                response.extensions_mut().insert(tap.clone());
                let tapping = tap.tapping();
                (tap, Some(tapping))
            }
        };
        let settling = Settling {
            charge: Some(charge),
            tap,
            tapping,
            profile: self.profile,
            on_drop: self.on_drop,
            estimate: self.cost,
            bill: self.bill.clone(),
            learned: self.learned.clone().zip(self.facts.clone()),
            head_wait,
        };
        response.map(|body| ResponseBody::settling(body, settling))
    }
}

/// How long the provider says that it worked; nonsense is no statement.
fn processing(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("openai-processing-ms")?.to_str().ok()?;
    let millis: f64 = text.trim().parse().ok()?;
    Duration::try_from_secs_f64(millis / 1e3).ok()
}

impl<S, St, C, B, RB> Future for ResponseFuture<S, S::Future, St, St::Acquire, C, B>
where
    S: Service<Request<B>, Response = Response<RB>>,
    St: BudgetStore,
    C: Classify<S::Error>,
    B: Body + From<Bytes>,
    RB: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<RB>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Reading { read } => match ready!(read.poll_read(cx)) {
                    Ok((mut parts, bytes, facts)) => {
                        let charging = this.store.charging();
                        let (bytes, facts) = charging.cap(&mut parts, bytes, facts);
                        let count = Count::of(&charging, &facts);
                        this.asked.facts = Some(facts);
                        this.state.set(State::Counting {
                            count,
                            charging,
                            bytes: bytes.len() as u64,
                            request: Some(Request::from_parts(parts, B::from(bytes))),
                        });
                    }
                    Err(_) => {
                        this.state.set(State::Done);
                        let refused = Refused::new(Reason::BodyFailed);
                        return Poll::Ready(Ok(this.asked.refuse(refused)));
                    }
                },
                StateProj::Counting {
                    count,
                    charging,
                    bytes,
                    request,
                } => {
                    let exact = ready!(count.poll(cx));
                    let ask = this.asked.ask(charging, *bytes, exact);
                    let request = request.take().expect("request taken once");
                    let acquire = this.asked.acquire(this.store, ask, &request);
                    this.state.set(State::Admitting {
                        acquire,
                        request: Some(request),
                        queued: None,
                    });
                }
                StateProj::Admitting {
                    acquire,
                    request,
                    queued,
                } => match acquire.poll(cx) {
                    Poll::Pending => {
                        queued.get_or_insert_with(|| this.asked.call.queue());
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(reservation)) => {
                        let request = request.take().expect("request taken once");
                        let held = Some((reservation, request));
                        this.state.set(State::Readying { held });
                    }
                    Poll::Ready(Err(refused)) => {
                        this.state.set(State::Done);
                        return Poll::Ready(Ok(this.asked.refuse(refused)));
                    }
                },
                StateProj::Readying { held } => {
                    if let Err(error) = ready!(this.inner.poll_ready(cx)) {
                        // The reservation goes with the state, and gives all back.
                        this.state.set(State::Done);
                        return Poll::Ready(Err(error));
                    }
                    let (reservation, request) = held.take().expect("held until it is sent");
                    let call = &this.asked.call;
                    let attempt = call.begin_sent().then(|| UnderWay(call.clone()));
                    let charge = Some(reservation.send());
                    let future = this.inner.call(request);
                    this.state.set(State::Calling {
                        future,
                        charge,
                        attempt,
                    });
                }
                StateProj::Calling { future, charge, .. } => {
                    let answer = ready!(future.poll(cx));
                    let charge = charge.take().expect("charged until it is answered");
                    let result = match answer {
                        Ok(response) => Ok(this.asked.answer(response, charge)),
                        Err(error) => {
                            if this.classify.classify(&error).maybe_sent() {
                                charge.end(Settlement::Keep);
                            } else {
                                charge.cancel();
                            }
                            Err(error)
                        }
                    };
                    this.state.set(State::Done);
                    return Poll::Ready(result);
                }
                StateProj::Done => panic!("polled again after it was ready"),
            }
        }
    }
}

impl<S, F, St, A, C, B> fmt::Debug for ResponseFuture<S, F, St, A, C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Reading { .. } => "Reading",
            State::Counting { .. } => "Counting",
            State::Admitting { .. } => "Admitting",
            State::Readying { .. } => "Readying",
            State::Calling { .. } => "Calling",
            State::Done => "Done",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
