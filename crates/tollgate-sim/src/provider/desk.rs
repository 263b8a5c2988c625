//! The provider's desk: enters a request that arrived in the account, and decides.
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, request};
use tokio::time::Instant;

use super::{
    answering::Answering,
    ask::{Ask, Endpoint},
    config::Config,
    digest, errors,
    scopes::{Books, Scopes},
    ticket::Ticket,
};
use crate::{
    SimError,
    account::{Account, Decision, LimitUse, Seen, Totals},
    body::{BodyFate, SimBody},
    books::nanos,
    charge::{Billed, Cost},
    fault::{Fault, Incoming},
};

pub(crate) struct Desk {
    pub(super) config: Config,
    serial: AtomicU64,
    state: Mutex<State>,
}

/// What changes; begun anew by a reset.
pub(super) struct State {
    origin: Instant,
    pub(super) generation: u64,
    pub(super) rng: fastrand::Rng,
    script: VecDeque<Fault>,
    pub(super) scopes: Scopes,
    pub(super) requests: Vec<Seen>,
    pub(super) totals: Totals,
    /// The last date written, for it changes once a second.
    date: (u64, HeaderValue),
}

impl State {
    fn new(config: &Config, generation: u64) -> Self {
        Self {
            origin: Instant::now(),
            generation,
            rng: fastrand::Rng::with_seed(config.seed),
            script: config.script.iter().cloned().collect(),
            scopes: Scopes::default(),
            requests: Vec::new(),
            totals: Totals::default(),
            date: (u64::MAX, HeaderValue::from_static("")),
        }
    }

    pub(super) fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }

    pub(super) fn date(&mut self, wall: SystemTime) -> HeaderValue {
        let secs = since_1970(wall);
        if self.date.0 != secs {
            let text = httpdate::fmt_http_date(wall);
            self.date = (secs, HeaderValue::try_from(text).expect("a date is ASCII"));
        }
        self.date.1.clone()
    }
}

/// What was decided: when to answer, and what.
pub(super) struct Plan {
    /// `None`: never.
    pub(super) wait: Option<Duration>,
    pub(super) answer: Result<Response<SimBody>, SimError>,
    pub(super) ticket: Option<Ticket>,
    pub(super) panics: bool,
}

/// A request that has arrived, as far as the desk cares.
pub(super) struct Arrived {
    pub(super) endpoint: Endpoint,
    pub(super) ask: Result<Ask, &'static str>,
    /// A digest.
    pub(super) body: u64,
    key: Option<u64>,
    pub(super) scope: u64,
    pub(super) serial: u64,
    pub(super) now: u64,
    /// The place in the account, if it is kept.
    pub(super) index: Option<usize>,
}

impl Arrived {
    pub(super) fn model(&self) -> &str {
        self.ask.as_ref().map_or("", |ask| &ask.model)
    }
}

impl Desk {
    pub(super) fn new(config: Config) -> Self {
        let state = State::new(&config, 0);
        Self {
            config,
            serial: AtomicU64::new(0),
            state: Mutex::new(state),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reset(&self) {
        let mut state = self.lock();
        *state = State::new(&self.config, state.generation + 1);
    }

    pub(super) fn totals(&self) -> Totals {
        self.lock().totals
    }

    pub(super) fn account(&self) -> Account {
        let state = self.lock();
        let limits = self.config.limits.iter().map(|limit| LimitUse {
            unit: limit.unit,
            amount: limit.amount,
            window: limit.window.unwrap_or(self.config.window),
            model: limit.model.clone(),
            enforcement: limit.enforcement.unwrap_or(self.config.enforcement),
        });
        Account {
            requests: state.requests.clone(),
            totals: state.totals,
            limits: limits.collect(),
        }
    }

    /// The scripted fault of the call that is made now, and the time that its request will travel.
    pub(super) fn called(&self) -> (Fault, Duration) {
        let mut state = self.lock();
        let fault = state.script.pop_front().unwrap_or_default();
        let skew = self.config.arrival_skew.draw(&mut state.rng);
        (fault, skew)
    }

    /// Looks at a request that has arrived whole.
    pub(super) fn arrive(
        self: &Arc<Self>,
        head: &request::Parts,
        body: &Bytes,
        scripted: Fault,
    ) -> Plan {
        let endpoint = Endpoint::of(&head.method, &head.uri);
        let ask = match endpoint {
            Endpoint::Unknown => Err("no such endpoint"),
            _ => Ask::read(body),
        };
        let key = api_key(&head.headers).map(|key| digest(key.as_bytes()));
        let fault = self.fault(head, body, endpoint, ask.as_ref().ok(), scripted);

        let mut state = self.lock();
        if let Some(Fault::Refused) = fault.replacement() {
            state.totals.unreached += 1;
            return Plan {
                wait: Some(Duration::ZERO),
                answer: Err(SimError::Refused),
                ticket: None,
                panics: false,
            };
        }
        let mut arrived = Arrived {
            endpoint,
            scope: self.scope(ask.as_ref().ok(), key),
            ask,
            body: digest(body),
            key,
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            now: state.now(),
            index: None,
        };
        self.enter(&mut state, &mut arrived, head, !fault.is_none());
        self.decide(&mut state, &arrived, &fault)
    }

    fn fault(
        &self,
        head: &request::Parts,
        body: &Bytes,
        endpoint: Endpoint,
        ask: Option<&Ask>,
        scripted: Fault,
    ) -> Fault {
        if !scripted.is_none() {
            return scripted;
        }
        if let Some(predicate) = &self.config.predicate {
            let (index, at) = {
                let state = self.lock();
                (state.totals.requests, state.origin.elapsed())
            };
            // Foreign code runs without the lock.
            let fault = predicate(&Incoming {
                index,
                at,
                endpoint,
                model: ask.map_or("", |ask| &ask.model),
                stream: ask.is_some_and(|ask| ask.stream),
                uri: &head.uri,
                headers: &head.headers,
                body,
            });
            if !fault.is_none() {
                return fault;
            }
        }
        match &self.config.mix {
            Some(mix) => mix.draw(&mut self.lock().rng),
            None => Fault::None,
        }
    }

    fn scope(&self, ask: Option<&Ask>, key: Option<u64>) -> u64 {
        let mut scope = 0;
        if self.config.per_model {
            scope ^= digest(ask.map_or("", |ask| &ask.model).as_bytes());
        }
        if self.config.per_key {
            scope ^= key.unwrap_or(0).rotate_left(17);
        }
        scope
    }

    fn enter(&self, state: &mut State, arrived: &mut Arrived, head: &request::Parts, fault: bool) {
        state.totals.requests += 1;
        state.totals.in_flight += 1;
        state.totals.max_in_flight = state.totals.max_in_flight.max(state.totals.in_flight);
        if state.requests.len() >= self.config.keep {
            return;
        }
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        arrived.index = Some(state.requests.len());
        state.requests.push(Seen {
            at: Duration::from_nanos(arrived.now),
            answered_at: None,
            ended_at: None,
            endpoint: arrived.endpoint,
            model: arrived.model().into(),
            stream: arrived.ask.as_ref().is_ok_and(|ask| ask.stream),
            decision: Decision::Rejected,
            status: 0,
            fault,
            cost: Cost::default(),
            billed: Billed::default(),
            key: arrived.key,
            idempotency_key: text("idempotency-key").map(Into::into),
            retry_count: text("x-stainless-retry-count").and_then(|count| count.parse().ok()),
            body: arrived.body,
            body_fate: BodyFate::Open,
        });
    }

    /// In the order of a real one: the key, the document, the model, its context, and then the limits.
    fn decide(self: &Arc<Self>, state: &mut State, arrived: &Arrived, fault: &Fault) -> Plan {
        let endpoint = arrived.endpoint;
        let mut answering = Answering::new(self, state, arrived);
        if let Some(replacement) = fault.replacement() {
            return answering.replace(replacement);
        }
        if endpoint == Endpoint::Unknown {
            return answering.reject(&errors::of_status(endpoint, 404), false);
        }
        let known = |key| self.config.keys.contains(&key);
        if !self.config.keys.is_empty() && !arrived.key.is_some_and(known) {
            return answering.reject(&errors::of_status(endpoint, 401), false);
        }
        let ask = match &arrived.ask {
            Ok(ask) => ask,
            Err(what) => return answering.reject(&errors::invalid(endpoint, what), true),
        };
        if endpoint == Endpoint::Messages && ask.cap.is_none() {
            return answering.reject(
                &errors::invalid(endpoint, "max_tokens: Field required"),
                true,
            );
        }
        let Ok(context) = self.config.context(&ask.model) else {
            return answering.reject(&errors::no_such_model(endpoint, &ask.model), false);
        };
        let (billed, outputs) = self.usage(endpoint, ask, arrived.body);
        if let Some(context) = context.filter(|most| billed.input + ask.cap.unwrap_or(0) > *most) {
            let trouble = errors::too_long(endpoint, billed.input, ask.cap, context);
            return answering.reject(&trouble, true);
        }
        let charging = self.config.charging;
        let cost = charging.on_arrival(endpoint, ask, self.config.unset_cap, billed);
        let count = self.config.count_refused;
        match answering.books().admit(arrived.now, &cost, count) {
            Err(full) => answering.refuse(full),
            Ok(held) => answering.serve(ask, (billed, outputs), cost, held, &fault.bends()),
        }
    }

    /// What the answer will really use.
    fn usage(&self, endpoint: Endpoint, ask: &Ask, body: u64) -> (Billed, Vec<u64>) {
        let input = self.config.input_tokens(ask.text.chars, ask.text.ids);
        let answers = if endpoint == Endpoint::Chat { ask.n } else { 1 };
        let outputs: Vec<_> = (0..answers)
            .map(|answer| self.config.output_tokens(endpoint, body, answer, ask.cap))
            .collect();
        let billed = Billed {
            input,
            cached: (input as f64 * self.config.cached_share) as u64,
            output: outputs.iter().sum(),
        };
        (billed, outputs)
    }
}

impl State {
    pub(super) fn books<'a>(&'a mut self, config: &'a Config, arrived: &'a Arrived) -> Books<'a> {
        self.scopes
            .open(config, arrived.scope, arrived.model(), arrived.now)
    }
}

/// Seconds since 1970.
pub(super) fn since_1970(wall: SystemTime) -> u64 {
    wall.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn api_key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    match text("authorization") {
        Some(value) => value.strip_prefix("Bearer ").or(Some(value)),
        None => text("x-api-key").or_else(|| text("api-key")),
    }
}
