//! The making of one record, from the request to the end of the answer.
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::Instant;
use tollgate_core::{
    body::{End, Observer, Tap, Tapping},
    call::Call,
    clock,
    extensions::{Recorded, Refused, ServedBy},
    principal::Principal,
    wire::{
        limits,
        outcome::{Outcome, Verdict, judge},
        prompt::{Endpoint, Facts, RequestFacts},
    },
};

use crate::{
    Completion, RecordKind, UsageRecord, account,
    layer::Settings,
    recorder::{announce, record_all},
    telemetry, told,
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
        let fetches = told::fetches(request.method(), request.uri());
        let record = UsageRecord {
            call: call.id(),
            kind: if nested || under_way.is_some() {
                RecordKind::Attempt
            } else {
                RecordKind::Call
            },
            nested,
            first: !nested && call.first_record(),
            attempt: under_way.unwrap_or(1),
            started: clock::wall(),
            principal: call.principal(),
            key: Principal::of_credential(request.headers()),
            endpoint: if fetches {
                Endpoint::Responses
            } else {
                facts.endpoint
            },
            background: fetches,
            stream: facts.stream,
            model_asked: facts.model,
            ..UsageRecord::default()
        };
        announce(&settings.recorders);
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

    /// Whether the caller allows so many more requests.
    ///
    /// Only the caller's own number holds here: to ask again without our question is no retry, which
    /// is what the numbers of other layers are for.
    pub(crate) fn may_send(&self, more: u32) -> bool {
        if self.call.told_max_attempts().is_none() {
            return true;
        }
        // An attempt that is under way is the one that we are about to send. What no layer further
        // out or in counts we count here.
        let counted = self.call.attempts_begun();
        let ahead = u32::from(self.sent == 0 && self.call.attempt_under_way().is_some());
        let uncounted = self.sent.saturating_sub(counted);
        let left = self.call.attempts_left(u32::MAX).saturating_add(ahead);
        left.saturating_sub(uncounted) >= more
    }

    /// The request is handed on.
    pub(crate) fn sending(&mut self) {
        self.sent += 1;
    }

    /// The answer's head is here; `asked`: for usage, in the caller's place. Leaves the [`Tap`], unless a layer further in has, and the
    /// [`Call`].
    pub(crate) fn head<B>(&mut self, response: &mut Response<B>, asked: bool) -> Option<Tapping> {
        let status = response.status();
        let now = clock::wall();
        let record = &mut self.record;
        record.status = Some(status);
        let head = Instant::now().saturating_duration_since(self.begun);
        record.time_to_head = Some(head);
        record.rate_limits = limits::from_headers(response.headers(), now);
        record.served_by = ServedBy::of(response).cloned();
        record.refused = Refused::of(response).map(|refused| refused.reason);
        let judged = response.extensions().get::<Verdict>();
        let judged = judged.filter(|verdict| verdict.status == status).cloned();
        self.judged = judged.is_some();
        self.verdict = judged.or_else(|| Some(judge(status, response.headers(), None, now)));
        if response.extensions().get::<Call>().is_none() {
            response.extensions_mut().insert(self.call.clone());
        }
        // What we do not know we do not parse.
        if record.endpoint == Endpoint::Other || status.is_informational() {
            return None;
        }
        // One that cannot read, such as one inside a decompressor, is of no use to us.
        // One that reads what a decoder decodes in between does not know the offsets of what we see.
        let useful = |tap: &Tap| {
            tap.read(|seen| seen.answer().readable && !(asked && seen.reader().is_coded()))
        };
        let inner = Tap::of(response).filter(useful);
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
        let record = &mut self.record;
        record.duration = Instant::now().saturating_duration_since(self.begun);
        if record.kind == RecordKind::Call {
            record.attempt = self.call.attempts_begun().max(self.sent).max(1);
            record.failed_attempts = account::failed_attempts(&self.call);
        }
        record.completion = match end {
            Ended::Body(End::Complete) => Completion::Complete,
            Ended::Body(End::Failed) | Ended::Transport => Completion::Failed,
            Ended::Body(End::Dropped) | Ended::Cancelled => Completion::Partial,
        };
        let mut verdict = self.verdict.take();
        if let Some(tap) = self.tap.take() {
            tap.read(|seen| {
                account::answer(record, seen, self.begun);
                if let (Some(error), Some(head)) = (&seen.answer().error, &verdict) {
                    // The document of an error tells more than its head; an error within an answer
                    // comes after any verdict on its beginning.
                    if head.outcome == Outcome::Ok || !self.judged {
                        verdict = Some(account::error(error, head));
                    }
                }
            });
        }
        let broken = record.completion == Completion::Failed;
        record.outcome = match verdict {
            Some(verdict) if verdict.outcome == Outcome::Ok && broken => Some(Outcome::Broken),
            Some(verdict) => Some(verdict.outcome),
            None if broken => Some(account::unreachable(&self.call)),
            None => None,
        };
        if record.endpoint == Endpoint::Responses && record.has_usage {
            account::once(record, &self.settings.told);
        }
        record.cost = account::cost(record, &self.settings.prices.table());
        if record.cost != tollgate_core::price::Cost::Unknown {
            let cost = record.cost;
            self.call.note(|attempt| attempt.cost = Some(cost));
        }
        telemetry::event(record);
        record_all(&self.settings.recorders, record);
    }
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
