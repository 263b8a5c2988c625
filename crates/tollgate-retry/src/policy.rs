//! The settings.
use std::{fmt, sync::Arc, time::Duration};

use tollgate_core::{
    body::PeekPolicy,
    resend::Resend,
    timeouts::Timeouts,
    wire::outcome::{OutcomeKind, Overrides, SameModel},
};

use crate::{Backoff, FullJitter, RetryBudget};

/// What a [`RetryOnRateLimit`](crate::RetryOnRateLimit) does when. See the [module docs](crate).
///
/// ```
/// use std::time::Duration;
/// use tollgate_retry::RateLimitPolicy;
///
/// let patient = RateLimitPolicy::new().attempts(10).wait_cap(Duration::from_secs(600));
/// ```
///
/// A clone shares the retry budget.
#[derive(Clone)]
pub struct RateLimitPolicy {
    pub(crate) attempts: u32,
    pub(crate) wait_cap: Duration,
    pub(crate) backoff: Arc<dyn Backoff>,
    pub(crate) resend: Resend,
    pub(crate) overrides: Overrides<SameModel>,
    pub(crate) replay_cap: u64,
    pub(crate) peek: PeekPolicy,
    pub(crate) timeouts: Timeouts,
    pub(crate) idempotency_key: bool,
    pub(crate) retry_budget: Option<RetryBudget>,
}

impl RateLimitPolicy {
    /// The defaults, with a retry budget of its own.
    #[must_use]
    pub fn new() -> Self {
        Self {
            attempts: 3,
            wait_cap: Duration::from_secs(120),
            backoff: Arc::new(FullJitter::default()),
            resend: Resend::default(),
            overrides: Overrides::new(),
            replay_cap: 32 << 20,
            peek: PeekPolicy::default(),
            timeouts: Timeouts::new(),
            idempotency_key: true,
            retry_budget: Some(RetryBudget::default()),
        }
    }

    /// Most attempts for one request, the first included; default 3, at least 1.
    ///
    /// The call's own maximum, over all layers, holds as well
    /// ([`CallOptions::max_attempts`](tollgate_core::call::CallOptions::max_attempts)).
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The longest wait; default 120 s. A server's wait that is just as long is honoured, a longer
    /// one hands the answer back at once.
    #[must_use]
    pub fn wait_cap(mut self, cap: Duration) -> Self {
        self.wait_cap = cap;
        self
    }

    /// The pause where the server says nothing; default [`FullJitter`] from 0.5 s to 8 s.
    #[must_use]
    pub fn backoff(mut self, backoff: impl Backoff + 'static) -> Self {
        self.backoff = Arc::new(backoff);
        self
    }

    /// Whether a request is sent again that may have been served; default
    /// [`Resend::NothingDelivered`].
    #[must_use]
    pub fn resend(mut self, resend: Resend) -> Self {
        self.resend = resend;
        self
    }

    /// Does something else after an outcome than the one table says
    /// ([`Outcome::advice`](tollgate_core::wire::outcome::Outcome::advice)).
    ///
    /// ```
    /// use tollgate_core::wire::outcome::{OutcomeKind, SameModel};
    /// use tollgate_retry::RateLimitPolicy;
    ///
    /// let policy = RateLimitPolicy::new()
    ///     .on(OutcomeKind::Overloaded, SameModel::Never)
    ///     .on(OutcomeKind::ModelGone, SameModel::Once);
    /// ```
    ///
    /// The bounds hold all the same: attempts, wait cap, deadline, retry budget, a server's `x-should-retry: false`, and that
    /// work which is done later (background responses, batches, files, fine-tuning) is never sent twice.
    ///
    /// # Panics
    ///
    /// On [`SameModel::Done`]: what has failed cannot be called served.
    #[must_use]
    pub fn on(mut self, outcome: OutcomeKind, action: SameModel) -> Self {
        assert!(
            action != SameModel::Done,
            "an outcome that was not served cannot be called done: {outcome:?}"
        );
        self.overrides = self.overrides.with(outcome, action);
        self
    }

    /// The largest request body that is kept to be sent again, in bytes; default 32 MiB. A larger
    /// one is sent once.
    #[must_use]
    pub fn replay_cap(mut self, bytes: u64) -> Self {
        self.replay_cap = bytes;
        self
    }

    /// How far answers are looked into.
    #[must_use]
    pub fn peek(mut self, peek: PeekPolicy) -> Self {
        self.peek = peek;
        self
    }

    /// How long an attempt, and the call, are waited for; default: as long as they take, up to the call's own
    /// deadline.
    ///
    /// An attempt that is given up waiting for is retried like one that failed, as far as
    /// [`resend`](Self::resend) allows.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Whether a request without an `idempotency-key` header gets one, the same for all its
    /// attempts; default yes.
    #[must_use]
    pub fn idempotency_key(mut self, mint: bool) -> Self {
        self.idempotency_key = mint;
        self
    }

    /// Bounds retries as a share of the traffic; default 10 % and ten a second. Give the same
    /// handle to several policies and they share it.
    #[must_use]
    pub fn retry_budget(mut self, budget: RetryBudget) -> Self {
        self.retry_budget = Some(budget);
        self
    }

    /// Retries without regard to how many others there are. For jobs that bound their attempts in
    /// another way.
    #[must_use]
    pub fn without_retry_budget(mut self) -> Self {
        self.retry_budget = None;
        self
    }
}

impl Default for RateLimitPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RateLimitPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitPolicy")
            .field("attempts", &self.attempts)
            .field("wait_cap", &self.wait_cap)
            .field("resend", &self.resend)
            .field("overrides", &self.overrides)
            .field("replay_cap", &self.replay_cap)
            .field("peek", &self.peek)
            .field("timeouts", &self.timeouts)
            .field("idempotency_key", &self.idempotency_key)
            .field("retry_budget", &self.retry_budget)
            .finish_non_exhaustive()
    }
}
