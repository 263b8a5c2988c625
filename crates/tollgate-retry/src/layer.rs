//! The layer.
use std::sync::Arc;

use tollgate_core::classify::Opaque;
use tower_layer::Layer;

use crate::{RateLimitPolicy, RetryOnRateLimit, RetryStats, gates::Gates};

/// Applies [`RetryOnRateLimit`]. See the [module docs](crate).
///
/// `C` tells what a transport error means; without one ([`Opaque`]) every error may have come after
/// the request was sent.
///
/// ```
/// use tollgate_core::classify::{By, Fault};
/// use tollgate_retry::{RateLimitPolicy, RetryOnRateLimitLayer};
/// use tollgate_sim::SimError;
///
/// let layer = RetryOnRateLimitLayer::new(RateLimitPolicy::default()).classify(By(
///     |error: &SimError| if error.sent() { Fault::MaybeSent } else { Fault::NotSent },
/// ));
/// ```
#[derive(Clone, Debug)]
pub struct RetryOnRateLimitLayer<C = Opaque> {
    shared: Arc<Shared>,
    classify: C,
}

/// What all services of a layer share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) policy: RateLimitPolicy,
    pub(crate) stats: RetryStats,
    /// `None`: switched off.
    pub(crate) gates: Option<Arc<Gates>>,
}

impl RetryOnRateLimitLayer {
    /// Retries by this policy.
    #[must_use]
    pub fn new(policy: RateLimitPolicy) -> Self {
        let stats = RetryStats::new();
        let gates = policy.gate.map(|release| Arc::new(Gates::new(release)));
        Self {
            shared: Arc::new(Shared {
                policy,
                stats,
                gates,
            }),
            classify: Opaque,
        }
        .watched()
    }
}

impl<C> RetryOnRateLimitLayer<C> {
    /// Counts in this handle.
    #[must_use]
    pub fn stats(mut self, stats: RetryStats) -> Self {
        self.shared = Arc::new(Shared {
            policy: self.shared.policy.clone(),
            stats,
            gates: self.shared.gates.clone(),
        });
        self.watched()
    }

    /// Asks `classify` what a transport error means.
    #[must_use]
    pub fn classify<D>(self, classify: D) -> RetryOnRateLimitLayer<D> {
        RetryOnRateLimitLayer {
            shared: self.shared,
            classify,
        }
    }

    fn watched(self) -> Self {
        if let Some(gates) = &self.shared.gates {
            self.shared.stats.watch_gates(gates);
        }
        if let Some(budget) = &self.shared.policy.retry_budget {
            self.shared.stats.watch(budget);
        }
        self
    }
}

impl Default for RetryOnRateLimitLayer {
    fn default() -> Self {
        Self::new(RateLimitPolicy::default())
    }
}

impl<S, C: Clone> Layer<S> for RetryOnRateLimitLayer<C> {
    type Service = RetryOnRateLimit<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryOnRateLimit {
            inner,
            shared: self.shared.clone(),
            classify: self.classify.clone(),
        }
    }
}
