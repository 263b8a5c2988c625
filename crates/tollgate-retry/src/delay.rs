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

fn refill_of(limit: &RateLimit, cost: &Estimate) -> Option<Duration> {
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
    if remaining >= need {
        return None;
    }
    let reset = limit.reset.as_ref()?;
    let full = reset.after()?;
    // These two are said of buckets that refill all the time. A reset in another form may be that
    // of a window, from which nothing comes back before its end.
    let steady = matches!(reset.kind, ResetKind::GoDuration | ResetKind::Rfc3339);
    match limit.limit {
        Some(limit) if steady => {
            let share = (need - remaining) / (limit - remaining);
            Some(full.mul_f64(share.clamp(0.0, 1.0)))
        }
        _ => Some(full),
    }
}

/// A server's wait with a random tenth on top, at most [`JITTER_CAP`]. `roll` is from 0 to 1.
pub(crate) fn spread(wait: Duration, roll: f64) -> Duration {
    let most = (wait / 10).min(JITTER_CAP);
    wait.saturating_add(most.mul_f64(roll.clamp(0.0, 1.0)))
}

/// A random pause up to a ceiling that doubles from `base` to `cap`. `roll` is from 0 to 1.
pub(crate) fn full_jitter(base: Duration, cap: Duration, retry: u32, roll: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(retry.saturating_sub(1));
    let ceiling = base.saturating_mul(doubled).min(cap);
    // Never nothing: an unlucky draw must not spin.
    let floor = (base / 10).min(ceiling);
    floor + (ceiling - floor).mul_f64(roll.clamp(0.0, 1.0))
}
