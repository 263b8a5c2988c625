//! What the provider's headers and refusals do to the books.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use http_body_util::BodyExt;
use support::{W, at_once, calls, chat, limits, run, stack};
use tokio::time::{Instant, sleep};
use tollgate_budget::{Budget, Enforcement, Limit, Scope};
use tollgate_sim::{
    Fault, Latency, SimProvider,
    script::{Reply, Scripted},
};
use tower::ServiceExt;

const MINUTE: Duration = Duration::from_secs(60);

fn stated(limit: &str, remaining: &str, reset: &str) -> Reply {
    Reply::chat("m", 1, 1)
        .header("x-ratelimit-limit-requests", limit)
        .header("x-ratelimit-remaining-requests", remaining)
        .header("x-ratelimit-reset-requests", reset)
}

/// What a budget of 100 requests a minute makes of one answer.
async fn after(reply: Reply) -> tollgate_budget::LimitSnapshot {
    let budget = limits([Limit::requests(100).per_minute()]);
    let service = stack(&budget, &Scripted::new([reply]));
    service.oneshot(chat(4, 1)).await.unwrap();
    budget.snapshot().limits[0].clone()
}

// T30
#[tokio::test(start_paused = true)]
async fn headers_tighten_and_never_loosen() {
    assert_eq!(
        after(stated("100", "40", "60s")).await.used,
        60,
        "strangers have used 59"
    );
    assert_eq!(
        after(stated("100", "100", "0s")).await.used,
        1,
        "our own request is on the books"
    );
    let more = after(stated("5000", "4999", "60s")).await;
    assert_eq!(
        (more.limit, more.used),
        (100, 1),
        "what was told is a ceiling"
    );
    let less = after(stated("50", "49", "60s")).await;
    assert_eq!((less.limit, less.used), (50, 1));
}

// T30
#[tokio::test(start_paused = true)]
async fn a_limit_of_another_period_does_not_touch_this_one() {
    let day = after(stated("200", "20", "21h36m0s")).await;
    assert_eq!((day.limit, day.used), (100, 1));
    let named = Reply::chat("m", 1, 1)
        .header("x-ratelimit-limit-requests-day", "50")
        .header("x-ratelimit-remaining-requests-day", "3");
    let day = after(named).await;
    assert_eq!((day.limit, day.used), (100, 1));
}

// T30
#[tokio::test(start_paused = true)]
async fn a_limit_of_another_period_becomes_another_learned_limit() {
    let named = Reply::chat("m", 1, 1)
        .header("x-ratelimit-limit-requests-day", "50")
        .header("x-ratelimit-remaining-requests-day", "3");
    // One is enough where the header names the window, three where it must be inferred.
    for (reply, limit, left) in [(named, 50, 3), (stated("200", "20", "21h36m0s"), 200, 18)] {
        let budget = limits([Limit::requests(100).per_minute()]);
        let upstream = Scripted::new([reply]);
        let service = stack(&budget, &upstream);
        for _ in 0..3 {
            service.clone().oneshot(chat(4, 1)).await.unwrap();
        }
        let seen = budget.snapshot();
        assert_eq!(seen.limits.len(), 2, "{seen:?}");
        let day = seen.limits.iter().find(|limit| limit.learned).unwrap();
        assert_eq!(
            (day.limit, day.period),
            (limit, Duration::from_secs(86_400))
        );
        assert!(day.used >= limit - left - 3, "{day:?}");
        assert_eq!(seen.limits[0].limit, 100, "what was told stands");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_the_provider_raises_again_rises_up_to_what_was_told() {
    let budget = limits([Limit::requests(100).per_minute()]);
    let upstream = Scripted::new([
        stated("50", "49", "60s"),
        stated("80", "70", "60s"),
        stated("900", "870", "60s"),
    ]);
    let service = stack(&budget, &upstream);
    for limit in [50, 80, 100] {
        service.clone().oneshot(chat(4, 1)).await.unwrap();
        assert_eq!(budget.snapshot().limits[0].limit, limit);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_are_forgotten_a_window_later() {
    let budget = limits([Limit::requests(100).per_minute()]);
    let upstream = Scripted::new([stated("100", "0", "60s"), Reply::chat("m", 1, 1)]);
    let service = stack(&budget, &upstream);
    service.clone().oneshot(chat(4, 1)).await.unwrap();
    let begun = Instant::now();
    service.oneshot(chat(4, 1)).await.unwrap();
    let waited = begun.elapsed();
    assert!(
        waited >= MINUTE && waited < MINUTE + Duration::from_millis(100),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn hostile_headers_change_nothing() {
    for value in [
        "NaN",
        "-1",
        "1e308",
        "-1e308",
        "0",
        "",
        "99999999999999999999999",
        "soon",
    ] {
        let seen = after(stated(value, value, value)).await;
        assert_eq!((seen.limit, seen.used), (100, 1), "{value}");
    }
    let reply = stated("100", "99", "600ms").header("openai-processing-ms", "-5");
    assert_eq!(after(reply).await.used, 1);
    let reply = stated("100", "99", "600ms").header("openai-processing-ms", "1e300");
    assert_eq!(after(reply).await.used, 1);
}

#[tokio::test(start_paused = true)]
async fn a_users_own_limit_is_not_the_providers() {
    let budget = limits([Limit::requests(100).per_minute().scope(Scope::Principal)]);
    let service = stack(&budget, &Scripted::new([stated("10", "0", "60s")]));
    service.oneshot(chat(4, 1)).await.unwrap();
    let seen = budget.snapshot();
    assert_eq!((seen.limits[0].limit, seen.limits[0].used), (100, 1));
}

#[tokio::test(start_paused = true)]
async fn each_model_has_its_own_limit_where_models_matter() {
    let budget = limits([Limit::requests(100).per_minute().scope(Scope::Model)]);
    let upstream = Scripted::by(|attempt| match attempt.model().as_deref() {
        Some("small") => Reply::rate_limited(30),
        _ => stated("100", "99", "600ms"),
    });
    let service = stack(&budget, &upstream);
    let ask = |model: &str| {
        let document = serde_json::json!({"model": model, "messages": [], "max_tokens": 1});
        support::post("/v1/chat/completions", document)
    };
    service.clone().oneshot(ask("small")).await.unwrap();
    let begun = Instant::now();
    service.clone().oneshot(ask("large")).await.unwrap();
    assert_eq!(
        begun.elapsed(),
        Duration::ZERO,
        "the gate is shut for the other model"
    );
    service.oneshot(ask("small")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(30));
    let seen = budget.snapshot();
    let keys: Vec<_> = seen
        .limits
        .iter()
        .map(|limit| limit.key.as_deref())
        .collect();
    assert_eq!(keys, [Some("small"), Some("large")]);
}

/// A provider that refuses the small model, and states this of what it serves.
async fn the_large_model_waits(large: Reply, refused: Reply) -> Duration {
    let budget = limits([Limit::requests(100).per_minute()]);
    let upstream = Scripted::by(move |attempt| match attempt.model().as_deref() {
        Some("small") => refused.clone(),
        _ => large.clone(),
    });
    let service = stack(&budget, &upstream);
    let ask = |model: &str| {
        let document = serde_json::json!({"model": model, "messages": [], "max_tokens": 1});
        support::post("/v1/chat/completions", document)
    };
    for model in ["large", "small"] {
        service.clone().oneshot(ask(model)).await.unwrap();
    }
    let begun = Instant::now();
    service.oneshot(ask("large")).await.unwrap();
    begun.elapsed()
}

fn refused(limit: &str, remaining: &str) -> Reply {
    Reply::rate_limited(30)
        .header("x-ratelimit-limit-requests", limit)
        .header("x-ratelimit-remaining-requests", remaining)
        .header("x-ratelimit-reset-requests", "30s")
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_one_model_does_not_hold_another_though_the_limit_was_told_for_all() {
    let waited = the_large_model_waits(Reply::chat("large", 1, 1), Reply::rate_limited(30)).await;
    assert_eq!(waited, Duration::ZERO);
    let plenty = stated("100", "95", "3s");
    let waited = the_large_model_waits(plenty, refused("100", "0")).await;
    assert_eq!(
        waited,
        Duration::ZERO,
        "its own last answer had plenty left"
    );
}

#[tokio::test(start_paused = true)]
async fn where_two_models_show_the_same_limit_a_refusal_of_one_holds_both() {
    let little = stated("100", "4", "57s");
    let waited = the_large_model_waits(little, refused("100", "0")).await;
    assert!(waited >= Duration::from_secs(30), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn one_refusal_shuts_the_gate_for_all_until_its_wait_is_over() {
    let budget = limits([Limit::requests(1000).per_minute()]);
    let upstream = Scripted::new([Reply::rate_limited(5), Reply::chat("m", 1, 1)]);
    let service = stack(&budget, &upstream);
    service.clone().oneshot(chat(4, 1)).await.unwrap();
    assert_eq!(budget.snapshot().gated, Some(Duration::from_secs(5)));
    at_once(service, 100, || chat(4, 1)).await;
    let times = upstream.times();
    assert!(times[1..].iter().all(|at| *at >= Duration::from_secs(5)));
}

// R17
#[tokio::test(start_paused = true)]
async fn when_the_gate_opens_nobody_stampedes() {
    let budget = limits([Limit::requests(600).per_minute()]);
    let upstream = Scripted::by(|attempt| {
        let reply = match attempt.index {
            0 => Reply::rate_limited(5),
            _ => Reply::chat("m", 1, 1),
        };
        reply.after(Duration::from_secs(2))
    });
    let service = stack(&budget, &upstream);
    service.clone().oneshot(chat(4, 1)).await.unwrap();
    let all = tokio::spawn(at_once(service, 400, || chat(4, 1)));
    sleep(Duration::from_secs(9)).await;
    let times = upstream.times();
    // Ten a second, until the first answer shows after two seconds that it takes requests again.
    let first = times[1];
    for start in (0..1850).step_by(50) {
        let start = first + Duration::from_millis(start);
        let burst = times
            .iter()
            .filter(|at| **at >= start && **at < start + Duration::from_millis(100));
        assert!(burst.count() <= 2, "at {start:?}");
    }
    all.abort();
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_hours_holds_the_gate_for_no_longer_than_the_period() {
    let budget = limits([Limit::requests(1000).per_minute()]);
    let service = stack(&budget, &Scripted::new([Reply::rate_limited(277_403)]));
    service.oneshot(chat(4, 1)).await.unwrap();
    assert_eq!(budget.snapshot().gated, Some(MINUTE));
}

#[tokio::test(start_paused = true)]
async fn a_bucket_is_found_out_and_a_long_refusal_disproves_it() {
    let budget = limits([Limit::requests(100).per_minute()]);
    let upstream = Scripted::by(|attempt| match attempt.index {
        n @ 0..4 => stated(
            "100",
            &format!("{}", 99 - n),
            &format!("{}ms", 600 * (n + 1)),
        ),
        _ => Reply::rate_limited(30),
    });
    let service = stack(&budget, &upstream);
    assert_eq!(
        budget.snapshot().limits[0].enforcement,
        Enforcement::Rolling
    );
    for _ in 0..4 {
        service.clone().oneshot(chat(4, 1)).await.unwrap();
    }
    assert_eq!(
        budget.snapshot().limits[0].enforcement,
        Enforcement::Bucket { burst: None }
    );
    service.oneshot(chat(4, 1)).await.unwrap();
    assert_eq!(
        budget.snapshot().limits[0].enforcement,
        Enforcement::Rolling
    );
}

#[tokio::test(start_paused = true)]
async fn what_nobody_told_is_learned_from_the_first_answers() {
    let provider = SimProvider::builder()
        .requests(455)
        .tokens(220_000)
        .window(W)
        .enforcement(tollgate_sim::Enforcement::Bucket { burst: None })
        .latency(Duration::from_millis(200))
        .build();
    let budget = Budget::builder()
        .learn(true)
        .learn_period(W)
        .build()
        .unwrap();
    let service = stack(&budget, &provider);
    let all = tokio::spawn(at_once(service, 300, || chat(400, 100)));
    sleep(Duration::from_millis(150)).await;
    assert_eq!(
        provider.totals().requests,
        16,
        "no more before the first answer"
    );
    for status in all.await.unwrap() {
        assert_eq!(status, 200);
    }
    let seen = budget.snapshot();
    let learned: Vec<_> = seen
        .limits
        .iter()
        .map(|l| (l.limit, l.period, l.learned))
        .collect();
    assert_eq!(learned, [(455, W, true), (220_000, W, true)]);
    assert_eq!(provider.totals().status_429, 0);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_says_nothing_of_limits_is_not_held_back_for_long() {
    let provider = SimProvider::builder()
        .headers_off()
        .latency(Duration::from_millis(100))
        .build();
    let begun = Instant::now();
    let budget = Budget::learned();
    let statuses = at_once(stack(&budget, &provider), 2000, || chat(4, 1)).await;
    assert!(statuses.iter().all(|status| *status == 200));
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn limits_told_twice_too_high_are_survived() {
    let provider = SimProvider::builder()
        .requests(455)
        .tokens(220_000)
        .window(W)
        .latency(Latency::LogNormal {
            median: Duration::from_millis(250),
            sigma: 0.4,
        })
        .build();
    let told = [Limit::requests(910).per(W), Limit::tokens(440_000).per(W)];
    let (account, failed) = run(&provider, &limits(told), calls(1, 1000), 512).await;
    assert_eq!(failed, 0);
    assert!(
        account.totals.status_429 <= 5,
        "{}",
        account.totals.status_429
    );
}

#[tokio::test(start_paused = true)]
async fn faults_of_every_kind_lose_nothing_and_leave_the_books_in_order() {
    let provider = SimProvider::builder()
        .requests(455)
        .tokens(220_000)
        .window(W)
        .latency(Duration::from_millis(100))
        .on(|incoming| match incoming.index % 10 {
            3 => Fault::GarbageHeaders,
            5 => Fault::Status(500),
            7 => Fault::RateLimited {
                unit: tollgate_sim::Unit::Requests,
                retry_after: Some(Duration::from_millis(300)),
            },
            _ => Fault::None,
        })
        .build();
    let budget = limits([Limit::requests(455).per(W), Limit::tokens(220_000).per(W)]);
    let (account, failed) = run(&provider, &budget, calls(1, 400), 100).await;
    assert_eq!(failed, 0);
    let stray = account
        .requests
        .iter()
        .filter(|seen| seen.fault && seen.status == 429);
    assert_eq!(
        account.totals.status_429,
        stray.count() as u64,
        "only those it was told to send"
    );
    let seen = budget.snapshot();
    assert_eq!((seen.in_flight, seen.queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_read_to_its_end_whatever_its_headers_say() {
    let budget = limits([Limit::requests(100).per_minute()]);
    let service = stack(&budget, &Scripted::new([stated("100", "0", "60s")]));
    let response = service.oneshot(chat(4, 1)).await.unwrap();
    assert!(
        !response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty()
    );
}
