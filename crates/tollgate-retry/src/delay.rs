//! How long to wait before the next attempt: arithmetic alone.
use std::time::Duration;

use tollgate_core::{
    call::WaitReason,
    wire::{
        estimate::Estimate,
        limits::{Dimension, RateLimit, ResetKind},
        outcome::{Outcome, Verdict},
        retry_after::Source,
    },
};

/// The most that is added to a wait that the server stated.
pub(crate) const JITTER_CAP: Duration = Duration::from_secs(1);

/// The server's own statement; one of zero says nothing.
pub(crate) fn stated(verdict: &Verdict) -> Option<(Duration, WaitReason)> {
    let (wait, source) = match (&verdict.retry_after, &verdict.outcome) {
        (Some(stated), _) => (stated.wait, stated.source),
        (None, Outcome::RateLimited { retry_after, .. }) => ((*retry_after)?, Source::RetryAfter),
        _ => return None,
    };
    (!wait.is_zero()).then_some((wait, WaitReason::Stated(source)))
}

/// The time until what this request costs has refilled in every limit that lacks it; `None` if no
/// limit is seen to lack it.
pub(crate) fn refill(limits: &[RateLimit], cost: &Estimate) -> Option<Duration> {
    limits
        .iter()
        .filter_map(|limit| refill_of(limit, cost))
        .max()
        .filter(|wait| !wait.is_zero())
}

/// Whether a limit is seen to lack what this request costs.
pub(crate) fn lacks(limits: &[RateLimit], cost: &Estimate) -> bool {
    limits.iter().any(|limit| need(limit, cost).is_some())
}

/// What is left of a limit and what the request needs of it, if that is more.
fn need(limit: &RateLimit, cost: &Estimate) -> Option<(f64, f64)> {
    #[allow(clippy::cast_precision_loss)] // an estimate to begin with
    let need = match limit.dimension {
        Dimension::Requests => 1.0,
        Dimension::Tokens | Dimension::ProjectTokens => cost.total() as f64,
        Dimension::InputTokens => cost.input as f64,
        Dimension::OutputTokens => cost.output_cap.unwrap_or(0) as f64,
        Dimension::InputImages => cost.images as f64,
        _ => return None,
    };
    let remaining = limit.remaining?;
    // Azure says −1 for a limit that it does not know.
    if limit.limit.is_some_and(|limit| limit <= 0.0) {
        return None;
    }
    // What is larger than the whole limit runs when the limit is full, if ever.
    let need = limit.limit.map_or(need, |limit| need.min(limit));
    (remaining < need).then_some((remaining, need))
}

fn refill_of(limit: &RateLimit, cost: &Estimate) -> Option<Duration> {
    let (remaining, need) = need(limit, cost)?;
    let reset = limit.reset.as_ref()?;
    let full = reset.after()?;
    // These two are said of buckets that refill all the time. A reset in another form may be that
    // of a window, from which nothing comes back before its end.
    let steady = matches!(reset.kind, ResetKind::GoDuration | ResetKind::Rfc3339);
    match limit.limit {
        Some(limit) if steady => {
            let share = (need - remaining) / (limit - remaining);
            Some(part(full, share))
        }
        _ => Some(full),
    }
}

/// A server's wait with a random tenth on top, at most [`JITTER_CAP`]. `roll` is from 0 to 1.
pub(crate) fn spread(wait: Duration, roll: f64) -> Duration {
    let most = (wait / 10).min(JITTER_CAP);
    wait.saturating_add(part(most, roll))
}

/// A random pause up to a ceiling that doubles from `base` to `cap`. `roll` is from 0 to 1.
pub(crate) fn full_jitter(base: Duration, cap: Duration, retry: u32, roll: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(retry.saturating_sub(1));
    let ceiling = base.saturating_mul(doubled).min(cap);
    // Never nothing: an unlucky draw must not spin.
    let floor = (base / 10).min(ceiling);
    floor.saturating_add(part(ceiling - floor, roll))
}

/// A share from 0 to 1 of a time.
fn part(whole: Duration, share: f64) -> Duration {
    // `Duration::mul_f64` panics on what it cannot represent.
    Duration::try_from_secs_f64(whole.as_secs_f64() * share.clamp(0.0, 1.0))
        .map_or(whole, |part| part.min(whole))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::{HeaderMap, HeaderName, HeaderValue};
    use tollgate_core::wire::{
        limits,
        prompt::{Endpoint, RequestFacts},
    };

    use super::*;

    /// A request of 100 tokens, half of them its cap.
    fn cost() -> Estimate {
        let mut facts = RequestFacts::unread(Endpoint::ChatCompletions);
        facts.prompt_chars = 200;
        facts.max_output_tokens = Some(50);
        Estimate::of(&facts)
    }

    fn wait(pairs: &[(&'static str, &'static str)]) -> Option<f64> {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        let limits = limits::from_headers(&headers, SystemTime::UNIX_EPOCH);
        refill(&limits, &cost()).map(|wait| wait.as_secs_f64())
    }

    fn tokens(limit: &'static str, left: &'static str, reset: &'static str) -> Option<f64> {
        wait(&[
            ("x-ratelimit-limit-tokens", limit),
            ("x-ratelimit-remaining-tokens", left),
            ("x-ratelimit-reset-tokens", reset),
        ])
    }

    // R08
    #[test]
    fn what_is_left_shortens_the_wait_and_debt_makes_it_longer() {
        assert_eq!(tokens("1000", "0", "60s"), Some(6.0));
        // Full after 57 s: 950 are missing, and 50 of them are needed.
        assert_eq!(tokens("1000", "50", "57s"), Some(3.0));
        assert_eq!(tokens("1000", "-100", "66s"), Some(12.0));
        assert_eq!(tokens("1000", "100", "54s"), None, "there is enough");
    }

    #[test]
    fn more_than_the_whole_limit_waits_until_it_is_full() {
        assert_eq!(tokens("80", "0", "60s"), Some(60.0));
        assert_eq!(tokens("80", "80", "5s"), None, "fuller it never is");
    }

    #[test]
    fn a_window_gives_nothing_back_before_its_end() {
        assert_eq!(tokens("1000", "0", "60"), Some(60.0));
    }

    #[test]
    fn of_several_exhausted_limits_the_slowest_counts() {
        let wait = wait(&[
            ("x-ratelimit-limit-requests", "2"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "40s"),
            ("x-ratelimit-limit-tokens", "1000"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "60s"),
        ]);
        assert_eq!(wait, Some(20.0));
    }

    #[test]
    fn what_is_not_stated_is_not_guessed() {
        assert_eq!(tokens("-1", "-1", "60s"), None, "Azure does not know");
        assert_eq!(tokens("1000", "0", "0s"), None);
        assert_eq!(tokens("1000", "0", "soon"), None);
        assert_eq!(wait(&[("x-ratelimit-remaining-tokens", "0")]), None);
        let alone = wait(&[
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "9s"),
        ]);
        assert_eq!(alone, Some(9.0), "without the limit there is no share");
    }

    #[test]
    fn hostile_numbers_neither_panic_nor_run_over() {
        for number in ["1e308", "-1e308", "0.0000001", "9999999999999999999999"] {
            for other in ["1e308", "-1e308", "0", "1"] {
                for reset in ["1e308", "156h14m36.75s", "-5s", "9999-12-31T23:59:59Z"] {
                    let _ = tokens(number, other, reset);
                }
            }
        }
        let long = Duration::MAX;
        assert_eq!(spread(long, 1.0), long);
        assert_eq!(full_jitter(long, long, u32::MAX, 1.0), long);
    }

    #[test]
    fn jitter_is_a_tenth_and_at_most_a_second() {
        let second = Duration::from_secs(1);
        assert_eq!(spread(second, 0.0), second);
        assert_eq!(spread(second, 1.0), second + second / 10);
        assert_eq!(spread(60 * second, 1.0), 61 * second);
        assert_eq!(
            part(second, f64::NAN),
            second,
            "the longer one is the safe one"
        );
    }
}
