//! The tower contract, and cancellation at every point.
#![allow(clippy::unwrap_used)]
mod support;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use serde_json::json;
use support::{at_once, chat, limits, post, stack};
use tokio::time::sleep;
use tollgate_budget::{Budget, Limit, TokenBudgetLayer};
use tollgate_core::extensions::{Reason, Refused};
use tollgate_sim::{
    SimBody, SimError, Step,
    probe::ReadyProbe,
    script::{Reply, Scripted},
};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit};

fn wide() -> Budget {
    limits([
        Limit::requests(1000).per_minute(),
        Limit::tokens(1_000_000).per_minute(),
    ])
}

fn clean(budget: &Budget) {
    let seen = budget.snapshot();
    assert_eq!((seen.in_flight, seen.queued, seen.queued_bytes), (0, 0, 0));
    for limit in &seen.limits {
        assert_eq!((limit.reserved, limit.queued), (0, 0), "{}", limit.name);
    }
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_called_only_when_it_said_that_it_is_ready() {
    let probe = ReadyProbe::new(Scripted::new([Reply::chat("m", 1, 1)])).pending_first();
    let seen = probe.handle();
    at_once(stack(&wide(), &probe), 20, || chat(4, 1)).await;
    let seen = seen.snapshot();
    assert_eq!((seen.calls, seen.violations, seen.held_ready), (20, 0, 0));
}

// X03
#[tokio::test(start_paused = true)]
async fn made_ready_and_dropped_without_a_call_it_leaks_nothing() {
    let probe = ReadyProbe::new(Scripted::new([Reply::chat("m", 1, 1)]));
    let seen = probe.handle();
    let budget = wide();
    for _ in 0..10 {
        let mut service = stack(&budget, &probe);
        ServiceExt::<Request<Full<Bytes>>>::ready(&mut service)
            .await
            .unwrap();
    }
    clean(&budget);
    assert_eq!(budget.snapshot().limits[0].used, 0);
    let seen = seen.snapshot();
    assert_eq!(
        (seen.held_ready, seen.dropped_ready),
        (0, 0),
        "never made ready ahead of time"
    );
}

// L17
#[tokio::test(start_paused = true)]
async fn who_waits_for_the_budget_holds_no_permit_of_the_inner_service() {
    let budget = limits([Limit::requests(1).per_minute()]);
    let probe = ReadyProbe::new(Scripted::new([Reply::chat("m", 1, 1)]));
    let seen = probe.handle();
    let service = stack(&budget, &ConcurrencyLimit::new(probe, 1));
    let calls: Vec<_> = (0..1000)
        .map(|_| tokio::spawn(service.clone().oneshot(chat(4, 1))))
        .collect();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(seen.snapshot().calls, 1);
    assert_eq!(
        (seen.snapshot().held_ready, seen.snapshot().in_flight),
        (0, 0)
    );
    // The one permit is free for somebody who needs no budget of ours.
    let mut inner = service.get_ref().clone();
    let free = ServiceExt::<Request<Full<Bytes>>>::ready(&mut inner);
    tokio::time::timeout(Duration::from_millis(1), free)
        .await
        .unwrap()
        .unwrap();
    calls.iter().for_each(|call| call.abort());
}

#[tokio::test(start_paused = true)]
async fn dropped_after_any_number_of_polls_it_leaves_nothing_behind() {
    // Read, wait in the queue, wait for readiness, wait for the answer, read the body: at each point once.
    for in_line in [false, true] {
        let mut polls = 0;
        loop {
            let budget = Budget::builder()
                .limit(Limit::requests(1).per(Duration::from_secs(1)))
                .build()
                .unwrap();
            let upstream = ReadyProbe::new(Scripted::new([Reply::chat("m", 1, 1)
                .rechunk(20)
                .every(Duration::from_millis(5))
                .after(Duration::from_millis(5))]))
            .pending_first();
            let layer = TokenBudgetLayer::new(budget.clone());
            let service = layer.layer(upstream);
            let mut first = in_line.then(|| Box::pin(service.clone().oneshot(slow_request())));
            let mut done = false;
            {
                let call = async {
                    let response = service.clone().oneshot(slow_request()).await.unwrap();
                    response.into_body().collect().await.unwrap();
                };
                let mut call = pin!(call);
                let mut context = Context::from_waker(Waker::noop());
                if let Some(first) = &mut first {
                    // Past its own reading, so that it has the one place.
                    for _ in 0..8 {
                        let _ = first.as_mut().poll(&mut context);
                    }
                }
                for _ in 0..polls {
                    if let Poll::Ready(()) = call.as_mut().poll(&mut context) {
                        done = true;
                        break;
                    }
                    tokio::time::advance(Duration::from_millis(3)).await;
                }
            }
            drop(first);
            clean(&budget);
            // And the next one gets through.
            tokio::time::advance(Duration::from_secs(3)).await;
            service.oneshot(slow_request()).await.unwrap();
            polls += 1;
            if done {
                break;
            }
            assert!(polls < 2000, "it never ends");
        }
        assert!(
            polls > 10,
            "{polls} polls are too few to have met every state"
        );
    }
}

/// A request whose body comes in two frames, each after a while.
fn slow_request() -> Request<SimBody> {
    let document = chat(40, 1).into_body();
    let bytes = futures_util::FutureExt::now_or_never(document.collect())
        .unwrap()
        .unwrap()
        .to_bytes();
    let (head, tail) = (bytes.slice(..20), bytes.slice(20..));
    let wait = Step::Wait(Duration::from_millis(4));
    let body = SimBody::new([wait.clone(), Step::Data(head), wait, Step::Data(tail)]);
    Request::post("http://provider.test/v1/chat/completions")
        .body(body)
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_baton_is_handed_on_when_the_one_who_keeps_the_timer_leaves() {
    let budget = limits([Limit::requests(1).per(Duration::from_secs(1))]);
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let service = stack(&budget, &upstream);
    service.clone().oneshot(chat(4, 1)).await.unwrap();
    let mut calls: Vec<_> = (0..10)
        .map(|_| tokio::spawn(service.clone().oneshot(chat(4, 1))))
        .collect();
    sleep(Duration::from_millis(1)).await;
    // The head keeps it; then the next, and so on.
    for call in calls.drain(..9) {
        call.abort();
        let _ = call.await;
    }
    let last = calls.pop().unwrap();
    last.await.unwrap().unwrap();
    assert_eq!(upstream.count(), 2);
    clean(&budget);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_random_cancellations_lose_nothing_and_leak_nothing() {
    let budget = limits([
        Limit::requests(50).per(Duration::from_millis(100)),
        Limit::tokens(5000).per_minute(),
    ]);
    let upstream = Scripted::by(|attempt| {
        Reply::chat("m", 1, 1).after(Duration::from_millis(attempt.index as u64 % 7))
    });
    let service = stack(&budget, &upstream);
    let mut rng = fastrand::Rng::with_seed(1);
    let calls: Vec<_> = (0..5000)
        .map(|_| {
            let call = service.clone().oneshot(chat(1, 0));
            let patience = Duration::from_micros(rng.u64(0..12_000_000));
            tokio::spawn(tokio::time::timeout(patience, call))
        })
        .collect();
    let mut served = 0;
    for call in calls {
        served += usize::from(matches!(call.await.unwrap(), Ok(Ok(r)) if r.status() == 200));
    }
    assert!(served > 1000, "{served}");
    clean(&budget);
    service.oneshot(chat(1, 0)).await.unwrap();
}

// X11
#[tokio::test(start_paused = true)]
async fn what_is_not_to_be_read_passes_as_one_request_and_is_never_held() {
    let budget = wide();
    let upstream = Scripted::new([Reply::status(204)]);
    let service = TokenBudgetLayer::new(budget.clone()).layer(upstream.clone());
    type Any = BoxBody<Bytes, SimError>;
    // A long upload of unknown length: the answer comes before it is sent.
    let frames = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, SimError>>();
    let upload = Request::post("/v1/anything")
        .body(OwnedBody(BoxBody::new(StreamBody::new(SyncStream(frames)))))
        .unwrap();
    let _: Option<Any> = None;
    let call = service.clone().oneshot(upload);
    let _ = tokio::time::timeout(Duration::from_millis(1), call).await;
    assert_eq!(upstream.count(), 1, "it was passed on unread");
    let seen = budget.snapshot();
    assert_eq!((seen.limits[0].used, seen.limits[1].used), (1, 0));
    let get = Request::builder()
        .method(Method::GET)
        .uri("/v1/models")
        .body(OwnedBody::from(Bytes::new()))
        .unwrap();
    assert_eq!(service.oneshot(get).await.unwrap().status(), 204);
    let seen = budget.snapshot();
    assert_eq!((seen.limits[0].used, seen.limits[1].used), (2, 0));
    clean(&budget);
}

/// Any body, with the one conversion that layers ask for.
struct OwnedBody(BoxBody<Bytes, SimError>);

impl From<Bytes> for OwnedBody {
    fn from(bytes: Bytes) -> Self {
        Self(BoxBody::new(
            Full::from(bytes).map_err(|never| match never {}),
        ))
    }
}

impl http_body::Body for OwnedBody {
    type Data = Bytes;
    type Error = SimError;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, SimError>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

struct SyncStream<S>(S);

impl<S: futures_util::Stream + Unpin> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<S::Item>> {
        std::pin::Pin::new(&mut self.0).poll_next(cx)
    }
}

// X12
#[tokio::test(start_paused = true)]
async fn a_batch_reserves_no_tokens() {
    let budget = wide();
    let service = stack(
        &budget,
        &Scripted::new([Reply::ok_json(json!({"id": "batch_1"}))]),
    );
    let document = json!({"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    service
        .oneshot(post("/v1/batches", document))
        .await
        .unwrap();
    let seen = budget.snapshot();
    assert_eq!((seen.limits[0].used, seen.limits[1].used), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_fails_is_answered_with_400_and_nothing_is_sent() {
    let budget = wide();
    let upstream = Scripted::new([Reply::status(200)]);
    let broken = SimBody::new([
        Step::Data(Bytes::from("{\"model\"")),
        Step::Break(SimError::Broken),
    ]);
    let mut request = Request::post("/v1/chat/completions")
        .body(Sized(broken))
        .unwrap();
    request.headers_mut().extend(HeaderMap::new());
    let response = TokenBudgetLayer::new(budget.clone())
        .layer(upstream.clone())
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(Refused::of(&response).unwrap().reason, Reason::BodyFailed);
    assert_eq!(upstream.count(), 0);
    clean(&budget);
}

/// Promises an exact size, as a client would with a content-length.
struct Sized(SimBody);

impl From<Bytes> for Sized {
    fn from(bytes: Bytes) -> Self {
        Self(bytes.into())
    }
}

impl http_body::Body for Sized {
    type Data = Bytes;
    type Error = SimError;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, SimError>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }
    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(500)
    }
}

// X14
#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_before_the_request_is_sent_settles_once() {
    let budget = wide();
    let upstream = Scripted::new([Reply::status(413).unread()]);
    let response = TokenBudgetLayer::new(budget.clone())
        .layer(upstream)
        .oneshot(slow_request())
        .await
        .unwrap();
    assert_eq!(response.status(), 413);
    let seen = budget.snapshot();
    assert_eq!((seen.limits[0].used, seen.limits[1].used), (1, 0));
    clean(&budget);
}

#[tokio::test(start_paused = true)]
async fn answers_and_errors_arrive_unchanged_and_bytes_are_not_held_back() {
    let budget = wide();
    let upstream = Scripted::new([
        Reply::sse(["1", "2", "3"])
            .every(Duration::from_secs(1))
            .header("x-mine", "yes"),
        Reply::transport_error(SimError::Reset),
    ]);
    let service = stack(&budget, &upstream);
    let response = service.clone().oneshot(chat(4, 1)).await.unwrap();
    assert_eq!(response.headers()["x-mine"], "yes");
    let mut body = response.into_body();
    let begun = tokio::time::Instant::now();
    for n in 1..=3 {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(frame, format!("data: {n}\n\n"));
        assert_eq!(begun.elapsed().as_secs(), n);
    }
    assert_eq!(
        service.oneshot(chat(4, 1)).await.unwrap_err(),
        SimError::Reset
    );
}

#[test]
fn auto_traits_flow_through() {
    fn is<T: Clone + Send + Sync + 'static>() {}
    is::<Budget>();
    is::<tollgate_budget::TokenBudget<Scripted>>();
    fn sent<S: Service<Request<Full<Bytes>>>>(_: &S)
    where
        S::Future: Send,
    {
    }
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(async {
            sent(&stack(&wide(), &Scripted::new([])));
        });
}
