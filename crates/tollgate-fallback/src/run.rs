//! One request on its way through the candidates.
use std::{sync::Arc, task::Context, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, request::Parts};
use http_body::Body;
use tokio::time::Instant;
use tollgate_core::{
    body::{PeekPolicy, Replay},
    call::{Call, Skipped},
    extensions::{Refused, ServedBy},
    wire::{
        outcome::Verdict,
        prompt::{Facts, RequestFacts},
    },
};

use crate::{
    Candidate, FallbackHealth, FallbackPolicy, ModelChain, OnExhausted,
    chain::Route,
    credential::KeyId,
    decide::{Turn, blames_request, decide, decide_refusal, report},
    health::{Probe, Slot},
    kept::Kept,
    path,
    rewrite::rewrite,
    target,
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
    head: Parts,
    body: Bytes,
    facts: Facts,
    ledger: Ledger,
    route: Route,
    /// Position of the next candidate to look at.
    next: usize,
    sent: Option<Sent>,
    first: First<E>,
    /// Keys that were refused in this call.
    dead: Vec<KeyId>,
    too_long: Option<TooLong>,
    /// Where the request goes by itself, and by which key.
    origin: u64,
    key: KeyId,
    /// Most attempts, if nobody else has said.
    attempts: u32,
}

/// The attempt that is under way, or was the last one.
struct Sent {
    position: usize,
    model: Option<Arc<str>>,
    target: Option<Arc<str>>,
    window: Option<u64>,
    slot: Option<Slot>,
    probe: Option<Probe>,
    facts: Facts,
    begun: Instant,
    /// No other candidate is left.
    last: bool,
}

/// The first candidate's answer.
enum First<E> {
    Awaited,
    Kept(Kept<E>),
    /// It could not be kept, or was given out.
    Gone,
}

/// The largest candidate that a request was too long for.
struct TooLong {
    window: Option<u64>,
    model: Option<Arc<str>>,
}

/// The call, put back as it was found when we are done with it, also by being dropped.
struct Ledger {
    call: Call,
    queue_wait: Option<Duration>,
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.call.keep_attempts(0);
        self.call.aim(None, None);
        self.call.set_max_queue_wait(self.queue_wait);
        self.call.end_attempt();
    }
}

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
        let more = u32::try_from(route.len() - 1).unwrap_or(u32::MAX);
        let attempts = config.policy.attempts.saturating_add(more);
        // A retry further in would allow fewer than one for each candidate.
        call.default_max_attempts(attempts);
        let (scheme, authority) = path::origin_of(&head.uri, &head.headers);
        let origin = target::origin(scheme, authority);
        let key = KeyId::of_request(&head.headers, &head.uri, origin);
        let ledger = Ledger {
            queue_wait: call.max_queue_wait(),
            call,
        };
        let mut run = Self {
            head,
            body,
            facts,
            ledger,
            route,
            next: 0,
            sent: None,
            first: First::Awaited,
            dead: Vec::new(),
            too_long: None,
            origin,
            key,
            attempts,
        };
        let now = Instant::now();
        let (parts, bytes) = run
            .advance(config, now)
            .unwrap_or_else(|| run.last_resort(config, now));
        run.enter_attempt(config, now);
        (run, parts, bytes)
    }

    /// Whether the answer is looked into: where there is no choice, nothing is held.
    pub(crate) fn looks(&self) -> bool {
        self.route.len() > 1
    }

    /// How far to look into the answer that comes.
    pub(crate) fn peek_policy(&self, policy: &FallbackPolicy) -> PeekPolicy {
        let mut peek = policy.peek.clone();
        if self.sent.as_ref().is_none_or(|sent| sent.last) {
            peek.hold_answer = None;
        }
        peek
    }

    /// The facts of the request that is under way.
    pub(crate) fn facts(&self) -> &RequestFacts {
        self.sent.as_ref().map_or(&self.facts, |sent| &sent.facts)
    }

    /// The next candidate's request; `None` if there is none.
    fn advance<C>(&mut self, config: &Config<C>, now: Instant) -> Option<(Parts, Bytes)> {
        while self.next < self.route.len() {
            let position = self.next;
            self.next += 1;
            match self.enter(position, config, now, false) {
                Ok(request) => return Some(request),
                Err(why) => {
                    let (model, target) = self.names(self.route.get(position));
                    self.ledger.call.skip(model, target, why);
                }
            }
        }
        None
    }

    /// All were passed over and none was tried: one is, all the same.
    ///
    /// The one that is due first; else the largest; else the request goes out as it came. "No
    /// target" is no answer.
    fn last_resort<C>(&mut self, config: &Config<C>, now: Instant) -> (Parts, Bytes) {
        let all = 0..self.route.len();
        let due = |position: &usize| {
            let candidate = self.route.get(*position);
            let slot = self.slot(candidate);
            let cooling = config.health.cooling_until(&slot, now);
            let dead = config.health.dead_until(slot.key, now);
            cooling.max(dead).map(|until| (until, *position))
        };
        let fits = |position: &usize| self.unfit(*position, config, now, true).is_none();
        let first = all
            .clone()
            .filter(fits)
            .filter_map(|position| due(&position))
            .min();
        let largest = || {
            let small = |p: &usize| self.unfit(*p, config, now, true) == Some(Skipped::TooSmall);
            all.filter(small).max_by_key(|p| self.route.get(*p).window)
        };
        let chosen = first.map(|(_, position)| position).or_else(largest);
        if let Some(position) = chosen {
            if let Ok(request) = self.enter(position, config, now, true) {
                return request;
            }
        }
        self.sent = Some(Sent {
            position: 0,
            model: self.facts.model.clone(),
            target: None,
            window: None,
            slot: None,
            probe: None,
            facts: self.facts.clone(),
            begun: now,
            last: true,
        });
        (self.head.clone(), self.body.clone())
    }

    /// Makes a candidate the one that is tried, and its request.
    fn enter<C>(
        &mut self,
        position: usize,
        config: &Config<C>,
        now: Instant,
        force: bool,
    ) -> Result<(Parts, Bytes), Skipped> {
        let alone = self.route.len() == 1;
        if !force && !alone {
            if let Some(why) = self.unfit(position, config, now, false) {
                return Err(why);
            }
        }
        let candidate = self.route.get(position);
        let other_hands = self.other_hands(candidate);
        let (parts, bytes, facts) =
            rewrite(&self.head, &self.body, &self.facts, candidate, other_hands)
                .ok_or(Skipped::CannotRewrite)?;
        let slot = self.slot(candidate);
        let probe = if alone {
            None
        } else {
            // Another call may have begun the probe since we looked.
            let entered = config.health.enter(&slot, now, force);
            entered.map_err(|_| Skipped::CoolingDown)?
        };
        let (model, target) = self.names(candidate);
        self.sent = Some(Sent {
            position,
            model,
            target,
            window: candidate.window,
            slot: Some(slot),
            probe,
            facts,
            begun: now,
            last: true,
        });
        Ok((parts, bytes))
    }

    /// Enters the attempt that is about to be sent into the ledger.
    fn enter_attempt<C>(&mut self, config: &Config<C>, now: Instant) {
        let further = self.further(config, now);
        let Some(sent) = &mut self.sent else { return };
        let call = &self.ledger.call;
        call.keep_attempts(0);
        call.aim(sent.model.clone(), sent.target.clone());
        let _ = call.begin_attempt(self.attempts);
        call.note(|attempt| {
            attempt.model.clone_from(&sent.model);
            attempt.target.clone_from(&sent.target);
        });
        let left = call.attempts_left(self.attempts);
        sent.last = further.min(left) == 0;
        // What is kept back is for the others: the retries of one must not use it up.
        call.keep_attempts(further.min(left));
        // Also without an attempt to spare: one that is refused is not sent and does not count.
        let bound = (further > 0).then_some(config.policy.max_wait);
        let outer = self.ledger.queue_wait;
        call.set_max_queue_wait(match (bound, outer) {
            (Some(bound), Some(outer)) => Some(bound.min(outer)),
            (bound, outer) => bound.or(outer),
        });
    }

    /// How many candidates behind the next could be tried as things stand.
    fn further<C>(&self, config: &Config<C>, now: Instant) -> u32 {
        let rest = self.next..self.route.len();
        let fit = rest.filter(|position| self.unfit(*position, config, now, false).is_none());
        u32::try_from(fit.count()).unwrap_or(u32::MAX)
    }

    /// Why a candidate cannot be tried; `for_ever`: whatever time may bring.
    fn unfit<C>(
        &self,
        position: usize,
        config: &Config<C>,
        now: Instant,
        for_ever: bool,
    ) -> Option<Skipped> {
        let candidate = self.route.get(position);
        let speaks = path::dialect(candidate);
        if speaks.is_some_and(|dialect| dialect != path::family(self.facts.dialect())) {
            return Some(Skipped::OtherDialect);
        }
        if self.facts.pinned && self.origin(candidate) != self.origin(self.route.get(0)) {
            return Some(Skipped::Pinned);
        }
        if self.dead.contains(&self.key(candidate)) {
            return Some(Skipped::DeadCredential);
        }
        if !self.is_large_enough(candidate) {
            return Some(Skipped::TooSmall);
        }
        if for_ever || config.health.is_quiet() {
            return None;
        }
        let slot = self.slot(candidate);
        if config.health.dead_until(slot.key, now).is_some() {
            return Some(Skipped::DeadCredential);
        }
        let cooling = config.health.cooling_until(&slot, now).is_some();
        cooling.then_some(Skipped::CoolingDown)
    }

    fn is_large_enough(&self, candidate: &Candidate) -> bool {
        let fits = candidate
            .window
            .is_none_or(|window| self.tokens() <= window);
        let larger = match &self.too_long {
            None => true,
            Some(failed) => match (failed.window, candidate.window) {
                (Some(failed), Some(window)) => window > failed,
                (Some(_), None) => false,
                // Nobody knows, so it may be; but a model is not larger than itself.
                (None, _) => candidate.model.is_some() && candidate.model != failed.model,
            },
        };
        fits && larger
    }

    /// Prompt and answer, as far as can be told without a tokenizer.
    fn tokens(&self) -> u64 {
        let cap = self.facts.max_output_tokens.unwrap_or(0);
        let input = tollgate_core::wire::estimate::Estimate::of(&self.facts).input;
        input.saturating_add(cap)
    }

    fn names(&self, candidate: &Candidate) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let model = candidate.model.clone().or_else(|| self.facts.model.clone());
        (model, candidate.name.clone())
    }

    fn origin(&self, candidate: &Candidate) -> u64 {
        let place = candidate.place.as_ref();
        place.map_or(self.origin, |place| place.origin())
    }

    fn key(&self, candidate: &Candidate) -> KeyId {
        match &candidate.place {
            Some(place) if place.credential.is_some() || place.origin() != self.origin => {
                place.key()
            }
            _ => self.key,
        }
    }

    /// Whether the request gets into other hands than the caller's key was meant for.
    fn other_hands(&self, candidate: &Candidate) -> bool {
        candidate
            .place
            .as_ref()
            .is_some_and(|place| place.credential.is_some() || place.origin() != self.origin)
    }

    fn slot(&self, candidate: &Candidate) -> Slot {
        let (model, target) = self.names(candidate);
        Slot {
            target,
            model,
            origin: self.origin(candidate),
            key: self.key(candidate),
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
        let Some(sent) = &mut self.sent else {
            return Step::Done(answer);
        };
        let call = &self.ledger.call;
        let status = answer.as_ref().ok().map(Response::status);
        call.note(|attempt| {
            attempt.status = status;
            attempt.outcome = verdict.as_ref().map(|verdict| verdict.outcome.clone());
            let started = attempt.started;
            attempt
                .took
                .get_or_insert_with(|| now.saturating_duration_since(started));
        });
        call.end_attempt();
        let Some(verdict) = verdict else {
            return self.done(answer, config);
        };
        let refused = answer.as_ref().ok().and_then(Refused::of);
        let turn = match refused {
            Some(refused) => decide_refusal(refused),
            None => decide(&verdict, &sent.facts, &config.policy),
        };
        if refused.is_none() {
            if let Some(slot) = &sent.slot {
                if config
                    .health
                    .report(slot, report(&verdict), sent.begun, now)
                {
                    tracing::warn!(
                        model = slot.model.as_deref(),
                        target = slot.target.as_deref(),
                        "the model does not exist (any more); the next one of the chain is tried"
                    );
                }
            }
        }
        // After the report, which settles it; a refusal lets the next call try at once.
        sent.probe = None;

        match turn {
            Turn::Served => return self.done(answer, config),
            Turn::Stop => {
                return if blames_request(&verdict.outcome) && refused.is_none() {
                    self.done_with_first(answer, config)
                } else {
                    self.done(answer, config)
                };
            }
            Turn::Next => {}
            Turn::Refused(why) => call.take_back_attempt(why),
            Turn::OtherKey => {
                let key = sent.slot.as_ref().map(|slot| slot.key);
                self.dead.extend(key);
            }
            Turn::Larger => {
                self.too_long = Some(TooLong {
                    window: sent.window,
                    model: sent.model.clone(),
                });
            }
        }
        call.keep_attempts(0);
        let in_time = call.time_left(now) != Some(Duration::ZERO);
        let served_by = served_by(sent);
        let failed = self.sent.take();
        let next = if in_time && call.attempts_left(self.attempts) > 0 {
            self.advance(config, now)
        } else {
            None
        };
        let Some((parts, bytes)) = next else {
            self.sent = failed;
            let first = match config.policy.on_exhausted {
                OnExhausted::First => true,
                OnExhausted::Last => blames_request(&verdict.outcome),
            };
            return if first {
                self.done_with_first(answer, config)
            } else {
                self.done(answer, config)
            };
        };
        if matches!(self.first, First::Awaited) {
            // Copied, then dropped: it may hold what was reserved for its attempt.
            let cap = config.policy.peek.error_cap;
            let kept = match answer {
                Ok(response) => Kept::copy(response, served_by, cap, cx),
                Err(error) => Some(Kept::Error(error)),
            };
            self.first = kept.map_or(First::Gone, First::Kept);
        }
        self.enter_attempt(config, now);
        tracing::debug!(
            outcome = ?verdict.outcome,
            next = self.sent.as_ref().and_then(|sent| sent.model.as_deref()),
            "a candidate failed; the next one is tried"
        );
        Step::Send(parts, bytes)
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
        if let (Ok(response), Some(sent)) = (&mut answer, &self.sent) {
            self.sign(response, served_by(sent), config);
        }
        Step::Done(answer)
    }

    /// Says in the response who served and what was tried.
    fn sign<C, RB>(&self, response: &mut Response<RB>, served_by: ServedBy, config: &Config<C>) {
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

fn served_by(sent: &Sent) -> ServedBy {
    ServedBy::new(sent.position, sent.model.clone(), sent.target.clone())
}
