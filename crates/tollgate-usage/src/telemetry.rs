//! A record as an event, in the names of OpenTelemetry's conventions for generative AI.
use crate::UsageRecord;

/// One event at debug level, without content.
pub(crate) fn event(record: &UsageRecord) {
    let usage = &record.usage;
    tracing::debug!(
        target: "tollgate::usage",
        {
            gen_ai.operation.name = record.operation(),
            gen_ai.request.model = record.model_asked.as_deref(),
            gen_ai.response.model = record.model_served.as_deref(),
            gen_ai.response.id = record.response_id.as_deref(),
            gen_ai.response.finish_reasons = record.finish_reason.as_deref(),
            gen_ai.usage.input_tokens = usage.input.get(),
            gen_ai.usage.output_tokens = usage.output.get(),
            gen_ai.usage.cache_read.input_tokens = usage.cached_input.get(),
            gen_ai.usage.cache_creation.input_tokens = usage.cache_write.get(),
            gen_ai.usage.reasoning.output_tokens = usage.reasoning.get(),
            http.response.status_code = record.status.map(|status| status.as_u16()),
            "error.type" = record.error_type(),
            tollgate.call = format_args!("{:016x}", record.call),
            tollgate.kind = ?record.kind,
            tollgate.attempt = record.attempt,
            tollgate.completion = ?record.completion,
            tollgate.refused = record.refused.map(|reason| reason.code()),
            tollgate.cost = record.cost.get().map(tracing::field::display),
            tollgate.duration_ms = u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX),
        },
        "usage",
    );
}
