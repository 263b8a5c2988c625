//! A record as a flat document with stable names.
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use tollgate_core::{
    call::WaitReason,
    extensions::Reason,
    price::Cost,
    principal::Principal,
    wire::{limits::RateLimit, outcome::Outcome, usage::Count},
};

use crate::{AttemptRecord, Completion, RecordKind, UsageRecord};

/// The names of OpenTelemetry's conventions for generative AI where they have one, as of 2026-11
/// (<https://opentelemetry.io/docs/specs/semconv/gen-ai/>), and `tollgate.…` elsewhere.
#[derive(Serialize)]
struct Flat<'a> {
    #[serde(rename = "tollgate.call")]
    call: Hex,
    #[serde(rename = "tollgate.kind")]
    kind: &'static str,
    #[serde(rename = "tollgate.nested", skip_serializing_if = "is_false")]
    nested: bool,
    #[serde(rename = "tollgate.attempt")]
    attempt: u32,
    #[serde(
        rename = "tollgate.failed_attempts",
        skip_serializing_if = "Vec::is_empty"
    )]
    failed_attempts: Vec<FlatAttempt<'a>>,
    /// Microseconds since 1970: exact in every reader of JSON.
    #[serde(rename = "tollgate.started_unix_us")]
    started: u64,
    #[serde(rename = "gen_ai.client.operation.duration")]
    duration: f64,
    #[serde(
        rename = "tollgate.time_to_head",
        skip_serializing_if = "Option::is_none"
    )]
    time_to_head: Option<f64>,
    #[serde(
        rename = "gen_ai.client.operation.time_to_first_chunk",
        skip_serializing_if = "Option::is_none"
    )]
    time_to_first_token: Option<f64>,
    #[serde(rename = "tollgate.principal", skip_serializing_if = "Option::is_none")]
    principal: Option<Hex>,
    #[serde(rename = "tollgate.key", skip_serializing_if = "Option::is_none")]
    key: Option<Hex>,
    #[serde(rename = "tollgate.endpoint")]
    endpoint: &'static str,
    #[serde(rename = "gen_ai.operation.name")]
    operation: &'static str,
    #[serde(rename = "gen_ai.request.stream", skip_serializing_if = "is_false")]
    stream: bool,
    #[serde(rename = "tollgate.background", skip_serializing_if = "is_false")]
    background: bool,
    #[serde(
        rename = "gen_ai.request.model",
        skip_serializing_if = "Option::is_none"
    )]
    model_asked: Option<&'a str>,
    #[serde(
        rename = "gen_ai.response.model",
        skip_serializing_if = "Option::is_none"
    )]
    model_served: Option<&'a str>,
    #[serde(
        rename = "tollgate.candidate.model",
        skip_serializing_if = "Option::is_none"
    )]
    candidate_model: Option<&'a str>,
    #[serde(
        rename = "tollgate.candidate.target",
        skip_serializing_if = "Option::is_none"
    )]
    candidate_target: Option<&'a str>,
    #[serde(
        rename = "tollgate.candidate.position",
        skip_serializing_if = "Option::is_none"
    )]
    candidate_position: Option<usize>,
    #[serde(
        rename = "http.response.status_code",
        skip_serializing_if = "Option::is_none"
    )]
    status: Option<u16>,
    #[serde(rename = "tollgate.outcome", skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(rename = "tollgate.refused", skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
    #[serde(rename = "tollgate.completion")]
    completion: &'static str,
    #[serde(rename = "tollgate.bytes_received")]
    bytes_received: u64,
    #[serde(
        rename = "gen_ai.usage.input_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    input: Option<u64>,
    #[serde(
        rename = "gen_ai.usage.cache_read.input_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    cached_input: Option<u64>,
    #[serde(
        rename = "gen_ai.usage.cache_creation.input_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    cache_write: Option<u64>,
    #[serde(
        rename = "tollgate.usage.cache_write_1h.input_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    cache_write_1h: Option<u64>,
    #[serde(
        rename = "tollgate.usage.audio.input_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    audio_input: Option<u64>,
    #[serde(
        rename = "gen_ai.usage.output_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    output: Option<u64>,
    #[serde(
        rename = "gen_ai.usage.reasoning.output_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    reasoning: Option<u64>,
    #[serde(
        rename = "tollgate.usage.audio.output_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    audio_output: Option<u64>,
    #[serde(
        rename = "tollgate.usage.total_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    total: Option<u64>,
    #[serde(
        rename = "tollgate.usage.estimated_output_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    estimated_output: Option<u64>,
    /// The counts are what had been stated when the answer was cut off.
    #[serde(
        rename = "tollgate.usage.lower_bound",
        skip_serializing_if = "is_false"
    )]
    lower_bound: bool,
    #[serde(rename = "tollgate.usage.known")]
    has_usage: bool,
    #[serde(rename = "tollgate.hosted_tools", skip_serializing_if = "is_false")]
    hosted_tools: bool,
    /// Dollars, as an exact decimal.
    #[serde(rename = "tollgate.cost_usd", skip_serializing_if = "Option::is_none")]
    cost: Option<String>,
    #[serde(rename = "tollgate.cost.lower_bound", skip_serializing_if = "is_false")]
    cost_lower_bound: bool,
    #[serde(rename = "tollgate.finish", skip_serializing_if = "Option::is_none")]
    finish: Option<&'static str>,
    #[serde(
        rename = "gen_ai.response.finish_reasons",
        skip_serializing_if = "Option::is_none"
    )]
    finish_reasons: Option<[&'a str; 1]>,
    #[serde(
        rename = "tollgate.service_tier",
        skip_serializing_if = "Option::is_none"
    )]
    service_tier: Option<&'a str>,
    #[serde(rename = "gen_ai.response.id", skip_serializing_if = "Option::is_none")]
    response_id: Option<&'a str>,
    #[serde(rename = "tollgate.rate_limits", skip_serializing_if = "Vec::is_empty")]
    rate_limits: Vec<FlatLimit<'a>>,
}

#[derive(Serialize)]
struct FlatAttempt<'a> {
    number: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took: Option<f64>,
}

#[derive(Serialize)]
struct FlatLimit<'a> {
    dimension: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<f64>,
    /// Seconds until it is full again.
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<f64>,
}

/// Sixteen digits: a number of 64 bits is not exact in every reader of JSON.
struct Hex(u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands it over so
fn is_false(value: &bool) -> bool {
    !value
}

impl Serialize for UsageRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let usage = &self.usage;
        let served_by = self.served_by.as_ref();
        let counts = [usage.input, usage.output, usage.total];
        let since = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let digest = |who: Option<Principal>| who.map(|who| Hex(who.digest()));
        Flat {
            call: Hex(self.call),
            kind: match self.kind {
                RecordKind::Call => "call",
                RecordKind::Attempt => "attempt",
            },
            nested: self.nested,
            attempt: self.attempt,
            failed_attempts: self.failed_attempts.iter().map(attempt).collect(),
            started: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            duration: self.duration.as_secs_f64(),
            time_to_head: seconds(self.time_to_head),
            time_to_first_token: seconds(self.time_to_first_token),
            principal: digest(self.principal),
            key: digest(self.key),
            endpoint: self.endpoint.as_str(),
            operation: self.operation(),
            stream: self.stream,
            background: self.background,
            model_asked: self.model_asked.as_deref(),
            model_served: self.model_served.as_deref(),
            candidate_model: served_by.and_then(|by| by.model.as_deref()),
            candidate_target: served_by.and_then(|by| by.target.as_deref()),
            candidate_position: served_by.map(|by| by.position),
            status: self.status.map(|status| status.as_u16()),
            outcome: self.outcome.as_ref().map(Outcome::as_str),
            error: self.error_type(),
            refused: self.refused.map(Reason::code),
            completion: match self.completion {
                Completion::Complete => "complete",
                Completion::Partial => "partial",
                Completion::Failed => "failed",
            },
            bytes_received: self.bytes_received,
            input: usage.input.get(),
            cached_input: usage.cached_input.get(),
            cache_write: usage.cache_write.get(),
            cache_write_1h: usage.cache_write_1h.get(),
            audio_input: usage.audio_input.get(),
            output: usage.output.get(),
            reasoning: usage.reasoning.get(),
            audio_output: usage.audio_output.get(),
            total: usage.total.get(),
            estimated_output: self.estimated_output.get(),
            lower_bound: counts
                .iter()
                .any(|count| matches!(count, Count::AtLeast(_))),
            has_usage: self.has_usage,
            hosted_tools: self.hosted_tools,
            cost: self.cost.get().map(|cost| cost.to_string()),
            cost_lower_bound: matches!(self.cost, Cost::AtLeast(_)),
            finish: self.finish.map(|finish| finish.as_str()),
            finish_reasons: self.finish_reason.as_deref().map(|reason| [reason]),
            service_tier: self.service_tier.as_deref(),
            response_id: self.response_id.as_deref(),
            rate_limits: self.rate_limits.iter().map(limit).collect(),
        }
        .serialize(serializer)
    }
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

fn attempt(attempt: &AttemptRecord) -> FlatAttempt<'_> {
    FlatAttempt {
        number: attempt.number,
        model: attempt.model.as_deref(),
        target: attempt.target.as_deref(),
        status: attempt.status.map(|status| status.as_u16()),
        outcome: attempt.outcome.as_ref().map(Outcome::as_str),
        waited: seconds(attempt.waited.map(|(time, _)| time)),
        why: attempt.waited.map(|(_, why)| match why {
            WaitReason::Stated(_) => "stated",
            WaitReason::Refill => "refill",
            WaitReason::Backoff => "backoff",
            _ => "other",
        }),
        took: seconds(attempt.took),
    }
}

fn limit(limit: &RateLimit) -> FlatLimit<'_> {
    let reset = limit.reset.as_ref().and_then(|reset| reset.after());
    FlatLimit {
        dimension: limit.dimension.as_str(),
        window: limit.window.as_deref(),
        limit: limit.limit,
        remaining: limit.remaining,
        reset: seconds(reset),
    }
}
