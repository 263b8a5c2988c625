//! Who is admitted, who waits and who is refused.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use support::{W, at_once, chat, limits, stack};
use tokio::time::{Instant, sleep};
use tollgate_budget::{
    Ask, Budget, BudgetStore, Cost, Decision, Enforcement, Limit, Oversized, Scope,
    TokenBudgetLayer,
};
use tollgate_core::{
    call::{Call, CallOptions},
    extensions::{Reason, Refused},
    principal::Principal,
};
use tollgate_sim::script::{Reply, Scripted};
use tower::{Layer, ServiceExt};

const MINUTE: Duration = Duration::from_secs(60);

// T01
#[tokio::test(start_paused = true)]
async fn concurrent_calls_never_hold_more_than_the_limit_in_any_window() {
    let budget = Budget::builder()
        .limit(Limit::tokens(100).per_minute())
        .max_wait(Duration::from_secs(3600))
        .build()
        .unwrap();
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let service = stack(&budget, &upstream);
    // 58 to 98 tokens; one of 175 can never fit.
    let sizes = [58, 67, 80, 98, 175];
    let calls = sizes.map(|tokens: usize| {
        let service = service.clone();
        tokio::spawn(async move {
            service
                .oneshot(chat(tokens * 4 - 40, 10))
                .await
                .unwrap()
                .status()
        })
    });
    let mut admitted = 0;
    for call in calls {
        admitted += usize::from(call.await.unwrap() == StatusCode::OK);
    }
    assert_eq!(admitted, 4);
    for pair in upstream.times().windows(2) {
        assert!(pair[1] - pair[0] >= MINUTE, "two of them are more than 100");
    }
}

// T02
#[tokio::test(start_paused = true)]
async fn two_thousand_that_race_for_a_hundred_places_get_a_hundred() {
    for enforcement in [
        Enforcement::Auto,
        Enforcement::Rolling,
        Enforcement::Fixed,
        Enforcement::Bucket { burst: None },
    ] {
        let limit = Limit::requests(100)
            .per_minute()
            .enforcement(enforcement)
            .refuse();
        let budget = limits([limit]);
        let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
        let statuses = at_once(stack(&budget, &upstream), 2000, || chat(4, 1)).await;
        let admitted = statuses.iter().filter(|s| **s == StatusCode::OK).count();
        assert_eq!((admitted, upstream.count()), (100, 100), "{enforcement:?}");
    }
}

// T03
#[tokio::test(start_paused = true)]
async fn what_is_larger_than_the_whole_limit_is_refused_at_once_and_for_good() {
    let budget = limits([Limit::tokens(100).per_minute()]);
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let begun = Instant::now();
    let response = stack(&budget, &upstream)
        .oneshot(chat(4, 500))
        .await
        .unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let refused = Refused::of(&response).unwrap();
    assert!(refused.never_fits());
    assert_eq!(refused.limit.as_deref(), Some("tokens per minute"));
    assert_eq!(response.headers()["x-should-retry"], "false");
    assert_eq!(upstream.count(), 0);
}

// T04
#[tokio::test(start_paused = true)]
async fn what_is_larger_than_the_limit_runs_alone_by_choice_and_its_debt_is_paid() {
    for enforcement in [Enforcement::Rolling, Enforcement::Bucket { burst: None }] {
        let budget = Budget::builder()
            .limit(Limit::tokens(100).per(W).enforcement(enforcement))
            .oversized(Oversized::RunAlone)
            .build()
            .unwrap();
        let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
        let service = stack(&budget, &upstream);
        service.clone().oneshot(chat(200, 250)).await.unwrap();
        assert_eq!(budget.snapshot().limits[0].debt, 200, "{enforcement:?}");
        service.oneshot(chat(40, 90)).await.unwrap();
        let times = upstream.times();
        assert_eq!(times[0], Duration::ZERO, "{enforcement:?}");
        assert!(
            times[1] >= 3 * W - W / 10,
            "{enforcement:?}: {:?}",
            times[1]
        );
        assert!(times[1] <= 4 * W, "{enforcement:?}: {:?}", times[1]);
    }
}

// T05
#[tokio::test(start_paused = true)]
async fn without_a_cap_the_first_request_is_admitted_even_under_a_small_limit() {
    let budget = limits([Limit::tokens(100).per_minute()]);
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let response = stack(&budget, &upstream)
        .oneshot(chat(40, None))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(budget.snapshot().limits[0].used, 10 + 16);
}

// T11
#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_second_limit_leaves_the_first_and_third_untouched() {
    let budget = limits([
        Limit::requests(10).per_minute(),
        Limit::tokens(100).per_minute().refuse(),
        Limit::input_tokens(1000).per_minute(),
    ]);
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let service = stack(&budget, &upstream);
    service.clone().oneshot(chat(200, 40)).await.unwrap();
    let response = service.oneshot(chat(200, 40)).await.unwrap();
    let refused = Refused::of(&response).unwrap();
    assert_eq!(refused.reason, Reason::Exhausted);
    assert_eq!(refused.limit.as_deref(), Some("tokens per minute"));
    let used: Vec<_> = budget.snapshot().limits.iter().map(|l| l.used).collect();
    assert_eq!(used, [1, 90, 50]);
}

// T11
#[tokio::test(start_paused = true)]
async fn waiting_for_one_limit_takes_nothing_from_the_others() {
    let budget = Budget::builder()
        .limit(Limit::requests(10).per_minute())
        .limit(Limit::tokens(100).per_minute())
        .max_wait(Duration::from_secs(3600))
        .build()
        .unwrap();
    let upstream = Scripted::new([Reply::pending()]);
    let service = stack(&budget, &upstream);
    let calls: Vec<_> = (0..5)
        .map(|_| tokio::spawn(service.clone().oneshot(chat(200, 40))))
        .collect();
    sleep(Duration::from_millis(1)).await;
    let seen = budget.snapshot();
    assert_eq!(seen.limits[0].used, 1, "four wait for tokens");
    assert_eq!(
        (seen.queued, seen.limits[0].queued, seen.limits[1].queued),
        (4, 4, 360)
    );
    calls.iter().for_each(|call| call.abort());
}

// T22
#[tokio::test(start_paused = true)]
async fn a_wait_that_would_be_too_long_is_refused_at_once_and_says_how_long() {
    let budget = limits([Limit::requests(1).per_minute()]);
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let service = stack(&budget, &upstream);
    service.clone().oneshot(chat(4, 1)).await.unwrap();
    let mut request = chat(4, 1);
    let call = Call::of(request.extensions_mut());
    let mut steering = call.steering();
    steering.max_queue_wait = Some(Duration::from_secs(2));
    call.steer(steering);
    let begun = Instant::now();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let refused = Refused::of(&response).unwrap();
    assert_eq!(refused.reason, Reason::WaitTooLong);
    let wait = refused.retry_after.unwrap();
    assert!(
        wait > Duration::from_secs(59) && wait < Duration::from_secs(62),
        "{wait:?}"
    );
    assert_eq!(budget.snapshot().queued, 0);
}

// T22
#[tokio::test(start_paused = true)]
async fn a_wait_that_grows_too_long_ends_when_it_was_to_end_and_the_place_is_free() {
    let budget = limits([Limit::requests(1).per(Duration::from_secs(10))]);
    let late = Reply::rate_limited(30).after(Duration::from_secs(5));
    let upstream = Scripted::new([late, Reply::chat("m", 1, 1)]);
    let service = stack(&budget, &upstream);
    let first = tokio::spawn(service.clone().oneshot(chat(4, 1)));
    sleep(Duration::from_millis(1)).await;
    // It would be admitted in time; but then the first is refused, and the gate shuts.
    let mut request = chat(4, 1);
    let options = CallOptions::new().within(Duration::from_secs(12));
    request.extensions_mut().insert(options);
    let begun = Instant::now();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().status(), 429);
    let refused = Refused::of(&response).unwrap();
    assert_eq!(refused.reason, Reason::WaitTooLong);
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_secs(12) && waited < Duration::from_millis(12_005),
        "{waited:?}"
    );
    assert!(refused.retry_after.is_some());
    assert_eq!(budget.snapshot().queued, 0);
    assert_eq!(upstream.count(), 1);
}

// T23
#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once_with_an_honest_wait() {
    let budget = Budget::builder()
        .limit(Limit::requests(10).per(W))
        .queue_len(25)
        .build()
        .unwrap();
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let service = stack(&budget, &upstream);
    let calls: Vec<_> = (0..35)
        .map(|_| tokio::spawn(service.clone().oneshot(chat(4, 1))))
        .collect();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(budget.snapshot().queued, 25);
    let response = service.clone().oneshot(chat(4, 1)).await.unwrap();
    let refused = Refused::of(&response).unwrap().clone();
    assert_eq!(refused.reason, Reason::QueueFull);
    // 25 before it: it would go in the third window after this one.
    let wait = refused.retry_after.unwrap();
    assert!(wait > 2 * W && wait < 4 * W, "{wait:?}");
    // Who comes back then is admitted.
    sleep(wait).await;
    assert_eq!(service.oneshot(chat(4, 1)).await.unwrap().status(), 200);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
}

// T23
#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_by_bytes_too() {
    let budget = Budget::builder()
        .limit(Limit::requests(1).per(W))
        .queue_bytes(3000)
        .build()
        .unwrap();
    let service = stack(&budget, &Scripted::new([Reply::pending()]));
    let calls: Vec<_> = (0..2)
        .map(|_| tokio::spawn(service.clone().oneshot(chat(2000, 1))))
        .collect();
    sleep(Duration::from_millis(1)).await;
    let response = service.oneshot(chat(2000, 1)).await.unwrap();
    assert_eq!(Refused::of(&response).unwrap().reason, Reason::QueueFull);
    calls.iter().for_each(|call| call.abort());
}

// T36
#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_answer_in_the_providers_own_shape() {
    let budget = limits([Limit::requests(1).per_minute().refuse()]);
    let service = stack(&budget, &Scripted::new([Reply::status(200)]));
    service.clone().oneshot(chat(4, 1)).await.unwrap();
    let response = service.clone().oneshot(chat(4, 1)).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["content-type"], "application/json");
    let length: usize = response.headers()["content-length"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), length);
    let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(document["error"]["code"], "budget_exhausted");

    let document = serde_json::json!({"model": "claude", "max_tokens": 1, "messages": []});
    let response = service
        .oneshot(support::post("/v1/messages", document))
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(document["type"], "error");
}

#[tokio::test(start_paused = true)]
async fn first_come_is_first_served() {
    let budget = limits([Limit::requests(1).per(Duration::from_secs(1))]);
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let service = stack(&budget, &upstream);
    let calls: Vec<_> = (0..20)
        .map(|n| tokio::spawn(service.clone().oneshot(chat(n, 1))))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let sizes: Vec<_> = upstream.attempts().iter().map(|a| a.body.len()).collect();
    assert!(sizes.is_sorted(), "{sizes:?}");
}

// T35
#[tokio::test(start_paused = true)]
async fn each_principal_has_a_limit_of_its_own_and_holds_up_nobody_else() {
    let budget = limits([
        Limit::requests(1000).per_minute(),
        Limit::requests(1)
            .per_minute()
            .scope(Scope::Principal)
            .named("a user"),
    ]);
    let ask = |user: u64| Ask::new(Cost::request()).principal(Principal::from_digest(user));
    let held = budget.acquire(ask(1)).await.unwrap().send();
    let again = tokio::spawn(budget.acquire(ask(1)));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(budget.snapshot().queued, 1);
    for user in 2..102 {
        let begun = Instant::now();
        drop(budget.acquire(ask(user)).await.unwrap().send());
        assert_eq!(begun.elapsed(), Duration::ZERO, "user {user}");
    }
    assert!(!again.is_finished());
    assert_eq!(budget.snapshot().limits.len(), 1 + 101);
    drop(held);
    drop(again.await.unwrap().unwrap());
}

// T35
#[tokio::test(start_paused = true)]
async fn limits_of_idle_keys_are_forgotten_and_those_in_use_never() {
    let budget = limits([Limit::requests(2).per(W).scope(Scope::Principal)]);
    let ask = |user: u64| Ask::new(Cost::request()).principal(Principal::from_digest(user));
    drop(budget.acquire(ask(0)).await.unwrap().send());
    let held = budget.acquire(ask(0)).await.unwrap().send();
    for user in 1..10_000 {
        drop(budget.acquire(ask(user)).await.unwrap().send());
    }
    sleep(2 * W).await;
    for user in 10_000..15_000 {
        drop(budget.acquire(ask(user)).await.unwrap().send());
    }
    let seen = budget.snapshot();
    assert!(seen.limits.len() <= 10_001, "{}", seen.limits.len());
    assert!(
        seen.limits.iter().any(|limit| limit.reserved == 1),
        "the one in use"
    );
    drop(held);
}

// L04
#[tokio::test(start_paused = true)]
async fn three_a_minute_are_three_a_minute() {
    let budget = limits([Limit::requests(3).per_minute()]);
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let statuses = at_once(stack(&budget, &upstream), 6, || chat(4, 1)).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK));
    let times = upstream.times();
    assert_eq!(times[2], Duration::ZERO);
    assert!(times[3] >= MINUTE && times[5] < MINUTE + Duration::from_secs(2));
}

// L01 T19
#[tokio::test(start_paused = true)]
async fn a_limit_a_minute_that_is_enforced_by_the_second_spaces_requests() {
    let limit = Limit::requests(60).per_minute();
    let slice = Duration::from_secs(1);
    let budget = limits([limit.enforcement(Enforcement::Quantised { slice })]);
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let service = stack(&budget, &upstream);
    let mut calls = Vec::new();
    for _ in 0..5 {
        calls.push(tokio::spawn(service.clone().oneshot(chat(4, 1))));
        sleep(Duration::from_millis(800)).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    for pair in upstream.times().windows(2) {
        let gap = pair[1] - pair[0];
        assert!(
            gap >= slice && gap < slice + Duration::from_millis(20),
            "{gap:?}"
        );
    }
}

// T17 T18
#[tokio::test(start_paused = true)]
async fn no_minute_holds_twice_the_limit_not_even_the_first() {
    let budget = limits([Limit::requests(50).per_minute()]);
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let service = stack(&budget, &upstream);
    for _ in 0..30 {
        tokio::spawn(service.clone().oneshot(chat(4, 1)));
        sleep(Duration::from_secs(2)).await;
    }
    at_once(service, 60, || chat(4, 1)).await;
    let times = upstream.times();
    for (i, at) in times.iter().enumerate() {
        let within = times[..=i]
            .iter()
            .filter(|other| **other + MINUTE > *at)
            .count();
        assert!(within <= 50, "{within} in the minute before {at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_may_be_shared_by_stacks_and_by_their_clones() {
    // X04
    let budget = limits([Limit::requests(10).per_minute().refuse()]);
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let layer = TokenBudgetLayer::new(budget);
    let (one, other) = (
        layer.layer(upstream.clone()),
        layer.clone().layer(upstream.clone()),
    );
    let first = at_once(one, 8, || chat(4, 1)).await;
    let second = at_once(other, 8, || chat(4, 1)).await;
    let served = first
        .iter()
        .chain(&second)
        .filter(|s| **s == StatusCode::OK);
    assert_eq!(served.count(), 10);
}

#[test]
fn wrong_settings_are_refused_with_a_sentence() {
    let slice = Duration::from_secs(60);
    for (limit, sentence) in [
        (
            Limit::requests(0).per_minute(),
            "a limit must be above zero",
        ),
        (
            Limit::tokens(1).per(Duration::ZERO),
            "a period must be from 1 ms to 366 days",
        ),
        (
            Limit::tokens(5)
                .per_minute()
                .enforcement(Enforcement::Bucket { burst: Some(6) }),
            "a burst must not be above the limit",
        ),
        (
            Limit::tokens(5)
                .per_minute()
                .enforcement(Enforcement::Quantised { slice }),
            "a slice must be shorter than the period",
        ),
    ] {
        let error = Budget::in_memory([limit]).unwrap_err().to_string();
        assert!(error.ends_with(sentence), "{error}");
    }
    assert_eq!(
        Budget::in_memory([]).unwrap_err().to_string(),
        "a budget needs a limit, or must learn them"
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_again_after_a_review_waits_no_longer_than_one_may_in_all() {
    let longest = Duration::from_secs(280);
    let budget = Budget::builder()
        .limit(Limit::requests(1).per_minute())
        .limit(
            Limit::requests(2)
                .per(Duration::from_secs(86_400))
                .scope(Scope::Principal)
                .review(|_| Decision::Allow),
        )
        .max_wait(longest)
        .build()
        .unwrap();
    let begun = Instant::now();
    let call = |user: u64| {
        let ask = Ask::new(Cost::request()).principal(Principal::from_digest(user));
        let call = budget.acquire(ask);
        tokio::spawn(async move {
            let end = call.await.map(|held| drop(held.send()));
            (end.err().map(|refused| refused.reason), begun.elapsed())
        })
    };
    let mut calls = Vec::new();
    // The first goes at once. Two others go before the third and fourth, which are asked about then, and wait again.
    for user in [1, 1, 1, 1, 2, 3] {
        calls.push(call(user));
        sleep(Duration::from_secs(1)).await;
    }
    let mut seen = Vec::new();
    for call in calls {
        seen.push(call.await.unwrap());
    }
    let latest = longest + Duration::from_secs(6);
    assert!(seen.iter().all(|(_, at)| *at <= latest), "{seen:?}");
    let refused = seen
        .iter()
        .filter(|seen| seen.0 == Some(Reason::WaitTooLong));
    assert_eq!(refused.count(), 1, "{seen:?}");
}
