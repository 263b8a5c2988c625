//! Headers and error documents read as those of the real providers.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use support::{Answer, Body, ask, chat, chat_of, messages, post, responses};
use tokio::time::sleep;
use tollgate_core::wire::{
    limits::{self, Dimension, ResetKind},
    outcome::{ErrorClass, Outcome, judge},
};
use tollgate_sim::{Enforcement, Fault, SimLimit, SimProvider, Unit};

const BUCKET: Enforcement = Enforcement::Bucket { burst: None };

fn verdict(answer: &Answer) -> tollgate_core::wire::outcome::Verdict {
    judge(
        answer.status,
        &answer.headers,
        Some(&answer.body),
        UNIX_EPOCH,
    )
}

#[tokio::test(start_paused = true)]
async fn openai_headers_parse_and_a_buckets_reset_tells_its_window() {
    let provider = SimProvider::builder()
        .requests(60)
        .tokens(6_000)
        .enforcement(BUCKET)
        .build();
    let answer = ask(&provider, chat(400, 500)).await;
    let limits = limits::from_headers(&answer.headers, UNIX_EPOCH);
    assert_eq!(limits.len(), 2);
    for limit in &limits {
        assert_eq!(
            limit.window_inferred(),
            Some(Duration::from_secs(60)),
            "{limit:?}"
        );
    }
    let tokens = limits
        .iter()
        .find(|limit| limit.dimension == Dimension::Tokens)
        .unwrap();
    assert_eq!(
        (tokens.limit, tokens.remaining),
        (Some(6_000.0), Some(5_400.0))
    );
    assert_eq!(answer.header("x-ratelimit-reset-requests"), Some("1s"));
    assert_eq!(answer.header("x-ratelimit-reset-tokens"), Some("6s"));
    assert!(
        answer
            .header("x-request-id")
            .is_some_and(|id| id.starts_with("req_"))
    );
    assert_eq!(answer.header("date"), Some("Thu, 01 Jan 2026 00:00:00 GMT"));
}

#[tokio::test(start_paused = true)]
async fn reset_of_a_rolling_window_is_when_the_last_leaves_it() {
    let provider = SimProvider::builder().requests(60).build();
    ask(&provider, chat(0, 1)).await;
    sleep(Duration::from_secs(20)).await;
    let answer = ask(&provider, chat(0, 1)).await;
    assert_eq!(answer.header("x-ratelimit-reset-requests"), Some("1m0s"));

    let provider = SimProvider::builder()
        .requests(60)
        .enforcement(Enforcement::Fixed)
        .build();
    sleep(Duration::from_secs(20)).await;
    let answer = ask(&provider, chat(0, 1)).await;
    assert_eq!(answer.header("x-ratelimit-reset-requests"), Some("40s"));
}

#[tokio::test(start_paused = true)]
async fn an_openai_refusal_states_its_wait_in_headers_and_text() {
    let provider = SimProvider::builder()
        .tokens(30_000)
        .enforcement(BUCKET)
        .build();
    ask(&provider, chat(0, 14_567)).await;
    let refused = ask(&provider, chat(0, 24_754)).await;
    let error = &refused.json()["error"];
    assert_eq!(
        error["message"]
            .as_str()
            .unwrap()
            .split(" Visit")
            .next()
            .unwrap(),
        "Rate limit reached for gpt-test in organization org-sim on tokens per min (TPM): \
         Limit 30000, Used 14567, Requested 24754. Please try again in 18.642s."
    );
    assert_eq!(
        (error["type"].as_str(), error["code"].as_str()),
        (Some("tokens"), Some("rate_limit_exceeded"))
    );
    assert_eq!(refused.header("retry-after-ms"), Some("18642"));
    assert_eq!(refused.header("retry-after"), Some("19"));
    let Outcome::RateLimited {
        what,
        retry_after,
        never_fits,
        ..
    } = verdict(&refused).outcome
    else {
        panic!("not a rate limit");
    };
    assert_eq!(what, Some(Dimension::Tokens));
    assert_eq!(retry_after, Some(Duration::from_millis(18_642)));
    assert!(!never_fits);
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_rounded_up_so_that_it_is_enough() {
    let provider = SimProvider::builder()
        .tokens(1_000_000)
        .enforcement(BUCKET)
        .build();
    ask(&provider, chat(0, 923_902)).await;
    let refused = ask(&provider, chat(0, 96_709)).await;
    assert_eq!(refused.header("retry-after-ms"), Some("1237"), "1236.66 ms");
    assert!(refused.text().contains("Please try again in 1.237s."));
    sleep(Duration::from_millis(1_237)).await;
    assert_eq!(ask(&provider, chat(0, 96_709)).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn anthropic_headers_and_refusals_parse() {
    let provider = SimProvider::builder()
        .requests(50)
        .limit(SimLimit::input_tokens(40_000))
        .limit(SimLimit::output_tokens(8_000))
        .enforcement(BUCKET)
        .build();
    let answer = ask(&provider, messages(40_000, 100, false)).await;
    assert_eq!(
        answer.header("anthropic-ratelimit-input-tokens-limit"),
        Some("40000")
    );
    assert_eq!(
        answer.header("anthropic-ratelimit-input-tokens-remaining"),
        Some("30000")
    );
    assert_eq!(
        answer.header("anthropic-ratelimit-input-tokens-reset"),
        Some("2026-01-01T00:00:15Z")
    );
    assert_eq!(
        answer.header("anthropic-ratelimit-tokens-limit"),
        Some("48000")
    );
    let limits = limits::from_headers(&answer.headers, UNIX_EPOCH);
    let input = limits
        .iter()
        .find(|limit| limit.dimension == Dimension::InputTokens)
        .unwrap();
    assert_eq!(input.reset.as_ref().unwrap().kind, ResetKind::Rfc3339);
    assert_eq!(
        input.reset.as_ref().unwrap().after(),
        Some(Duration::from_secs(15))
    );

    let refused = ask(&provider, messages(140_000, 100, false)).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-should-retry"), Some("true"));
    assert_eq!(
        refused.header("retry-after"),
        Some("8"),
        "7.5 s, rounded up"
    );
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");

    let never = ask(&provider, messages(200_000, 100, false)).await;
    assert_eq!(never.header("x-should-retry"), Some("false"));
    assert_eq!(never.header("retry-after"), None);
    let text = never.json()["error"]["message"].to_string();
    assert!(text.contains("40,000 input tokens per minute"), "{text}");
    let outcome = verdict(&never).outcome;
    assert!(
        matches!(
            outcome,
            Outcome::RateLimited {
                never_fits: true,
                ..
            }
        ),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn every_error_is_read_as_what_it_is() {
    let provider = SimProvider::builder()
        .model_with_context("gpt-test", 1_000)
        .model_with_context("claude-test", 1_000)
        .api_key("sk-good")
        .build();
    let keyed = |mut request: http::Request<Body>, key: &str| {
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {key}").parse().unwrap());
        request
    };
    let good = |request| keyed(request, "sk-good");
    let broken = http::Request::post("/v1/chat/completions")
        .body("{\"model".to_owned().into())
        .unwrap();
    for (request, status, class) in [
        (keyed(chat(0, 1), "sk-bad"), 401, ErrorClass::Auth),
        (good(chat_of("gone", 0, 1)), 404, ErrorClass::ModelNotFound),
        (good(chat(8_000, 1)), 400, ErrorClass::ContextLength),
        (good(chat(400, 950)), 400, ErrorClass::ContextLength),
        (good(broken), 400, ErrorClass::InvalidRequest),
        (
            good(messages(8_000, 1, false)),
            400,
            ErrorClass::ContextLength,
        ),
        (
            good(responses(2_000, false)),
            400,
            ErrorClass::ContextLength,
        ),
        (
            good(post(
                "/v1/responses",
                &serde_json::json!({"model": "gone", "input": "x"}),
            )),
            400,
            ErrorClass::ModelNotFound,
        ),
        (
            good(post(
                "/v1/messages",
                &serde_json::json!({"model": "gone", "max_tokens": 1, "messages": []}),
            )),
            404,
            ErrorClass::ModelNotFound,
        ),
        (
            good(post(
                "/v1/messages",
                &serde_json::json!({"model": "claude-test", "messages": []}),
            )),
            400,
            ErrorClass::InvalidRequest,
        ),
    ] {
        let what = format!("{:?} {status} {class:?}", request.uri());
        let answer = ask(&provider, request).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert_eq!(
            verdict(&answer).class,
            Some(class),
            "{what}: {}",
            answer.text()
        );
    }
    let totals = provider.account().totals;
    assert_eq!((totals.rejected, totals.charged_tokens), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn every_scripted_error_is_read_as_what_it_is() {
    let rate = |retry_after| Fault::RateLimited {
        unit: Unit::Tokens,
        retry_after,
    };
    for (fault, class) in [
        (Fault::Quota, ErrorClass::QuotaExhausted),
        (Fault::Overloaded, ErrorClass::Overloaded),
        (Fault::Status(500), ErrorClass::ServerError),
        (Fault::Status(503), ErrorClass::Overloaded),
        (Fault::Status(529), ErrorClass::Overloaded),
        (Fault::Status(401), ErrorClass::Auth),
        (Fault::Status(403), ErrorClass::ModelNotAllowed),
        (Fault::TooLarge(Unit::Tokens), ErrorClass::LimitTooSmall),
        (rate(None), ErrorClass::RateLimited),
        (rate(Some(Duration::from_secs(2))), ErrorClass::RateLimited),
    ] {
        let provider = SimProvider::builder()
            .requests(10)
            .script([fault.clone()])
            .build();
        let answer = ask(&provider, chat(0, 1)).await;
        let verdict = verdict(&answer);
        assert_eq!(verdict.class, Some(class), "{fault:?}: {}", answer.text());
        let account = provider.account();
        assert_eq!(
            (account.totals.faulted, account.totals.charged_tokens),
            (1, 0)
        );
        let next = ask(&provider, chat(0, 1)).await;
        assert_eq!(
            next.header("x-ratelimit-remaining-requests"),
            Some("8"),
            "the failed one counts"
        );
    }
    for (fault, class) in [
        (Fault::Quota, ErrorClass::QuotaExhausted),
        (Fault::Overloaded, ErrorClass::Overloaded),
        (Fault::Status(500), ErrorClass::ServerError),
        (
            Fault::TooLarge(Unit::InputTokens),
            ErrorClass::LimitTooSmall,
        ),
        (rate(None), ErrorClass::RateLimited),
    ] {
        let provider = SimProvider::builder().script([fault.clone()]).build();
        let answer = ask(&provider, messages(10, 10, false)).await;
        let verdict = verdict(&answer);
        assert_eq!(verdict.class, Some(class), "{fault:?}: {}", answer.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_may_state_nothing() {
    let provider = SimProvider::builder().requests(1).headers_off().build();
    let answer = ask(&provider, chat(0, 1)).await;
    assert!(limits::from_headers(&answer.headers, UNIX_EPOCH).is_empty());
    assert_eq!(answer.header("openai-processing-ms"), None);
    let refused = ask(&provider, chat(0, 1)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.header("retry-after"), None);
    assert!(!refused.text().contains("try again"));
}

#[tokio::test(start_paused = true)]
async fn processing_time_and_date_are_those_of_the_answer() {
    let provider = SimProvider::builder()
        .latency(Duration::from_millis(1_250))
        .build();
    let before = tokio::time::Instant::now();
    let answer = ask(&provider, chat(0, 1)).await;
    assert_eq!(before.elapsed(), Duration::from_millis(1_250));
    assert_eq!(answer.header("openai-processing-ms"), Some("1250"));
    assert_eq!(answer.header("date"), Some("Thu, 01 Jan 2026 00:00:01 GMT"));
}
