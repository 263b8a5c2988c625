//! Sums over records.
use std::{ops::AddAssign, time::Duration};

use tollgate_core::{
    price::{Cost, Pico},
    wire::usage::{Count, Finish},
};

use crate::{Completion, RecordKind, UsageRecord};

/// Sums over calls. They saturate and never wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Calls, however they ended.
    pub calls: u64,
    /// Records that were added: as many as calls for an outer recorder, and as many as attempts for
    /// one inside a layer that tries again.
    pub records: u64,
    /// Attempts of those calls that did not become their answer.
    pub failed_attempts: u64,
    /// Records that ended in an error, our own refusals and broken answers included.
    pub errors: u64,
    /// Records of our own refusals, where nothing was sent.
    pub refused: u64,
    /// Records of answers that the caller left before their end, or before they began.
    pub partial: u64,
    /// Input tokens, cached ones included.
    pub input: u64,
    /// Input tokens read from a cache.
    pub cached_input: u64,
    /// Input tokens written to a cache.
    pub cache_write: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// Reasoning tokens.
    pub reasoning: u64,
    /// All tokens, as stated or else input and output.
    pub total: u64,
    /// Estimated output tokens of answers that were cut off, beyond what is in `output`.
    pub estimated_output: u64,
    /// Metered answers that stated no usage.
    pub unknown_usage: u64,
    /// What the priced ones cost.
    pub cost: Pico,
    /// Records whose cost is only a lower bound.
    pub cost_at_least: u64,
    /// Answers with usage whose model has no price: what they cost is not in `cost`.
    pub unpriced: u64,
    /// Why generation ended.
    pub finish: FinishTotals,
    /// Sum of all durations.
    pub duration: Duration,
}

/// How often generation ended for which reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FinishTotals {
    /// A natural end or a stop sequence.
    pub stop: u64,
    /// The output cap or the context window was reached.
    pub length: u64,
    /// The model called a tool.
    pub tool_calls: u64,
    /// A filter cut or refused it.
    pub content_filter: u64,
    /// The provider failed while generating.
    pub error: u64,
    /// Anything else.
    pub other: u64,
}

impl Totals {
    /// The totals of one record.
    #[must_use]
    pub fn of(record: &UsageRecord) -> Self {
        let usage = &record.usage;
        let sum = |a: u64, b: u64| a.saturating_add(b);
        let count = |count: Count| count.get().unwrap_or(0);
        // Inside a layer that tries again, the first record stands for the call.
        let call = record.kind == RecordKind::Call || record.first;
        let missing = record.served() && record.metered();
        let mut totals = Self {
            calls: call.into(),
            records: 1,
            failed_attempts: record.failed_attempts.len() as u64,
            errors: record
                .outcome
                .as_ref()
                .is_some_and(|_| !record.served())
                .into(),
            refused: record.refused.is_some().into(),
            partial: (record.completion == Completion::Partial
                && (record.served() || record.outcome.is_none()))
            .into(),
            input: count(usage.input),
            cached_input: count(usage.cached_input),
            cache_write: count(usage.cache_write),
            output: count(usage.output),
            reasoning: count(usage.reasoning),
            total: usage
                .total
                .get()
                .unwrap_or_else(|| sum(count(usage.input), count(usage.output))),
            estimated_output: count(record.estimated_output).saturating_sub(count(usage.output)),
            unknown_usage: (missing && !record.has_usage).into(),
            cost: record.cost.get().unwrap_or_default(),
            cost_at_least: matches!(record.cost, Cost::AtLeast(_)).into(),
            unpriced: (record.has_usage && record.cost == Cost::Unknown).into(),
            finish: FinishTotals::default(),
            duration: record.duration,
        };
        if let Some(finish) = record.finish {
            let finishes = &mut totals.finish;
            *match finish {
                Finish::Stop => &mut finishes.stop,
                Finish::Length => &mut finishes.length,
                Finish::ToolCalls => &mut finishes.tool_calls,
                Finish::ContentFilter => &mut finishes.content_filter,
                Finish::Error => &mut finishes.error,
                _ => &mut finishes.other,
            } = 1;
        }
        totals
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        let add = |mine: &mut u64, theirs: u64| *mine = mine.saturating_add(theirs);
        add(&mut self.calls, other.calls);
        add(&mut self.records, other.records);
        add(&mut self.failed_attempts, other.failed_attempts);
        add(&mut self.errors, other.errors);
        add(&mut self.refused, other.refused);
        add(&mut self.partial, other.partial);
        add(&mut self.input, other.input);
        add(&mut self.cached_input, other.cached_input);
        add(&mut self.cache_write, other.cache_write);
        add(&mut self.output, other.output);
        add(&mut self.reasoning, other.reasoning);
        add(&mut self.total, other.total);
        add(&mut self.estimated_output, other.estimated_output);
        add(&mut self.unknown_usage, other.unknown_usage);
        self.cost = self.cost + other.cost;
        add(&mut self.cost_at_least, other.cost_at_least);
        add(&mut self.unpriced, other.unpriced);
        add(&mut self.finish.stop, other.finish.stop);
        add(&mut self.finish.length, other.finish.length);
        add(&mut self.finish.tool_calls, other.finish.tool_calls);
        add(&mut self.finish.content_filter, other.finish.content_filter);
        add(&mut self.finish.error, other.finish.error);
        add(&mut self.finish.other, other.finish.other);
        self.duration = self.duration.saturating_add(other.duration);
    }
}
