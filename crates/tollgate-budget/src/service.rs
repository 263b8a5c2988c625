//! The service.
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tollgate_core::classify::{Classify, Opaque};
use tower_service::Service;

use crate::{body::ResponseBody, budget::Budget, future::ResponseFuture, store::BudgetStore};

/// Sends a request when the budget admits it. See the [module docs](crate).
///
/// It is always ready and never makes the inner service ready ahead of time: its future waits for admission first,
/// then makes a clone of the inner service ready, then calls it. So a request that waits holds no connection and no
/// permit, and an error of the inner service's readiness comes as the call's error.
#[derive(Clone, Debug)]
pub struct TokenBudget<S, St = Budget, C = Opaque> {
    inner: S,
    store: St,
    classify: C,
    read_cap: u64,
}

impl<S, St> TokenBudget<S, St> {
    /// Puts `inner` behind a budget.
    pub fn new(inner: S, store: St) -> Self {
        Self::of(inner, store, Opaque)
    }
}

impl<S, St, C> TokenBudget<S, St, C> {
    pub(crate) fn of(inner: S, store: St, classify: C) -> Self {
        Self {
            inner,
            store,
            classify,
            read_cap: 32 << 20,
        }
    }

    pub(crate) fn with_read_cap(mut self, bytes: u64) -> Self {
        self.read_cap = bytes;
        self
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, St, C, B, RB> Service<Request<B>> for TokenBudget<S, St, C>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    St: BudgetStore,
    C: Classify<S::Error> + Clone,
    B: Body + From<Bytes>,
    RB: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, S::Future, St, St::Acquire, C, B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // The future makes its clone ready after admission. Readiness taken here would be held through the wait.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture::new(
            self.inner.clone(),
            self.store.clone(),
            self.classify.clone(),
            request,
            self.read_cap,
        )
    }
}
