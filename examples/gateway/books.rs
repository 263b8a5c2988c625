//! The books of one set of limits: this process's own, or shared with other gateways.
use std::fmt;

use axum::body::Body;
use http::{Request, Response};
use hyper_util::client::legacy;
use tollgate::{
    BoxError, Budget, Limit, RedisBudget, TokenBudgetLayer,
    budget::{BudgetBuilder, BudgetStore},
    classify::HyperUtil,
};
use tower::{Layer, Service};

use crate::{
    caps,
    config::{Config, ConfigError},
    stack::{Stack, boxed},
};

/// Whose limits they are.
#[derive(Clone, Copy)]
pub(crate) enum Whose<'a> {
    /// A provider's, at this target; and whether more of them are learned.
    Target { name: &'a str, learn: bool },
    /// What the gateway allows, whatever the providers say.
    Gateway,
}

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target { name, .. } => write!(f, "target {name}"),
            Self::Gateway => f.write_str("gateway"),
        }
    }
}

/// A budget, wherever it is kept.
pub(crate) enum Books {
    Own(Budget),
    Shared(RedisBudget),
}

impl Books {
    /// Opens the books of some limits. What is learned is learned by each process for itself.
    pub(crate) async fn open(
        config: &Config,
        whose: Whose<'_>,
        limits: &[Limit],
    ) -> Result<Self, ConfigError> {
        let settings = |mut builder: BudgetBuilder| {
            builder = match whose {
                Whose::Target { learn, .. } => builder.learn(learn),
                Whose::Gateway => builder.own(true),
            };
            builder = builder.max_wait(config.queue);
            match &config.prices {
                Some(prices) => builder.prices(prices.clone()),
                None => builder,
            }
        };
        let wrong =
            |why: &dyn fmt::Display| ConfigError::new(format!("the limits of {whose}: {why}"));
        match &config.redis {
            Some(redis) if !limits.is_empty() => {
                let shared = RedisBudget::connect(redis.url())
                    .name(format!("{}: {whose}", redis.name()))
                    .limits(limits.iter().cloned())
                    .settings(settings)
                    .timeout(redis.timeout())
                    .build()
                    .await;
                shared.map(Self::Shared).map_err(|why| wrong(&why))
            }
            _ => {
                let own = settings(Budget::builder())
                    .limits(limits.iter().cloned())
                    .build()
                    .map_err(|why| wrong(&why))?;
                if let Whose::Gateway = whose {
                    caps::restore(config, &own)?;
                }
                Ok(Self::Own(own))
            }
        }
    }

    /// The part that this process keeps, to be looked at.
    pub(crate) fn shown(&self) -> Budget {
        match self {
            Self::Own(budget) => budget.clone(),
            Self::Shared(shared) => shared.budget().clone(),
        }
    }

    /// The store, where there is one.
    pub(crate) fn store(&self, whose: Whose<'_>) -> Option<(String, RedisBudget)> {
        match self {
            Self::Own(_) => None,
            Self::Shared(shared) => Some((whose.to_string(), shared.clone())),
        }
    }

    /// Lets a service through as they allow.
    pub(crate) fn around<S, B>(&self, inner: S, config: &Config) -> Stack
    where
        S: Service<Request<Body>, Response = Response<B>, Error = legacy::Error>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        match self {
            Self::Own(budget) => boxed(layer(budget, config).layer(inner)),
            Self::Shared(shared) => boxed(layer(shared, config).layer(inner)),
        }
    }
}

fn layer<St: BudgetStore>(store: &St, config: &Config) -> TokenBudgetLayer<St, HyperUtil> {
    TokenBudgetLayer::new(store.clone())
        .classify(HyperUtil)
        .read_cap(config.max_body)
}
