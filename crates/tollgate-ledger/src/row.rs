//! A record as a row: words for enums, and numbers that fit.
use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, Statement, params};
use tollgate_core::{
    call::WaitReason,
    price::Cost,
    wire::{limits::RateLimit, outcome::Outcome, usage::Count},
};
use tollgate_usage::{Completion, RecordKind, UsageRecord};

/// Longest name that is kept, in bytes. Names come from the wire.
const NAME: usize = 200;

const RECORD: &str = "INSERT INTO record (
    call, kind, nested, attempt, started_us, duration_us, head_us, first_token_us, principal, key, endpoint, stream, background,
    model_asked, model_served, model, target, position, status, outcome, refused, completion, bytes_received, has_usage,
    input, cached_input, cache_write, cache_write_1h, output, reasoning, audio_input, audio_output, total,
    estimated_output, hosted_tools, cost_pico, bounds, finish, finish_reason, service_tier, response_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const ATTEMPT: &str = "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING";

const RATE_LIMIT: &str = "INSERT INTO rate_limit VALUES (?, ?, ?, ?, ?, ?, ?, 1)
    ON CONFLICT DO UPDATE SET
        units = coalesce(excluded.units, units),
        remaining = min(coalesce(remaining, excluded.remaining), coalesce(excluded.remaining, remaining)),
        inferred_us = coalesce(excluded.inferred_us, inferred_us),
        answers = answers + 1";

/// The statements that write records.
pub(crate) struct Insert<'db> {
    db: &'db Connection,
    record: Statement<'db>,
    attempt: Statement<'db>,
    rate_limit: Statement<'db>,
}

impl<'db> Insert<'db> {
    pub(crate) fn prepare(db: &'db Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            db,
            record: db.prepare(RECORD)?,
            attempt: db.prepare(ATTEMPT)?,
            rate_limit: db.prepare(RATE_LIMIT)?,
        })
    }

    /// Writes one record and all that belongs to it.
    pub(crate) fn write(&mut self, record: &UsageRecord) -> rusqlite::Result<()> {
        let mut bounds = Bounds::default();
        let served_by = record.served_by.as_ref();
        let usage = &record.usage;
        self.record.execute(params![
            record.call.cast_signed(),
            kind(record.kind),
            record.nested,
            record.attempt,
            date(record.started),
            micros(record.duration),
            record.time_to_head.map(micros),
            record.time_to_first_token.map(micros),
            record.principal.map(|who| who.digest().cast_signed()),
            record.key.map(|key| key.digest().cast_signed()),
            record.endpoint.as_str(),
            record.stream,
            record.background,
            record.model_asked.as_deref().map(name),
            record.model_served.as_deref().map(name),
            record.model().map(|model| name(model)),
            served_by.and_then(|by| by.target.as_deref()).map(name),
            served_by.map(|by| number(by.position as u64)),
            record.status.map(|status| status.as_u16()),
            record.outcome.as_ref().map(Outcome::as_str),
            record.refused.map(|reason| reason.code()),
            completion(record.completion),
            number(record.bytes_received),
            record.has_usage,
            bounds.count(0, usage.input),
            bounds.count(1, usage.cached_input),
            bounds.count(2, usage.cache_write),
            bounds.count(3, usage.cache_write_1h),
            bounds.count(4, usage.output),
            bounds.count(5, usage.reasoning),
            bounds.count(6, usage.audio_input),
            bounds.count(7, usage.audio_output),
            bounds.count(8, usage.total),
            bounds.count(9, record.estimated_output),
            record.hosted_tools,
            bounds.cost(record.cost),
            bounds.0,
            record.finish.map(|finish| finish.as_str()),
            record.finish_reason.as_deref().map(name),
            record.service_tier.as_deref().map(name),
            record.response_id.as_deref().map(name),
        ])?;
        let id = self.db.last_insert_rowid();
        for attempt in &record.failed_attempts {
            self.attempt.execute(params![
                id,
                attempt.number,
                attempt.model.as_deref().map(name),
                attempt.target.as_deref().map(name),
                attempt.status.map(|status| status.as_u16()),
                attempt.outcome.as_ref().map(Outcome::as_str),
                attempt.waited.map(|(wait, _)| micros(wait)),
                attempt.waited.map(|(_, why)| wait_reason(why)),
                attempt.took.map(micros),
            ])?;
        }
        // An outer record sees the same headers again.
        if !record.nested {
            for limit in &record.rate_limits {
                self.limit(record, limit)?;
            }
        }
        Ok(())
    }

    fn limit(&mut self, record: &UsageRecord, limit: &RateLimit) -> rusqlite::Result<()> {
        let answered = date(record.started).saturating_add(micros(record.duration));
        self.rate_limit.execute(params![
            answered.div_euclid(60_000_000),
            record
                .model()
                .map_or(Cow::Borrowed(""), |model| name(model)),
            name(limit.dimension.as_str()),
            limit.window.as_deref().map_or(Cow::Borrowed(""), name),
            limit.limit.filter(|units| units.is_finite()),
            limit.remaining.filter(|units| units.is_finite()),
            limit.window_inferred().map(micros),
        ])?;
        Ok(())
    }
}

/// The bits that say which numbers are lower bounds.
#[derive(Default)]
struct Bounds(u32);

impl Bounds {
    fn count(&mut self, bit: u32, count: Count) -> Option<i64> {
        let n = count.get()?;
        // What does not fit is no less than the most that does.
        if matches!(count, Count::AtLeast(_)) || i64::try_from(n).is_err() {
            self.0 |= 1 << bit;
        }
        Some(number(n))
    }

    fn cost(&mut self, cost: Cost) -> Option<i64> {
        let pico = cost.get()?.get();
        let fits = i64::try_from(pico);
        if matches!(cost, Cost::AtLeast(_)) || fits.is_err() {
            self.0 |= 1 << COST_BIT;
        }
        Some(fits.unwrap_or(i64::MAX))
    }
}

/// The bit of the cost.
pub(crate) const COST_BIT: u32 = 10;

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// Microseconds since 1970, before it negative.
pub(crate) fn date(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => micros(before.duration()).saturating_neg(),
    }
}

/// Cut where it is too long.
fn name(text: &str) -> Cow<'_, str> {
    if text.len() <= NAME {
        return Cow::Borrowed(text);
    }
    let end = (0..=NAME).rev().find(|&at| text.is_char_boundary(at));
    Cow::Owned(format!("{}…", &text[..end.unwrap_or(0)]))
}

fn kind(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Call => "call",
        RecordKind::Attempt => "attempt",
        _ => "other",
    }
}

fn completion(completion: Completion) -> &'static str {
    match completion {
        Completion::Complete => "complete",
        Completion::Partial => "partial",
        Completion::Failed => "failed",
        _ => "other",
    }
}

fn wait_reason(reason: WaitReason) -> &'static str {
    match reason {
        WaitReason::Stated(_) => "stated",
        WaitReason::Refill => "refill",
        WaitReason::Backoff => "backoff",
        _ => "other",
    }
}
