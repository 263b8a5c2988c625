//! What is not waited for any longer, and what becomes of it.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use http_body_util::BodyExt;
use support::*;
use tokio::time::Instant;
use tollgate_core::{
    body::BodyError,
    call::Attempts,
    extensions::TimedOut,
    timeouts::Timeouts,
    wire::outcome::{Outcome as Meaning, TimeoutKind},
};
use tollgate_retry::{GaveUp, GaveUpReason, RateLimitPolicy, Resend};
use tollgate_sim::{
    SimError,
    script::{BodyFate, Reply},
};

const DELTA: &str = r#"{"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}"#;
const ROLE: &str =
    r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn timing(timeouts: Timeouts) -> RateLimitPolicy {
    RateLimitPolicy::new()
        .timeouts(timeouts)
        .backoff(|_: u32| secs(1))
}

fn stream() -> Reply {
    Reply::sse([ROLE, DELTA, "[DONE]"])
}

fn first_meaning(seen: &Outcome) -> Option<Meaning> {
    let response = seen.result.as_ref().expect("an answer");
    Attempts::of(response)[0].outcome.clone()
}

fn timeout(what: TimeoutKind) -> Option<Meaning> {
    Some(Meaning::Timeout { what })
}

// L15
#[tokio::test(start_paused = true)]
async fn an_answer_whose_head_does_not_come_is_tried_again() {
    let policy = || timing(Timeouts::new().first_byte(secs(10)));
    let seen = send(policy(), chat(), [Reply::pending(), ok()]).await;
    assert_eq!(seen.attempts(), 2);
    assert_eq!(seen.gap(), secs(11));
    assert!(
        seen.provider.attempts()[0].cancelled,
        "the attempt is dropped before the sleep"
    );
    assert_eq!(first_meaning(&seen), timeout(TimeoutKind::FirstByte));
    assert_eq!(seen.response().status(), 200);

    // It may have been served.
    let strict = policy().resend(Resend::OnlyUnsent);
    let seen = send(strict, chat(), [Reply::pending(), ok()]).await;
    assert_eq!(seen.attempts(), 1);
    assert_eq!(seen.response().status(), 504);
}

// L15
#[tokio::test(start_paused = true)]
async fn given_up_waiting_for_good_it_is_a_504_that_says_what_was_waited_for() {
    let policy = timing(Timeouts::new().first_byte(secs(10)));
    let seen = send(policy, chat(), [Reply::pending()]).await;
    assert_eq!(seen.attempts(), 3);
    let response = seen.response();
    assert_eq!(response.status(), 504);
    let timed_out = TimedOut::of(&response).unwrap();
    assert_eq!(
        (timed_out.what, timed_out.after),
        (TimeoutKind::FirstByte, secs(10))
    );
    let gave_up = GaveUp::of(&response).unwrap();
    assert_eq!(gave_up.reason, GaveUpReason::AttemptsUsedUp);
    let document: serde_json::Value =
        serde_json::from_slice(&bytes(response.into_body()).await).unwrap();
    assert_eq!(document["error"]["code"], "first_byte_timeout");
}

// L15
#[tokio::test(start_paused = true)]
async fn a_connect_timeout_is_told_apart_from_an_answer_that_does_not_come() {
    for (error, what, attempts) in [
        (SimError::ConnectTimeout, TimeoutKind::Connect, 2),
        (SimError::Timeout, TimeoutKind::Client, 1),
    ] {
        let provider = tollgate_sim::script::Scripted::new([Reply::transport_error(error), ok()]);
        let mut request = chat();
        let call = tollgate_core::call::Call::of(request.extensions_mut());
        let layer = tollgate_retry::RetryOnRateLimitLayer::new(
            RateLimitPolicy::new().resend(Resend::OnlyUnsent),
        )
        .classify(tollgate_sim::SimClassify);
        let service = tower::Layer::layer(&layer, provider.clone());
        let _ = tower::ServiceExt::oneshot(service, request).await;
        assert_eq!(
            provider.count(),
            attempts,
            "{error}: only what was not sent is sent again"
        );
        assert_eq!(call.attempts()[0].outcome, timeout(what));
    }
}

// L15: the head and the role are there, and no content comes.
#[tokio::test(start_paused = true)]
async fn a_stream_without_its_first_token_in_time_is_tried_again_and_the_caller_sees_nothing() {
    for silent in [
        Reply::sse([ROLE]).stalls(),
        Reply::stream([": ping\n\n"; 100]).every(secs(1)).stalls(),
        Reply::pending(),
    ] {
        let policy = timing(Timeouts::new().first_token(secs(40)));
        let seen = send(policy, chat_stream(), [silent, stream()]).await;
        assert_eq!(seen.attempts(), 2);
        assert_eq!(
            seen.gap(),
            secs(41),
            "longer than a look takes without a timeout"
        );
        assert_eq!(first_meaning(&seen), timeout(TimeoutKind::FirstToken));
        let first = &seen.provider.attempts()[0];
        assert!(first.cancelled || first.body_fate == BodyFate::Dropped);
        let text = bytes(seen.response().into_body()).await;
        assert!(std::str::from_utf8(&text).unwrap().contains("Hello"));
    }
    // A request for no stream is not bound by it.
    let policy = timing(Timeouts::new().first_token(secs(5)));
    let seen = send(policy, chat(), [ok().after(secs(20))]).await;
    assert_eq!(seen.attempts(), 1);
}

// L15
#[tokio::test(start_paused = true)]
async fn a_stall_before_anything_was_delivered_is_tried_again() {
    let policy = || timing(Timeouts::new().idle(secs(40)));
    let half = Reply::status(200)
        .header("content-type", "application/json")
        .body("{\"id\":")
        .stalls();
    let seen = send(policy(), chat(), [half, ok()]).await;
    assert_eq!((seen.attempts(), seen.gap()), (2, secs(41)));
    assert_eq!(first_meaning(&seen), timeout(TimeoutKind::Idle));

    let seen = send(
        policy(),
        chat_stream(),
        [Reply::sse([ROLE]).stalls(), stream()],
    )
    .await;
    assert_eq!((seen.attempts(), seen.gap()), (2, secs(41)));
    assert_eq!(first_meaning(&seen), timeout(TimeoutKind::Idle));
}

// L15
#[tokio::test(start_paused = true)]
async fn a_stall_after_content_ends_the_body_in_an_error() {
    let policy = timing(Timeouts::new().idle(secs(30)));
    let stalled = Reply::sse([ROLE, DELTA]).every(secs(10)).stalls();
    let seen = send(policy, chat_stream(), [stalled]).await;
    let provider = seen.provider.clone();
    let start = Instant::now();
    let mut body = seen.response().into_body();
    let mut error = None;
    while let Ok(Some(frame)) = tokio::time::timeout(secs(1_000), body.frame()).await {
        error = frame.err();
    }
    assert_eq!(error, Some(BodyError::IdleTimeout));
    assert_eq!(start.elapsed(), secs(30), "from the last frame");
    assert!(http_body::Body::is_end_stream(&body));
    assert_eq!(
        provider.attempts()[0].body_fate,
        BodyFate::Dropped,
        "the connection is let go"
    );
}

#[tokio::test(start_paused = true)]
async fn frames_that_keep_coming_are_not_idle() {
    let policy = timing(Timeouts::new().idle(secs(30)));
    let slow = Reply::sse([ROLE, DELTA, DELTA, DELTA, "[DONE]"]).every(secs(29));
    let seen = send(policy, chat_stream(), [slow]).await;
    assert_eq!(seen.attempts(), 1);
    seen.response().into_body().collect().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_total_time_is_the_calls_deadline_in_every_place() {
    let total = || timing(Timeouts::new().total(secs(60)));
    // In a wait: it would end too late.
    let start = Instant::now();
    let seen = send(total(), chat(), [Reply::rate_limited(70)]).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    let gave_up = *GaveUp::of(&seen.response()).unwrap();
    assert_eq!(gave_up.reason, GaveUpReason::WaitBeyondDeadline);
    assert_eq!(gave_up.limit, Some(secs(60)));

    // In an attempt, in the look into its answer: attempts and waits before it count.
    let half = Reply::status(200)
        .header("content-type", "application/json")
        .body("{")
        .stalls();
    for last in [Reply::pending(), half] {
        let slow = Reply::status(500).after(secs(20));
        let start = Instant::now();
        let seen = send(total(), chat(), [slow.clone(), slow, last]).await;
        assert_eq!(start.elapsed(), secs(60));
        assert_eq!(seen.attempts(), 3);
        let response = seen.response();
        assert_eq!(response.status(), 504);
        assert_eq!(TimedOut::of(&response).unwrap().what, TimeoutKind::Total);
    }

    // In the body that was handed on.
    let endless = Reply::sse([DELTA; 100]).every(secs(1));
    let start = Instant::now();
    let seen = send(total(), chat_stream(), [endless]).await;
    let body = seen.response().into_body().collect();
    let error = tokio::time::timeout(secs(1_000), body)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (error, start.elapsed()),
        (BodyError::TotalTimeout, secs(60))
    );
}

// R15
#[tokio::test(start_paused = true)]
async fn the_callers_deadline_ends_an_attempt_that_is_under_way() {
    let seen = send(
        RateLimitPolicy::new(),
        within(chat(), 20),
        [Reply::pending()],
    )
    .await;
    assert_eq!(seen.attempts(), 1);
    let response = seen.response();
    assert_eq!(response.status(), 504);
    let timed_out = TimedOut::of(&response).unwrap();
    assert_eq!(
        (timed_out.what, timed_out.after),
        (TimeoutKind::Total, secs(20))
    );
    assert_eq!(
        GaveUp::of(&response).unwrap().reason,
        GaveUpReason::WaitBeyondDeadline
    );
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_ends_the_wait_for_a_service_that_is_not_ready_again() {
    use tower::{Service, ServiceExt};
    /// Ready once.
    #[derive(Clone)]
    struct Once(bool);
    impl Service<http::Request<http_body_util::Full<bytes::Bytes>>> for Once {
        type Response = http::Response<http_body_util::Full<bytes::Bytes>>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Self::Error>> {
            if std::mem::replace(&mut self.0, true) {
                std::task::Poll::Pending
            } else {
                std::task::Poll::Ready(Ok(()))
            }
        }

        fn call(&mut self, _: http::Request<http_body_util::Full<bytes::Bytes>>) -> Self::Future {
            let response = http::Response::builder()
                .status(503)
                .body(http_body_util::Full::default());
            std::future::ready(Ok(response.unwrap()))
        }
    }
    let service = tollgate_retry::RetryOnRateLimit::new(Once(false), RateLimitPolicy::new());
    let start = Instant::now();
    let response = service.oneshot(within(chat(), 20)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), start.elapsed()),
        (504, secs(20))
    );
}

// R19
#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_sent_twice_is_held_to_the_timeouts_too() {
    let policy = timing(Timeouts::new().first_byte(secs(10)).idle(secs(5)));
    let request = || {
        let trailer = tollgate_sim::Step::Trailers(http::HeaderMap::new());
        let data = tollgate_sim::Step::Data("{}".into());
        http::Request::post("https://api.example/v1/chat/completions")
            .body(tollgate_sim::SimBody::new([data, trailer]))
            .unwrap()
    };
    let stalls = Reply::status(200).body("{").stalls();
    let provider = tollgate_sim::script::Scripted::new([Reply::pending(), stalls]);
    let service = tollgate_retry::RetryOnRateLimit::new(provider, policy);
    let late = tower::ServiceExt::oneshot(service.clone(), request())
        .await
        .unwrap();
    assert_eq!(late.status(), 504);
    assert_eq!(TimedOut::of(&late).unwrap().what, TimeoutKind::FirstByte);
    assert_eq!(
        GaveUp::of(&late).unwrap().reason,
        GaveUpReason::NotReplayable
    );
    let stalled = tower::ServiceExt::oneshot(service, request())
        .await
        .unwrap();
    let body = stalled.into_body().collect();
    let error = tokio::time::timeout(secs(1_000), body)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error, BodyError::IdleTimeout);
}
