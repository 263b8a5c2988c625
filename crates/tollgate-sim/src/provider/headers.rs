//! Rate-limit headers, in OpenAI's and in Anthropic's way.
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::scopes::Books;
use crate::{
    limit::Unit,
    wall::{go_duration, rfc3339, whole_secs},
};

type Names = (Unit, HeaderName, HeaderName, HeaderName);

/// What the headers say of one limit.
struct State {
    limit: u64,
    remaining: u64,
    reset: u64,
}

/// The first limit of this unit among those that apply.
fn state(books: &mut Books<'_>, unit: Unit, now: u64) -> Option<State> {
    let (_, limit, book) = books.each().find(|(_, limit, _)| limit.unit == unit)?;
    Some(State {
        limit: limit.amount,
        remaining: book.capacity().saturating_sub(book.used(now)),
        reset: book.reset(now),
    })
}

pub(crate) fn openai(map: &mut HeaderMap, books: &mut Books<'_>, now: u64) {
    const NAMES: [Names; 2] = [
        (
            Unit::Requests,
            HeaderName::from_static("x-ratelimit-limit-requests"),
            HeaderName::from_static("x-ratelimit-remaining-requests"),
            HeaderName::from_static("x-ratelimit-reset-requests"),
        ),
        (
            Unit::Tokens,
            HeaderName::from_static("x-ratelimit-limit-tokens"),
            HeaderName::from_static("x-ratelimit-remaining-tokens"),
            HeaderName::from_static("x-ratelimit-reset-tokens"),
        ),
    ];
    for (unit, limit, remaining, reset) in NAMES {
        if let Some(state) = state(books, unit, now) {
            map.insert(limit, state.limit.into());
            map.insert(remaining, state.remaining.into());
            map.insert(reset, text(go_duration(state.reset)));
        }
    }
}

pub(crate) fn anthropic(map: &mut HeaderMap, books: &mut Books<'_>, now: u64, date: SystemTime) {
    const NAMES: [Names; 4] = [
        (
            Unit::Requests,
            HeaderName::from_static("anthropic-ratelimit-requests-limit"),
            HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
            HeaderName::from_static("anthropic-ratelimit-requests-reset"),
        ),
        (
            Unit::InputTokens,
            HeaderName::from_static("anthropic-ratelimit-input-tokens-limit"),
            HeaderName::from_static("anthropic-ratelimit-input-tokens-remaining"),
            HeaderName::from_static("anthropic-ratelimit-input-tokens-reset"),
        ),
        (
            Unit::OutputTokens,
            HeaderName::from_static("anthropic-ratelimit-output-tokens-limit"),
            HeaderName::from_static("anthropic-ratelimit-output-tokens-remaining"),
            HeaderName::from_static("anthropic-ratelimit-output-tokens-reset"),
        ),
        (
            Unit::Tokens,
            HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
            HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
            HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
        ),
    ];
    let mut sum: Option<State> = None;
    for (unit, limit, remaining, reset) in NAMES {
        let state = match (state(books, unit, now), unit) {
            (Some(state), _) => state,
            // Without a limit of its own, "tokens" has always been the sum of input and output.
            (None, Unit::Tokens) if sum.is_some() => sum.take().expect("checked"),
            (None, _) => continue,
        };
        let left = match unit {
            Unit::Requests => state.remaining,
            _ => thousands(state.remaining, state.limit),
        };
        map.insert(limit, state.limit.into());
        map.insert(remaining, left.into());
        map.insert(
            reset,
            text(rfc3339(date + Duration::from_nanos(state.reset))),
        );
        if matches!(unit, Unit::InputTokens | Unit::OutputTokens) {
            let sum = sum.get_or_insert(State {
                limit: 0,
                remaining: 0,
                reset: 0,
            });
            sum.limit += state.limit;
            sum.remaining += state.remaining;
            sum.reset = sum.reset.max(state.reset);
        }
    }
}

/// Anthropic rounds what is left to thousands; a limit of a few thousand would lose its meaning by that.
fn thousands(remaining: u64, limit: u64) -> u64 {
    if limit < 10_000 {
        return remaining;
    }
    ((remaining + 500) / 1_000 * 1_000).min(limit)
}

pub(crate) fn openai_wait(map: &mut HeaderMap, wait: u64) {
    let millis = HeaderName::from_static("retry-after-ms");
    map.insert(millis, wait.div_ceil(1_000_000).into());
    map.insert(header::RETRY_AFTER, whole_secs(wait).into());
}

pub(crate) fn anthropic_wait(map: &mut HeaderMap, wait: u64) {
    map.insert(header::RETRY_AFTER, whole_secs(wait).max(1).into());
}

/// Replaces every number by nonsense, and adds some.
pub(crate) fn garble(map: &mut HeaderMap) {
    const NONSENSE: [&str; 5] = ["NaN", "-1e308", "soon", "99999999999999999999999", "1m-5s"];
    let names: Vec<_> = map
        .keys()
        .filter(|name| {
            name.as_str().contains("ratelimit") || name.as_str().starts_with("retry-after")
        })
        .cloned()
        .collect();
    for (name, nonsense) in names.into_iter().zip(NONSENSE.iter().cycle()) {
        map.insert(name, HeaderValue::from_static(nonsense));
    }
    map.insert(
        header::RETRY_AFTER,
        HeaderValue::from_static("Thu, 32 Foo 9999 25:61:61 GMT"),
    );
    map.append(header::RETRY_AFTER, HeaderValue::from_static("-3"));
    let processing = HeaderName::from_static("openai-processing-ms");
    map.insert(
        processing,
        HeaderValue::from_bytes(b"\xff\xfe").expect("obs-text is allowed"),
    );
}

fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("durations and dates are ASCII")
}
