//! One refusal holds all who share the key, and those who waited do not all come back at once.
#![allow(clippy::unwrap_used)]
mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use support::*;
use tokio::{task::JoinSet, time::Instant};
use tollgate_core::{
    body::Replay,
    call::{Attempts, CallOptions, WaitReason},
    extensions::{Reason, Refused},
    timeouts::Timeouts,
};
use tollgate_retry::{
    GaveUp, GaveUpReason, RateLimitPolicy, RetryBudget, RetryOnRateLimit, RetryStats, WhenShut,
};
use tollgate_sim::{
    SimBody, SimError,
    probe::ReadyProbe,
    script::{Reply, Scripted},
};
use tower::ServiceExt;

const LATENCY: Duration = Duration::from_millis(100);

type Calls = JoinSet<Result<Response<Replay<SimBody>>, SimError>>;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn patient() -> RateLimitPolicy {
    RateLimitPolicy::new().without_retry_budget()
}

async fn all(mut calls: Calls) -> Vec<Response<Replay<SimBody>>> {
    let mut answers = Vec::new();
    while let Some(answer) = calls.join_next().await {
        answers.push(answer.unwrap().unwrap());
    }
    answers
}

/// The most attempts in any 100 ms that begin with one, of those from `from` on.
fn most_at_once(provider: &Scripted, from: Duration) -> usize {
    let times: Vec<_> = provider
        .times()
        .into_iter()
        .filter(|at| *at >= from)
        .collect();
    (0..times.len())
        .map(|first| {
            let end = times[first] + Duration::from_millis(100);
            times[first..].iter().take_while(|at| **at < end).count()
        })
        .max()
        .unwrap_or(0)
}

// R17: those whom the one refusal has met, and those who come while the gate is shut.
#[tokio::test(start_paused = true)]
async fn a_thousand_callers_and_one_refusal_are_no_herd() {
    let provider = Scripted::new([Reply::rate_limited(5), ok()]);
    let service = RetryOnRateLimit::new(provider.clone(), patient());
    let mut calls = Calls::new();
    calls.spawn(service.clone().oneshot(chat()));
    tokio::time::sleep(Duration::from_millis(1)).await;
    for _ in 1..1_000 {
        calls.spawn(service.clone().oneshot(chat()));
    }
    let answers = all(calls).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(provider.count(), 1_001, "one refusal, and everybody once");
    let second = provider.times()[1];
    assert!(
        second >= secs(5),
        "nobody asks before the wait is over: {second:?}"
    );
    assert!(
        most_at_once(&provider, secs(5)) <= 10,
        "the release is paced"
    );
    let last = *provider.times().last().unwrap();
    assert!(
        last <= Duration::from_millis(15_500),
        "and no slower than that: {last:?}"
    );
    tokio::time::sleep(secs(1)).await;
    let seen = service.stats().snapshot();
    assert_eq!(
        (seen.held, seen.retries, seen.gates_shut),
        (999, 1, 0),
        "{seen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stray_refusal_among_many_that_are_served_holds_only_the_one_that_was_refused() {
    // One in forty is refused, and states a wait of a second; the first one shuts the gate.
    let provider = Scripted::by(|attempt| match attempt.index % 40 {
        0 => Reply::rate_limited(1),
        _ => ok().after(LATENCY),
    });
    let service = RetryOnRateLimit::new(provider.clone(), patient().attempts(9));
    let mut calls = Calls::new();
    for _ in 0..1_000 {
        calls.spawn(service.clone().oneshot(chat()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    let answers = all(calls).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    // Whoever was refused last waits for a second and its jitter, perhaps twice.
    assert!(begun.elapsed() <= secs(3), "{:?}", begun.elapsed());
    tokio::time::sleep(secs(1)).await;
    let seen = service.stats().snapshot();
    assert!(seen.held < 300, "{} held by others' refusals", seen.held);
    // Headers that explain it shut the gate at once, whatever was served before.
    let full = [
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "5s"),
    ];
    let provider = Scripted::by(move |attempt| match attempt.index {
        0 | 81 => full
            .iter()
            .fold(Reply::rate_limited(5), |reply, (name, value)| {
                reply.header(name, value)
            }),
        _ => ok(),
    });
    let service = RetryOnRateLimit::new(provider.clone(), patient());
    for _ in 0..80 {
        service.clone().oneshot(chat()).await.unwrap();
    }
    let begun = Instant::now();
    let mut calls = Calls::new();
    calls.spawn(service.clone().oneshot(chat()));
    tokio::time::sleep(Duration::from_millis(1)).await;
    calls.spawn(service.clone().oneshot(chat()));
    all(calls).await;
    assert!(begun.elapsed() >= secs(5), "{:?}", begun.elapsed());
    let late = provider.times()[82];
    assert!(
        late >= provider.times()[81] + secs(5),
        "the other one waited, too"
    );
}

// R17: the traffic goes on while the gate opens.
#[tokio::test(start_paused = true)]
async fn a_busy_key_is_neither_held_back_for_long_nor_let_go_at_once() {
    let provider = Scripted::by(|attempt| {
        if attempt.index == 0 {
            Reply::rate_limited(1)
        } else {
            // One that states nothing of its limits.
            ok().after(LATENCY)
        }
    });
    let service = RetryOnRateLimit::new(provider.clone(), patient());
    let mut calls = Calls::new();
    // 200 a second for twenty seconds, through a gate that lets go a hundred a second at first.
    for _ in 0..4_000 {
        calls.spawn(service.clone().oneshot(chat()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    all(calls).await;
    assert!(
        begun.elapsed() <= secs(4),
        "a backlog of {:?}",
        begun.elapsed()
    );
    assert!(
        most_at_once(&provider, secs(1)) <= 100,
        "{} at once",
        most_at_once(&provider, secs(1))
    );
}

// L15
#[tokio::test(start_paused = true)]
async fn the_total_time_counts_the_wait_at_the_gate() {
    let provider = Scripted::new([Reply::rate_limited(100), ok()]);
    let policy = patient()
        .timeouts(Timeouts::new().total(secs(10)))
        .when_shut(WhenShut::Refuse);
    let service = RetryOnRateLimit::new(provider.clone(), policy);
    let first = service.clone().oneshot(chat()).await.unwrap();
    assert_eq!(first.status(), 429, "beyond the total time");
    let second = service.oneshot(chat()).await.unwrap();
    assert!(Refused::of(&second).is_some(), "told at once");
    assert_eq!(provider.count(), 1);
}

// R24
#[tokio::test(start_paused = true)]
async fn a_refusal_that_no_retry_is_left_for_holds_the_others_all_the_same() {
    let provider = Scripted::new([Reply::rate_limited(5), ok()]);
    let policy = RateLimitPolicy::new().retry_budget(RetryBudget::new(0.0, 0));
    let service = RetryOnRateLimit::new(provider.clone(), policy);
    let first = service.clone().oneshot(chat()).await.unwrap();
    assert_eq!(first.status(), 429);
    assert_eq!(service.oneshot(chat()).await.unwrap().status(), 200);
    let times = provider.times();
    assert!(times[1] - times[0] >= secs(5), "{times:?}");
}

// R17: all of them were on their way when the refusals came.
#[tokio::test(start_paused = true)]
async fn a_thousand_callers_that_are_all_refused_are_no_herd() {
    let start = Instant::now();
    let provider = Scripted::by(move |_| {
        if start.elapsed() < secs(5) {
            Reply::rate_limited(5).after(LATENCY)
        } else {
            ok()
        }
    });
    let service = RetryOnRateLimit::new(provider.clone(), patient().release(50));
    let mut calls = Calls::new();
    for _ in 0..1_000 {
        calls.spawn(service.clone().oneshot(chat()));
    }
    let answers = all(calls).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(provider.count(), 2_000);
    assert!(most_at_once(&provider, secs(1)) <= 50, "as the policy says");
}

// R17
#[tokio::test(start_paused = true)]
async fn who_waits_for_his_place_waits_on_when_others_are_refused_again() {
    let start = Instant::now();
    let provider = Scripted::by(move |_| match start.elapsed() {
        time if time < secs(5) => Reply::rate_limited(5).after(LATENCY),
        time if time < secs(20) => Reply::rate_limited(15).after(Duration::from_millis(5)),
        _ => ok(),
    });
    let service = RetryOnRateLimit::new(provider.clone(), patient());
    let mut calls = Calls::new();
    for _ in 0..200 {
        calls.spawn(service.clone().oneshot(chat()));
    }
    let answers = all(calls).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    // One is told of the second wait; hardly anybody else runs into it.
    let between = provider
        .times()
        .iter()
        .filter(|at| (5..20).contains(&at.as_secs()))
        .count();
    assert!((1..=4).contains(&between), "{between} have asked in vain");
    assert!(most_at_once(&provider, secs(5)) <= 10);
}

#[tokio::test(start_paused = true)]
async fn another_key_another_model_and_another_origin_are_not_held_up() {
    let provider = Scripted::by(|attempt| {
        let refused = attempt.index == 0;
        if refused {
            Reply::rate_limited(50)
        } else {
            ok()
        }
    });
    let service = RetryOnRateLimit::new(provider.clone(), patient());
    let first = tokio::spawn(service.clone().oneshot(chat()));
    tokio::time::sleep(secs(1)).await;
    let mut other_key = chat();
    let key = http::HeaderValue::from_static("Bearer other");
    other_key.headers_mut().insert("authorization", key);
    let other_model = post(
        "/v1/chat/completions",
        BODY.replace("gpt-test", "gpt-other"),
    );
    let mut other_origin = chat();
    *other_origin.uri_mut() = "https://other.example/v1/chat/completions".parse().unwrap();
    let start = Instant::now();
    for request in [other_key, other_model, other_origin] {
        let answer = service.clone().oneshot(request).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), start.elapsed()),
            (200, Duration::ZERO)
        );
    }
    let held = service.clone().oneshot(chat()).await.unwrap();
    assert!(start.elapsed() >= secs(49), "the same key is");
    let (waited, reason) = Attempts::of(&held)[0].waited.unwrap();
    assert_eq!(reason, WaitReason::Gate);
    assert!(waited >= secs(49));
    first.await.unwrap().unwrap();
}

fn deadline(seconds: u64) -> Request<Full<Bytes>> {
    let mut request = chat();
    let options = CallOptions::new().within(secs(seconds));
    request.extensions_mut().insert(options);
    request
}

// R15: in the gate as well.
#[tokio::test(start_paused = true)]
async fn a_first_attempt_that_would_be_held_up_too_long_is_refused_or_passes() {
    for (policy, status, attempts) in [
        (patient(), 429, 2),
        (patient().when_shut(WhenShut::Pass), 200, 3),
    ] {
        let provider = Scripted::new([Reply::rate_limited(30), ok()]);
        let service = RetryOnRateLimit::new(provider.clone(), policy);
        let first = tokio::spawn(service.clone().oneshot(chat()));
        tokio::time::sleep(secs(1)).await;
        let start = Instant::now();
        let answer = service.clone().oneshot(deadline(20)).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO, "it does not wait in vain");
        assert_eq!(answer.status(), status);
        if status == 429 {
            let refused = Refused::of(&answer).expect("ours");
            assert_eq!(refused.reason, Reason::WaitTooLong);
            assert!(refused.retry_after.unwrap() >= secs(29));
            assert!(answer.headers().contains_key("retry-after"));
            assert_eq!(service.stats().snapshot().refused, 1);
        }
        first.await.unwrap().unwrap();
        assert_eq!(provider.count(), attempts);
    }
}

// R15: its own wait would just do, and its place behind the others would not.
#[tokio::test(start_paused = true)]
async fn a_retry_whose_place_comes_after_its_deadline_hands_the_answer_back() {
    let provider = Scripted::new([Reply::rate_limited(5).after(LATENCY)]);
    let service = RetryOnRateLimit::new(provider.clone(), patient().release(1).attempts(2));
    let mut calls = Calls::new();
    for _ in 0..50 {
        calls.spawn(service.clone().oneshot(deadline(8)));
    }
    for answer in all(calls).await {
        let gave_up = GaveUp::of(&answer).expect("not served");
        if Attempts::of(&answer).len() == 1 {
            assert_eq!(answer.status(), 429, "the provider's own answer");
            assert_eq!(gave_up.reason, GaveUpReason::WaitBeyondDeadline);
            assert!(gave_up.wait.unwrap() > gave_up.limit.unwrap() - secs(1));
        }
    }
    let retries = provider.count() - 50;
    assert!(
        (20..=30).contains(&retries),
        "{retries} places within the deadline"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_cap_holds_up_nobody() {
    let provider = Scripted::new([Reply::rate_limited(277_403), ok()]);
    let service = RetryOnRateLimit::new(provider.clone(), patient());
    let start = Instant::now();
    assert_eq!(service.clone().oneshot(chat()).await.unwrap().status(), 429);
    assert_eq!(service.clone().oneshot(chat()).await.unwrap().status(), 200);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_is_switched_off_holds_up_nobody() {
    let provider = Scripted::new([Reply::rate_limited(30), ok()]);
    let service = RetryOnRateLimit::new(provider.clone(), patient().without_gate());
    let first = tokio::spawn(service.clone().oneshot(chat()));
    tokio::time::sleep(secs(1)).await;
    let start = Instant::now();
    service.clone().oneshot(chat()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    first.await.unwrap().unwrap();
}

// R16: who leaves takes no readiness with him, and the gate opens for those who stay.
#[tokio::test(start_paused = true)]
async fn who_leaves_while_he_is_held_up_leaves_nothing_behind() {
    let provider = Scripted::new([Reply::rate_limited(5), ok()]);
    let probe = ReadyProbe::new(provider.clone());
    let handle = probe.handle();
    let service = RetryOnRateLimit::new(probe, patient());
    let mut first = Calls::new();
    first.spawn(service.clone().oneshot(chat()));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut leaving = Calls::new();
    for _ in 0..500 {
        leaving.spawn(service.clone().oneshot(chat()));
    }
    let staying = tokio::spawn(service.clone().oneshot(chat()));
    tokio::time::sleep(secs(1)).await;
    let seen = handle.snapshot();
    assert_eq!((seen.held_ready, seen.in_flight), (0, 0), "{seen:?}");
    leaving.shutdown().await;
    first.shutdown().await;
    assert_eq!(staying.await.unwrap().unwrap().status(), 200);
    assert_eq!(provider.count(), 2, "no attempt of those who left");
    tokio::time::sleep(secs(20)).await;
    let start = Instant::now();
    service.clone().oneshot(chat()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "nothing is stuck");
    assert_eq!(handle.snapshot().violations, 0);
}

// X04
#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_the_gate_and_those_of_two_do_not() {
    let provider = Arc::new(Scripted::new([Reply::rate_limited(30), ok()]));
    let layer = || tollgate_retry::RetryOnRateLimitLayer::new(patient()).stats(RetryStats::new());
    let shared = layer();
    let wrap = |layer: &tollgate_retry::RetryOnRateLimitLayer| {
        tower::Layer::layer(layer, (*provider).clone())
    };
    let first = tokio::spawn(wrap(&shared).oneshot(chat()));
    tokio::time::sleep(secs(1)).await;
    let start = Instant::now();
    wrap(&layer()).oneshot(chat()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    wrap(&shared).oneshot(chat()).await.unwrap();
    assert!(start.elapsed() >= secs(29));
    first.await.unwrap().unwrap();
}
