//! What a user wants done otherwise than the table says.
use super::{Advice, NextModel, Outcome, SameModel, TimeoutKind, Verdict};

/// An outcome without its particulars: a row of the decision table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutcomeKind {
    /// Too many requests or tokens.
    RateLimited,
    /// More than the whole limit.
    NeverFits,
    /// No money left.
    QuotaExhausted,
    /// The provider lacks capacity.
    Overloaded,
    /// The provider failed.
    ServerError,
    /// No answer in time to what may have been received.
    Timeout,
    /// Longer than the model's context.
    TooLong,
    /// The model does not exist (any more), or not for us.
    ModelGone,
    /// A content filter refused.
    ContentRefused,
    /// The credential is bad.
    Unauthorized,
    /// The request is wrong.
    Invalid,
    /// No connection, or none in time: nothing was sent.
    Unsent,
    /// The connection broke; the request may have been received.
    Unreachable,
    /// The answer broke while it was read.
    Broken,
}

const KINDS: usize = 14;

impl Outcome {
    /// Its row in the decision table; `None` for what was served.
    #[must_use]
    pub fn kind(&self) -> Option<OutcomeKind> {
        Some(match self {
            Self::Ok => return None,
            Self::RateLimited {
                never_fits: true, ..
            } => OutcomeKind::NeverFits,
            Self::RateLimited { .. } => OutcomeKind::RateLimited,
            Self::QuotaExhausted => OutcomeKind::QuotaExhausted,
            Self::Overloaded => OutcomeKind::Overloaded,
            Self::ServerError => OutcomeKind::ServerError,
            Self::Timeout {
                what: TimeoutKind::Connect,
            }
            | Self::Unreachable { sent: false } => OutcomeKind::Unsent,
            Self::Timeout { .. } => OutcomeKind::Timeout,
            Self::TooLong => OutcomeKind::TooLong,
            Self::ModelGone => OutcomeKind::ModelGone,
            Self::ContentRefused => OutcomeKind::ContentRefused,
            Self::Unauthorized => OutcomeKind::Unauthorized,
            Self::Invalid => OutcomeKind::Invalid,
            Self::Unreachable { sent: true } => OutcomeKind::Unreachable,
            Self::Broken => OutcomeKind::Broken,
        })
    }
}

/// What a layer does otherwise than [`Outcome::advice`] says, outcome by outcome.
///
/// ```
/// use http::StatusCode;
/// use tollgate_core::wire::outcome::{Outcome, OutcomeKind, Overrides, SameModel, Verdict};
///
/// let overrides = Overrides::new().with(OutcomeKind::Overloaded, SameModel::Never);
/// let verdict = Verdict::of(StatusCode::SERVICE_UNAVAILABLE, Outcome::Overloaded);
/// assert_eq!(verdict.advice().same_model, SameModel::Backoff);
/// assert_eq!(overrides.advice(&verdict).same_model, SameModel::Never);
/// ```
///
/// They change what is tried, and nothing else: not how often (the call's maximum of attempts), not what a budget
/// keeps, and not that work which is done later is never sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Overrides<A>([Option<A>; KINDS]);

impl<A: Copy> Overrides<A> {
    /// None.
    pub fn new() -> Self {
        Self([None; KINDS])
    }

    /// Does this after such an outcome.
    pub fn with(mut self, kind: OutcomeKind, action: A) -> Self {
        self.0[kind as usize] = Some(action);
        self
    }

    /// What is done otherwise after this outcome; `None`: what the table says.
    #[must_use]
    pub fn get(&self, outcome: &Outcome) -> Option<A> {
        self.0[outcome.kind()? as usize]
    }
}

impl<A: Copy> Default for Overrides<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl Overrides<SameModel> {
    /// What to do, these overrides included. A server's `x-should-retry: false` is obeyed all the same; what is never to
    /// be tried again is not, whatever the server says.
    #[must_use]
    pub fn advice(&self, verdict: &Verdict) -> Advice {
        let mut advice = verdict.advice();
        if let Some(action) = self.get(&verdict.outcome) {
            if verdict.should_retry != Some(false) {
                advice.same_model = action;
            }
        }
        advice
    }
}

impl Overrides<NextModel> {
    /// What to do, these overrides included.
    #[must_use]
    pub fn advice(&self, verdict: &Verdict) -> Advice {
        let mut advice = verdict.advice();
        if let Some(action) = self.get(&verdict.outcome) {
            advice.next_model = action;
        }
        advice
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn the_server_may_forbid_and_the_user_may_forbid() {
        let overrides = Overrides::new()
            .with(OutcomeKind::Invalid, SameModel::Backoff)
            .with(OutcomeKind::Overloaded, SameModel::Never);
        let mut wrong = Verdict::of(StatusCode::BAD_REQUEST, Outcome::Invalid);
        assert_eq!(overrides.advice(&wrong).same_model, SameModel::Backoff);
        wrong.should_retry = Some(false);
        assert_eq!(overrides.advice(&wrong).same_model, SameModel::Never);
        let mut busy = Verdict::of(StatusCode::SERVICE_UNAVAILABLE, Outcome::Overloaded);
        busy.should_retry = Some(true);
        assert_eq!(overrides.advice(&busy).same_model, SameModel::Never);
        assert_eq!(overrides.advice(&busy).units, busy.advice().units);
        let other = Verdict::of(StatusCode::INTERNAL_SERVER_ERROR, Outcome::ServerError);
        assert_eq!(overrides.advice(&other), other.advice());
    }

    #[test]
    fn what_was_never_sent_is_a_row_of_its_own() {
        let connect = Outcome::Timeout {
            what: TimeoutKind::Connect,
        };
        assert_eq!(connect.kind(), Some(OutcomeKind::Unsent));
        assert_eq!(
            connect.advice(),
            Outcome::Unreachable { sent: false }.advice()
        );
        assert_eq!(Outcome::Ok.kind(), None);
    }
}
