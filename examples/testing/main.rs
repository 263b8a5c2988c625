//! Testing a stack with the simulated provider on paused time: an hour passes in some milliseconds.
//!
//! ```text
//! cargo run --example testing
//! ```
//!
//! Each function is one test; in a project of yours it would be a `#[tokio::test(start_paused = true)]`. Tokio's clock stands still
//! while anybody has work, and jumps when all wait, so waits are exact and nothing is flaky. Needs no key and no network.
#![allow(clippy::print_stdout)]
use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tollgate::UsageTotals;
use tollgate_sim::{
    Enforcement, SimError, SimProvider,
    script::{Reply, Scripted},
};
use tollgate_testing::{ask, stack};
use tower::ServiceExt;

/// A provider with books of its own: is anything refused in an hour of more work than it serves?
async fn an_hour_without_a_refusal() {
    let provider = SimProvider::builder()
        .requests(60)
        .enforcement(Enforcement::Rolling)
        .latency(Duration::from_millis(700))
        .seed(7)
        .build();
    let client = stack(provider.clone(), UsageTotals::new()).expect("limits");
    // Each caller asks again as soon as it is answered.
    join_all((0..8).map(|_| async {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3600) {
            let response = client.clone().oneshot(ask("")).await.expect("an answer");
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.expect("whole");
        }
    }))
    .await;
    let totals = provider.totals();
    assert_eq!(totals.status_429, 0);
    assert!(
        totals.admitted >= 3_500,
        "and the limit is used: {totals:?}"
    );
}

/// A script, word for word: the wait that the provider states is waited for, to the second.
async fn the_stated_wait_is_waited_for() {
    let provider = Scripted::new([Reply::rate_limited(20), Reply::chat("gpt-5", 9, 2)]);
    let usage = UsageTotals::new();
    let client = stack(provider.clone(), usage.clone()).expect("limits");
    let response = client.oneshot(ask("")).await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("whole");
    let waited = provider.times()[1] - provider.times()[0];
    assert!(waited >= Duration::from_secs(20) && waited <= Duration::from_secs(21));
    assert_eq!(usage.snapshot().all.calls, 1, "two attempts, one call");
}

/// A stream that is cut is an error and never a short answer.
async fn a_cut_stream_is_not_taken_for_whole() {
    let event = r#"{"choices":[{"index":0,"delta":{"content":"Hel"}}]}"#;
    let provider = Scripted::new([Reply::sse([event]).breaks(SimError::Reset)]);
    let client = stack(provider.clone(), UsageTotals::new()).expect("limits");
    let response = client
        .oneshot(ask(r#","stream":true"#))
        .await
        .expect("a head");
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(
        provider.count(),
        1,
        "what was delivered is not asked for again"
    );
}

fn main() {
    fn paused(name: &str, test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let simulated = runtime.block_on(async {
            let start = Instant::now();
            test.await;
            start.elapsed()
        });
        println!(
            "ok  {name}: {:.1} simulated seconds",
            simulated.as_secs_f64()
        );
    }
    paused("an hour without a refusal", an_hour_without_a_refusal());
    paused(
        "the stated wait is waited for",
        the_stated_wait_is_waited_for(),
    );
    paused(
        "a cut stream is not taken for whole",
        a_cut_stream_is_not_taken_for_whole(),
    );
}
