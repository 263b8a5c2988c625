//! The layer.
use tollgate_core::classify::Opaque;
use tower_layer::Layer;

use crate::{budget::Budget, service::TokenBudget};

/// Makes [`TokenBudget`] services. See the [module docs](crate).
#[derive(Clone, Debug)]
pub struct TokenBudgetLayer<St = Budget, C = Opaque> {
    store: St,
    classify: C,
    read_cap: u64,
}

impl<St> TokenBudgetLayer<St> {
    /// Admits by this budget, which other layers and stacks may share.
    pub fn new(store: St) -> Self {
        Self {
            store,
            classify: Opaque,
            read_cap: 32 << 20,
        }
    }
}

impl<St, C> TokenBudgetLayer<St, C> {
    /// Tells which errors of the inner service mean that nothing was sent, so that all is given back.
    ///
    /// Default: none of them does.
    #[must_use]
    pub fn classify<C2>(self, classify: C2) -> TokenBudgetLayer<St, C2> {
        TokenBudgetLayer {
            store: self.store,
            classify,
            read_cap: self.read_cap,
        }
    }

    /// Most bytes of a request that are read to see what it will cost; a larger one passes as one request
    /// without tokens. Default 32 MiB.
    #[must_use]
    pub fn read_cap(mut self, bytes: u64) -> Self {
        self.read_cap = bytes;
        self
    }
}

impl<S, St: Clone, C: Clone> Layer<S> for TokenBudgetLayer<St, C> {
    type Service = TokenBudget<S, St, C>;

    fn layer(&self, inner: S) -> Self::Service {
        TokenBudget::of(inner, self.store.clone(), self.classify.clone())
            .with_read_cap(self.read_cap)
    }
}
