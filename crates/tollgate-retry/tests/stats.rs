//! What the handle counts.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use support::*;
use tollgate_core::{timeouts::Timeouts, wire::outcome::TimeoutKind};
use tollgate_retry::{
    GaveUpReason, RateLimitPolicy, RetryBudget, RetryOnRateLimit, RetryOnRateLimitLayer, RetryStats,
};
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tower::{Layer, ServiceExt};

#[tokio::test(start_paused = true)]
async fn the_handle_counts_what_was_wasted_and_why() {
    let stats = RetryStats::new();
    let timeouts = Timeouts::new().first_byte(Duration::from_secs(5));
    let policy = RateLimitPolicy::new().timeouts(timeouts);
    let layer = RetryOnRateLimitLayer::new(policy).stats(stats.clone());
    for replies in [
        vec![Reply::pending(), ok()],
        vec![Reply::status(500), Reply::status(503), ok()],
        vec![Reply::status(401)],
        vec![ok()],
    ] {
        let service = layer.layer(Scripted::new(replies));
        service.oneshot(chat()).await.unwrap();
    }
    let seen = stats.snapshot();
    assert_eq!((seen.requests, seen.attempts, seen.retries), (4, 7, 3));
    assert_eq!(
        seen.failed, 4,
        "of seven attempts three were served: {seen:?}"
    );
    assert_eq!(seen.timed_out(TimeoutKind::FirstByte), 1);
    assert_eq!(seen.timed_out(TimeoutKind::Idle), 0);
    assert_eq!(seen.gave_up(GaveUpReason::Pointless), 1);
    // Only the one that timed out may have been charged: 20 tokens of output and the prompt.
    assert!((20..60).contains(&seen.tokens_at_risk), "{seen:?}");
}

// L18: everything fails for ten minutes, and may have been charged.
#[tokio::test(start_paused = true)]
async fn in_ten_minutes_of_outage_attempts_and_money_at_risk_are_bounded_and_told() {
    let provider = Scripted::new([Reply::transport_error(SimError::Reset)]);
    let policy = RateLimitPolicy::new().retry_budget(RetryBudget::new(0.1, 2));
    let service = RetryOnRateLimit::new(provider.clone(), policy);
    let mut calls = tokio::task::JoinSet::new();
    let requests = 6_000_u32;
    for _ in 0..requests {
        calls.spawn(service.clone().oneshot(chat()));
        // Ten a second.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap().unwrap_err(), SimError::Reset);
    }
    let most = 1.1 * f64::from(requests) + 2.0 * (600.0 + 20.0);
    let sent = provider.count();
    assert!(
        f64::from(u32::try_from(sent).unwrap()) <= most,
        "{sent} attempts of at most {most}"
    );
    let seen = service.stats().snapshot();
    assert_eq!((seen.attempts, seen.failed), (sent as u64, sent as u64));
    let each = seen.tokens_at_risk / seen.failed;
    assert!(
        (20..60).contains(&each),
        "the tokens of every attempt are told: {each}"
    );
    assert_eq!(seen.tokens_at_risk % seen.failed, 0);
    assert!(seen.gave_up(GaveUpReason::RetryBudgetEmpty) > 0);
}
