//! The layers as methods of tower's `ServiceBuilder`.
use tower::ServiceBuilder;
#[cfg(any(
    feature = "budget",
    feature = "fallback",
    feature = "retry",
    feature = "usage"
))]
use tower_layer::Stack;

/// Adds the layers to a [`ServiceBuilder`], outermost first.
///
/// ```
/// use tollgate::prelude::*;
/// use tower::ServiceBuilder;
///
/// let budget = Budget::in_memory([Limit::requests(500).per_minute()])?;
/// let stack = ServiceBuilder::new()
///     .retry_on_rate_limit(RateLimitPolicy::default())
///     .token_budget(budget);
/// # let _ = stack;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait ServiceBuilderExt<L>: sealed::Sealed + Sized {
    /// Records every call; see [`UsageRecorder`](crate::UsageRecorder).
    #[cfg(feature = "usage")]
    #[cfg_attr(docsrs, doc(cfg(feature = "usage")))]
    fn record_usage(
        self,
        recorder: impl tollgate_usage::Recorder + 'static,
    ) -> ServiceBuilder<Stack<crate::UsageRecorderLayer, L>>;

    /// Sends a failed call to the next model; see [`ModelFallback`](crate::ModelFallback).
    #[cfg(feature = "fallback")]
    #[cfg_attr(docsrs, doc(cfg(feature = "fallback")))]
    fn model_fallback(
        self,
        chain: crate::ModelChain,
    ) -> ServiceBuilder<Stack<crate::ModelFallbackLayer, L>>;

    /// Waits and tries again; see [`RetryOnRateLimit`](crate::RetryOnRateLimit).
    #[cfg(feature = "retry")]
    #[cfg_attr(docsrs, doc(cfg(feature = "retry")))]
    fn retry_on_rate_limit(
        self,
        policy: crate::RateLimitPolicy,
    ) -> ServiceBuilder<Stack<crate::RetryOnRateLimitLayer, L>>;

    /// Admits by a budget; see [`TokenBudget`](crate::TokenBudget).
    #[cfg(feature = "budget")]
    #[cfg_attr(docsrs, doc(cfg(feature = "budget")))]
    fn token_budget<St>(self, budget: St) -> ServiceBuilder<Stack<crate::TokenBudgetLayer<St>, L>>
    where
        St: tollgate_budget::BudgetStore;
}

impl<L> ServiceBuilderExt<L> for ServiceBuilder<L> {
    #[cfg(feature = "usage")]
    fn record_usage(
        self,
        recorder: impl tollgate_usage::Recorder + 'static,
    ) -> ServiceBuilder<Stack<crate::UsageRecorderLayer, L>> {
        self.layer(crate::UsageRecorderLayer::new(recorder))
    }

    #[cfg(feature = "fallback")]
    fn model_fallback(
        self,
        chain: crate::ModelChain,
    ) -> ServiceBuilder<Stack<crate::ModelFallbackLayer, L>> {
        self.layer(crate::ModelFallbackLayer::new(chain))
    }

    #[cfg(feature = "retry")]
    fn retry_on_rate_limit(
        self,
        policy: crate::RateLimitPolicy,
    ) -> ServiceBuilder<Stack<crate::RetryOnRateLimitLayer, L>> {
        self.layer(crate::RetryOnRateLimitLayer::new(policy))
    }

    #[cfg(feature = "budget")]
    fn token_budget<St>(self, budget: St) -> ServiceBuilder<Stack<crate::TokenBudgetLayer<St>, L>>
    where
        St: tollgate_budget::BudgetStore,
    {
        self.layer(crate::TokenBudgetLayer::new(budget))
    }
}

mod sealed {
    /// Only `ServiceBuilder` is extended, so that methods can be added.
    #[allow(unreachable_pub)]
    pub trait Sealed {}
    impl<L> Sealed for tower::ServiceBuilder<L> {}
}
