//! The service: passes on what cannot be sent twice, and reads the rest.
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tollgate_core::{
    body::{Replay, readable, signed},
    classify::Classify,
    wire::prompt::endpoint,
};
use tower_service::Service;

use crate::{FallbackHealth, ModelChain, ResponseFuture, run::Config};

/// Sends a failed request to the next candidate. See the [crate docs](crate).
///
/// Clones share the [`FallbackHealth`] and never readiness. `poll_ready` is the inner service's;
/// the instance that it made ready travels with the call, and is made ready again before each
/// later attempt.
pub struct ModelFallback<S, C = tollgate_core::classify::Opaque> {
    inner: S,
    config: Arc<Config<C>>,
}

impl<S> ModelFallback<S> {
    /// Wraps a service with the default settings.
    pub fn new(inner: S, chain: ModelChain) -> Self {
        tower_layer::Layer::layer(&crate::ModelFallbackLayer::new(chain), inner)
    }
}

impl<S, C> ModelFallback<S, C> {
    pub(crate) fn with(inner: S, config: Arc<Config<C>>) -> Self {
        Self { inner, config }
    }

    /// The handle to what is left alone.
    pub fn health(&self) -> &FallbackHealth {
        &self.config.health
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the layer off.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, C, B, RB> Service<Request<B>> for ModelFallback<S, C>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    C: Classify<S::Error>,
    B: Body + From<Bytes>,
    RB: Body<Data = Bytes> + Unpin,
{
    type Response = Response<Replay<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, C, B, RB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // The future relies on it: the first attempt goes to this instance as it is.
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let once = !readable(&request, self.config.policy.replay_cap)
            || endpoint(request.method(), request.uri()).deferred()
            || signed(request.headers(), request.uri().query());
        if once {
            return ResponseFuture::passing(self.inner.call(request));
        }
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        ResponseFuture::new(ready, request, self.config.clone())
    }
}

impl<S: Clone, C> Clone for ModelFallback<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            config: self.config.clone(),
        }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for ModelFallback<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelFallback")
            .field("inner", &self.inner)
            .field("chain", &self.config.chain)
            .finish_non_exhaustive()
    }
}
