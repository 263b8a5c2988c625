//! One request on its way through the candidates.
use std::{sync::Arc, task::Context, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, request::Parts};
use http_body::Body;
use tokio::time::Instant;
use tollgate_core::{
    body::{Patience, PeekPolicy, Replay},
    call::{Attempt, Call, Steering},
    clock,
    extensions::{Refused, ServedBy, TimedOut},
    timeouts::Timeouts,
    wire::{
        limits,
        outcome::Verdict,
        prompt::{Facts, RequestFacts},
    },
};

use crate::{
    FallbackHealth, FallbackPolicy, ModelChain, OnExhausted,
    chain::Route,
    choose::{self, Choice, Chosen},
    decide::{Turn, blames_request, decide, decide_refusal},
    kept::Kept,
    ledger::Ledger,
    news::is_deprecated,
};

/// What all calls of a layer share.
pub(crate) struct Config<C> {
    pub(crate) chain: ModelChain,
    pub(crate) health: FallbackHealth,
    pub(crate) policy: FallbackPolicy,
    pub(crate) classify: Arc<C>,
}

impl<C> Clone for Config<C> {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            health: self.health.clone(),
            policy: self.policy.clone(),
            classify: Arc::clone(&self.classify),
        }
    }
}

/// One request on its way.
pub(crate) struct Run<E> {
    choice: Choice,
    ledger: Ledger,
    sent: Chosen,
    /// Streams are held until they are whole.
    holds: bool,
    /// No other candidate is left.
    last: bool,
    /// The attempt stands in the ledger as ours.
    counted: bool,
    first: First<E>,
    /// Most attempts, if nobody else has said.
    attempts: u32,
}

/// The first candidate's answer.
enum First<E> {
    Awaited,
    Kept(Kept<E>),
    /// It could not be kept, or was given out.
    Gone,
}

/// An answer, or the error in place of one, and what it means if that was looked for.
type Judged<RB, E> = (Result<Response<Replay<RB>>, E>, Option<Verdict>);

/// What comes after an answer.
pub(crate) enum Step<RB: Body, E> {
    Send(Parts, Bytes),
    Done(Result<Response<Replay<RB>>, E>),
}

impl<E> Run<E> {
    /// Begins with a request that was read; gives the first candidate's request.
    pub(crate) fn begin<C>(
        mut head: Parts,
        body: Bytes,
        facts: Facts,
        config: &Config<C>,
    ) -> (Self, Parts, Bytes) {
        let call = Call::of(&mut head.extensions);
        let alone = !call.fallbacks_allowed();
        let route = Route::new(&config.chain, facts.model.as_deref(), alone);
        // Who has no other candidate to ask leaves it to a retry further in.
        let holds = route.len() > 1 && (config.policy.buffered || call.is_buffered());
        let more = u32::try_from(route.len() - 1).unwrap_or(u32::MAX);
        let attempts = config.policy.attempts.saturating_add(more);
        // A retry further in would allow fewer than one for each candidate.
        call.default_max_attempts(attempts);
        if let Some(total) = config.policy.timeouts.total_time() {
            // The time that the candidates further in wait at a gate counts as well.
            call.end_within(total);
        }
        let now = Instant::now();
        let mut choice = Choice::new(head, body, facts, route, &config.health, now);
        let (sent, parts, bytes) = choice.first(&call, &config.health, now);
        let mut run = Self {
            choice,
            ledger: Ledger::of(call),
            sent,
            holds,
            last: true,
            counted: false,
            first: First::Awaited,
            attempts,
        };
        run.enter_attempt(config, now);
        (run, parts, bytes)
    }

    /// How long the attempt that begins is waited for.
    pub(crate) fn patience(&self, policy: &FallbackPolicy) -> Option<Box<Patience>> {
        Patience::new(&policy.timeouts, &self.ledger.call, self.sent.facts.stream)
    }

    /// How long the inner service may take to become ready for another attempt.
    pub(crate) fn patience_to_begin(&self) -> Option<Box<Patience>> {
        Patience::new(&Timeouts::new(), &self.ledger.call, false)
    }

    /// The answer that stands for the one that did not come in time.
    pub(crate) fn lost<RB: Body>(&self, timed_out: TimedOut) -> Judged<RB, E> {
        let verdict = Verdict::timeout(timed_out.what);
        let endpoint = self.sent.facts.endpoint;
        let mut response = timed_out.into_response(endpoint, Replay::document);
        response.extensions_mut().insert(verdict.clone());
        (Ok(response), Some(verdict))
    }

    /// Whether the answer is looked into: where there is no choice, nothing is held.
    pub(crate) fn looks(&self) -> bool {
        self.choice.has_more()
    }

    /// How far to look into the answer that comes.
    pub(crate) fn peek_policy(&self, policy: &FallbackPolicy) -> PeekPolicy {
        let mut peek = policy.peek.clone();
        peek.hold_streams |= self.holds;
        if self.last {
            // Nothing is won by holding all of it; an error in a 200 is short.
            peek.hold_streams = false;
            peek.hold_answer = peek.hold_answer.map(|cap| cap.min(peek.error_cap));
        }
        peek
    }

    /// The facts of the request that is under way.
    pub(crate) fn facts(&self) -> &RequestFacts {
        &self.sent.facts
    }

    /// Enters the attempt that is about to be sent into the ledger.
    fn enter_attempt<C>(&mut self, config: &Config<C>, now: Instant) {
        let further = self.choice.further(&config.health, now);
        let Ledger { call, outer } = &self.ledger;
        let mut steering = Steering::clone(outer);
        steering.model.clone_from(&self.sent.model);
        steering.target.clone_from(&self.sent.target);
        steering.holds_streams |= self.holds;
        call.steer(steering.clone());
        // The first is sent even if the ledger has none left: who sent it to us has decided that.
        self.counted = call.begin_attempt(self.attempts).is_some();
        self.note(|attempt, sent| {
            attempt.model.clone_from(&sent.model);
            attempt.target.clone_from(&sent.target);
        });
        let left = call.attempts_left(self.attempts);
        let spare = further.min(left);
        self.last = spare == 0;
        // What is kept back is for the others: the retries of one must not use it up. A probe is one
        // request, so for it all is kept back.
        let probes = self.sent.probe.is_some() && spare > 0;
        let back = if probes { left } else { spare };
        steering.kept = steering.kept.saturating_add(back);
        // Also without an attempt to spare: one that is refused is not sent and does not count.
        let bound = (further > 0).then(|| {
            let position = self.sent.position;
            if self.choice.has_sibling(position, &config.health, now) {
                Duration::ZERO
            } else {
                config.policy.max_wait
            }
        });
        steering.max_queue_wait = match (bound, steering.max_queue_wait) {
            (Some(bound), Some(outer)) => Some(bound.min(outer)),
            (bound, outer) => bound.or(outer),
        };
        // On the last one a retry further in does what no other candidate can.
        steering.holds_streams = outer.holds_streams || (self.holds && !self.last);
        call.steer(steering);
    }

    fn note(&self, write: impl FnOnce(&mut Attempt, &Chosen)) {
        if self.counted {
            self.ledger.call.note(|attempt| write(attempt, &self.sent));
        }
    }

    /// Takes an answer, or the error in place of one, and says what comes next.
    pub(crate) fn answered<C, RB>(
        &mut self,
        answer: Result<Response<Replay<RB>>, E>,
        verdict: Option<Verdict>,
        config: &Config<C>,
        cx: &mut Context<'_>,
    ) -> Step<RB, E>
    where
        RB: Body<Data = Bytes> + Unpin,
    {
        let now = Instant::now();
        // A status of our own is nobody's answer.
        let theirs = answer
            .as_ref()
            .ok()
            .filter(|response| Refused::of(response).is_none() && TimedOut::of(response).is_none());
        let status = theirs.map(Response::status);
        self.note(|attempt, _| {
            attempt.status = status;
            attempt.outcome = verdict.as_ref().map(|verdict| verdict.outcome.clone());
            let took = now.saturating_duration_since(attempt.started);
            attempt.took.get_or_insert(took);
        });
        self.ledger.call.end_attempt();
        let Some(verdict) = verdict else {
            return self.done(answer, config);
        };
        self.note_limits(&answer, config, now);
        let refused = answer.as_ref().ok().and_then(Refused::of);
        let turn = match refused {
            Some(refused) => decide_refusal(refused),
            None => {
                self.report(&verdict, &answer, config, now);
                decide(&verdict, &self.sent.facts, &config.policy)
            }
        };
        // After the report, which settles it; a refusal lets the next call try at once.
        self.sent.probe = None;

        // What finds fault with the request, found it with one that the caller has not made.
        let blamed = refused.is_none() && blames_request(&verdict.outcome);
        match turn {
            Turn::Served => return self.done(answer, config),
            // The first candidate's answer shows the recorder the same.
            Turn::Stop
                if blamed
                    && !matches!(self.first, First::Awaited)
                    && self.choice.take_back_question(&self.sent) => {}
            Turn::Stop if blamed => return self.done_with_first(answer, config),
            Turn::Stop => return self.done(answer, config),
            Turn::Next => {}
            Turn::Refused(why) if self.counted => self.ledger.call.take_back_attempt(why),
            Turn::Refused(_) => {}
            Turn::OtherKey => self.choice.key_was_refused(&self.sent, &config.health, now),
            Turn::Larger => self.choice.was_too_long(&self.sent),
        }
        let Some((next, parts, bytes)) = self.another(config, now) else {
            return if blamed || config.policy.on_exhausted == OnExhausted::First {
                self.done_with_first(answer, config)
            } else {
                self.done(answer, config)
            };
        };
        if matches!(self.first, First::Awaited) {
            // Copied, then dropped: it may hold what was reserved for its attempt.
            let cap = config.policy.peek.error_cap;
            let kept = match answer {
                Ok(response) => Kept::copy(response, served_by(&self.sent), cap, cx),
                Err(error) => Some(Kept::Error(error)),
            };
            self.first = kept.map_or(First::Gone, First::Kept);
        }
        self.sent = next;
        self.enter_attempt(config, now);
        tracing::debug!(
            target: "tollgate::fallback",
            call = self.ledger.call.id(),
            outcome = ?verdict.outcome,
            model = self.sent.model.as_deref(),
            to = self.sent.target.as_deref(),
            "a candidate failed; the next one is tried",
        );
        Step::Send(parts, bytes)
    }

    /// The next candidate, if the call still has time and attempts.
    fn another<C>(&mut self, config: &Config<C>, now: Instant) -> Option<choose::Send> {
        let Ledger { call, outer } = &self.ledger;
        call.steer(outer.clone());
        if call.time_left(now) == Some(Duration::ZERO) || call.attempts_left(self.attempts) == 0 {
            return None;
        }
        self.choice.next(call, &config.health, now)
    }

    /// Tells the other calls how the target is, and the operator what is new.
    fn report<C, RB>(
        &self,
        verdict: &Verdict,
        answer: &Result<Response<RB>, E>,
        config: &Config<C>,
        now: Instant,
    ) {
        let Some(slot) = &self.sent.slot else { return };
        let news = config.health.report(slot, verdict, self.sent.begun, now);
        let deprecated = answer
            .as_ref()
            .is_ok_and(|response| is_deprecated(response.headers()));
        let old = deprecated
            .then(|| config.health.deprecated(slot, now))
            .flatten();
        for news in [news, old].into_iter().flatten() {
            news.tell(slot, &verdict.outcome, now);
        }
    }

    /// Tells a pool what is left of its member's limits.
    fn note_limits<C, RB>(
        &self,
        answer: &Result<Response<RB>, E>,
        config: &Config<C>,
        now: Instant,
    ) {
        if let (Some(under_way), Ok(response)) = (&self.sent.under_way, answer) {
            if Refused::of(response).is_none() {
                let limits = limits::from_headers(response.headers(), clock::wall());
                config.health.saw_limits(&under_way.slot, &limits, now);
            }
        }
    }

    /// The end of a call, with the first candidate's answer if that was kept.
    fn done_with_first<C, RB>(
        &mut self,
        answer: Result<Response<Replay<RB>>, E>,
        config: &Config<C>,
    ) -> Step<RB, E>
    where
        RB: Body,
    {
        match std::mem::replace(&mut self.first, First::Gone) {
            First::Awaited | First::Gone => self.done(answer, config),
            First::Kept(Kept::Error(error)) => Step::Done(Err(error)),
            First::Kept(Kept::Answer(copied)) => {
                let (mut response, served_by) = copied.into_response();
                self.sign(&mut response, served_by, config);
                Step::Done(Ok(response))
            }
        }
    }

    fn done<C, RB>(
        &mut self,
        mut answer: Result<Response<Replay<RB>>, E>,
        config: &Config<C>,
    ) -> Step<RB, E>
    where
        RB: Body,
    {
        if let Ok(response) = &mut answer {
            self.sign(response, served_by(&self.sent), config);
        }
        Step::Done(answer)
    }

    /// Says in the response who served and what was tried.
    fn sign<C, RB>(
        &self,
        response: &mut Response<RB>,
        mut served_by: ServedBy,
        config: &Config<C>,
    ) {
        // A fallback further in knows better who it was; the place in the chain is ours.
        if let Some(inner) = response.extensions_mut().remove::<ServedBy>() {
            served_by.model = inner.model.or(served_by.model);
            served_by.target = inner.target.or(served_by.target);
        }
        if config.policy.model_header {
            let model = served_by.model.as_deref();
            if let Some(Ok(value)) = model.map(HeaderValue::from_str) {
                let name = HeaderName::from_static("x-tollgate-model");
                response.headers_mut().insert(name, value);
            }
        }
        let extensions = response.extensions_mut();
        extensions.insert(served_by);
        extensions.insert(self.ledger.call.clone());
    }
}

fn served_by(sent: &Chosen) -> ServedBy {
    ServedBy::new(sent.position, sent.model.clone(), sent.target.clone())
}
