//! As many attempts as the call allows, over all layers and a client outside that retries by itself.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use support::*;
use tollgate_core::{body::Replay, call::CallOptions, classify::By};
use tollgate_retry::{
    GaveUp, GaveUpReason, RateLimitPolicy, Resend, RetryBudget, RetryOnRateLimit,
    RetryOnRateLimitLayer,
};
use tollgate_sim::{
    SimBody, SimError,
    script::{Reply, Scripted},
};
use tower::{Layer, Service, ServiceExt};

const SHOULD: &str = "x-should-retry";

/// A client that retries twice by itself, as the SDKs of OpenAI and Anthropic do: not what `x-should-retry` forbids.
async fn sdk<S, B>(service: S, request: impl Fn() -> Request<Full<Bytes>>) -> Response<B>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone,
    S::Error: std::fmt::Debug,
{
    for _ in 0..2 {
        let answer = service.clone().oneshot(request()).await.unwrap();
        let forbidden = answer
            .headers()
            .get(SHOULD)
            .is_some_and(|value| value == "false");
        let again = matches!(answer.status().as_u16(), 408 | 409 | 429 | 500..);
        if forbidden || !again {
            return answer;
        }
    }
    service.oneshot(request()).await.unwrap()
}

// R18
#[tokio::test(start_paused = true)]
async fn a_client_outside_that_retries_by_itself_does_not_multiply_the_attempts() {
    let provider = Scripted::new([Reply::status(503)]);
    let service = RetryOnRateLimit::new(provider.clone(), RateLimitPolicy::new());
    let answer = sdk(service, chat).await;
    assert_eq!((answer.status().as_u16(), provider.count()), (503, 3));
    assert_eq!(answer.headers()[SHOULD], "false");

    let provider = Scripted::new([Reply::status(503)]);
    let quiet = RateLimitPolicy::new().should_retry_header(false);
    let answer = sdk(RetryOnRateLimit::new(provider.clone(), quiet), chat).await;
    assert_eq!(provider.count(), 9, "switched off, they multiply");
    assert!(!answer.headers().contains_key(SHOULD));
}

// R18
#[tokio::test(start_paused = true)]
async fn what_is_handed_on_while_attempts_are_left_keeps_its_head() {
    for (reply, reason) in [
        (Reply::rate_limited(600), GaveUpReason::WaitBeyondCap),
        (Reply::status(401), GaveUpReason::Pointless),
    ] {
        let response = send_chat([reply]).await.response();
        assert_eq!(GaveUp::of(&response).unwrap().reason, reason);
        assert!(!response.headers().contains_key(SHOULD), "{reason:?}");
    }
    assert!(
        !send_chat([ok()])
            .await
            .response()
            .headers()
            .contains_key(SHOULD)
    );
}

// R18, R14, R24
#[tokio::test(start_paused = true)]
async fn what_must_not_be_sent_again_says_so_to_the_client_outside() {
    let empty = RateLimitPolicy::new().retry_budget(RetryBudget::new(0.0, 0));
    let once = RateLimitPolicy::new().resend(Resend::OnlyUnsent);
    for (policy, status, reason) in [
        (empty, 503, GaveUpReason::RetryBudgetEmpty),
        (once, 408, GaveUpReason::MaybeServed),
    ] {
        let seen = send(policy, chat(), [Reply::status(status)]).await;
        let response = seen.response();
        assert_eq!(GaveUp::of(&response).unwrap().reason, reason);
        assert_eq!(response.headers()[SHOULD], "false", "{reason:?}");
    }
}

// R18: the maximum of the call holds over any number of layers, whoever has set it.
#[tokio::test(start_paused = true)]
async fn nested_layers_send_no_more_than_the_calls_maximum() {
    type Twice = RetryOnRateLimit<RetryOnRateLimit<RetryOnRateLimit<Scripted>>>;
    let nest = |provider: &Scripted, outermost: u32| -> Twice {
        let inner = RetryOnRateLimit::new(provider.clone(), RateLimitPolicy::new());
        let middle = RetryOnRateLimit::new(inner, RateLimitPolicy::new().attempts(9));
        RetryOnRateLimit::new(middle, RateLimitPolicy::new().attempts(outermost))
    };
    for reply in [
        Reply::status(503),
        Reply::rate_limited(1),
        Reply::body_breaks_after("{"),
    ] {
        for (outermost, told, most) in
            [(2, None, 2), (4, None, 4), (2, Some(5), 5), (9, Some(1), 1)]
        {
            let provider = Scripted::new([reply.clone()]);
            let mut request = chat();
            if let Some(told) = told {
                request
                    .extensions_mut()
                    .insert(CallOptions::new().max_attempts(told));
            }
            let answer: Response<Replay<Replay<Replay<SimBody>>>> =
                nest(&provider, outermost).oneshot(request).await.unwrap();
            assert_eq!(provider.count(), most, "{reply:?} {outermost} {told:?}");
            assert_eq!(tollgate_core::call::Attempts::of(&answer).len(), most);
            assert_eq!(
                GaveUp::of(&answer).unwrap().reason,
                GaveUpReason::AttemptsUsedUp
            );
        }
    }
}

// R18: in another process, where only the header is seen.
#[tokio::test(start_paused = true)]
async fn a_retry_in_another_process_obeys_the_header() {
    let provider = Scripted::new([Reply::status(503)]);
    let inner = RetryOnRateLimit::new(provider.clone(), RateLimitPolicy::new());
    let hop = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let inner = inner.clone();
        async move {
            let mut fresh = Request::new(request.body().clone());
            *fresh.method_mut() = request.method().clone();
            *fresh.uri_mut() = request.uri().clone();
            let (mut head, body) = inner.oneshot(fresh).await?.into_parts();
            head.extensions = http::Extensions::new();
            Ok::<_, SimError>(Response::from_parts(head, body))
        }
    });
    let outer = RetryOnRateLimitLayer::new(RateLimitPolicy::new())
        .classify(By(fault))
        .layer(hop);
    let answer = outer.oneshot(chat()).await.unwrap();
    assert_eq!((answer.status().as_u16(), provider.count()), (503, 3));
    assert_eq!(GaveUp::of(&answer).unwrap().reason, GaveUpReason::Pointless);
}

// A connection is reused only if its answer was read to the end: a short error is, a long one is not worth it.
#[tokio::test(start_paused = true)]
async fn an_errors_body_is_read_to_its_end_or_to_the_cap_and_gone_before_the_wait() {
    use tollgate_sim::script::BodyFate;
    for (length, fate) in [(1 << 10, BodyFate::Complete), (1 << 22, BodyFate::Dropped)] {
        let frames = length / 1024;
        let long = (0..frames).fold(Reply::status(503), |reply, _| reply.chunk("x".repeat(1024)));
        let provider = Scripted::new([long.wait(Duration::ZERO), ok()]);
        let policy = RateLimitPolicy::new().backoff(|_: u32| Duration::from_secs(60));
        let service = RetryOnRateLimit::new(provider.clone(), policy);
        let call = tokio::spawn(service.oneshot(chat()));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(
            provider.attempts()[0].body_fate,
            fate,
            "{length} bytes, while it waits"
        );
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
}

/// Counts the bytes that were read of it.
#[derive(Clone, Default)]
struct Endless(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0.fetch_add(1024, std::sync::atomic::Ordering::Relaxed);
        let frame = http_body::Frame::data(Bytes::from_static(&[b'x'; 1024]));
        std::task::Poll::Ready(Some(Ok(frame)))
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_error_is_read_to_the_cap_and_no_further() {
    let endless = Endless::default();
    let body = endless.clone();
    let inner = tower::service_fn(move |_: Request<Full<Bytes>>| {
        let response = Response::builder().status(500).body(body.clone());
        std::future::ready(Ok::<_, std::convert::Infallible>(response.unwrap()))
    });
    let service = RetryOnRateLimit::new(inner, RateLimitPolicy::new().attempts(2));
    assert_eq!(service.oneshot(chat()).await.unwrap().status(), 500);
    let read = endless.0.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(read, 2 * 64 * 1024, "64 KiB of each");
}
