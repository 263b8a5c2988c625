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
    pub(crate) should_retry: bool,
    pub(crate) retry_budget: Option<RetryBudget>,
    pub(crate) gate: Option<u32>,
    pub(crate) when_shut: WhenShut,
}

/// What becomes of a first attempt that a shut gate would hold up for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenShut {
    /// It is not sent, and answered at once with a 429 that says when to come back
    /// ([`Refused`](tollgate_core::extensions::Refused), reason `wait_too_long`): a fallback outside can go on, and the
    /// provider, which counts refused requests too, is spared one.
    #[default]
    Refuse,
    /// It is sent at once and takes its chance.
    Pass,
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
            should_retry: true,
            retry_budget: Some(RetryBudget::default()),
            gate: Some(10),
            when_shut: WhenShut::default(),
        }
    }

    /// Most attempts for one request, the first included; default 3, at least 1.
    ///
    /// A call's own maximum goes before it, whether it is more or less
    /// ([`CallOptions::max_attempts`](tollgate_core::call::CallOptions::max_attempts)); without one, the maximum of the
    /// outermost layer holds over all layers.
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

    /// Whether an answer that is handed on because its call has used up its attempts, because the retry budget is
    /// empty, or because the request must not be sent twice, carries `x-should-retry: false`; default yes. The SDKs of
    /// OpenAI and Anthropic obey it, and so do our layers in another process.
    #[must_use]
    pub fn should_retry_header(mut self, emit: bool) -> Self {
        self.should_retry = emit;
        self
    }

    /// How many requests are let go in any 100 ms after a refusal has held them up; default 10, at least 1.
    ///
    /// A rate limit is a fact about the key: one 429 holds up all services of the layer that ask the same origin with the
    /// same credential for the same model, their first attempts included, as long as it says. Where a budget further in
    /// holds its own gate, that one counts and a retry goes back into its queue at once.
    #[must_use]
    pub fn release(mut self, burst: u32) -> Self {
        self.gate = Some(burst.max(1));
        self
    }

    /// Each call waits for itself alone, whatever others were told.
    #[must_use]
    pub fn without_gate(mut self) -> Self {
        self.gate = None;
        self
    }

    /// What becomes of a first attempt that would be held up for longer than the wait cap or its deadline allows; default
    /// [`WhenShut::Refuse`].
    #[must_use]
    pub fn when_shut(mut self, what: WhenShut) -> Self {
        self.when_shut = what;
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
            .field("should_retry_header", &self.should_retry)
            .field("retry_budget", &self.retry_budget)
            .field("release", &self.gate)
            .field("when_shut", &self.when_shut)
            .finish_non_exhaustive()
    }
}
