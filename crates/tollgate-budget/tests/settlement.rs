//! What becomes of the units, on every way out.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use serde_json::json;
use support::{chat, limits, post, stack};
use tokio::time::{Instant, sleep};
use tollgate_budget::{
    Budget, BudgetStore, ChargeProfile, Cost, DropPolicy, Enforcement, Limit, TokenBudgetLayer,
};
use tollgate_core::{
    body::Tap,
    call::Attempts,
    classify::{By, Fault},
    extensions::{Reason, Refused},
    wire::prompt::Endpoint,
};
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tower::{Layer, ServiceExt, service_fn};

fn settling() -> Budget {
    Budget::builder()
        .limit(Limit::requests(100).per_minute())
        .limit(Limit::tokens(2000).per_minute())
        .charging(ChargeProfile::sum().settles(true))
        .build()
        .unwrap()
}

fn plain() -> Budget {
    limits([
        Limit::requests(100).per_minute(),
        Limit::tokens(2000).per_minute(),
    ])
}

/// (requests used, tokens used, tokens reserved).
fn used(budget: &Budget) -> (u64, u64, u64) {
    let seen = budget.snapshot();
    (
        seen.limits[0].used,
        seen.limits[1].used,
        seen.limits[1].reserved,
    )
}

/// A request that is charged 1,000 tokens.
fn thousand() -> Request<Full<Bytes>> {
    chat(400, 900)
}

// T06
#[tokio::test(start_paused = true)]
async fn where_the_provider_settles_what_was_not_used_is_given_back_once() {
    let budget = settling();
    let upstream = Scripted::new([Reply::chat("m", 150, 50)]);
    let response = stack(&budget, &upstream).oneshot(thousand()).await.unwrap();
    assert_eq!(used(&budget), (1, 1000, 1000), "until the body has ended");
    response.into_body().collect().await.unwrap();
    assert_eq!(used(&budget), (1, 200, 0));
}

#[tokio::test(start_paused = true)]
async fn where_the_provider_does_not_settle_nothing_is_given_back() {
    let budget = plain();
    let upstream = Scripted::new([Reply::chat("m", 150, 50)]);
    let response = stack(&budget, &upstream).oneshot(thousand()).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(used(&budget), (1, 1000, 0));
}

// T07
#[tokio::test(start_paused = true)]
async fn what_was_used_beyond_the_reservation_is_charged_and_the_next_waits() {
    for enforcement in [Enforcement::Auto, Enforcement::Bucket { burst: None }] {
        let budget = Budget::builder()
            .limit(Limit::tokens(500).per(support::W).enforcement(enforcement))
            .charging(ChargeProfile::sum().settles(true))
            .build()
            .unwrap();
        let upstream = Scripted::new([Reply::chat("m", 900, 100)]);
        let service = stack(&budget, &upstream);
        let response = service.clone().oneshot(chat(400, 100)).await.unwrap();
        response.into_body().collect().await.unwrap();
        let seen = budget.snapshot();
        assert_eq!(
            (seen.limits[0].used, seen.limits[0].debt),
            (1000, 500),
            "{enforcement:?}"
        );
        let begun = Instant::now();
        service.oneshot(chat(400, 100)).await.unwrap();
        assert!(
            begun.elapsed() >= support::W,
            "{enforcement:?}: {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_settles_with_its_usage() {
    let budget = settling();
    let upstream = Scripted::new([Reply::sse([
        r#"{"id":"1","model":"m","choices":[{"index":0,"delta":{"content":"Hi"}}]}"#,
        r#"{"id":"1","model":"m","choices":[],"usage":{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42}}"#,
        "[DONE]",
    ])]);
    let document = json!({"model": "m", "stream": true, "max_tokens": 900, "messages": []});
    let response = stack(&budget, &upstream)
        .oneshot(post("/v1/chat/completions", document))
        .await
        .unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(used(&budget), (1, 42, 0));
}

#[tokio::test(start_paused = true)]
async fn an_anthropic_answer_settles_to_uncached_input_and_real_output() {
    let budget = limits([
        Limit::input_tokens(2000).per_minute(),
        Limit::output_tokens(2000).per_minute(),
    ]);
    let answer = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Hello."}],
        "usage": {"input_tokens": 20, "cache_read_input_tokens": 300, "cache_creation_input_tokens": 5, "output_tokens": 7},
    });
    let document = json!({"model": "claude", "max_tokens": 1000,
        "messages": [{"role": "user", "content": "x".repeat(400)}]});
    let response = stack(&budget, &Scripted::new([Reply::ok_json(answer)]))
        .oneshot(post("/v1/messages", document))
        .await
        .unwrap();
    let seen = budget.snapshot();
    assert_eq!((seen.limits[0].used, seen.limits[1].used), (100, 1000));
    response.into_body().collect().await.unwrap();
    let seen = budget.snapshot();
    assert_eq!((seen.limits[0].used, seen.limits[1].used), (25, 7));
}

// T08
#[tokio::test(start_paused = true)]
async fn dropped_before_it_was_sent_it_costs_nothing() {
    let budget = plain();
    let reservation = budget
        .acquire(tollgate_budget::Ask::new(Cost::request().tokens(5, 5)))
        .await;
    assert_eq!(used(&budget), (1, 10, 10));
    drop(reservation);
    assert_eq!(used(&budget), (0, 0, 0));

    // The inner service is never ready.
    let never = tower::limit::ConcurrencyLimit::new(
        service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, SimError>(Response::new(Full::<Bytes>::default()))
        }),
        0,
    );
    let call = stack(&budget, &never).oneshot(thousand());
    let _ = tokio::time::timeout(Duration::from_millis(1), call).await;
    assert_eq!(used(&budget), (0, 0, 0));
}

// T09
#[tokio::test(start_paused = true)]
async fn dropped_after_the_headers_it_keeps_the_reservation_or_what_was_received_never_nothing() {
    let text = "y".repeat(80);
    let event =
        json!({"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]});
    let stream = || Reply::sse([event.to_string()]).stalls();
    for (policy, left) in [(DropPolicy::Keep, 1000), (DropPolicy::Received, 100 + 20)] {
        let budget = Budget::builder()
            .limit(Limit::requests(100).per_minute())
            .limit(Limit::tokens(2000).per_minute())
            .charging(ChargeProfile::sum().settles(true))
            .on_drop(policy)
            .build()
            .unwrap();
        let document = json!({"model": "m", "stream": true, "max_tokens": 900,
            "messages": [{"role": "user", "content": "x".repeat(400)}]});
        let response = stack(&budget, &Scripted::new([stream()]))
            .oneshot(post("/v1/chat/completions", document))
            .await
            .unwrap();
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(used(&budget), (1, left, 0), "{policy:?}");
    }
}

// T09
#[tokio::test(start_paused = true)]
async fn dropped_while_the_answer_is_awaited_it_keeps_the_reservation() {
    let budget = plain();
    let call = stack(&budget, &Scripted::new([Reply::pending()])).oneshot(thousand());
    let _ = tokio::time::timeout(Duration::from_secs(1), call).await;
    assert_eq!(used(&budget), (1, 1000, 0));
}

// T10 L06
#[tokio::test(start_paused = true)]
async fn what_the_provider_did_not_serve_gives_its_tokens_back_and_counts_as_a_request() {
    for status in [400, 401, 404, 429, 500, 503, 529] {
        let budget = plain();
        let upstream =
            Scripted::new([Reply::status(status).json(json!({"error": {"message": "no"}}))]);
        let response = stack(&budget, &upstream).oneshot(thousand()).await.unwrap();
        assert_eq!(response.status(), status);
        assert!(Refused::of(&response).is_none(), "theirs, not ours");
        assert_eq!(used(&budget), (1, 0, 0), "{status}");
    }
}

// T12
#[tokio::test(start_paused = true)]
async fn what_was_refused_inside_before_it_was_sent_costs_nothing() {
    // By a budget further in, say for concurrency.
    let budget = plain();
    let refusing = service_fn(|_: Request<Full<Bytes>>| async {
        let refused = Refused::new(Reason::QueueFull).retry_after(Duration::from_secs(1));
        Ok::<_, SimError>(refused.into_response(Endpoint::ChatCompletions, Full::from))
    });
    let response = stack(&budget, &refusing).oneshot(thousand()).await.unwrap();
    assert_eq!(Refused::of(&response).unwrap().reason, Reason::QueueFull);
    assert_eq!(used(&budget), (0, 0, 0));

    // By an error that says that nothing was sent.
    let layer =
        TokenBudgetLayer::new(budget.clone()).classify(By(|error: &SimError| match error {
            SimError::Refused => Fault::NotSent,
            _ => Fault::MaybeSent,
        }));
    let upstream = Scripted::new([
        Reply::transport_error(SimError::Refused),
        Reply::transport_error(SimError::Reset),
    ]);
    let service = layer.layer(upstream);
    assert!(service.clone().oneshot(thousand()).await.is_err());
    assert_eq!(used(&budget), (0, 0, 0));
    assert!(service.oneshot(thousand()).await.is_err());
    assert_eq!(used(&budget), (1, 1000, 0), "it may have been received");
}

// T16
#[tokio::test(start_paused = true)]
async fn a_panic_inside_leaves_nothing_reserved() {
    let budget = plain();
    let call = stack(&budget, &Scripted::new([Reply::panics()])).oneshot(thousand());
    assert!(tokio::spawn(call).await.unwrap_err().is_panic());
    let seen = budget.snapshot();
    assert_eq!((seen.in_flight, seen.queued), (0, 0));
    assert_eq!(used(&budget).2, 0);
    assert_eq!(used(&budget).1, 1000, "it may have been sent");
}

#[tokio::test(start_paused = true)]
async fn each_of_the_five_ends_settles_exactly_once() {
    let answer = Reply::chat("m", 150, 50);
    let trailers = HeaderMap::from_iter([("x-end".parse().unwrap(), "1".parse().unwrap())]);
    let whole = json!({"model": "m", "choices": [], "usage": {"prompt_tokens": 150, "completion_tokens": 50}}).to_string();
    let cases = [
        ("end", answer.clone(), 200),
        ("frames", answer.clone().rechunk(7), 200),
        ("trailers", answer.trailers(trailers), 200),
        ("error", Reply::body_breaks_after(whole), 1000),
    ];
    for (end, reply, left) in cases {
        let budget = settling();
        let response = stack(&budget, &Scripted::new([reply]))
            .oneshot(thousand())
            .await
            .unwrap();
        let mut body = response.into_body();
        while !body.is_end_stream() {
            match body.frame().await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            }
        }
        assert_eq!(used(&budget), (1, left, 0), "{end}");
        drop(body);
        assert_eq!(used(&budget), (1, left, 0), "{end}, dropped after it");
        assert_eq!(budget.snapshot().in_flight, 0, "{end}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_after_its_last_event_is_complete() {
    let budget = settling();
    let upstream = Scripted::new([Reply::sse([
        r#"{"model":"m","choices":[],"usage":{"prompt_tokens":30,"completion_tokens":12}}"#,
        "[DONE]",
    ])
    .stalls()]);
    let document = json!({"model": "m", "stream": true, "max_tokens": 900, "messages": []});
    let response = stack(&budget, &upstream)
        .oneshot(post("/v1/chat/completions", document))
        .await
        .unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(used(&budget), (1, 42, 0));
}

#[tokio::test(start_paused = true)]
async fn an_error_inside_a_200_is_charged_as_the_refusal_that_it_is() {
    let budget = plain();
    let error = r#"{"error":{"message":"Rate limit reached","type":"tokens","code":"rate_limit_exceeded"}}"#;
    let reply =
        Reply::stream([format!("event: error\ndata: {error}\n\n")]).header("retry-after", "7");
    let document = json!({"model": "m", "stream": true, "max_tokens": 900, "messages": []});
    let response = stack(&budget, &Scripted::new([reply]))
        .oneshot(post("/v1/chat/completions", document))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    assert_eq!(used(&budget), (1, 0, 0));
    assert_eq!(budget.snapshot().gated, Some(Duration::from_secs(7)));
}

#[tokio::test(start_paused = true)]
async fn a_tap_of_a_layer_further_in_is_used_and_not_made_again() {
    let budget = settling();
    let upstream = Scripted::new([Reply::chat("m", 150, 50)]);
    let layer = TokenBudgetLayer::new(budget.clone());
    // Two budgets: the inner one taps, the outer one pulls.
    let outer = settling();
    let service = TokenBudgetLayer::new(outer.clone()).layer(layer.layer(upstream));
    let response = service.oneshot(thousand()).await.unwrap();
    assert!(Tap::of(&response).is_some());
    assert_eq!(
        Attempts::of(&response).len(),
        1,
        "one attempt, seen by both"
    );
    response.into_body().collect().await.unwrap();
    assert_eq!(used(&budget), (1, 200, 0));
    assert_eq!(used(&outer), (1, 200, 0));
}

// T13
#[tokio::test(start_paused = true)]
async fn a_refund_that_comes_after_the_window_has_rolled_credits_nothing() {
    for enforcement in [Enforcement::Rolling, Enforcement::Fixed] {
        let budget = Budget::builder()
            .limit(Limit::tokens(2000).per(support::W).enforcement(enforcement))
            .charging(ChargeProfile::sum().settles(true))
            .build()
            .unwrap();
        let slow = Reply::chat("m", 10, 10).wait(Duration::from_secs(1));
        let upstream = Scripted::new([slow, Reply::pending()]);
        let service = stack(&budget, &upstream);
        let first = service.clone().oneshot(thousand()).await.unwrap();
        sleep(3 * support::W).await;
        let second = tokio::spawn(service.oneshot(thousand()));
        sleep(Duration::from_millis(1)).await;
        first.into_body().collect().await.unwrap();
        assert_eq!(budget.snapshot().limits[0].used, 1000, "{enforcement:?}");
        second.abort();
    }
}
