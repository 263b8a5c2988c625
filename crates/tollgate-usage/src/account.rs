//! What is made of an answer once it has ended.
use http::HeaderMap;
use tokio::time::Instant;
use tollgate_core::{
    body::{End, TapState},
    call::{Attempt, Call},
    clock,
    price::{Cost, Pico, PriceTable},
    wire::{
        answer::{Answer, BodyKind, WireError},
        outcome::{Outcome, Units, Verdict, judge_in_band},
        prompt::Endpoint,
        usage::{Count, Usage},
    },
};

use crate::{AttemptRecord, Completion, UsageRecord, told::Told};

/// Takes over what was read of an answer; how its body ended is in the record.
pub(crate) fn answer(record: &mut UsageRecord, seen: &TapState, begun: Instant) {
    let answer = seen.answer();
    let whole = answer.complete || seen.end() == Some(End::Complete);
    let served = record.status.is_some_and(|status| status.is_success());
    record.completion = match record.completion {
        Completion::Partial if whole => Completion::Complete,
        // What breaks after the terminal event has taken nothing away.
        Completion::Failed if answer.complete && answer.error.is_none() => Completion::Complete,
        Completion::Complete if served && stopped(answer) => Completion::Partial,
        completion => completion,
    };
    record.time_to_first_token = seen
        .first_content()
        .map(|at| at.saturating_duration_since(begun));
    record.model_served.clone_from(&answer.model);
    record.usage = answer.billed_usage();
    record.has_usage = answer.has_usage;
    record.finish = answer.finish;
    record.finish_reason.clone_from(&answer.finish_reason);
    record.service_tier.clone_from(&answer.service_tier);
    record.hosted_tools = answer.hosted_tools;
    record.response_id.clone_from(&answer.response_id);
    // An error ends a stream as a terminal event does, but the counts before it are no last word.
    let broken_off = answer.error.is_some() && answer.content_started;
    if record.completion != Completion::Complete || broken_off {
        // After the finish reason no more is generated, so the numbers are the last word.
        if answer.finish.is_none() {
            record.usage = lower_bounds(answer.billed_usage());
        }
        // With an error after content something was generated, even if none of it was text.
        if answer.output_chars > 0 || broken_off {
            record.estimated_output = Count::AtLeast(answer.output_chars / 4);
        }
    }
}

/// A stream that just stops, and half a document, end like whole ones.
fn stopped(answer: &Answer) -> bool {
    let formless = matches!(
        answer.kind,
        BodyKind::Empty | BodyKind::Text | BodyKind::Binary
    );
    !formless && answer.readable && !answer.complete
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

/// What an error means that the answer states, where `head` is the verdict on its head.
pub(crate) fn error(error: &WireError, head: &Verdict) -> Verdict {
    let mut verdict = judge_in_band(head.status, &HeaderMap::new(), error, clock::wall());
    // The wait may stand in the headers alone, which are gone by now.
    if let Outcome::RateLimited { retry_after, .. } = &mut verdict.outcome {
        *retry_after = retry_after.or(head.retry_after.map(|stated| stated.wait));
    }
    verdict
}

/// What a service error means. Only who knows the transport can tell, and has noted it.
pub(crate) fn unreachable(call: &Call) -> Outcome {
    let noted = sent(call).pop().and_then(|last| last.outcome);
    noted
        .filter(|noted| *noted != Outcome::Ok)
        .unwrap_or(Outcome::Unreachable { sent: true })
}

/// The attempts before the last one, which is what the record is about.
pub(crate) fn failed_attempts(call: &Call) -> Vec<AttemptRecord> {
    if call.attempts_begun() <= 1 {
        return Vec::new();
    }
    let mut attempts = sent(call);
    attempts.pop();
    attempts.into_iter().map(AttemptRecord::from).collect()
}

/// All attempts, without the candidates that a fallback has passed over.
fn sent(call: &Call) -> Vec<Attempt> {
    let mut attempts = call.attempts();
    attempts.retain(|attempt| attempt.skipped.is_none());
    attempts
}

/// A stored response states its usage whenever it is fetched; it counts once.
pub(crate) fn once(record: &mut UsageRecord, told: &Told) {
    let id = record.response_id.as_deref();
    if id.is_some_and(|id| !told.first(id, record.call)) {
        record.usage = Usage::default();
        record.has_usage = false;
    }
}

/// What the answer cost.
pub(crate) fn cost(record: &UsageRecord, prices: &PriceTable) -> Cost {
    if !record.has_usage && record.estimated_output == Count::Unknown {
        // Providers do not charge for what they refused; nor do we send what we refuse.
        let units = record
            .outcome
            .as_ref()
            .map(|outcome| outcome.advice().units);
        let free = matches!(units, Some(Units::TokensBack | Units::AllBack));
        return if free || record.refused.is_some() {
            Cost::Exact(Pico::ZERO)
        } else {
            Cost::Unknown
        };
    }
    let Some(model) = record.model() else {
        return Cost::Unknown;
    };
    let mut usage = record.usage;
    let stated = usage.output.get().unwrap_or(0);
    if let Some(estimate) = record.estimated_output.get() {
        if usage.output.exact().is_none() && stated < estimate {
            usage.output = Count::AtLeast(estimate);
        }
    }
    let asked = record.asked().map_or("", |model| model);
    let tier = record.service_tier.as_deref();
    let cost = prices.cost_answered(asked, model, tier, &usage);
    // Beside the tokens there are fees; and the input of pictures is dearer than that of text.
    if record.hosted_tools || record.endpoint == Endpoint::Images {
        cost.at_least()
    } else {
        cost
    }
}
