//! The provider's desk: looks at a request that arrived, decides, and makes the answer.
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, request};
use tokio::time::Instant;

use super::{
    ask::{Ask, Endpoint},
    config::Config,
    digest,
    errors::{self, Over, Trouble},
    headers,
    ticket::Ticket,
};
use crate::{
    SimError,
    account::{Account, Decision, LimitUse, Seen, Totals},
    answer::{Made, Stream},
    bend::{Bent, Rechunk, Whole},
    body::{BodyFate, SimBody, Steps},
    books::{Book, Held, nanos},
    charge::{Billed, Cost},
    fault::{Bends, Fault, Incoming},
    limit::{SimLimit, Unit},
    script::{Kind, Reply},
};

/// At most this many scopes have books of their own; idle ones make room.
const MAX_SCOPES: usize = 10_000;

pub(crate) struct Desk {
    pub(super) config: Config,
    serial: AtomicU64,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) origin: Instant,
    pub(super) generation: u64,
    rng: fastrand::Rng,
    script: VecDeque<Fault>,
    pub(super) scopes: HashMap<u64, Vec<Option<Book>>>,
    pub(super) requests: Vec<Seen>,
    pub(super) totals: Totals,
    date: (u64, HeaderValue),
}

impl State {
    fn new(config: &Config, generation: u64) -> Self {
        Self {
            origin: Instant::now(),
            generation,
            rng: fastrand::Rng::with_seed(config.seed),
            script: config.script.iter().cloned().collect(),
            scopes: HashMap::new(),
            requests: Vec::new(),
            totals: Totals::default(),
            date: (u64::MAX, HeaderValue::from_static("")),
        }
    }

    pub(super) fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }

    fn date(&mut self, wall: SystemTime) -> HeaderValue {
        let secs = wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        if self.date.0 != secs {
            let text = httpdate::fmt_http_date(wall);
            self.date = (secs, HeaderValue::try_from(text).expect("a date is ASCII"));
        }
        self.date.1.clone()
    }

    fn books(
        &mut self,
        limits: &[SimLimit],
        config: &Config,
        scope: u64,
        model: &str,
    ) -> &mut Vec<Option<Book>> {
        if self.scopes.len() >= MAX_SCOPES && !self.scopes.contains_key(&scope) {
            let now = self.now();
            let mut idle =
                |book: &mut Option<Book>| book.as_mut().is_none_or(|book| book.used(now) == 0);
            self.scopes
                .retain(|_, books| !books.iter_mut().all(&mut idle));
        }
        let books = self
            .scopes
            .entry(scope)
            .or_insert_with(|| vec![None; limits.len()]);
        for (limit, book) in limits.iter().zip(books.iter_mut()) {
            let applies = limit.model.as_ref().is_none_or(|only| **only == *model);
            if applies && book.is_none() {
                let window = nanos(limit.window.unwrap_or(config.window)).max(1);
                let enforcement = limit.enforcement.unwrap_or(config.enforcement);
                *book = Some(Book::new(limit.amount, window, enforcement));
            }
        }
        books
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
struct Arrived {
    endpoint: Endpoint,
    ask: Result<Ask, &'static str>,
    body: u64,
    key: Option<u64>,
    scope: u64,
    serial: u64,
    now: u64,
    /// The place in the account, if it is kept.
    index: Option<usize>,
}

impl Arrived {
    fn model(&self) -> &str {
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

    pub(super) fn account(&self, requests: bool) -> Account {
        let state = self.lock();
        Account {
            requests: if requests {
                state.requests.clone()
            } else {
                Vec::new()
            },
            totals: state.totals,
            limits: self
                .config
                .limits
                .iter()
                .map(|limit| LimitUse {
                    unit: limit.unit,
                    amount: limit.amount,
                    window: limit.window.unwrap_or(self.config.window),
                    model: limit.model.clone(),
                    enforcement: limit.enforcement.unwrap_or(self.config.enforcement),
                })
                .collect(),
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
        let now = state.now();
        let mut arrived = Arrived {
            endpoint,
            scope: self.scope(ask.as_ref().ok(), key),
            ask,
            body: digest(body),
            key,
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            now,
            index: None,
        };
        self.enter(&mut state, &mut arrived, head, !fault.is_none());
        let plan = self.decide(&mut state, &arrived, &fault);
        drop(state);
        plan
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

    fn decide(self: &Arc<Self>, state: &mut State, arrived: &Arrived, fault: &Fault) -> Plan {
        if let Some(replacement) = fault.replacement() {
            self.count_request(state, arrived);
            self.note(state, arrived, Decision::Faulted, Cost::default());
            return self.replace(state, arrived, replacement);
        }
        let endpoint = arrived.endpoint;
        if endpoint == Endpoint::Unknown {
            return self.reject(state, arrived, &errors::of_status(endpoint, 404), false);
        }
        if !self.config.keys.is_empty()
            && !arrived
                .key
                .is_some_and(|key| self.config.keys.contains(&key))
        {
            return self.reject(state, arrived, &errors::of_status(endpoint, 401), false);
        }
        let ask = match &arrived.ask {
            Ok(ask) => ask,
            Err(what) => {
                return self.reject(state, arrived, &errors::invalid(endpoint, what), true);
            }
        };
        if endpoint == Endpoint::Messages && ask.cap.is_none() {
            let trouble = errors::invalid(endpoint, "max_tokens: Field required");
            return self.reject(state, arrived, &trouble, true);
        }
        let Ok(context) = self.config.context(&ask.model) else {
            let trouble = errors::no_such_model(endpoint, &ask.model);
            return self.reject(state, arrived, &trouble, false);
        };
        let (billed, outputs) = self.usage(endpoint, ask, arrived.body);
        if let Some(context) =
            context.filter(|context| billed.input + ask.cap.unwrap_or(0) > *context)
        {
            let trouble = errors::too_long(endpoint, billed.input, ask.cap, context);
            return self.reject(state, arrived, &trouble, true);
        }
        let cost = self
            .config
            .charging
            .on_arrival(endpoint, ask, self.config.unset_cap, billed);
        match self.admit(state, arrived, &cost) {
            Err(over) => self.refuse(state, arrived, over),
            Ok(held) => {
                self.note(state, arrived, Decision::Admitted, cost);
                self.serve(
                    state,
                    arrived,
                    ask,
                    (billed, outputs),
                    cost,
                    held,
                    &fault.bends(),
                )
            }
        }
    }

    /// Takes the cost from all limits, or from none.
    fn admit<'a>(
        &'a self,
        state: &mut State,
        arrived: &'a Arrived,
        cost: &Cost,
    ) -> Result<Vec<(usize, Held)>, Over<'a>> {
        let (config, now, model) = (&self.config, arrived.now, arrived.model());
        let limits = &config.limits;
        let books = state.books(limits, config, arrived.scope, model);
        let mut fits = true;
        let mut never = None;
        for (index, (limit, book)) in limits.iter().zip(books.iter_mut()).enumerate() {
            let Some(book) = book else { continue };
            match book.wait(now, limit.unit.of(cost)) {
                Some(0) => {}
                Some(_) => fits = false,
                None => never = never.or(Some(index)),
            }
        }
        if fits && never.is_none() {
            return Ok(limits
                .iter()
                .zip(books.iter_mut())
                .enumerate()
                .filter_map(|(index, (limit, book))| {
                    Some((index, book.as_mut()?.charge(now, limit.unit.of(cost))))
                })
                .collect());
        }
        if config.count_refused {
            charge_requests(limits, books, now);
        }
        // The wait is stated after the refusal was counted, or it would be too short.
        let longest = never.or_else(|| {
            let waits = limits.iter().zip(books.iter_mut()).enumerate();
            waits
                .filter_map(|(index, (limit, book))| {
                    Some((book.as_mut()?.wait(now, limit.unit.of(cost))?, index))
                })
                .max_by_key(|&(wait, index)| (wait, std::cmp::Reverse(index)))
                .map(|(_, index)| index)
        });
        let index = longest.unwrap_or(0);
        let limit = &limits[index];
        let requested = limit.unit.of(cost);
        let book = books[index].as_mut().expect("this book refused");
        Err(Over {
            endpoint: arrived.endpoint,
            model,
            unit: limit.unit,
            window: limit.window.unwrap_or(config.window),
            limit: limit.amount,
            used: book.used(now),
            requested,
            wait: book.wait(now, requested).map(Duration::from_nanos),
            never: never.is_some(),
        })
    }

    fn count_request(&self, state: &mut State, arrived: &Arrived) {
        let books = state.books(
            &self.config.limits,
            &self.config,
            arrived.scope,
            arrived.model(),
        );
        charge_requests(&self.config.limits, books, arrived.now);
    }

    fn note(&self, state: &mut State, arrived: &Arrived, decision: Decision, cost: Cost) {
        let totals = &mut state.totals;
        *match decision {
            Decision::Admitted => &mut totals.admitted,
            Decision::Refused { .. } => &mut totals.refused,
            Decision::Rejected => &mut totals.rejected,
            Decision::Faulted => &mut totals.faulted,
        } += 1;
        totals.charged_tokens += cost.tokens;
        if let Some(index) = arrived.index {
            state.requests[index].decision = decision;
            state.requests[index].cost = cost;
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

    // ===== answers =====

    fn reject(
        self: &Arc<Self>,
        state: &mut State,
        arrived: &Arrived,
        trouble: &Trouble,
        counted: bool,
    ) -> Plan {
        if counted {
            self.count_request(state, arrived);
        }
        self.note(state, arrived, Decision::Rejected, Cost::default());
        let mut headers = HeaderMap::new();
        if counted && arrived.endpoint != Endpoint::Responses {
            self.state_limits(state, arrived, &mut headers);
        }
        self.error(state, arrived, trouble, headers)
    }

    fn refuse(self: &Arc<Self>, state: &mut State, arrived: &Arrived, over: Over<'_>) -> Plan {
        let Over { unit, never, .. } = over;
        self.note(
            state,
            arrived,
            Decision::Refused { unit, never },
            Cost::default(),
        );
        self.rate_limited(state, arrived, over)
    }

    fn rate_limited(
        self: &Arc<Self>,
        state: &mut State,
        arrived: &Arrived,
        mut over: Over<'_>,
    ) -> Plan {
        let mut headers = HeaderMap::new();
        self.state_limits(state, arrived, &mut headers);
        over.wait = over.wait.filter(|_| self.config.state_wait);
        if arrived.endpoint == Endpoint::Messages {
            let retry = if over.never { "false" } else { "true" };
            headers.insert("x-should-retry", HeaderValue::from_static(retry));
        }
        if let Some(wait) = over.wait.filter(|_| !over.never) {
            match arrived.endpoint {
                Endpoint::Messages => headers::anthropic_wait(&mut headers, nanos(wait)),
                _ => headers::openai_wait(&mut headers, nanos(wait)),
            }
        }
        self.error(state, arrived, &over.trouble(), headers)
    }

    fn error(
        self: &Arc<Self>,
        state: &mut State,
        arrived: &Arrived,
        trouble: &Trouble,
        headers: HeaderMap,
    ) -> Plan {
        let wait = self.config.error_latency.draw(&mut state.rng);
        let document = trouble.document(arrived.endpoint, &request_id(arrived.serial));
        let mut response = Response::new(SimBody::from(document));
        *response.status_mut() =
            StatusCode::from_u16(trouble.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers;
        self.common_headers(
            state,
            arrived,
            response.headers_mut(),
            "application/json",
            wait,
        );
        self.plan(state, arrived, Some(wait), Ok(response))
    }

    fn replace(self: &Arc<Self>, state: &mut State, arrived: &Arrived, fault: &Fault) -> Plan {
        let endpoint = arrived.endpoint;
        let over = |unit, wait, never| Over {
            endpoint,
            model: arrived.model(),
            unit,
            window: self.config.window,
            limit: self.first_limit(unit),
            used: self.first_limit(unit),
            requested: if never {
                self.first_limit(unit).saturating_mul(2)
            } else {
                1
            },
            wait,
            never,
        };
        match fault {
            Fault::Status(status) => {
                let mut headers = HeaderMap::new();
                if endpoint == Endpoint::Messages && *status >= 500 {
                    headers.insert("x-should-retry", HeaderValue::from_static("true"));
                }
                self.error(
                    state,
                    arrived,
                    &errors::of_status(endpoint, *status),
                    headers,
                )
            }
            Fault::RateLimited { unit, retry_after } => {
                self.rate_limited(state, arrived, over(*unit, *retry_after, false))
            }
            Fault::TooLarge(unit) => self.rate_limited(state, arrived, over(*unit, None, true)),
            Fault::Quota => self.error(state, arrived, &errors::quota(endpoint), HeaderMap::new()),
            Fault::Overloaded => self.error(
                state,
                arrived,
                &errors::overloaded(endpoint),
                HeaderMap::new(),
            ),
            Fault::Answer(reply) => self.scripted(state, arrived, reply),
            // `Refused` never arrives, and nothing else replaces an answer.
            _ => self.plan(state, arrived, Some(Duration::ZERO), Err(SimError::Refused)),
        }
    }

    fn scripted(self: &Arc<Self>, state: &mut State, arrived: &Arrived, reply: &Reply) -> Plan {
        let wait = (reply.kind != Kind::Pending).then_some(reply.after);
        let panics = reply.kind == Kind::Panic;
        let answer = match reply.kind {
            Kind::Error(error) => Err(error),
            _ => Ok(reply.clone().into_response()),
        };
        Plan {
            panics,
            ..self.plan(state, arrived, wait, answer)
        }
    }

    fn first_limit(&self, unit: Unit) -> u64 {
        let first = self.config.limits.iter().find(|limit| limit.unit == unit);
        first.map_or(100, |limit| limit.amount)
    }

    #[allow(clippy::too_many_arguments)]
    fn serve(
        self: &Arc<Self>,
        state: &mut State,
        arrived: &Arrived,
        ask: &Ask,
        (billed, outputs): (Billed, Vec<u64>),
        cost: Cost,
        held: Vec<(usize, Held)>,
        bends: &Bends,
    ) -> Plan {
        let config = &self.config;
        let endpoint = arrived.endpoint;
        let stream = ask.stream && endpoint != Endpoint::Embeddings;
        let mut wait = config.latency.draw(&mut state.rng) + bends.slow_headers;
        if !stream {
            let tokens = u32::try_from(billed.output).unwrap_or(u32::MAX);
            wait += config.pace.saturating_mul(tokens);
        }
        let wall = config.epoch + Duration::from_nanos(arrived.now);
        let served = match &config.dated {
            Some(date) => format!("{}-{date}", ask.model),
            None => ask.model.clone(),
        };
        let made = Made {
            endpoint,
            id: format!("{:016x}{:08x}", arrived.body, arrived.serial),
            created: wall
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
            model: serde_json::to_string(&served).expect("text is JSON"),
            billed,
            outputs,
            cap: ask.cap,
            include_usage: ask.include_usage,
            usage_on_choice: bends.usage_on_choice,
            usage_on_every: bends.usage_on_every,
            no_done: bends.no_done,
            inputs: ask.text.items.max(1),
            base64: ask.base64,
            digest: arrived.body,
        };
        let sent = Arc::new(AtomicU64::new(0));
        let (content, body) = if stream {
            let stream = Stream::new(
                made,
                config.tokens_per_event,
                config.pace,
                Arc::clone(&sent),
            );
            (
                "text/event-stream; charset=utf-8",
                bend(Box::new(stream), bends, endpoint, None),
            )
        } else {
            let document = made.document();
            let body = if bends.any {
                let len = document.len();
                bend(Box::new(Whole(Some(document))), bends, endpoint, Some(len))
            } else {
                SimBody::from(document)
            };
            ("application/json", body)
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        self.state_limits(state, arrived, headers);
        self.common_headers(state, arrived, headers, content, wait);
        if bends.garbage {
            headers::garble(headers);
        }
        if bends.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let answer = if bends.reset {
            Err(SimError::Reset)
        } else {
            Ok(response)
        };
        let mut plan = self.plan(state, arrived, (!bends.hang).then_some(wait), answer);
        if let Some(ticket) = &mut plan.ticket {
            ticket.admitted(billed, cost, held, stream.then_some(sent));
        }
        plan
    }

    fn plan(
        self: &Arc<Self>,
        state: &State,
        arrived: &Arrived,
        wait: Option<Duration>,
        answer: Result<Response<SimBody>, SimError>,
    ) -> Plan {
        let ticket = Ticket::new(
            Arc::clone(self),
            state.generation,
            arrived.index,
            arrived.scope,
        );
        Plan {
            wait,
            answer,
            ticket: Some(ticket),
            panics: false,
        }
    }

    fn state_limits(&self, state: &mut State, arrived: &Arrived, headers: &mut HeaderMap) {
        if !self.config.state_limits || self.config.limits.is_empty() {
            return;
        }
        let (limits, now) = (&self.config.limits, arrived.now);
        let books = state.books(limits, &self.config, arrived.scope, arrived.model());
        match arrived.endpoint {
            Endpoint::Messages => {
                let wall = self.config.epoch + Duration::from_nanos(now);
                headers::anthropic(headers, limits, books, now, wall);
            }
            _ => headers::openai(headers, limits, books, now),
        }
    }

    fn common_headers(
        &self,
        state: &mut State,
        arrived: &Arrived,
        headers: &mut HeaderMap,
        content: &'static str,
        wait: Duration,
    ) {
        // As sent: the date is that of the answer, which leaves when the wait is over.
        let leaves = self.config.epoch + Duration::from_nanos(arrived.now) + wait;
        headers.insert(header::DATE, state.date(leaves));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
        let id = HeaderValue::try_from(request_id(arrived.serial)).expect("an id is ASCII");
        if arrived.endpoint == Endpoint::Messages {
            headers.insert("request-id", id);
            return;
        }
        headers.insert("x-request-id", id);
        headers.insert("openai-version", HeaderValue::from_static("2020-10-01"));
        headers.insert("openai-organization", HeaderValue::from_static("org-sim"));
        if self.config.state_processing {
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            headers.insert(
                HeaderName::from_static("openai-processing-ms"),
                millis.into(),
            );
        }
    }
}

fn charge_requests(limits: &[SimLimit], books: &mut [Option<Book>], now: u64) {
    for (limit, book) in limits.iter().zip(books) {
        if let (Unit::Requests, Some(book)) = (limit.unit, book) {
            book.charge(now, 1);
        }
    }
}

fn bend(steps: Box<dyn Steps>, bends: &Bends, endpoint: Endpoint, whole: Option<usize>) -> SimBody {
    if !bends.any {
        return SimBody::lazy(steps);
    }
    let mut error = String::new();
    if bends.error_event.is_some() {
        error = errors::overloaded(endpoint).event(endpoint);
    }
    let mut steps: Box<dyn Steps> = Box::new(Bent::new(steps, bends.clone(), error, whole));
    if let Some(size) = bends.rechunk {
        steps = Box::new(Rechunk::new(steps, size));
    }
    SimBody::lazy(steps)
}

fn request_id(serial: u64) -> String {
    format!("req_{serial:032x}")
}

fn api_key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    match text("authorization") {
        Some(value) => value.strip_prefix("Bearer ").or(Some(value)),
        None => text("x-api-key").or_else(|| text("api-key")),
    }
}
