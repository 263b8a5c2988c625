//! The making of one record, from the request to the end of the answer.
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::Instant;
use tollgate_core::{
    body::{End, Observer, Tap, Tapping},
    call::{Attempt, Call},
    clock,
    extensions::{Recorded, Refused, ServedBy},
    price::{Cost, Pico},
    principal::Principal,
    wire::{
        answer::BodyKind,
        limits,
        outcome::{Outcome, Units, Verdict, judge, judge_in_band},
        prompt::{Endpoint, Facts, RequestFacts},
        usage::{Count, Usage},
    },
};

use crate::{
    AttemptRecord, Completion, RecordKind, UsageRecord, layer::Settings, recorder::record_all,
    telemetry,
};

/// A record in the making. Boxed, it moves from the future to the body without a copy.
pub(crate) struct Entry {
    settings: Arc<Settings>,
    call: Call,
    begun: Instant,
    /// Requests that we sent ourselves.
    sent: u32,
    tap: Option<Tap>,
    /// What the judge further in, or else the head alone, says of the answer.
    verdict: Option<Verdict>,
    /// A judge further in has seen more than the head.
    judged: bool,
    record: UsageRecord,
}

impl Entry {
    /// Begins when the request is seen.
    pub(crate) fn begin<B>(settings: &Arc<Settings>, request: &mut Request<B>) -> Guard {
        let nested = request.extensions().get::<Recorded>().is_some();
        let call = Call::of(request.extensions_mut());
        request.extensions_mut().insert(Recorded);
        let under_way = call.attempt_under_way();
        let facts = RequestFacts::of_path(request.method(), request.uri());
        let record = UsageRecord {
            call: call.id(),
            kind: if nested || under_way.is_some() {
                RecordKind::Attempt
            } else {
                RecordKind::Call
            },
            nested,
            attempt: under_way.unwrap_or(1),
            failed_attempts: Vec::new(),
            started: clock::wall(),
            duration: Default::default(),
            time_to_first_token: None,
            principal: call.principal(),
            endpoint: facts.endpoint,
            stream: facts.stream,
            background: false,
            model_asked: facts.model,
            model_served: None,
            served_by: None,
            status: None,
            outcome: None,
            refused: None,
            completion: Completion::Partial,
            bytes_received: 0,
            usage: Usage::default(),
            has_usage: false,
            estimated_output: Count::Unknown,
            cost: Cost::Unknown,
            finish: None,
            finish_reason: None,
            service_tier: None,
            response_id: None,
            rate_limits: Vec::new(),
        };
        let entry = Self {
            settings: Arc::clone(settings),
            call,
            begun: Instant::now(),
            sent: 0,
            tap: None,
            verdict: None,
            judged: false,
            record,
        };
        Guard(Some(Box::new(entry)))
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub(crate) fn call(&self) -> &Call {
        &self.call
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.record.endpoint
    }

    /// The request was read.
    pub(crate) fn read(&mut self, facts: &Facts) {
        let record = &mut self.record;
        record.endpoint = facts.endpoint;
        record.stream = facts.stream;
        record.background = facts.background;
        record.model_asked.clone_from(&facts.model);
        if record.principal.is_none() {
            record.principal = facts.user.as_deref().map(Principal::of);
        }
    }

    /// The request is handed on.
    pub(crate) fn sending(&mut self) {
        self.sent += 1;
    }

    /// The answer's head is here. Leaves the [`Tap`], unless a layer further in has, and the
    /// [`Call`].
    pub(crate) fn head<B>(&mut self, response: &mut Response<B>) -> Option<Tapping> {
        let status = response.status();
        let now = clock::wall();
        let record = &mut self.record;
        record.status = Some(status);
        record.rate_limits = limits::from_headers(response.headers(), now);
        record.served_by = ServedBy::of(response).cloned();
        record.refused = Refused::of(response).map(|refused| refused.reason);
        let judged = response.extensions().get::<Verdict>();
        let judged = judged.filter(|verdict| verdict.status == status).cloned();
        self.judged = judged.is_some();
        self.verdict = judged.or_else(|| {
            Some(judge(
                record.endpoint,
                status,
                response.headers(),
                None,
                now,
            ))
        });
        if response.extensions().get::<Call>().is_none() {
            response.extensions_mut().insert(self.call.clone());
        }
        // What we do not know we do not parse.
        if record.endpoint == Endpoint::Other || status.is_informational() {
            return None;
        }
        // One that cannot read, such as one inside a decompressor, is of no use to us.
        let inner = Tap::of(response).filter(|tap| tap.read(|seen| seen.answer().readable));
        if inner.is_some() {
            self.tap = inner;
            return None;
        }
        let tap = Tap::new(record.endpoint, status, response.headers());
        let tapping = tap.tapping();
        response.extensions_mut().insert(tap.clone());
        self.tap = Some(tap);
        Some(tapping)
    }

    pub(crate) fn tap(&self) -> Option<&Tap> {
        self.tap.as_ref()
    }

    /// Completes the record and hands it to all recorders.
    fn finish(&mut self, end: Ended) {
        let now = Instant::now();
        self.record.duration = now.saturating_duration_since(self.begun);
        self.attempts();
        let mut completion = match end {
            Ended::Body(End::Complete) => Completion::Complete,
            Ended::Body(End::Failed) | Ended::Transport => Completion::Failed,
            Ended::Body(End::Dropped) | Ended::Cancelled => Completion::Partial,
        };
        if let Some(tap) = self.tap.take() {
            self.answer(&tap, &mut completion);
        }
        self.record.completion = completion;
        if let Ended::Transport = end {
            // Only who knows the transport can tell better, and has noted it.
            let noted = sent_attempts(&self.call)
                .pop()
                .and_then(|last| last.outcome);
            self.record.outcome = noted
                .filter(|noted| *noted != Outcome::Ok)
                .or(Some(Outcome::Unreachable { sent: true }));
        }
        self.record.cost = self.cost();
        telemetry::event(&self.record);
        record_all(&self.settings.recorders, &self.record);
    }

    fn attempts(&mut self) {
        let record = &mut self.record;
        if record.kind != RecordKind::Call {
            return;
        }
        let begun = self.call.attempts_begun();
        record.attempt = begun.max(self.sent).max(1);
        if begun > 1 {
            let mut attempts = sent_attempts(&self.call);
            // The last one is what this record is about.
            attempts.pop();
            record.failed_attempts = attempts.into_iter().map(AttemptRecord::from).collect();
        }
    }

    /// Takes over what was read of the answer.
    fn answer(&mut self, tap: &Tap, completion: &mut Completion) {
        let record = &mut self.record;
        let verdict = &mut self.verdict;
        let begun = self.begun;
        let (status, judged) = (record.status, self.judged);
        tap.read(|seen| {
            let answer = seen.answer();
            let whole = answer.complete || seen.end() == Some(End::Complete);
            if *completion == Completion::Partial && whole {
                *completion = Completion::Complete;
            }
            // A stream that just stops, and half a document, end like whole ones.
            if *completion == Completion::Complete && status.is_some_and(|s| s.is_success()) {
                let structured = !matches!(
                    answer.kind,
                    BodyKind::Empty | BodyKind::Text | BodyKind::Binary
                );
                if structured && answer.readable && !answer.complete {
                    *completion = Completion::Partial;
                }
            }
            record.time_to_first_token = seen
                .first_content()
                .map(|at| at.saturating_duration_since(begun));
            record.model_served.clone_from(&answer.model);
            record.usage = answer.usage;
            record.has_usage = answer.has_usage;
            record.finish = answer.finish;
            record.finish_reason.clone_from(&answer.finish_reason);
            record.service_tier.clone_from(&answer.service_tier);
            record.response_id.clone_from(&answer.response_id);
            if *completion != Completion::Complete {
                // After the finish reason no more is generated, so the numbers are the last word.
                if answer.finish.is_none() {
                    record.usage = lower_bounds(answer.usage);
                }
                if answer.output_chars > 0 {
                    record.estimated_output = Count::AtLeast(answer.output_chars / 4);
                }
            }
            if let (Some(error), Some(verdict)) = (&answer.error, verdict.as_mut()) {
                // The document of an error tells more than its head; an error within an answer
                // comes after any verdict on its beginning.
                if verdict.outcome == Outcome::Ok || !judged {
                    let headers = http::HeaderMap::new();
                    let in_band = judge_in_band(verdict.status, &headers, error, clock::wall());
                    let head = std::mem::replace(verdict, in_band);
                    // The wait may stand in the headers alone, which are gone by now.
                    if let Outcome::RateLimited { retry_after, .. } = &mut verdict.outcome {
                        *retry_after = retry_after.or(head.retry_after.map(|stated| stated.wait));
                    }
                }
            }
        });
        let broken = *completion == Completion::Failed;
        record.outcome = verdict.take().map(|verdict| match verdict.outcome {
            Outcome::Ok if broken => Outcome::Broken,
            outcome => outcome,
        });
    }

    fn cost(&self) -> Cost {
        let record = &self.record;
        let priced = record.has_usage || record.estimated_output != Count::Unknown;
        if priced {
            let Some(model) = record.model() else {
                return Cost::Unknown;
            };
            // Another tier has another price.
            let tier = record.service_tier.as_deref().unwrap_or("default");
            if !matches!(tier, "default" | "standard" | "auto" | "on_demand") {
                return Cost::Unknown;
            }
            let mut usage = record.usage;
            if let Some(estimate) = record.estimated_output.get() {
                let stated = usage.output.get().unwrap_or(0);
                if usage.output.exact().is_none() && stated < estimate {
                    usage.output = Count::AtLeast(estimate);
                }
            }
            return self.settings.prices.cost(model, &usage);
        }
        // Providers do not charge for what they refused; nor do we send what we refuse.
        match record
            .outcome
            .as_ref()
            .map(|outcome| outcome.advice().units)
        {
            _ if record.refused.is_some() => Cost::Exact(Pico::ZERO),
            Some(Units::TokensBack | Units::AllBack) => Cost::Exact(Pico::ZERO),
            _ => Cost::Unknown,
        }
    }
}

/// Without the candidates that a fallback has passed over.
fn sent_attempts(call: &Call) -> Vec<Attempt> {
    let mut attempts = call.attempts();
    attempts.retain(|attempt| attempt.skipped.is_none());
    attempts
}

fn lower_bounds(usage: Usage) -> Usage {
    let mut bounds = usage;
    for count in [
        &mut bounds.input,
        &mut bounds.cached_input,
        &mut bounds.cache_write,
        &mut bounds.cache_write_1h,
        &mut bounds.output,
        &mut bounds.reasoning,
        &mut bounds.audio_input,
        &mut bounds.audio_output,
        &mut bounds.total,
    ] {
        *count = count.at_least();
    }
    bounds
}

/// How the watching ended.
enum Ended {
    /// With the answer's body.
    Body(End),
    /// With a service error in place of an answer.
    Transport,
    /// The caller left before there was an answer.
    Cancelled,
}

/// Sees to it that an entry is recorded exactly once, also when the future is dropped.
pub(crate) struct Guard(Option<Box<Entry>>);

impl Guard {
    /// The entry, as long as it was not recorded or handed on to the body.
    pub(crate) fn entry(&mut self) -> &mut Entry {
        self.0.as_mut().expect("the entry of a call under way")
    }

    /// The inner service answered with an error.
    pub(crate) fn failed(&mut self) {
        if let Some(mut entry) = self.0.take() {
            entry.finish(Ended::Transport);
        }
    }

    /// Hands the entry on to the watcher of the answer's body.
    pub(crate) fn watch(&mut self, tapping: Option<Tapping>) -> Watch {
        let entry = self.0.take().expect("one answer to a call");
        Watch { entry, tapping }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut entry) = self.0.take() {
            entry.finish(Ended::Cancelled);
        }
    }
}

/// Watches the answer's body and records the call at its end.
pub(crate) struct Watch {
    entry: Box<Entry>,
    /// Feeds our own tap; `None` where a layer further in has one.
    tapping: Option<Tapping>,
}

impl Observer for Watch {
    fn data(&mut self, data: &Bytes) {
        let received = &mut self.entry.record.bytes_received;
        *received = received.saturating_add(data.len() as u64);
        if let Some(tapping) = &mut self.tapping {
            tapping.data(data);
        }
    }

    fn end(&mut self, end: End) {
        if let Some(mut tapping) = self.tapping.take() {
            tapping.end(end);
        }
        self.entry.finish(Ended::Body(end));
    }
}
