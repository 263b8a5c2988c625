//! How long it waits, and on whose word.
mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use support::*;
use tollgate_core::{
    call::{Attempts, WaitReason},
    wire::{estimate::Estimate, prompt::RequestFacts, retry_after::Source},
};
use tollgate_retry::RateLimitPolicy;
use tollgate_sim::script::Reply;

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn assert_waited(gap: Duration, wait: Duration) {
    let most = wait + jitter_cap(wait) + Duration::from_millis(1);
    assert!(
        gap >= wait && gap <= most,
        "waited {gap:?}, not {wait:?} to {most:?}"
    );
}

// R01
#[tokio::test(start_paused = true)]
async fn waits_as_long_as_retry_after_says_and_then_tries_once_more() {
    let seen = send_chat([Reply::rate_limited(2), ok()]).await;
    assert_eq!(seen.attempts(), 2);
    assert_waited(seen.gap(), secs(2.0));
    let response = seen.response();
    assert_eq!(response.status(), 200);
    let attempts = Attempts::of(&response);
    let (waited, reason) = attempts[1].waited.expect("a wait is noted");
    assert_waited(waited, secs(2.0));
    assert_eq!(reason, WaitReason::Stated(Source::RetryAfter));
}

// R02
#[tokio::test(start_paused = true)]
async fn milliseconds_are_believed_before_seconds() {
    let limited = Reply::rate_limited(5).header("retry-after-ms", "350");
    let seen = send_chat([limited, ok()]).await;
    assert_waited(seen.gap(), secs(0.35));
}

// R03
#[tokio::test(start_paused = true)]
async fn a_date_is_counted_from_the_answers_own_date() {
    // Years off any clock of ours.
    let limited = Reply::status(429)
        .header("date", "Mon, 11 Aug 2014 23:46:00 GMT")
        .header("retry-after", "Mon, 11 Aug 2014 23:46:03 GMT");
    let seen = send_chat([limited, ok()]).await;
    assert_waited(seen.gap(), secs(3.0));
}

// R04
#[tokio::test(start_paused = true)]
async fn a_wait_that_equals_the_cap_is_honoured() {
    let policy = RateLimitPolicy::new().wait_cap(secs(60.0));
    let seen = send(policy, chat(), [Reply::rate_limited(60), ok()]).await;
    assert_eq!(seen.attempts(), 2);
    assert_waited(seen.gap(), secs(60.0));
}

// R07
#[tokio::test(start_paused = true)]
async fn what_is_no_wait_is_answered_with_a_back_off() {
    let plain = || Reply::status(429).json(serde_json::json!({"error": {"message": "no"}}));
    let one = |value: &str| plain().header("retry-after", value);
    let scripts = [
        one("0"),
        one("-1"),
        one("NaN"),
        one("soon"),
        one("1e400"),
        one(""),
        one("inf"),
        one("2, 5"),
        one("Mon, 01 Jan 1900 00:00:00 GMT"),
        one("2").header("retry-after", "5"),
        plain().header("retry-after-ms", "-350"),
        plain(),
    ];
    for limited in scripts {
        let shown = format!("{limited:?}");
        let seen = send_chat([limited, ok()]).await;
        assert_eq!(seen.attempts(), 2, "{shown}");
        let gap = seen.gap();
        assert!(gap >= FIRST_PAUSE / 10, "it must not spin: {gap:?} {shown}");
        assert!(gap <= FIRST_PAUSE + secs(0.001), "{gap:?} {shown}");
        let attempts = Attempts::of(&seen.response());
        assert_eq!(attempts[1].waited.unwrap().1, WaitReason::Backoff);
    }
}

/// What the layer takes a request's cost to be.
fn cost_of(body: &str) -> u64 {
    let uri = Uri::from_static("https://api.example/v1/chat/completions");
    let body = Bytes::copy_from_slice(body.as_bytes());
    let facts = RequestFacts::read(&Method::POST, &uri, &HeaderMap::new(), &body);
    Estimate::of(&facts).total()
}

// R08
#[tokio::test(start_paused = true)]
async fn without_a_statement_it_waits_until_this_requests_cost_has_refilled() {
    let cost = cost_of(BODY);
    assert!(cost > 20, "the cap and the prompt are counted");
    let limited = Reply::status(429)
        .header("x-ratelimit-limit-requests", "500")
        .header("x-ratelimit-remaining-requests", "499")
        .header("x-ratelimit-reset-requests", "120ms")
        .header("x-ratelimit-limit-tokens", &(10 * cost).to_string())
        .header("x-ratelimit-remaining-tokens", "0")
        .header("x-ratelimit-reset-tokens", "6m0s");
    let seen = send_chat([limited, ok()]).await;
    assert_waited(seen.gap(), secs(36.0));
    let attempts = Attempts::of(&seen.response());
    assert_eq!(attempts[1].waited.unwrap().1, WaitReason::Refill);
}

// R08, wire-facts rule 1: the limit that refused is often not the one in the headers.
#[tokio::test(start_paused = true)]
async fn a_limit_that_is_not_exhausted_says_nothing() {
    let limited = Reply::status(429)
        .header("x-ratelimit-limit-requests", "200")
        .header("x-ratelimit-remaining-requests", "196")
        .header("x-ratelimit-reset-requests", "21m36s");
    let seen = send_chat([limited, ok()]).await;
    assert!(seen.gap() <= FIRST_PAUSE + secs(0.001));
}

// R08
#[tokio::test(start_paused = true)]
async fn a_statement_goes_before_the_headers_arithmetic() {
    let limited = Reply::rate_limited(2)
        .header("x-ratelimit-limit-requests", "1")
        .header("x-ratelimit-remaining-requests", "0")
        .header("x-ratelimit-reset-requests", "20s");
    let seen = send_chat([limited, ok()]).await;
    assert_waited(seen.gap(), secs(2.0));
}

// R09
#[tokio::test(start_paused = true)]
async fn resets_of_every_spelling_are_read_exactly() {
    let spellings = [
        ("17ms", 0.017),
        ("1m30s", 90.0),
        ("23h47m36.648s", 85_656.648),
        ("2m59.56s", 179.56),
        ("7.66s", 7.66),
        ("1s", 1.0),
    ];
    for (spelling, wait) in spellings {
        let limited = Reply::status(429)
            .header("x-ratelimit-limit-requests", "1")
            .header("x-ratelimit-remaining-requests", "0")
            .header("x-ratelimit-reset-requests", spelling);
        let policy = RateLimitPolicy::new().wait_cap(secs(86_400.0));
        let seen = send(policy, chat(), [limited, ok()]).await;
        assert_waited(seen.gap(), secs(wait));
    }
}

// R10
#[tokio::test(start_paused = true)]
async fn a_reset_that_is_a_date_is_read_as_a_date() {
    let limited = Reply::status(429)
        .header("date", "Fri, 11 Sep 2026 06:27:09 GMT")
        .header("anthropic-ratelimit-requests-limit", "1")
        .header("anthropic-ratelimit-requests-remaining", "0")
        .header("anthropic-ratelimit-requests-reset", "2026-09-11T06:27:29Z");
    let body = r#"{"model":"claude-test","max_tokens":9,"messages":[]}"#;
    let request = post("/v1/messages", body);
    let seen = send(RateLimitPolicy::new(), request, [limited, ok()]).await;
    assert_waited(seen.gap(), secs(20.0));
}

#[tokio::test(start_paused = true)]
async fn the_text_of_an_error_is_a_statement_too() {
    let limited = Reply::status(429).json(serde_json::json!({"error": {
        "message": "Rate limit reached for gpt-test. Please try again in 1.5s.",
        "type": "tokens", "code": "rate_limit_exceeded",
    }}));
    let seen = send_chat([limited, ok()]).await;
    assert_waited(seen.gap(), secs(1.5));
}

#[tokio::test(start_paused = true)]
async fn a_wait_after_an_overload_is_honoured_as_well() {
    for status in [503, 529] {
        let busy = Reply::status(status).header("retry-after", "7");
        let seen = send_chat([busy, ok()]).await;
        assert_waited(seen.gap(), secs(7.0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_back_off_doubles_up_to_its_ceiling() {
    let policy = || RateLimitPolicy::new().attempts(8).without_retry_budget();
    for _ in 0..20 {
        let seen = send(policy(), chat(), [Reply::status(500)]).await;
        let times = seen.provider.times();
        assert_eq!(times.len(), 8);
        for (n, pair) in times.windows(2).enumerate() {
            let ceiling = secs((0.5 * f64::from(1 << n)).min(8.0));
            let gap = pair[1] - pair[0];
            assert!(gap <= ceiling + secs(0.001), "{gap:?} after {n}");
            assert!(gap >= secs(0.05), "{gap:?} after {n}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_closure_is_a_back_off_and_the_wait_cap_holds_for_it() {
    let policy = RateLimitPolicy::new()
        .attempts(4)
        .wait_cap(secs(25.0))
        .backoff(|retry: u32| secs(10.0) * retry);
    let seen = send(policy, chat(), [Reply::status(500)]).await;
    let times: Vec<_> = seen
        .provider
        .times()
        .iter()
        .map(Duration::as_secs)
        .collect();
    assert_eq!(times, [0, 10, 30, 55]);
}

#[tokio::test(start_paused = true)]
async fn callers_that_were_told_the_same_do_not_come_back_at_once() {
    let mut gaps = Vec::new();
    for _ in 0..50 {
        gaps.push(send_chat([Reply::rate_limited(5), ok()]).await.gap());
    }
    gaps.sort();
    gaps.dedup();
    assert!(gaps.len() > 10, "spread over {} instants", gaps.len());
}

#[tokio::test(start_paused = true)]
async fn waits_are_counted() {
    let seen = send_chat([Reply::rate_limited(2), Reply::rate_limited(3), ok()]).await;
    let counts = seen.stats.snapshot();
    assert_eq!(
        (counts.requests, counts.attempts, counts.retries),
        (1, 3, 2)
    );
    assert!(counts.waited >= secs(5.0) && counts.waited <= secs(5.5));
}
