//! One request on its way through its attempts: all but the waiting.
use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header::Entry,
    request::Parts,
};
use http_body::Body;
use tokio::time::Instant;
use tollgate_core::{
    body::{Patience, Peek, Replay, WholeRequest},
    call::{Call, WaitReason},
    classify::Classify,
    clock,
    extensions::{GaveUp, Refused, TimedOut},
    timeouts::Timeouts,
    wire::{
        estimate::Estimate,
        outcome::{Outcome, Units, Verdict},
        prompt::{Facts, RequestFacts},
    },
};

use crate::{
    GaveUpReason,
    decide::{Decision, Situation, decide},
    layer::Shared,
    under_way::UnderWay,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The service, and the request once it has been read.
pub(crate) struct Run<S, C> {
    pub(crate) service: S,
    classify: C,
    pub(crate) shared: Arc<Shared>,
    pub(crate) request: Option<Replayable>,
    pub(crate) made: u32,
    asked: bool,
    /// It has a place at the gate.
    pub(crate) placed: bool,
    /// When the latest attempt began.
    pub(crate) sent: Instant,
    /// Its answer came from another model than the one that was asked for.
    pub(crate) elsewhere: bool,
}

pub(crate) struct Replayable {
    pub(crate) parts: Parts,
    body: Bytes,
    pub(crate) facts: Facts,
    attempt: UnderWay,
}

impl<S, C> Run<S, C> {
    pub(crate) fn new(service: S, classify: C, shared: Arc<Shared>) -> Self {
        Self {
            service,
            classify,
            shared,
            request: None,
            made: 0,
            asked: false,
            placed: false,
            sent: Instant::now(),
            elsewhere: false,
        }
    }

    /// Takes the request that was read.
    pub(crate) fn take(&mut self, (mut parts, body, facts): WholeRequest) {
        if self.shared.policy.idempotency_key {
            if let Entry::Vacant(entry) = parts.headers.entry(IDEMPOTENCY_KEY) {
                entry.insert(mint());
            }
        }
        let attempt = UnderWay::of(&mut parts);
        if let Some(total) = self.shared.policy.timeouts.total_time() {
            // Waits before the first attempt count as well.
            attempt.call.end_within(total);
        }
        self.request = Some(Replayable {
            parts,
            body,
            facts,
            attempt,
        });
    }

    /// Begins an attempt: the request as it is sent.
    pub(crate) fn next<B: From<Bytes>>(
        &mut self,
        waited: Option<(Duration, WaitReason)>,
    ) -> Request<B> {
        let request = self.request.as_mut().expect("the request was read");
        self.made += 1;
        self.sent = Instant::now();
        self.shared.stats.attempt();
        match waited {
            Some((waited, _)) if self.made > 1 => self.shared.stats.retry(waited),
            Some((waited, _)) => self.shared.stats.held(waited),
            None => {}
        }
        request.attempt.begin(self.shared.policy.attempts);
        let model = &request.facts.model;
        request.attempt.call.note(|attempt| {
            attempt.waited = attempt.waited.or(waited);
            if attempt.model.is_none() {
                attempt.model.clone_from(model);
            }
        });
        Request::from_parts(request.parts.clone(), B::from(request.body.clone()))
    }

    /// How long the attempt that has just begun is waited for.
    pub(crate) fn patience(&self) -> Option<Box<Patience>> {
        let request = self.request.as_ref().expect("the request was read");
        let timeouts = &self.shared.policy.timeouts;
        Patience::new(timeouts, &request.attempt.call, request.facts.stream)
    }

    /// How long the inner service may take to become ready for another attempt.
    pub(crate) fn patience_to_begin(&self) -> Option<Box<Patience>> {
        let request = self.request.as_ref().expect("the request was read");
        Patience::new(&Timeouts::new(), &request.attempt.call, false)
    }

    /// The answer that stands for the one that did not come in time.
    pub(crate) fn lost<B: Body>(&self, timed_out: TimedOut) -> (Response<Replay<B>>, Verdict) {
        let verdict = Verdict::timeout(timed_out.what);
        let endpoint = self.facts().endpoint;
        let mut response = timed_out.into_response(endpoint, Replay::document);
        response.extensions_mut().insert(verdict.clone());
        (response, verdict)
    }

    /// Looks into the attempt's answer.
    pub(crate) fn peek<B: Body<Data = Bytes> + Unpin>(
        &self,
        response: Response<B>,
        patience: Option<Box<Patience>>,
    ) -> Peek<B> {
        let request = self.request.as_ref().expect("the request was read");
        let policy = &self.shared.policy.peek;
        let peek = if request.attempt.call.is_buffered() && !policy.hold_streams {
            let mut policy = policy.clone();
            policy.hold_streams = true;
            Peek::new(response, Some(&request.facts), &policy)
        } else {
            Peek::new(response, Some(&request.facts), policy)
        };
        peek.patience(patience)
    }

    /// What was asked for.
    pub(crate) fn facts(&self) -> &Facts {
        &self.request.as_ref().expect("the request was read").facts
    }

    /// The head of an answer has come.
    pub(crate) fn answered(&self, status: StatusCode) {
        let request = self.request.as_ref().expect("the request was read");
        request.attempt.answered(status);
        // What is looked into and held here has come all the same.
        request.attempt.call.heard();
    }

    /// What a transport error means.
    pub(crate) fn fault<E>(&self, error: &E) -> Verdict
    where
        C: Classify<E>,
    {
        self.classify.classify(error).into()
    }

    /// Ends the attempt and decides what comes next.
    pub(crate) fn decide(&mut self, verdict: &Verdict, headers: Option<&HeaderMap>) -> Decision {
        let policy = &self.shared.policy;
        let request = self.request.as_mut().expect("the request was read");
        let at_risk = at_risk(&verdict.outcome, &request.facts);
        request.attempt.judged(verdict, at_risk);
        self.shared.stats.judged(&verdict.outcome, at_risk);
        let call = &request.attempt.call;
        let now = Instant::now();
        let decision = decide(
            policy,
            &Situation {
                verdict,
                headers,
                facts: &request.facts,
                made: self.made,
                most: call.told_max_attempts().unwrap_or(policy.attempts),
                left: call.attempts_left(policy.attempts),
                asked_before: self.asked,
                time_left: call.time_left(now),
                elsewhere: call.max_queue_wait(),
                today: clock::wall(),
            },
        );
        let decision = self.pace(decision, verdict, headers, now);
        let id = self.call().id();
        match &decision {
            Decision::Served => {}
            Decision::Retry {
                wait,
                reason,
                asked,
            } => {
                self.asked |= asked;
                tracing::debug!(
                    target: "tollgate::retry",
                    call = id,
                    attempt = self.made,
                    outcome = verdict.outcome.as_str(),
                    wait = ?wait,
                    reason = ?reason,
                    "trying again after a wait",
                );
            }
            Decision::GiveUp(gave_up) => {
                self.shared.stats.gave_up(gave_up.reason);
                log_gave_up(id, self.made, verdict, gave_up);
            }
        }
        decision
    }

    /// The answer to a first attempt that was not sent.
    pub(crate) fn refuse<B: Body>(&self, refused: Refused) -> Response<Replay<B>> {
        let endpoint = self.facts().endpoint;
        let mut response = refused.into_response(endpoint, Replay::document);
        self.sign(&mut response, None);
        response
    }

    /// Lets go of a readiness that will not be used for a while.
    pub(crate) fn unready(&mut self)
    where
        S: Clone,
    {
        self.service = self.service.clone();
    }

    pub(crate) fn call(&self) -> &Call {
        let request = self.request.as_ref().expect("the request was read");
        &request.attempt.call
    }

    /// Ends the attempt with a refusal of our own, which is not ours to judge.
    pub(crate) fn refused(&mut self, verdict: &Verdict) {
        let request = self.request.as_mut().expect("the request was read");
        request.attempt.judged(verdict, None);
    }

    /// Leaves in the response what the caller may want to know.
    pub(crate) fn sign<B>(&self, response: &mut Response<B>, gave_up: Option<GaveUp>) {
        let request = self.request.as_ref().expect("the request was read");
        let status = response.status().as_u16();
        let enough = gave_up.is_some_and(|gave_up| match gave_up.reason {
            GaveUpReason::AttemptsUsedUp
            | GaveUpReason::RetryBudgetEmpty
            | GaveUpReason::MaybeServed => true,
            // A quota that is used up looks like a rate limit to who knows only the status.
            GaveUpReason::Pointless => matches!(status, 408 | 409 | 429) || status >= 500,
            _ => false,
        });
        if enough && self.shared.policy.should_retry {
            // Or a client outside that retries by itself would multiply them.
            let no = HeaderValue::from_static("false");
            response.headers_mut().insert("x-should-retry", no);
        }
        let extensions = response.extensions_mut();
        extensions.insert(request.attempt.call.clone());
        match gave_up {
            Some(gave_up) => extensions.insert(gave_up),
            // One from further in has been overtaken.
            None => extensions.remove::<GaveUp>(),
        };
    }
}

/// The tokens of a failed attempt that the provider may have charged.
fn at_risk(outcome: &Outcome, facts: &RequestFacts) -> Option<u64> {
    (outcome.advice().units == Units::Keep).then(|| Estimate::of(facts).total())
}

fn log_gave_up(call: u64, attempts: u32, verdict: &Verdict, gave_up: &GaveUp) {
    let code = gave_up.reason.code();
    let (outcome, wait, limit) = (verdict.outcome.as_str(), gave_up.wait, gave_up.limit);
    // A call that was retried in vain is worth a look; one that could not be helped is not.
    if matches!(
        gave_up.reason,
        GaveUpReason::AttemptsUsedUp | GaveUpReason::RetryBudgetEmpty
    ) {
        tracing::warn!(target: "tollgate::retry", call, attempts, outcome, reason = code, ?wait, ?limit, "gave up");
    } else {
        tracing::debug!(target: "tollgate::retry", call, attempts, outcome, reason = code, ?wait, ?limit, "gave up");
    }
}

/// A random UUID. It must not be guessed equal by chance; it guards no secret.
fn mint() -> HeaderValue {
    let random = fastrand::u128(..);
    let version = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{version:032x}");
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    HeaderValue::try_from(format!("{a}-{b}-{c}-{d}-{e}")).expect("hexadecimal digits and dashes")
}
