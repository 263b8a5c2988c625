//! A retry around a budget: one gate, one queue, one story in the ledger.
use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};
use tollgate::{
    Budget, Limit, RetryOnRateLimitLayer, RetryStats, TokenBudgetLayer,
    call::{Attempts, CallOptions, WaitReason},
    extensions::{GaveUp, GaveUpReason},
    retry::RateLimitPolicy,
    timeouts::Timeouts,
};
use tollgate_sim::script::{Reply, Scripted};
use tollgate_tests::chat;
use tower::{Layer, ServiceExt};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ok() -> Reply {
    Reply::chat("m", 9, 2)
}

fn wide() -> Budget {
    Budget::in_memory([Limit::requests(6_000).per_minute()]).expect("limits")
}

macro_rules! stack {
    ($policy:expr, $stats:expr, $budget:expr, $provider:expr) => {
        RetryOnRateLimitLayer::new($policy)
            .stats($stats.clone())
            .layer(TokenBudgetLayer::new($budget).layer($provider.clone()))
    };
}

// R17, and one gate for both layers
#[tokio::test(start_paused = true)]
async fn a_retry_goes_back_into_the_queue_of_the_budget_inside() {
    let provider = Scripted::new([Reply::rate_limited(5), ok()]);
    let stats = RetryStats::new();
    let budget = wide();
    let client = stack!(RateLimitPolicy::new(), stats, budget.clone(), provider);
    let call = tokio::spawn(client.clone().oneshot(chat("m")));
    tokio::time::sleep(secs(1)).await;
    assert_eq!(
        budget.snapshot().queued,
        1,
        "it waits in the budget's queue"
    );
    assert_eq!(
        stats.snapshot().gates_shut,
        0,
        "the budget's gate is the one"
    );
    let response = call.await.expect("a call").expect("an answer");
    assert_eq!(response.status(), 200);
    let times = provider.times();
    assert!(
        times[1] - times[0] >= secs(5),
        "as long as the provider said"
    );
    assert!(times[1] - times[0] < secs(6));
    let attempts = Attempts::of(&response);
    let queued = attempts[1].queued.expect("the queue is in the ledger");
    assert!(queued >= Duration::from_millis(4_900), "{queued:?}");
    assert_eq!(
        attempts[1].waited,
        Some((queued, WaitReason::Queue)),
        "once, not twice"
    );
    assert_eq!(attempts[0].waited, None);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_checked_before_a_retry_goes_back_into_the_queue() {
    let provider = Scripted::new([Reply::rate_limited(43), ok()]);
    let client = stack!(RateLimitPolicy::new(), RetryStats::new(), wide(), provider);
    let mut request = chat("m");
    request
        .extensions_mut()
        .insert(CallOptions::new().within(secs(20)));
    let start = Instant::now();
    let response = client.oneshot(request).await.expect("an answer");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(response.status(), 429);
    let gave_up = GaveUp::of(&response).expect("it says why");
    assert_eq!(gave_up.reason, GaveUpReason::WaitBeyondDeadline);
    assert_eq!(gave_up.wait, Some(secs(43)));
    assert_eq!(gave_up.limit, Some(secs(20)));
}

// R17
#[tokio::test(start_paused = true)]
async fn a_thousand_callers_around_one_budget_wait_for_one_refusal_and_are_no_herd() {
    let provider = Scripted::new([
        Reply::rate_limited(5),
        ok().after(Duration::from_millis(200)),
    ]);
    let stats = RetryStats::new();
    let budget = Budget::in_memory([Limit::requests(3_000).per_minute()]).expect("limits");
    let client = stack!(RateLimitPolicy::new(), stats, budget, provider);
    let mut calls = JoinSet::new();
    for _ in 0..1_000 {
        calls.spawn(client.clone().oneshot(chat("m")));
    }
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.expect("a call").expect("an answer").status(), 200);
    }
    let times = provider.times();
    let early = times.iter().filter(|at| **at < secs(5)).count();
    // A few may be on their way when the refusal comes; nobody after it.
    assert!(early <= 16, "{early} before the wait was over");
    let first = times[early];
    let at_once = times[early..]
        .iter()
        .take_while(|at| **at < first + Duration::from_millis(100))
        .count();
    assert!(at_once <= 16, "{at_once} in the first 100 ms after it");
}

// L15: time in the queue is not the provider's.
#[tokio::test(start_paused = true)]
async fn a_timeout_of_the_first_byte_does_not_count_the_queue() {
    let budget = Budget::in_memory([Limit::requests(1).per_minute()]).expect("limits");
    let provider = Scripted::new([ok().after(secs(2))]);
    let policy = RateLimitPolicy::new().timeouts(Timeouts::new().first_byte(secs(10)));
    let client = stack!(policy, RetryStats::new(), budget, provider);
    let mut calls = JoinSet::new();
    for _ in 0..2 {
        calls.spawn(client.clone().oneshot(chat("m")));
    }
    let mut queued = Duration::ZERO;
    while let Some(answer) = calls.join_next().await {
        let response = answer.expect("a call").expect("an answer");
        assert_eq!(response.status(), 200);
        let attempts = Attempts::of(&response);
        assert_eq!(attempts.len(), 1, "nothing was tried again");
        queued = queued.max(attempts[0].queued.unwrap_or_default());
    }
    assert!(
        queued >= secs(50),
        "one has stood in the queue for {queued:?}"
    );
    assert_eq!(provider.count(), 2);

    // And once it is sent, it counts.
    let late = Scripted::new([ok(), Reply::pending()]);
    let budget = Budget::in_memory([Limit::requests(1).per_minute()]).expect("limits");
    let policy = RateLimitPolicy::new()
        .attempts(1)
        .timeouts(Timeouts::new().first_byte(secs(10)));
    let client = stack!(policy, RetryStats::new(), budget, late);
    client.clone().oneshot(chat("m")).await.expect("an answer");
    let start = Instant::now();
    let response = client.oneshot(chat("m")).await.expect("an answer");
    assert_eq!(response.status(), 504);
    let sent = late.times()[1];
    assert_eq!(
        start.elapsed(),
        sent + secs(10),
        "ten seconds after it was sent"
    );
}

// A budget of our own around two targets: one that refuses holds up nobody who is on his way to the other.
#[tokio::test(start_paused = true)]
async fn limits_of_our_own_around_several_targets_wait_for_none_of_them() {
    let busy = [
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "30s"),
    ];
    let refused = move |_: &_| {
        busy.iter()
            .fold(Reply::rate_limited(30), |reply, (name, value)| {
                reply.header(name, value)
            })
    };
    for own in [true, false] {
        let limits = Budget::builder()
            .limit(Limit::requests(1_000).per_minute())
            .own(own)
            .build()
            .expect("limits");
        let start = Instant::now();
        // The same model at two targets, each behind the budget in turn.
        for provider in [
            Scripted::by(move |seen| refused(seen)),
            Scripted::new([ok()]),
        ] {
            let client = TokenBudgetLayer::new(limits.clone()).layer(provider);
            client.oneshot(chat("m")).await.expect("an answer");
        }
        let took = start.elapsed();
        assert_eq!(took <= secs(1), own, "{took:?}");
        let limit = limits.snapshot().limits[0].limit;
        assert_eq!(
            limit,
            if own { 1_000 } else { 10 },
            "as it was told, or as the target states"
        );
    }
}
