//! The one place where it is decided what becomes of an attempt.
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tollgate_core::{
    call::WaitReason,
    extensions::{GaveUp, GaveUpReason},
    resend::Resend,
    wire::{
        estimate::Estimate,
        limits,
        outcome::{Outcome, SameModel, Verdict},
        prompt::RequestFacts,
    },
};

use crate::{RateLimitPolicy, delay};

/// All that is known when an attempt has ended.
pub(crate) struct Situation<'a> {
    /// What the attempt came to.
    pub(crate) verdict: &'a Verdict,
    /// The answer's headers; none if there was no answer.
    pub(crate) headers: Option<&'a HeaderMap>,
    /// What was asked for.
    pub(crate) facts: &'a RequestFacts,
    /// Attempts that this layer has made for the call.
    pub(crate) made: u32,
    /// Attempts that this layer may make for it.
    pub(crate) most: u32,
    /// Attempts that the call still allows, over all layers.
    pub(crate) left: u32,
    /// The server has asked for a retry of what is not retried by itself, and has had it.
    pub(crate) asked_before: bool,
    /// To the deadline, if there is one.
    pub(crate) time_left: Option<Duration>,
    /// The longest to wait on the server's word while a fallback has somewhere else to go.
    pub(crate) elsewhere: Option<Duration>,
    /// The date, for headers that are dates.
    pub(crate) today: SystemTime,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Decision {
    /// It was served.
    Served,
    /// Hand on what came.
    GiveUp(GaveUp),
    /// Wait, and try again.
    Retry {
        /// Without jitter.
        wait: Duration,
        reason: WaitReason,
        /// Only because the server asked for it.
        asked: bool,
    },
}

/// Decides.
pub(crate) fn decide(policy: &RateLimitPolicy, it: &Situation<'_>) -> Decision {
    let advice = policy.overrides.advice(it.verdict);
    let give_up = |reason| Decision::GiveUp(GaveUp::new(reason));
    let again = !matches!(advice.same_model, SameModel::Done | SameModel::Never);
    let allowed = match advice.same_model {
        SameModel::IfResend => policy.resend.allows(it.facts),
        // Told otherwise by the user; but what is done later is never sent twice.
        _ if again && it.verdict.outcome.advice().same_model == SameModel::IfResend => {
            Resend::NothingDelivered.allows(it.facts)
        }
        _ => true,
    };
    if !allowed {
        return give_up(GaveUpReason::MaybeServed);
    }
    let asked = match advice.same_model {
        SameModel::Done => return Decision::Served,
        SameModel::Once if !it.asked_before => true,
        SameModel::AfterWait | SameModel::Backoff | SameModel::IfResend => false,
        _ => return give_up(GaveUpReason::Pointless),
    };

    let stated = delay::stated(it.verdict).or_else(|| refill(it));
    if it.left == 0 || it.made >= it.most {
        let gave_up = GaveUp::new(GaveUpReason::AttemptsUsedUp);
        return Decision::GiveUp(match stated {
            Some((wait, _)) => gave_up.wait(wait),
            None => gave_up,
        });
    }
    let (wait, reason) = stated.unwrap_or_else(|| {
        let pause = policy.backoff.pause(it.made).min(policy.wait_cap);
        (pause, WaitReason::Backoff)
    });
    let cap = match (reason, it.elsewhere) {
        (WaitReason::Backoff, _) | (_, None) => policy.wait_cap,
        (_, Some(elsewhere)) => policy.wait_cap.min(elsewhere),
    };
    let too_long = |reason, limit| Decision::GiveUp(GaveUp::new(reason).wait(wait).limit(limit));
    // A wait up to the very deadline leaves no time for an answer. Of the two bounds the nearer
    // one is named.
    match it.time_left {
        Some(left) if wait >= left && left <= cap => {
            return too_long(GaveUpReason::WaitBeyondDeadline, left);
        }
        _ if wait > cap => return too_long(GaveUpReason::WaitBeyondCap, cap),
        Some(left) if wait >= left => return too_long(GaveUpReason::WaitBeyondDeadline, left),
        _ => {}
    }
    Decision::Retry {
        wait,
        reason,
        asked,
    }
}

/// Only after a rate limit: other errors say nothing of the limits in their headers.
fn refill(it: &Situation<'_>) -> Option<(Duration, WaitReason)> {
    if !matches!(it.verdict.outcome, Outcome::RateLimited { .. }) {
        return None;
    }
    let limits = limits::from_headers(it.headers?, it.today);
    let wait = delay::refill(&limits, &Estimate::of(it.facts))?;
    Some((wait, WaitReason::Refill))
}
