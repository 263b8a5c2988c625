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
use tollgate_core::{
    extensions::GaveUpReason,
    wire::outcome::{Outcome, TimeoutKind},
};

use crate::{RetryBudget, gates::Gates};

const REASONS: usize = GaveUpReason::ALL.len();

const TIMEOUTS: [TimeoutKind; 7] = [
    TimeoutKind::Connect,
    TimeoutKind::FirstByte,
    TimeoutKind::FirstToken,
    TimeoutKind::Idle,
    TimeoutKind::Total,
    TimeoutKind::Client,
    TimeoutKind::Provider,
];

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
    failed: AtomicU64,
    tokens_at_risk: AtomicU64,
    timed_out: [AtomicU64; TIMEOUTS.len()],
    held: AtomicU64,
    held_for: AtomicU64,
    refused: AtomicU64,
    gave_up: [AtomicU64; REASONS],
    budget: OnceLock<RetryBudget>,
    gates: OnceLock<Arc<Gates>>,
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
    /// Attempts that came to nothing, whatever followed.
    pub failed: u64,
    /// LLM tokens, by estimate, of failed attempts that the provider may have charged all the same: those that timed out,
    /// broke, or whose connection was lost after they were sent. Times a model's price: the money at risk.
    pub tokens_at_risk: u64,
    /// First attempts that were held up because others had been refused.
    pub held: u64,
    /// How long they were, all together.
    pub held_for: Duration,
    /// First attempts that were refused because they would have been held up for too long.
    pub refused: u64,
    /// Gates that are shut now, or let go one by one. Of several layers, the first one's.
    pub gates_shut: usize,
    /// Retries that the retry budget could pay for now; `None` without one, or if it does not tell. Of several layers with
    /// budgets of their own, the first one's.
    pub retry_budget: Option<f64>,
    timed_out: [u64; TIMEOUTS.len()],
    gave_up: [u64; REASONS],
}

impl RetrySnapshot {
    /// Attempts that were given up waiting for: by this timeout.
    #[must_use]
    pub fn timed_out(&self, what: TimeoutKind) -> u64 {
        let at = TIMEOUTS.iter().position(|one| *one == what);
        at.map_or(0, |at| self.timed_out[at])
    }

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
            failed: counters.failed.load(Relaxed),
            tokens_at_risk: counters.tokens_at_risk.load(Relaxed),
            held: counters.held.load(Relaxed),
            held_for: Duration::from_nanos(counters.held_for.load(Relaxed)),
            refused: counters.refused.load(Relaxed),
            gates_shut: counters
                .gates
                .get()
                .map_or(0, |gates| gates.count(Instant::now())),
            timed_out: std::array::from_fn(|at| counters.timed_out[at].load(Relaxed)),
            retry_budget: counters
                .budget
                .get()
                .and_then(|budget| budget.known_balance(Instant::now())),
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

    pub(crate) fn watch_gates(&self, gates: &Arc<Gates>) {
        let _ = self.0.gates.set(gates.clone());
    }

    pub(crate) fn held(&self, waited: Duration) {
        self.0.held.fetch_add(1, Relaxed);
        let nanos = waited.as_nanos().try_into().unwrap_or(u64::MAX);
        self.0.held_for.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.0.refused.fetch_add(1, Relaxed);
    }

    /// An attempt has come to this.
    pub(crate) fn judged(&self, outcome: &Outcome, at_risk: Option<u64>) {
        if *outcome == Outcome::Ok {
            return;
        }
        self.0.failed.fetch_add(1, Relaxed);
        self.0
            .tokens_at_risk
            .fetch_add(at_risk.unwrap_or(0), Relaxed);
        if let Outcome::Timeout { what } = outcome {
            if let Some(at) = TIMEOUTS.iter().position(|one| one == what) {
                self.0.timed_out[at].fetch_add(1, Relaxed);
            }
        }
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
