//! What the layer has done so far.
use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use tollgate_core::extensions::GaveUpReason;

use crate::RetryBudget;

const REASONS: usize = GaveUpReason::ALL.len();

/// Counts what retry layers do. Clones share the counts; give one handle to several layers and
/// it counts them together.
///
/// ```
/// use tollgate_retry::{RateLimitPolicy, RetryOnRateLimitLayer, RetryStats};
///
/// let stats = RetryStats::new();
/// let layer = RetryOnRateLimitLayer::new(RateLimitPolicy::default()).stats(stats.clone());
/// assert_eq!(stats.snapshot().retries, 0);
/// ```
#[derive(Clone, Default)]
pub struct RetryStats(Arc<Counters>);

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    attempts: AtomicU64,
    retries: AtomicU64,
    waited: AtomicU64,
    gave_up: [AtomicU64; REASONS],
    budget: OnceLock<RetryBudget>,
}

/// What a [`RetryStats`] shows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetrySnapshot {
    /// Requests taken in, those that cannot be retried included.
    pub requests: u64,
    /// Attempts sent on.
    pub attempts: u64,
    /// Attempts after the first of a request.
    pub retries: u64,
    /// Time waited before retries, all requests together.
    pub waited: Duration,
    /// Retries that the retry budget could pay for now; `None` without one. Of several layers with
    /// budgets of their own, the first one's.
    pub retry_budget: Option<f64>,
    gave_up: [u64; REASONS],
}

impl RetrySnapshot {
    /// Requests handed on unserved for this reason.
    #[must_use]
    pub fn gave_up(&self, reason: GaveUpReason) -> u64 {
        index(reason).map_or(0, |at| self.gave_up[at])
    }
}

impl RetryStats {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counts now.
    #[must_use]
    pub fn snapshot(&self) -> RetrySnapshot {
        let counters = &*self.0;
        RetrySnapshot {
            requests: counters.requests.load(Relaxed),
            attempts: counters.attempts.load(Relaxed),
            retries: counters.retries.load(Relaxed),
            waited: Duration::from_nanos(counters.waited.load(Relaxed)),
            retry_budget: counters
                .budget
                .get()
                .map(|budget| budget.balance(Instant::now())),
            gave_up: std::array::from_fn(|at| counters.gave_up[at].load(Relaxed)),
        }
    }

    pub(crate) fn watch(&self, budget: &RetryBudget) {
        let _ = self.0.budget.set(budget.clone());
    }

    pub(crate) fn request(&self) {
        self.0.requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn attempt(&self) {
        self.0.attempts.fetch_add(1, Relaxed);
    }

    pub(crate) fn retry(&self, waited: Duration) {
        self.0.retries.fetch_add(1, Relaxed);
        let nanos = waited.as_nanos().try_into().unwrap_or(u64::MAX);
        self.0.waited.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn gave_up(&self, reason: GaveUpReason) {
        if let Some(at) = index(reason) {
            self.0.gave_up[at].fetch_add(1, Relaxed);
        }
    }
}

fn index(reason: GaveUpReason) -> Option<usize> {
    GaveUpReason::ALL.iter().position(|one| *one == reason)
}

impl fmt::Debug for RetryStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RetryStats").field(&self.snapshot()).finish()
    }
}
