//! The layer: a chain, its health, its policy.
use std::{fmt, sync::Arc};

use tollgate_core::classify::Opaque;
use tower_layer::Layer;

use crate::{FallbackHealth, FallbackPolicy, ModelChain, ModelFallback, run::Config};

/// Adds [`ModelFallback`] to a service. See the [crate docs](crate).
///
/// `C` tells what the inner service's errors mean; the default knows nothing and takes every
/// failed request for one that may have been sent.
pub struct ModelFallbackLayer<C = Opaque> {
    config: Config<C>,
}

impl ModelFallbackLayer {
    /// A layer with default settings and a health of its own.
    #[must_use]
    pub fn new(chain: ModelChain) -> Self {
        Self {
            config: Config {
                chain,
                health: FallbackHealth::new(),
                policy: FallbackPolicy::default(),
                classify: Arc::new(Opaque),
            },
        }
    }
}

impl<C> ModelFallbackLayer<C> {
    /// Keeps in mind with others what is left alone: another stack, or who watches.
    #[must_use]
    pub fn health(mut self, health: FallbackHealth) -> Self {
        self.config.health = health;
        self
    }

    /// Other settings.
    #[must_use]
    pub fn policy(mut self, policy: FallbackPolicy) -> Self {
        self.config.policy = policy;
        self
    }

    /// Who knows what the inner service's errors mean, such as
    /// [`Causes`](tollgate_core::classify::Causes).
    #[must_use]
    pub fn classify<D>(self, classify: D) -> ModelFallbackLayer<D> {
        ModelFallbackLayer {
            config: Config {
                chain: self.config.chain,
                health: self.config.health,
                policy: self.config.policy,
                classify: Arc::new(classify),
            },
        }
    }
}

impl<S, C> Layer<S> for ModelFallbackLayer<C> {
    type Service = ModelFallback<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        ModelFallback::with(inner, Arc::new(self.config.clone()))
    }
}

impl<C> Clone for ModelFallbackLayer<C> {
    fn clone(&self) -> Self {
        Self {
            config: self.config.clone(),
        }
    }
}

impl<C> fmt::Debug for ModelFallbackLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelFallbackLayer")
            .field("chain", &self.config.chain)
            .field("health", &self.config.health)
            .field("policy", &self.config.policy)
            .finish_non_exhaustive()
    }
}
