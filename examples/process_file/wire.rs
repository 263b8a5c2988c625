//! The last step before the network: counts what really goes out.
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response, StatusCode};
use pin_project::pin_project;
use tollgate::{
    budget::{Budget, BudgetStore},
    wire::prompt::Facts,
};
use tower::Service;

use crate::tally::{Tally, Trip};

/// Counts the requests that pass, and notes in each row's [`Trip`] where it is.
#[derive(Clone, Debug)]
pub struct Wire<S> {
    inner: S,
    tally: Tally,
    budget: Budget,
}

impl<S> Wire<S> {
    /// Around the client itself, inside all layers.
    pub fn new(inner: S, tally: Tally, budget: Budget) -> Self {
        Self {
            inner,
            tally,
            budget,
        }
    }

    /// The model of a request, and the tokens that the budget, further out, has reserved for it.
    fn ask<B>(&self, request: &Request<B>) -> (Option<Arc<str>>, u64) {
        let Some(facts) = request.extensions().get::<Facts>() else {
            return (None, 0);
        };
        let profile = self.budget.charging().profile(facts.dialect());
        (facts.model.clone(), profile.estimate(facts).tokens)
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for Wire<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let trip = request
            .extensions()
            .get::<Trip>()
            .cloned()
            .unwrap_or_default();
        let ask = self.ask(&request);
        self.tally.sent.add_one();
        self.tally.times.note();
        if trip.leaves() > 1 {
            self.tally.again.add_one();
        }
        ResponseFuture {
            future: self.inner.call(request),
            trip,
            ask,
            tally: self.tally.clone(),
        }
    }
}

/// Future of [`Wire`].
#[pin_project]
pub struct ResponseFuture<F> {
    #[pin]
    future: F,
    trip: Trip,
    ask: (Option<Arc<str>>, u64),
    tally: Tally,
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let result = ready!(this.future.poll(cx));
        match &result {
            Ok(response) => {
                if response.status() == StatusCode::TOO_MANY_REQUESTS {
                    this.tally.limited.add_one();
                }
                if response.status().is_success() {
                    let (model, tokens) = this.ask;
                    this.tally.accepted.add(model, *tokens);
                } else {
                    this.trip.failed();
                }
            }
            Err(_) => this.trip.failed(),
        }
        Poll::Ready(result)
    }
}
