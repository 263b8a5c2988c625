//! The contract of a tower service: readiness, cancellation, auto traits.
mod support;

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, poll_fn},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::noop_waker;
use http::{Request, Response};
use http_body_util::Full;
use support::*;
use tokio::time::advance;
use tollgate_core::{call::Call, timeouts::Timeouts};
use tollgate_retry::{RateLimitPolicy, RetryOnRateLimit, RetryOnRateLimitLayer};
use tollgate_sim::{
    probe::ReadyProbe,
    script::{BodyFate, Reply, Scripted},
};
use tower::{Layer, Service, ServiceExt, service_fn};

fn replies() -> [Reply; 4] {
    [
        Reply::rate_limited(2).after(Duration::from_secs(1)),
        Reply::body_breaks_after("{").after(Duration::from_secs(1)),
        Reply::transport_error(tollgate_sim::SimError::Refused),
        ok().every(Duration::from_secs(1)),
    ]
}

fn patient() -> RateLimitPolicy {
    RateLimitPolicy::new().attempts(4)
}

async fn ready<S: Service<Request<Full<Bytes>>>>(service: &mut S) -> Result<(), S::Error> {
    poll_fn(|cx| service.poll_ready(cx)).await
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_made_by_an_instance_that_is_ready() {
    let provider = Scripted::new(replies());
    let probe = ReadyProbe::new(provider.clone()).pending_first();
    let handle = probe.handle();
    let mut service = RetryOnRateLimit::new(probe, patient());
    for _ in 0..3 {
        ready(&mut service).await.unwrap();
        service.call(chat()).await.unwrap();
    }
    let seen = handle.snapshot();
    assert_eq!(seen.violations, 0, "{seen:?}");
    assert_eq!((seen.held_ready, seen.in_flight), (0, 0), "{seen:?}");
    assert_eq!(seen.dropped_ready, 0, "{seen:?}");
    assert!(seen.calls >= 6, "{seen:?}");
}

// X03
#[tokio::test(start_paused = true)]
async fn a_service_that_was_ready_and_is_dropped_leaks_nothing() {
    let probe = ReadyProbe::new(Scripted::new([ok()]));
    let handle = probe.handle();
    let mut service = RetryOnRateLimit::new(probe, RateLimitPolicy::new());
    ready(&mut service).await.unwrap();
    assert_eq!(handle.snapshot().held_ready, 1);
    drop(service);
    let seen = handle.snapshot();
    assert_eq!((seen.held_ready, seen.dropped_ready), (0, 1));
    assert_eq!(seen.calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_clone_shares_no_readiness() {
    let probe = ReadyProbe::new(Scripted::new([ok()]));
    let handle = probe.handle();
    let mut service = RetryOnRateLimit::new(probe, RateLimitPolicy::new());
    ready(&mut service).await.unwrap();
    let mut clone = service.clone();
    ready(&mut clone).await.unwrap();
    clone.call(chat()).await.unwrap();
    service.call(chat()).await.unwrap();
    assert_eq!(handle.snapshot().violations, 0);
}

// R16
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_while_it_waits_leaves_nothing_behind() {
    let provider = Scripted::new([Reply::rate_limited(30), ok()]);
    let probe = ReadyProbe::new(provider.clone());
    let handle = probe.handle();
    let service = RetryOnRateLimit::new(probe, RateLimitPolicy::new());
    let dropped = tokio::time::timeout(Duration::from_secs(10), service.oneshot(chat())).await;
    assert!(dropped.is_err(), "it is still waiting after 10 s");
    advance(Duration::from_secs(100)).await;
    let seen = handle.snapshot();
    assert_eq!(
        (seen.calls, seen.held_ready, seen.in_flight),
        (1, 0, 0),
        "{seen:?}"
    );
    assert_eq!(provider.count(), 1, "no further attempt");
}

// R16
#[tokio::test(start_paused = true)]
async fn while_it_waits_it_holds_no_readiness_and_no_answer() {
    let long = Reply::rate_limited(30).chunk("x".repeat(1 << 20));
    let provider = Scripted::new([long, ok()]);
    let probe = ReadyProbe::new(provider.clone());
    let handle = probe.handle();
    let service = RetryOnRateLimit::new(probe, RateLimitPolicy::new());
    let call = tokio::spawn(service.oneshot(chat()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let seen = handle.snapshot();
    assert_eq!((seen.held_ready, seen.in_flight), (0, 0), "{seen:?}");
    let fate = provider.attempts()[0].body_fate;
    assert_ne!(
        fate,
        BodyFate::Open,
        "the answer was dropped before the sleep"
    );
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

/// Polls the call `polls` times, with time passing in between, and drops it then. True if it was done. With `held`,
/// somebody else was refused before, and the first attempt has to wait at the gate.
async fn drop_after(polls: usize, held: bool) -> bool {
    let provider = Scripted::new(replies());
    let probe = ReadyProbe::new(provider.clone()).pending_first();
    let handle = probe.handle();
    let timeouts = Timeouts::new()
        .first_byte(Duration::from_secs(50))
        .idle(Duration::from_secs(50));
    let policy = patient().timeouts(timeouts);
    let mut service = RetryOnRateLimitLayer::new(policy).layer(probe);
    let mut others = 0;
    if held {
        let other = service.clone().oneshot(chat());
        let gone = tokio::time::timeout(Duration::from_millis(1_500), other).await;
        assert!(gone.is_err(), "it was refused, and waits");
        others = handle.snapshot().calls;
        assert_eq!(service.stats().snapshot().gates_shut, 1);
    }
    let mut request = chat();
    let call = Call::of(request.extensions_mut());
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    while Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut cx).is_pending() {}
    let mut future = Box::pin(service.call(request));
    let mut done = false;
    for _ in 0..polls {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut cx) {
            assert_eq!(answer.expect("an answer").status(), 200);
            done = true;
            break;
        }
        advance(Duration::from_millis(250)).await;
    }
    drop(future);
    let seen = handle.snapshot();
    assert_eq!(seen.violations, 0, "after {polls} polls: {seen:?}");
    assert_eq!(seen.in_flight, 0, "after {polls} polls: {seen:?}");
    assert_eq!(call.attempt_under_way(), None, "after {polls} polls");
    let calls = seen.calls;
    assert!(calls - others <= 4, "{seen:?}");
    advance(Duration::from_secs(1_000)).await;
    assert_eq!(
        handle.snapshot().calls,
        calls,
        "nothing goes on after the drop"
    );
    assert_eq!(service.stats().snapshot().gates_shut, 0, "no gate is stuck");
    drop(service);
    let seen = handle.snapshot();
    assert_eq!(seen.held_ready, 0, "after {polls} polls: {seen:?}");
    done
}

// R16
#[tokio::test(start_paused = true)]
async fn dropped_at_any_poll_it_leaves_nothing_behind() {
    for held in [false, true] {
        let mut polls = 0;
        while !drop_after(polls, held).await {
            polls += 1;
            assert!(polls < 1_000, "it never ends");
        }
        assert!(polls > 10, "the script has many waits: {polls}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_is_the_callers() {
    #[derive(Clone)]
    struct Fails(u8);
    impl Service<Request<Full<Bytes>>> for Fails {
        type Response = Response<Full<Bytes>>;
        type Error = &'static str;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            self.0 += 1;
            Poll::Ready(if self.0 > 1 { Err("closed") } else { Ok(()) })
        }

        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            let response = Response::builder().status(503).body(Full::default());
            std::future::ready(Ok(response.unwrap()))
        }
    }
    let service = RetryOnRateLimit::new(Fails(0), RateLimitPolicy::new());
    assert_eq!(service.oneshot(chat()).await.unwrap_err(), "closed");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_inner_service_closes_the_ledger() {
    let service = RetryOnRateLimit::new(Scripted::new([Reply::panics()]), RateLimitPolicy::new());
    let mut request = chat();
    let call = Call::of(request.extensions_mut());
    let answer = tokio::spawn(service.oneshot(request)).await;
    assert!(answer.unwrap_err().is_panic());
    assert_eq!(call.attempt_under_way(), None);
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_is_not_send_will_do() {
    let count = Rc::new(Cell::new(0));
    let seen = count.clone();
    let inner = service_fn(move |_: Request<Full<Bytes>>| {
        let count = count.clone();
        async move {
            count.set(count.get() + 1);
            let status = if count.get() < 3 { 503 } else { 204 };
            let response = Response::builder()
                .status(status)
                .body(Full::<Bytes>::default());
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    let service = RetryOnRateLimit::new(inner, RateLimitPolicy::new());
    // The error stays `Infallible`: this `let` has no other case.
    let Ok(response) = service.oneshot(chat()).await;
    assert_eq!((response.status().as_u16(), seen.get()), (204, 3));
}

#[test]
fn auto_traits_flow_through() {
    fn all<T: Clone + Send + Sync + Unpin + 'static>(_: &T) {}
    fn future<T: Send + 'static>(_: &T) {}
    fn body<T: Send + Sync + Unpin + 'static>() {}
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let layer = RetryOnRateLimitLayer::new(RateLimitPolicy::new());
    all(&layer);
    let mut service = layer.layer(Scripted::new([ok()]));
    all(&service);
    future(&Service::call(&mut service, chat()));
    body::<tollgate_core::body::Replay<tollgate_sim::SimBody>>();
}

#[test]
fn a_future_stays_small() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let inner = service_fn(|_: Request<Full<Bytes>>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    });
    let mut service = RetryOnRateLimit::new(inner, RateLimitPolicy::new());
    let size = size_of_val(&service.call(chat()));
    assert!(size <= 1_024, "{size} bytes");
}
