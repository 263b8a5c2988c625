//! Makes the answer to one request: a refusal, an error, or what it asked for.
use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    ask::{Ask, Endpoint},
    desk::{Arrived, Desk, Plan, State, since_1970},
    errors::{self, Over, Trouble},
    headers,
    scopes::{Books, Full},
    ticket::Ticket,
};
use crate::{
    SimError,
    account::Decision,
    answer::{Made, Stream},
    bend::{Bent, Rechunk, Whole},
    body::{SimBody, Steps},
    books::{Held, nanos},
    charge::{Billed, Cost},
    fault::{Bends, Fault},
    limit::Unit,
    script::{Kind, Reply},
};

/// One request on the desk.
pub(super) struct Answering<'a> {
    desk: &'a Arc<Desk>,
    state: &'a mut State,
    arrived: &'a Arrived,
}

impl<'a> Answering<'a> {
    pub(super) fn new(desk: &'a Arc<Desk>, state: &'a mut State, arrived: &'a Arrived) -> Self {
        Self {
            desk,
            state,
            arrived,
        }
    }

    pub(super) fn books(&mut self) -> Books<'_> {
        self.state.books(&self.desk.config, self.arrived)
    }

    fn note(&mut self, decision: Decision, cost: Cost) {
        let totals = &mut self.state.totals;
        *match decision {
            Decision::Admitted => &mut totals.admitted,
            Decision::Refused { .. } => &mut totals.refused,
            Decision::Rejected => &mut totals.rejected,
            Decision::Faulted => &mut totals.faulted,
        } += 1;
        totals.charged_tokens += cost.tokens;
        if let Some(index) = self.arrived.index {
            self.state.requests[index].decision = decision;
            self.state.requests[index].cost = cost;
        }
    }

    // ===== errors =====

    /// A wrong request, which was counted before it was found wrong, or was not.
    pub(super) fn reject(mut self, trouble: &Trouble, counted: bool) -> Plan {
        let now = self.arrived.now;
        self.note(Decision::Rejected, Cost::default());
        let mut headers = HeaderMap::new();
        if counted {
            self.books().count_request(now);
            // The real Responses endpoint states no limits on a 400, the others do.
            if self.arrived.endpoint != Endpoint::Responses {
                self.state_limits(&mut headers);
            }
        }
        self.error(trouble, headers)
    }

    /// Over a limit.
    pub(super) fn refuse(mut self, full: Full) -> Plan {
        let limit = &self.desk.config.limits[full.index];
        let never = full.wait.is_none();
        let decision = Decision::Refused {
            unit: limit.unit,
            never,
        };
        self.note(decision, Cost::default());
        let over = Over {
            endpoint: self.arrived.endpoint,
            model: self.arrived.model(),
            unit: limit.unit,
            window: limit.window.unwrap_or(self.desk.config.window),
            limit: limit.amount,
            used: full.used,
            requested: full.requested,
            wait: full.wait,
            never,
        };
        self.rate_limited(over)
    }

    /// What a fault put in the place of an answer. A request is counted, no tokens are.
    pub(super) fn replace(mut self, fault: &Fault) -> Plan {
        let (endpoint, now) = (self.arrived.endpoint, self.arrived.now);
        self.books().count_request(now);
        self.note(Decision::Faulted, Cost::default());
        match fault {
            Fault::Status(status) => {
                let mut headers = HeaderMap::new();
                if endpoint == Endpoint::Messages && *status >= 500 {
                    headers.insert("x-should-retry", HeaderValue::from_static("true"));
                }
                self.error(&errors::of_status(endpoint, *status), headers)
            }
            Fault::RateLimited { unit, retry_after } => {
                let over = self.stray(*unit, *retry_after, false);
                self.rate_limited(over)
            }
            Fault::TooLarge(unit) => {
                let over = self.stray(*unit, None, true);
                self.rate_limited(over)
            }
            Fault::Quota => self.error(&errors::quota(endpoint), HeaderMap::new()),
            Fault::Overloaded => self.error(&errors::overloaded(endpoint), HeaderMap::new()),
            Fault::Answer(reply) => self.scripted(reply),
            // `Refused` never arrives, and nothing else replaces an answer.
            _ => self.plan(Some(Duration::ZERO), Err(SimError::Refused)),
        }
    }

    /// A limit that says that it is full, and is not.
    fn stray(&self, unit: Unit, wait: Option<Duration>, never: bool) -> Over<'a> {
        let mut limits = self.desk.config.limits.iter();
        let limit = limits
            .find(|limit| limit.unit == unit)
            .map_or(100, |limit| limit.amount);
        Over {
            endpoint: self.arrived.endpoint,
            model: self.arrived.model(),
            unit,
            window: self.desk.config.window,
            limit,
            used: limit,
            requested: if never { limit.saturating_mul(2) } else { 1 },
            wait,
            never,
        }
    }

    fn scripted(self, reply: &Reply) -> Plan {
        let wait = (reply.kind != Kind::Pending).then_some(reply.after);
        let panics = reply.kind == Kind::Panic;
        let answer = match reply.kind {
            Kind::Error(error) => Err(error),
            _ => Ok(reply.clone().into_response()),
        };
        Plan {
            panics,
            ..self.plan(wait, answer)
        }
    }

    fn rate_limited(mut self, mut over: Over<'a>) -> Plan {
        let mut headers = HeaderMap::new();
        self.state_limits(&mut headers);
        over.wait = over
            .wait
            .filter(|_| self.desk.config.state_wait && !over.never);
        if over.endpoint == Endpoint::Messages {
            let retry = if over.never { "false" } else { "true" };
            headers.insert("x-should-retry", HeaderValue::from_static(retry));
        }
        if let Some(wait) = over.wait {
            match over.endpoint {
                Endpoint::Messages => headers::anthropic_wait(&mut headers, nanos(wait)),
                _ => headers::openai_wait(&mut headers, nanos(wait)),
            }
        }
        self.error(&over.trouble(), headers)
    }

    fn error(mut self, trouble: &Trouble, headers: HeaderMap) -> Plan {
        let wait = self.desk.config.error_latency.draw(&mut self.state.rng);
        let id = request_id(self.arrived.serial);
        let document = trouble.document(self.arrived.endpoint, &id);
        let mut response = Response::new(SimBody::from(document));
        let status = StatusCode::from_u16(trouble.status);
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers;
        self.common_headers(response.headers_mut(), "application/json", wait);
        self.plan(Some(wait), Ok(response))
    }

    // ===== what was asked for =====

    /// The answer that was earned, as the faults left it.
    pub(super) fn serve(
        mut self,
        ask: &Ask,
        (billed, outputs): (Billed, Vec<u64>),
        cost: Cost,
        held: Vec<(usize, Held)>,
        bends: &Bends,
    ) -> Plan {
        self.note(Decision::Admitted, cost);
        let config = &self.desk.config;
        let stream = ask.stream && self.arrived.endpoint != Endpoint::Embeddings;
        let mut wait = config.latency.draw(&mut self.state.rng) + bends.slow_headers;
        if !stream {
            let tokens = u32::try_from(billed.output).unwrap_or(u32::MAX);
            wait += config.pace.saturating_mul(tokens);
        }
        let made = self.made(ask, billed, outputs, bends);
        let sent = Arc::new(AtomicU64::new(0));
        let (content, body) = if stream {
            let mut steps = Stream::new(
                made,
                config.tokens_per_event,
                config.pace,
                Arc::clone(&sent),
            );
            steps.delay(bends.slow_first);
            (
                "text/event-stream; charset=utf-8",
                self.bent(Box::new(steps), bends, None),
            )
        } else {
            let document = made.document();
            let body = if bends.any {
                let len = document.len();
                self.bent(Box::new(Whole(Some(document))), bends, Some(len))
            } else {
                SimBody::from(document)
            };
            ("application/json", body)
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        self.state_limits(headers);
        self.common_headers(headers, content, wait);
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
        let mut plan = self.plan((!bends.hang).then_some(wait), answer);
        if let Some(ticket) = &mut plan.ticket {
            ticket.admitted(billed, cost, held, stream.then_some(sent));
        }
        plan
    }

    fn made(&self, ask: &Ask, billed: Billed, outputs: Vec<u64>, bends: &Bends) -> Made {
        let Arrived {
            endpoint,
            body,
            serial,
            ..
        } = *self.arrived;
        let served = match &self.desk.config.dated {
            Some(date) => serde_json::to_string(&format!("{}-{date}", ask.model)),
            None => serde_json::to_string(&ask.model),
        };
        Made {
            endpoint,
            id: format!("{body:016x}{serial:08x}"),
            created: since_1970(self.wall()),
            model: served.expect("text is JSON"),
            billed,
            outputs,
            cap: ask.cap,
            include_usage: ask.include_usage,
            usage_on_choice: bends.usage_on_choice,
            usage_on_every: bends.usage_on_every,
            no_done: bends.no_done,
            inputs: ask.text.items.max(1),
            base64: ask.base64,
            digest: body,
        }
    }

    fn bent(&self, steps: Box<dyn Steps>, bends: &Bends, whole: Option<usize>) -> SimBody {
        if !bends.any {
            return SimBody::lazy(steps);
        }
        let endpoint = self.arrived.endpoint;
        let error = bends
            .error_event
            .map(|_| errors::overloaded(endpoint).event(endpoint))
            .unwrap_or_default();
        let mut steps: Box<dyn Steps> = Box::new(Bent::new(steps, bends.clone(), error, whole));
        if let Some(size) = bends.rechunk {
            steps = Box::new(Rechunk::new(steps, size));
        }
        SimBody::lazy(steps)
    }

    // ===== for all =====

    fn plan(self, wait: Option<Duration>, answer: Result<Response<SimBody>, SimError>) -> Plan {
        let Arrived { index, scope, .. } = *self.arrived;
        let ticket = Ticket::new(Arc::clone(self.desk), self.state.generation, index, scope);
        Plan {
            wait,
            answer,
            ticket: Some(ticket),
            panics: false,
        }
    }

    fn wall(&self) -> SystemTime {
        self.desk.config.epoch + Duration::from_nanos(self.arrived.now)
    }

    fn state_limits(&mut self, to: &mut HeaderMap) {
        if !self.desk.config.state_limits || self.desk.config.limits.is_empty() {
            return;
        }
        let (now, wall) = (self.arrived.now, self.wall());
        match self.arrived.endpoint {
            Endpoint::Messages => headers::anthropic(to, &mut self.books(), now, wall),
            _ => headers::openai(to, &mut self.books(), now),
        }
    }

    fn common_headers(&mut self, to: &mut HeaderMap, content: &'static str, wait: Duration) {
        // The date is that of the answer, which leaves when the wait is over.
        let leaves = self.wall() + wait;
        to.insert(header::DATE, self.state.date(leaves));
        to.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
        let id = HeaderValue::try_from(request_id(self.arrived.serial)).expect("an id is ASCII");
        if self.arrived.endpoint == Endpoint::Messages {
            to.insert("request-id", id);
            return;
        }
        to.insert("x-request-id", id);
        to.insert("openai-version", HeaderValue::from_static("2020-10-01"));
        to.insert("openai-organization", HeaderValue::from_static("org-sim"));
        if self.desk.config.state_processing {
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            to.insert(
                HeaderName::from_static("openai-processing-ms"),
                millis.into(),
            );
        }
    }
}

fn request_id(serial: u64) -> String {
    format!("req_{serial:032x}")
}
