//! The account tells what was served, no more and no less.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use http_body_util::BodyExt;
use support::{ask, chat, chat_stream, messages, responses, send};
use tokio::time::sleep;
use tollgate_sim::{BodyFate, Charging, Enforcement, SimLimit, SimProvider};

#[tokio::test(start_paused = true)]
async fn billed_tokens_are_the_sum_of_what_the_answers_state() {
    let provider = SimProvider::builder().requests(30).build();
    let (mut input, mut output) = (0, 0);
    for i in 0..40_usize {
        let answer = ask(&provider, chat(i * 13, 100)).await;
        if answer.status == 200 {
            let usage = &answer.json()["usage"];
            input += usage["prompt_tokens"].as_u64().unwrap();
            output += usage["completion_tokens"].as_u64().unwrap();
        }
    }
    let account = provider.account();
    let totals = account.totals;
    assert_eq!((totals.billed_input, totals.billed_output), (input, output));
    assert_eq!(
        (totals.requests, totals.admitted, totals.refused),
        (40, 30, 10)
    );
    assert_eq!(totals.status_429, 10);
    let sum: u64 = account.requests.iter().map(|seen| seen.cost.tokens).sum();
    assert_eq!(totals.charged_tokens, sum);
    let billed: u64 = account.requests.iter().map(|seen| seen.billed.output).sum();
    assert_eq!(totals.billed_output, billed);
}

#[tokio::test(start_paused = true)]
async fn streams_are_billed_as_their_usage_says_in_every_profile() {
    for charging in [
        Charging::Sum,
        Charging::Max,
        Charging::PromptOnly,
        Charging::Settle,
        Charging::RealUsage,
    ] {
        let provider = SimProvider::builder()
            .tokens(1 << 30)
            .charging(charging)
            .build();
        let chat = ask(&provider, chat_stream(90, true)).await.documents();
        let messages = ask(&provider, messages(80, 90, true)).await.documents();
        let responses = ask(&provider, responses(90, true)).await.documents();
        let account = provider.account();
        let billed: Vec<_> = account
            .requests
            .iter()
            .map(|seen| seen.billed.output)
            .collect();
        assert_eq!(
            chat.last().unwrap()["usage"]["completion_tokens"],
            billed[0]
        );
        assert_eq!(
            messages[messages.len() - 2]["usage"]["output_tokens"],
            billed[1]
        );
        assert_eq!(
            responses.last().unwrap()["response"]["usage"]["output_tokens"],
            billed[2]
        );
        let real: u64 = account
            .requests
            .iter()
            .map(|seen| seen.billed.input + seen.billed.output)
            .sum();
        if matches!(charging, Charging::Settle | Charging::RealUsage) {
            assert_eq!(account.totals.charged_tokens, real, "{charging:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn counts_what_is_in_flight_until_the_body_ends() {
    let provider = SimProvider::builder()
        .latency(Duration::from_secs(1))
        .build();
    let first = tokio::spawn({
        let provider = provider.clone();
        async move { send(&provider, chat(0, 10)).await.unwrap() }
    });
    let second = tokio::spawn({
        let provider = provider.clone();
        async move { send(&provider, chat(0, 10)).await.unwrap() }
    });
    sleep(Duration::from_millis(500)).await;
    assert_eq!(provider.totals().in_flight, 2);
    let body = first.await.unwrap().into_body();
    assert_eq!(provider.totals().in_flight, 2, "answered, and not read");
    body.collect().await.unwrap();
    drop(second.await.unwrap());
    let account = provider.account();
    assert_eq!(
        (account.totals.in_flight, account.totals.max_in_flight),
        (0, 2)
    );
    assert_eq!(account.requests[0].body_fate, BodyFate::Complete);
    assert_eq!(account.requests[1].body_fate, BodyFate::Dropped);
    assert_eq!(
        account.requests[0].answered_at,
        Some(Duration::from_secs(1))
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_pays_and_leaves_nothing_behind() {
    let provider = SimProvider::builder()
        .tokens(1_000)
        .latency(Duration::from_secs(9))
        .reply_tokens(5)
        .build();
    let left = tokio::time::timeout(Duration::from_secs(1), send(&provider, chat(0, 10))).await;
    assert!(left.is_err());
    let totals = provider.totals();
    assert_eq!((totals.in_flight, totals.billed_output), (0, 5));
}

#[tokio::test(start_paused = true)]
async fn requests_one_window_apart_do_not_share_a_window() {
    let window = Duration::from_secs(6);
    let provider = SimProvider::builder().requests(1).window(window).build();
    for _ in 0..3 {
        assert_eq!(ask(&provider, chat(0, 1)).await.status, 200);
        sleep(window).await;
    }
    assert_eq!(provider.account().max_in_any_window(0), 1);
}

#[tokio::test(start_paused = true)]
async fn the_least_span_follows_from_the_enforcement() {
    let window = Duration::from_secs(6);
    let q = Duration::from_secs(2);
    for (enforcement, least) in [
        // 20 requests of 7 a window: three windows, so two whole ones.
        (Enforcement::Rolling, Duration::from_secs(12)),
        (Enforcement::Fixed, Duration::from_secs(11)),
        (
            Enforcement::Bucket { burst: None },
            Duration::from_nanos(6_000_000_000 * 13 / 7),
        ),
        (
            Enforcement::Bucket { burst: Some(2) },
            Duration::from_nanos(6_000_000_000 * 18 / 7),
        ),
        // 7 × 2 / 6 = 2 in each quantum: ten of them.
        (Enforcement::Quantised { q }, Duration::from_secs(17)),
    ] {
        let provider = SimProvider::builder()
            .limit(SimLimit::requests(7).per(window).enforced(enforcement))
            .tokens(1 << 30)
            .lenient()
            .build();
        sleep(Duration::from_secs(1)).await;
        let mut served = 0;
        while served < 20 {
            let answer = ask(&provider, chat(0, 1)).await;
            match answer.header("retry-after-ms") {
                Some(wait) => {
                    sleep(Duration::from_millis(wait.parse::<u64>().unwrap().max(1))).await;
                }
                None => served += 1,
            }
        }
        let account = provider.account();
        assert_eq!(account.least_span(), least, "{enforcement:?}");
        assert_eq!(account.first_arrival(), Some(Duration::from_secs(1)));
        let ratio = account.admission_ratio().unwrap();
        assert!((1.0..1.02).contains(&ratio), "{enforcement:?} {ratio}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_identifies_a_request_is_kept_as_a_digest() {
    let provider = SimProvider::builder().build();
    for key in ["sk-secret", "sk-secret", "sk-other"] {
        let mut request = chat(3, 1);
        let headers = request.headers_mut();
        headers.insert("x-api-key", key.parse().unwrap());
        headers.insert("idempotency-key", "i-1".parse().unwrap());
        headers.insert("x-stainless-retry-count", "2".parse().unwrap());
        ask(&provider, request).await;
    }
    let account = provider.account();
    let [first, second, third] = &account.requests[..] else {
        panic!("three requests")
    };
    assert_eq!(first.idempotency_key.as_deref(), Some("i-1"));
    assert_eq!(first.retry_count, Some(2));
    assert_eq!((first.key, first.body), (second.key, second.body));
    assert_ne!(first.key, third.key);
    let shown = format!("{account:?} {}", serde_json::to_string(&account).unwrap());
    assert!(!shown.contains("secret") && !shown.contains("xxx"));
}

#[tokio::test(start_paused = true)]
async fn a_reset_begins_anew_and_forgets_what_was_under_way() {
    let provider = SimProvider::builder()
        .requests(1)
        .charging(Charging::Settle)
        .latency(Duration::from_secs(1))
        .build();
    let under_way = tokio::spawn({
        let provider = provider.clone();
        async move { ask(&provider, chat(0, 10)).await }
    });
    sleep(Duration::from_millis(500)).await;
    provider.reset();
    assert_eq!(under_way.await.unwrap().status, 200);
    assert_eq!(provider.totals(), tollgate_sim::Totals::default());
    assert_eq!(ask(&provider, chat(0, 10)).await.status, 200);
    let account = provider.account();
    assert_eq!(account.requests.len(), 1);
    assert_eq!(
        account.requests[0].at,
        Duration::from_millis(500),
        "time zero was the reset"
    );
}

#[tokio::test(start_paused = true)]
async fn keeps_as_many_requests_as_told_and_sums_over_all() {
    let provider = SimProvider::builder().keep_requests(3).build();
    for _ in 0..5 {
        ask(&provider, chat(0, 10)).await;
    }
    let account = provider.account();
    assert_eq!((account.requests.len(), account.totals.requests), (3, 5));
    assert_eq!(account.totals.in_flight, 0);
}
