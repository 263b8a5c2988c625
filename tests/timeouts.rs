//! Timeouts of a fallback with a retry inside: each sees what the other holds.
#![allow(clippy::unwrap_used)]
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio::time::Instant;
use tollgate::{
    Budget, FallbackHealth, Limit, ModelChain, ModelFallbackLayer, RateLimitPolicy,
    RetryOnRateLimitLayer, TokenBudgetLayer, call::CallOptions, extensions::TimedOut,
    fallback::FallbackPolicy, timeouts::Timeouts, wire::outcome::TimeoutKind,
};
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tower::{Service, ServiceBuilder, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn request(body: &str) -> Request<Full<Bytes>> {
    Request::post("https://api.example/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}

fn chat() -> Request<Full<Bytes>> {
    request(r#"{"model":"a","messages":[]}"#)
}

fn stream() -> Request<Full<Bytes>> {
    request(r#"{"model":"a","stream":true,"messages":[]}"#)
}

/// A fallback from `a` to `b` around a retry.
fn stack(
    upstream: &Scripted,
    timeouts: Timeouts,
    health: &FallbackHealth,
) -> impl Service<Request<Full<Bytes>>, Response = Response<impl Body<Data = Bytes>>, Error = SimError>
{
    ServiceBuilder::new()
        .layer(
            ModelFallbackLayer::new(ModelChain::new(["a", "b"]).unwrap())
                .policy(FallbackPolicy::default().timeouts(timeouts))
                .health(health.clone()),
        )
        .layer(RetryOnRateLimitLayer::new(RateLimitPolicy::new()))
        .service(upstream.clone())
}

fn models(upstream: &Scripted) -> Vec<String> {
    let attempts = upstream.attempts().into_iter();
    attempts.filter_map(|attempt| attempt.model()).collect()
}

const DELTA: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const HEAD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

// L15
#[tokio::test(start_paused = true)]
async fn a_callers_deadline_blames_no_target_whoever_notices_it() {
    let upstream = Scripted::by(|_| Reply::chat("a", 1, 1).after(60 * SECOND));
    let health = FallbackHealth::new();
    let service = stack(&upstream, Timeouts::new(), &health);
    let mut request = chat();
    let options = CallOptions::new().within(SECOND);
    request.extensions_mut().insert(options);
    let answer = service.oneshot(request).await.unwrap();
    let what = TimedOut::of(&answer).map(|timed_out| timed_out.what);
    assert_eq!(what, Some(TimeoutKind::Total));
    assert!(
        health.snapshot().targets.is_empty(),
        "{:?}",
        health.snapshot()
    );
}

// F08
#[tokio::test(start_paused = true)]
async fn a_head_that_the_retry_holds_is_no_silence() {
    let upstream = Scripted::by(|_| {
        Reply::stream([HEAD])
            .wait(8 * SECOND)
            .chunk(DELTA)
            .chunk(DONE)
    });
    let timeouts = Timeouts::new()
        .first_byte(5 * SECOND)
        .first_token(30 * SECOND);
    let health = FallbackHealth::new();
    let service = stack(&upstream, timeouts, &health);
    let answer = service.oneshot(stream()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(models(&upstream), ["a"], "its head was there in time");
}

// F07
#[tokio::test(start_paused = true)]
async fn a_document_that_stalls_within_the_retry_is_left_for_the_next_candidate() {
    let upstream = Scripted::by(|attempt| {
        if attempt.model().as_deref() == Some("a") {
            Reply::status(200)
                .header("content-type", "application/json")
                .body(r#"{"choices":[{"message":{"content":"#)
                .stalls()
        } else {
            Reply::chat("b", 1, 1)
        }
    });
    let health = FallbackHealth::new();
    let timeouts = Timeouts::new().idle(10 * SECOND);
    let service = stack(&upstream, timeouts, &health);
    let start = Instant::now();
    let answer = service.oneshot(chat()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(models(&upstream), ["a", "b"]);
    assert_eq!(start.elapsed(), 10 * SECOND);
}

// X08
#[tokio::test(start_paused = true)]
async fn a_budget_that_only_watches_leaves_the_wait_to_the_retry() {
    let upstream = Scripted::new([Reply::rate_limited(5), Reply::chat("a", 1, 1)]);
    let limit = Limit::requests(500).per_minute();
    let budget = Budget::builder().limit(limit).shadow(true);
    let budget = budget.build().unwrap();
    let service = ServiceBuilder::new()
        .layer(RetryOnRateLimitLayer::new(RateLimitPolicy::new()))
        .layer(TokenBudgetLayer::new(budget))
        .service(upstream.clone());
    assert_eq!(service.oneshot(chat()).await.unwrap().status(), 200);
    let times = upstream.times();
    assert!(times[1] - times[0] >= 5 * SECOND, "{times:?}");
}
