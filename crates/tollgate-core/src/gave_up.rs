//! Why a response was not tried again.
use std::time::Duration;

use http::Response;

/// Left in a response's extensions by the retry layer when it hands on an answer that was not
/// served.
///
/// ```
/// use std::time::Duration;
/// use http::Response;
/// use tollgate_core::extensions::{GaveUp, GaveUpReason};
///
/// let mut response = Response::new(());
/// assert!(GaveUp::of(&response).is_none(), "nobody gave up");
///
/// let gave_up = GaveUp::new(GaveUpReason::WaitBeyondDeadline)
///     .wait(Duration::from_secs(43))
///     .limit(Duration::from_secs(20));
/// response.extensions_mut().insert(gave_up);
/// assert_eq!(GaveUp::of(&response).unwrap().wait, Some(Duration::from_secs(43)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GaveUp {
    /// Why.
    pub reason: GaveUpReason,
    /// The wait that the next attempt would have needed, where it is known.
    pub wait: Option<Duration>,
    /// The bound that the wait is beyond: the policy's cap, or the time left to the deadline.
    pub limit: Option<Duration>,
}

/// Why an answer was not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GaveUpReason {
    /// Trying again cannot help: the quota is used up, the request is wrong, the key is bad, or
    /// the server said so.
    Pointless,
    /// As many attempts were made as the policy or the call allows.
    AttemptsUsedUp,
    /// The wait is longer than the policy's cap.
    WaitBeyondCap,
    /// The wait is longer than the call's deadline allows.
    WaitBeyondDeadline,
    /// Too large a share of the traffic is retries already.
    RetryBudgetEmpty,
    /// The request may have been served, and it or the policy forbids to send it again.
    MaybeServed,
    /// The request's body cannot be sent again: it is a stream, or larger than the cap.
    NotReplayable,
}

impl GaveUpReason {
    /// Every reason, in the order in which they are declared.
    pub const ALL: [Self; 7] = [
        Self::Pointless,
        Self::AttemptsUsedUp,
        Self::WaitBeyondCap,
        Self::WaitBeyondDeadline,
        Self::RetryBudgetEmpty,
        Self::MaybeServed,
        Self::NotReplayable,
    ];

    /// A stable code for logs and labels.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Pointless => "pointless",
            Self::AttemptsUsedUp => "attempts_used_up",
            Self::WaitBeyondCap => "wait_beyond_cap",
            Self::WaitBeyondDeadline => "wait_beyond_deadline",
            Self::RetryBudgetEmpty => "retry_budget_empty",
            Self::MaybeServed => "maybe_served",
            Self::NotReplayable => "not_replayable",
        }
    }
}

impl GaveUp {
    /// For a reason.
    #[must_use]
    pub fn new(reason: GaveUpReason) -> Self {
        Self {
            reason,
            wait: None,
            limit: None,
        }
    }

    /// Names the wait.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Names the bound.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Why a response was not tried again; `None` if it was served, if it is a refusal of our
    /// own, or if no retry layer saw it.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<&Self> {
        response.extensions().get()
    }
}
