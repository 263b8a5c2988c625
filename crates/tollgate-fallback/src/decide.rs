//! What is done after an answer: the rows of the one decision table, and what others are told.
use tollgate_core::{
    call::Skipped,
    extensions::{Reason, Refused},
    resend::Resend,
    wire::{
        outcome::{NextModel, Outcome, TimeoutKind, Verdict},
        prompt::RequestFacts,
    },
};

use crate::{FallbackPolicy, health::Report};

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It was served.
    Served,
    /// No other candidate may or can do better.
    Stop,
    /// The next candidate.
    Next,
    /// The next one with another key.
    OtherKey,
    /// The next one that is larger.
    Larger,
    /// The next one; nothing was sent to this one.
    Refused(Skipped),
}

/// Decides on an answer of the provider's, or on a failed connection.
pub(crate) fn decide(verdict: &Verdict, facts: &RequestFacts, policy: &FallbackPolicy) -> Turn {
    let advice = policy.overrides.advice(verdict);
    let told = advice.next_model != NextModel::IfResend
        && verdict.outcome.advice().next_model == NextModel::IfResend;
    // Told otherwise by the user; but what is done later is never sent twice.
    if told && !Resend::NothingDelivered.allows(facts) {
        return Turn::Stop;
    }
    let advice = policy.resend.settle(advice, facts);
    match advice.next_model {
        NextModel::Done => Turn::Served,
        // A wait that reaches us is one that no layer inside was willing to wait, and we never wait.
        NextModel::Now | NextModel::WhenRetriesUsedUp | NextModel::IfWaitTooLong => Turn::Next,
        NextModel::OtherCredential => Turn::OtherKey,
        // Too large for a rate limit says nothing of the context window.
        NextModel::Larger if matches!(verdict.outcome, Outcome::RateLimited { .. }) => Turn::Next,
        NextModel::Larger => Turn::Larger,
        _ => Turn::Stop,
    }
}

/// Decides on a refusal of our own, of which the provider knows nothing.
pub(crate) fn decide_refusal(refused: &Refused) -> Turn {
    match refused.reason {
        // The next model may have a price.
        Reason::Exhausted
        | Reason::NeverFits
        | Reason::QueueFull
        | Reason::WaitTooLong
        | Reason::Unpriced => Turn::Refused(Skipped::Refused(refused.reason)),
        // The store, the body and its length are the same for every candidate.
        _ => Turn::Stop,
    }
}

/// What the other calls should know of a target; `None`: nothing was learnt.
pub(crate) fn report(verdict: &Verdict) -> Option<Report> {
    Some(match &verdict.outcome {
        // The call's own time was over. That says nothing of the target.
        Outcome::Timeout {
            what: TimeoutKind::Total,
        } => return None,
        Outcome::RateLimited {
            never_fits: false,
            retry_after,
            ..
        } => Report::Limited(verdict.retry_after.map(|r| r.wait).or(*retry_after)),
        Outcome::Overloaded
        | Outcome::ServerError
        | Outcome::Timeout { .. }
        | Outcome::Unreachable { .. }
        | Outcome::Broken => Report::Failed,
        Outcome::QuotaExhausted | Outcome::Unauthorized => Report::KeyRefused,
        Outcome::ModelGone => Report::Gone,
        _ => Report::Alive,
    })
}

/// Whether an answer finds fault with the request itself. From a later candidate that is about a
/// request that the caller has not made.
pub(crate) fn blames_request(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Invalid | Outcome::TooLong)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tollgate_core::wire::{outcome::OutcomeKind, prompt::Endpoint};

    use super::*;

    fn turn(outcome: Outcome, policy: &FallbackPolicy) -> Turn {
        let facts = RequestFacts::unread(Endpoint::ChatCompletions);
        decide(&Verdict::of(StatusCode::OK, outcome), &facts, policy)
    }

    // F13, F14
    #[test]
    fn what_one_models_budget_refuses_the_next_model_may_have_room_for() {
        for reason in [Reason::Exhausted, Reason::NeverFits, Reason::Unpriced] {
            let turn = decide_refusal(&Refused::new(reason));
            assert_eq!(turn, Turn::Refused(Skipped::Refused(reason)), "{reason:?}");
        }
        let store = decide_refusal(&Refused::new(Reason::StoreDown));
        assert_eq!(store, Turn::Stop);
    }

    // F09, F11, F12
    #[test]
    fn every_outcome_has_its_turn() {
        let limited = |never_fits| Outcome::RateLimited {
            what: None,
            retry_after: None,
            never_fits,
        };
        let timeout = Outcome::Timeout {
            what: TimeoutKind::FirstByte,
        };
        let policy = FallbackPolicy::default();
        for (outcome, expected) in [
            (Outcome::Ok, Turn::Served),
            (limited(false), Turn::Next),
            (limited(true), Turn::Next),
            (Outcome::QuotaExhausted, Turn::OtherKey),
            (Outcome::Unauthorized, Turn::OtherKey),
            (Outcome::Overloaded, Turn::Next),
            (Outcome::ServerError, Turn::Next),
            (timeout.clone(), Turn::Next),
            (Outcome::Broken, Turn::Next),
            (Outcome::Unreachable { sent: true }, Turn::Next),
            (Outcome::Unreachable { sent: false }, Turn::Next),
            (Outcome::TooLong, Turn::Larger),
            (Outcome::ModelGone, Turn::Next),
            (Outcome::ContentRefused, Turn::Stop),
            (Outcome::Invalid, Turn::Stop),
        ] {
            assert_eq!(turn(outcome.clone(), &policy), expected, "{outcome:?}");
        }
        let told = FallbackPolicy::default().route_around_refusals(true);
        assert_eq!(turn(Outcome::ContentRefused, &told), Turn::Next);
        let once = FallbackPolicy::default().resend(Resend::OnlyUnsent);
        assert_eq!(turn(timeout, &once), Turn::Stop);
        assert_eq!(
            turn(Outcome::Unreachable { sent: false }, &once),
            Turn::Next
        );
    }

    #[test]
    fn what_was_accepted_for_later_is_never_sent_twice() {
        let mut facts = RequestFacts::unread(Endpoint::Responses);
        facts.background = true;
        let broken = Verdict::broken(StatusCode::OK);
        let turn = decide(&broken, &facts, &FallbackPolicy::default());
        assert_eq!(turn, Turn::Stop);
        let told = FallbackPolicy::default().on(OutcomeKind::Broken, NextModel::Now);
        assert_eq!(decide(&broken, &facts, &told), Turn::Stop);
        let chat = RequestFacts::unread(Endpoint::ChatCompletions);
        assert_eq!(decide(&broken, &chat, &told), Turn::Next);
    }

    #[test]
    fn each_outcome_may_be_told_to_be_met_otherwise() {
        let policy = FallbackPolicy::default()
            .on(OutcomeKind::Overloaded, NextModel::Never)
            .on(OutcomeKind::Invalid, NextModel::Now)
            .on(OutcomeKind::ServerError, NextModel::OtherCredential);
        assert_eq!(turn(Outcome::Overloaded, &policy), Turn::Stop);
        assert_eq!(turn(Outcome::Invalid, &policy), Turn::Next);
        assert_eq!(turn(Outcome::ServerError, &policy), Turn::OtherKey);
        assert_eq!(turn(Outcome::Broken, &policy), Turn::Next, "as ever");
    }
}
