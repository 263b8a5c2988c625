//! A day of everything that goes wrong, in simulated time: at its end nothing is held, nobody waits. X06.
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tollgate::{budget::Scope, prelude::*, retry::RetryBudget};
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tollgate_tests::chat_with;
use tower::{ServiceBuilder, ServiceExt};

/// One answer of each kind that a provider has been seen to give.
fn reply(seed: u64, index: usize) -> Reply {
    let mut rng =
        fastrand::Rng::with_seed(seed ^ (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let event = r#"{"model":"model-a","choices":[{"index":0,"delta":{"content":"Hello"}}]}"#;
    let latency = Duration::from_millis(rng.u64(20..4000));
    let reply = match rng.u8(..20) {
        0 => Reply::rate_limited(rng.u64(1..20)),
        1 => Reply::status(429),
        2 => Reply::status(500),
        3 => Reply::status(503).header("retry-after", "2"),
        4 => Reply::status(529),
        5 => Reply::status(400),
        6 => Reply::transport_error(SimError::Reset),
        7 => Reply::transport_error(SimError::Refused),
        8 => Reply::pending(),
        9 => Reply::sse([event; 3])
            .every(Duration::from_millis(200))
            .stalls(),
        10 => Reply::sse([event; 3])
            .every(Duration::from_millis(200))
            .breaks(SimError::Reset),
        11 => Reply::body_breaks_after("{\"model\":\"model-a\","),
        12 => Reply::stream([
            "event: error\ndata: {\"error\":{\"code\":\"rate_limit_exceeded\"}}\n\n",
        ]),
        13 => Reply::sse([event, event, "[DONE]"]).every(Duration::from_millis(500)),
        14 => Reply::status(200)
            .header("x-ratelimit-remaining-tokens", "-1e9")
            .body("garbage"),
        _ => Reply::chat("model-a", 20, rng.u64(1..200)),
    };
    reply.after(latency)
}

// X06
#[tokio::test(start_paused = true)]
async fn after_a_day_of_cancellations_stalls_cuts_and_refusals_nothing_is_left() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let seed = std::env::var("TOLLGATE_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    println!("seed {seed}: again with TOLLGATE_SEED={seed}");
    let budget = Budget::builder()
        .limit(Limit::requests(8).per_minute())
        .limit(Limit::tokens(2000).per_minute())
        .limit(
            Limit::requests(3)
                .per_minute()
                .scope(Scope::Principal)
                .named("of one user"),
        )
        .build()
        .expect("limits");
    let usage = UsageTotals::new();
    let upstream = Scripted::by(move |seen| reply(seed, seen.index));
    let chain = ModelChain::new(["model-a", "model-b"]).expect("a chain");
    let policy = RateLimitPolicy::default().retry_budget(RetryBudget::new(1.0, 1_000));
    let stack = ServiceBuilder::new()
        .record_usage(usage.clone())
        .model_fallback(chain)
        .retry_on_rate_limit(policy)
        .token_budget(budget.clone())
        .service(upstream.clone());

    let mut rng = fastrand::Rng::with_seed(seed);
    let begun = Instant::now();
    let mut calls = Vec::new();
    let mut at = Duration::ZERO;
    while at < DAY {
        // Bursts: a few at once, then a while of nothing. More than the limit lets out, at times.
        for _ in 0..rng.u32(1..8) {
            let stream = if rng.bool() { r#","stream":true"# } else { "" };
            let more = format!(r#","max_tokens":{}{stream}"#, rng.u64(10..600));
            let mut request = chat_with("model-a", &more);
            let user = format!("user {}", rng.u8(..5));
            request
                .extensions_mut()
                .insert(CallOptions::new().principal(&user));
            let stack = stack.clone();
            // Some leave at once, some after a while; nobody waits for ever.
            let patience = match rng.u8(..10) {
                0 => Duration::from_millis(rng.u64(..50)),
                1..=3 => Duration::from_millis(rng.u64(..20_000)),
                _ => Duration::from_secs(300),
            };
            calls.push(tokio::spawn(async move {
                sleep_until(begun + at).await;
                let call = async {
                    let response = stack.oneshot(request).await.ok()?;
                    response.into_body().collect().await.ok()
                };
                timeout(patience, call)
                    .await
                    .is_ok_and(|answer| answer.is_some())
            }));
        }
        at += Duration::from_millis(rng.u64(..200_000));
    }
    let all = calls.len();
    let mut served = 0;
    for call in calls {
        served += usize::from(call.await.expect("no panic"));
    }
    let seen = budget.snapshot();
    assert!(served > all / 4 && served < all, "{served} of {all}");
    assert_eq!(
        (seen.in_flight, seen.queued, seen.queued_bytes),
        (0, 0, 0),
        "seed {seed}"
    );
    for limit in &seen.limits {
        assert_eq!(
            (limit.reserved, limit.queued),
            (0, 0),
            "seed {seed}: {limit:?}"
        );
    }
    // One record of every call, and time gives everything back.
    assert_eq!(usage.snapshot().all.calls, all as u64, "seed {seed}");
    sleep(Duration::from_secs(3600)).await;
    for limit in budget.snapshot().limits {
        assert_eq!((limit.used, limit.debt), (0, 0), "seed {seed}: {limit:?}");
    }
}
