//! A service wrapper that checks the tower contract and counts what it saw.
//!
//! A layer must call only the instance that said it was ready, once for each time, and must not take
//! a clone of a ready service for a ready one. The probe counts the breaches instead of panicking,
//! since a panic in a spawned task is easily lost.
//!
//! ```
//! use http::Request;
//! use http_body_util::Empty;
//! use bytes::Bytes;
//! use tollgate_sim::{probe::ReadyProbe, script::{Reply, Scripted}};
//! use tower::{Service, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tollgate_sim::SimError> {
//! let mut service = ReadyProbe::new(Scripted::new([Reply::status(204)]));
//! let seen = service.handle();
//! let ready: &mut ReadyProbe<_> = ServiceExt::<Request<Empty<Bytes>>>::ready(&mut service).await?;
//! ready.clone().call(Request::new(Empty::new())).await?;
//! assert_eq!(seen.snapshot().violations, 1, "a clone is not ready");
//! # Ok(())
//! # }
//! ```
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower_service::Service;

/// What a [`ReadyProbe`] and its clones have seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeSnapshot {
    /// Calls made.
    pub calls: u64,
    /// Calls of an instance that had not said it was ready since its last call.
    pub violations: u64,
    /// Instances that are ready now and have not been called.
    pub held_ready: u64,
    /// Instances that were dropped ready, without a call.
    pub dropped_ready: u64,
    /// Response futures that are neither done nor dropped.
    pub in_flight: u64,
    /// The most of them at one time.
    pub peak_in_flight: u64,
    /// Response futures that were dropped before they were done.
    pub cancelled: u64,
    /// Calls that ended in a service error.
    pub errors: u64,
}

/// Reads the counters of a [`ReadyProbe`], also after it was moved into a stack.
#[derive(Clone, Debug, Default)]
pub struct ProbeHandle(Arc<Mutex<ProbeSnapshot>>);

impl ProbeHandle {
    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> ProbeSnapshot {
        self.with(|seen| *seen)
    }

    fn with<T>(&self, f: impl FnOnce(&mut ProbeSnapshot) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Wraps a service and watches how it is used. Clones share the counters and never readiness.
#[derive(Debug)]
pub struct ReadyProbe<S> {
    inner: S,
    seen: ProbeHandle,
    pending_first: bool,
    was_pending: bool,
    ready: bool,
}

impl<S> ReadyProbe<S> {
    /// Watches `inner`.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            seen: ProbeHandle::default(),
            pending_first: false,
            was_pending: false,
            ready: false,
        }
    }

    /// Says `Pending` once (and wakes at once) before each time it says that it is ready.
    ///
    /// A layer that polls readiness once and hopes is found out by this.
    #[must_use]
    pub fn pending_first(mut self) -> Self {
        self.pending_first = true;
        self
    }

    /// The counters, for the test to keep.
    #[must_use]
    pub fn handle(&self) -> ProbeHandle {
        self.seen.clone()
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone> Clone for ReadyProbe<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            seen: self.seen.clone(),
            pending_first: self.pending_first,
            was_pending: false,
            ready: false,
        }
    }
}

impl<S> Drop for ReadyProbe<S> {
    fn drop(&mut self) {
        if self.ready {
            self.seen.with(|seen| {
                seen.held_ready -= 1;
                seen.dropped_ready += 1;
            });
        }
    }
}

impl<S: Service<R>, R> Service<R> for ReadyProbe<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = ProbeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.pending_first && !self.ready && !self.was_pending {
            self.was_pending = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.inner.poll_ready(cx))?;
        if !self.ready {
            self.ready = true;
            self.seen.with(|seen| seen.held_ready += 1);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let was_ready = std::mem::take(&mut self.ready);
        self.was_pending = false;
        self.seen.with(|seen| {
            seen.calls += 1;
            if was_ready {
                seen.held_ready -= 1;
            } else {
                seen.violations += 1;
            }
            seen.in_flight += 1;
            seen.peak_in_flight = seen.peak_in_flight.max(seen.in_flight);
        });
        // Before the inner call: the guard must count down also when that panics.
        let flight = Flight {
            seen: self.seen.clone(),
            done: false,
        };
        ProbeFuture {
            inner: self.inner.call(request),
            flight: Some(flight),
        }
    }
}

/// The response future of [`ReadyProbe`].
#[pin_project]
#[derive(Debug)]
pub struct ProbeFuture<F> {
    #[pin]
    inner: F,
    flight: Option<Flight>,
}

impl<F, T, E> Future for ProbeFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let Some(mut flight) = this.flight.take() {
            flight.done = true;
            if result.is_err() {
                flight.seen.with(|seen| seen.errors += 1);
            }
        }
        Poll::Ready(result)
    }
}

#[derive(Debug)]
struct Flight {
    seen: ProbeHandle,
    done: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.seen.with(|seen| {
            seen.in_flight -= 1;
            if !self.done {
                seen.cancelled += 1;
            }
        });
    }
}
