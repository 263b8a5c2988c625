//! When it hands the answer back at once, and what it says of it.
mod support;

use std::time::Duration;

use support::*;
use tokio::time::Instant;
use tollgate_core::wire::outcome::Verdict;
use tollgate_retry::{
    GaveUp, GaveUpReason, RateLimitPolicy, RetryBudget, RetryOnRateLimit, RetryStats,
};
use tollgate_sim::script::{Reply, Scripted};
use tower::{Layer, ServiceExt};

// R05
#[tokio::test(start_paused = true)]
async fn a_wait_of_days_hands_the_answer_back_at_once_and_untouched() {
    let limited = Reply::rate_limited(277_403).header("x-request-id", "req-1");
    let start = Instant::now();
    let seen = send_chat([limited, ok()]).await;
    assert_eq!(start.elapsed(), Duration::ZERO, "it did not sleep");
    assert_eq!(seen.attempts(), 1);
    let response = seen.response();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "277403");
    assert_eq!(response.headers()["x-request-id"], "req-1");
    assert!(response.extensions().get::<Verdict>().is_some());
    let gave_up = GaveUp::of(&response).unwrap();
    assert_eq!(gave_up.reason, GaveUpReason::WaitBeyondCap);
    assert_eq!(gave_up.wait, Some(Duration::from_secs(277_403)));
    assert_eq!(gave_up.limit, Some(Duration::from_secs(120)));
    let text = bytes(response.into_body()).await;
    let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(document["error"]["code"], "rate_limit_exceeded");
}

// R06
#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_cap_is_not_replaced_by_a_shorter_one() {
    let policy = RateLimitPolicy::new().wait_cap(Duration::from_secs(120));
    let start = Instant::now();
    let seen = send(policy, chat(), [Reply::rate_limited(600), ok()]).await;
    assert_eq!(seen.attempts(), 1);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(seen.response().status(), 429);
}

// R06, R08
#[tokio::test(start_paused = true)]
async fn a_refill_beyond_the_cap_is_not_replaced_by_a_shorter_one() {
    let limited = Reply::status(429)
        .header("x-ratelimit-limit-requests", "1")
        .header("x-ratelimit-remaining-requests", "0")
        .header("x-ratelimit-reset-requests", "23h47m36s");
    let seen = send_chat([limited, ok()]).await;
    assert_eq!(seen.attempts(), 1);
    let response = seen.response();
    assert_eq!(
        GaveUp::of(&response).unwrap().reason,
        GaveUpReason::WaitBeyondCap
    );
}

// R15
#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_deadline_hands_the_answer_back_with_both_numbers() {
    let start = Instant::now();
    let request = within(chat(), 20);
    let seen = send(
        RateLimitPolicy::new(),
        request,
        [Reply::rate_limited(43), ok()],
    )
    .await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(seen.attempts(), 1);
    let response = seen.response();
    assert_eq!(response.headers()["retry-after"], "43");
    let gave_up = GaveUp::of(&response).unwrap();
    assert_eq!(gave_up.reason, GaveUpReason::WaitBeyondDeadline);
    assert_eq!(gave_up.wait, Some(Duration::from_secs(43)));
    assert_eq!(gave_up.limit, Some(Duration::from_secs(20)));
}

// R15
#[tokio::test(start_paused = true)]
async fn of_cap_and_deadline_the_nearer_one_is_named() {
    for (deadline, reason, limit) in [
        (20, GaveUpReason::WaitBeyondDeadline, 20),
        (150, GaveUpReason::WaitBeyondCap, 120),
    ] {
        let request = within(chat(), deadline);
        let seen = send(RateLimitPolicy::new(), request, [Reply::rate_limited(600)]).await;
        let response = seen.response();
        let gave_up = GaveUp::of(&response).unwrap();
        assert_eq!(
            (gave_up.reason, gave_up.limit),
            (reason, Some(Duration::from_secs(limit)))
        );
    }
}

// R15
#[tokio::test(start_paused = true)]
async fn the_time_that_attempts_take_counts_towards_the_deadline() {
    let slow = Reply::rate_limited(8).after(Duration::from_secs(6));
    let request = within(chat(), 20);
    let seen = send(RateLimitPolicy::new(), request, [slow]).await;
    assert_eq!(seen.attempts(), 2, "6 s, 8 s, 6 s, and no 8 s more");
    let response = seen.response();
    assert_eq!(
        GaveUp::of(&response).unwrap().reason,
        GaveUpReason::WaitBeyondDeadline
    );
}

// R15: the jitter on top of a wait that just fits does not carry it past the deadline.
#[tokio::test(start_paused = true)]
async fn jitter_does_not_carry_a_wait_past_the_deadline() {
    for _ in 0..50 {
        let request = within(chat(), 10);
        let replies = [
            Reply::rate_limited(9).header("retry-after-ms", "9990"),
            ok(),
        ];
        let seen = send(RateLimitPolicy::new(), request, replies).await;
        assert!(
            seen.gap() <= Duration::from_millis(10_001),
            "{:?}",
            seen.gap()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_back_off_does_not_outlast_the_deadline_either() {
    let policy = RateLimitPolicy::new().backoff(|_: u32| Duration::from_secs(5));
    let seen = send(policy, within(chat(), 3), [Reply::status(500), ok()]).await;
    assert_eq!(seen.attempts(), 1);
}

// R24
#[tokio::test(start_paused = true)]
async fn in_an_outage_attempts_stay_within_the_retry_budget() {
    let budget = RetryBudget::new(0.1, 10);
    let policy = RateLimitPolicy::new().retry_budget(budget);
    let stats = RetryStats::new();
    let provider = Scripted::new([Reply::status(503)]);
    let service = tollgate_retry::RetryOnRateLimitLayer::new(policy)
        .stats(stats.clone())
        .layer(provider.clone());
    let start = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    let requests = 6_000_u32;
    for _ in 0..requests {
        calls.spawn(service.clone().oneshot(chat()));
        // Fifty a second for two minutes.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 503);
    }
    let seconds = start.elapsed().as_secs_f64();
    let most = 1.1 * f64::from(requests) + 10.0 * (seconds + 10.0);
    #[allow(clippy::cast_precision_loss)]
    let sent = provider.count() as f64;
    assert!(sent <= most, "{sent} attempts of at most {most}");
    assert!(
        sent >= 0.98 * most,
        "what may be retried is: {sent} of {most}"
    );
    let counts = stats.snapshot();
    assert!(counts.gave_up(GaveUpReason::RetryBudgetEmpty) > 0);
    assert!(counts.retry_budget.unwrap() < 30.0);
}

// R24
#[tokio::test(start_paused = true)]
async fn without_a_retry_budget_every_request_has_its_attempts() {
    let policy = RateLimitPolicy::new().without_retry_budget();
    let provider = Scripted::new([Reply::status(503)]);
    let service = RetryOnRateLimit::new(provider.clone(), policy);
    for _ in 0..500 {
        service.clone().oneshot(chat()).await.unwrap();
    }
    assert_eq!(provider.count(), 1_500);
    assert_eq!(service.stats().snapshot().retry_budget, None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_paid_for_a_retry_that_is_not_made() {
    let budget = RetryBudget::new(0.0, 1);
    let before = budget.balance(Instant::now());
    let policy = RateLimitPolicy::new().retry_budget(budget.clone());
    let seen = send(policy, chat(), [Reply::rate_limited(600)]).await;
    assert_eq!(seen.attempts(), 1);
    assert_eq!(budget.balance(Instant::now()), before);
}

#[test]
fn nothing_that_the_layer_prints_shows_the_prompt_or_the_key() {
    let shown = format!("{:?}", RateLimitPolicy::new());
    assert!(shown.contains("attempts: 3"), "{shown}");
    let provider = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _guard = provider.enter();
    let mut service = RetryOnRateLimit::new(Scripted::new([]), RateLimitPolicy::new());
    let mut request = chat();
    let key = http::HeaderValue::from_static("Bearer sk-secret");
    request.headers_mut().insert("authorization", key);
    let future = tower::Service::call(&mut service, request);
    let shown = format!("{future:?} {service:?}");
    assert!(
        !shown.contains("hello") && !shown.contains("sk-secret"),
        "{shown}"
    );
}
