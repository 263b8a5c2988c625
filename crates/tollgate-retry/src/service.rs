//! The service.
use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tollgate_core::{
    body::{Replay, readable},
    classify::{Classify, Opaque},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    RateLimitPolicy, ResponseFuture, RetryOnRateLimitLayer, RetryStats, layer::Shared, run::Run,
};

/// Retries what the inner service could not serve. See the [module docs](crate).
#[derive(Clone, Debug)]
pub struct RetryOnRateLimit<S, C = Opaque> {
    pub(crate) inner: S,
    pub(crate) shared: Arc<Shared>,
    pub(crate) classify: C,
}

impl<S> RetryOnRateLimit<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, policy: RateLimitPolicy) -> Self {
        RetryOnRateLimitLayer::new(policy).layer(inner)
    }
}

impl<S, C> RetryOnRateLimit<S, C> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Gives the inner service back.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// The counts of this service and its clones.
    pub fn stats(&self) -> &RetryStats {
        &self.shared.stats
    }
}

impl<S, C, B, RB> Service<Request<B>> for RetryOnRateLimit<S, C>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    C: Classify<S::Error> + Clone,
    B: Body + From<Bytes>,
    RB: Body<Data = Bytes> + Unpin,
{
    type Response = Response<Replay<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, S::Future, C, B, RB>;

    // The first attempt is made by the very instance that is made ready here: see `call`.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.shared.stats.request();
        if !readable(&request, self.shared.policy.replay_cap) {
            return ResponseFuture::passing(&self.shared, request, |request| {
                self.inner.call(request)
            });
        }
        if let Some(budget) = &self.shared.policy.retry_budget {
            budget.deposit();
        }
        // The instance that is ready travels with the future, which calls it when the body has been
        // read; the clone that stays is made ready by the next `poll_ready`.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        ResponseFuture::reading(
            request,
            Run::new(ready, self.classify.clone(), self.shared.clone()),
        )
    }
}
