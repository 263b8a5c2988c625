//! Recorders in a stack of all layers, and on a socket.
use std::sync::{Arc, Mutex};

use axum::{Router, routing::post};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tollgate::{
    RateLimitPolicy,
    prelude::*,
    price::{Cost, Price, PriceTable},
    usage::RecordKind,
    wire::outcome::Outcome,
};
use tollgate_sim::script::{Reply, Scripted};
use tollgate_tests::{Layers, chat_with, send};
use tower::{ServiceBuilder, ServiceExt};

const CONTENT: &str = r#"{"model":"model-b-2025-01-01","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"model":"model-b-2025-01-01","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#;

fn stream() -> String {
    format!("data: {CONTENT}\n\ndata: {USAGE}\n\ndata: [DONE]\n\n")
}

fn stream_without_usage() -> String {
    format!("data: {CONTENT}\n\ndata: [DONE]\n\n")
}

/// Records that are kept, and a layer that prices and keeps them.
fn recorder(totals: &UsageTotals) -> (Arc<Mutex<Vec<tollgate::UsageRecord>>>, UsageRecorderLayer) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&kept);
    let prices = PriceTable::new()
        .with(
            "model-a",
            Price::per_million("100", "100").expect("a price"),
        )
        .with("model-b", Price::per_million("1", "2").expect("a price"));
    let layer = UsageRecorderLayer::new(totals.clone())
        .and(move |record: &tollgate::UsageRecord| {
            sink.lock().expect("a lock").push(record.clone());
        })
        .prices(prices);
    (kept, layer)
}

// U12
#[tokio::test(start_paused = true)]
async fn two_attempts_and_a_fallback_are_one_call_and_one_record_each() {
    let layers = Layers::new();
    let (calls, outer) = recorder(&layers.usage);
    let (attempts, inner) = recorder(&layers.usage);
    let provider = Scripted::by(|attempt| match attempt.model().as_deref() {
        Some("model-a") => Reply::status(503),
        _ => Reply::stream([stream()]).rechunk(20),
    });
    let stack = ServiceBuilder::new()
        .layer(outer)
        .model_fallback(layers.chain.clone())
        .retry_on_rate_limit(
            RateLimitPolicy::default()
                .attempts(2)
                .without_retry_budget(),
        )
        .token_budget(layers.budget.clone())
        .layer(inner)
        .service(provider.clone());
    let request = chat_with("model-a", r#","stream":true,"max_tokens":16"#);
    let (head, body) = send(stack, request).await;

    assert_eq!(head.status(), 200);
    assert_eq!(
        body.expect("whole"),
        stream_without_usage(),
        "through all layers"
    );
    assert_eq!(
        provider.count(),
        3,
        "two for the first model, one for the next"
    );
    for attempt in provider.attempts() {
        let length = attempt.body.len().to_string();
        assert_eq!(attempt.header("content-length"), Some(&*length), "X09");
        assert_eq!(attempt.json()["stream_options"]["include_usage"], true);
    }

    let calls = calls.lock().expect("a lock");
    let attempts = attempts.lock().expect("a lock");
    assert_eq!(calls.len(), 1);
    let call = &calls[0];
    assert_eq!(
        (call.kind, call.attempt),
        (RecordKind::Call, provider.count() as u32)
    );
    assert_eq!(call.failed_attempts.len(), provider.count() - 1);
    assert!(
        call.failed_attempts
            .iter()
            .all(|failed| failed.model.as_deref() == Some("model-a"))
    );
    assert_eq!(call.model_asked.as_deref(), Some("model-a"));
    assert_eq!(call.model_served.as_deref(), Some("model-b-2025-01-01"));
    assert_eq!(
        call.cost,
        Cost::Exact("0.000013".parse().expect("a price")),
        "model-b's price"
    );

    assert_eq!(attempts.len(), provider.count());
    for (number, attempt) in (1..).zip(&*attempts) {
        assert_eq!(
            (attempt.kind, attempt.attempt),
            (RecordKind::Attempt, number)
        );
        assert_eq!((attempt.call, attempt.nested), (call.call, true));
    }
    let (last, failed) = attempts.split_last().expect("attempts");
    assert_eq!((last.cost, &last.usage), (call.cost, &call.usage));
    for failed in failed {
        assert_ne!(failed.outcome, Some(Outcome::Ok));
        assert_eq!(
            failed.cost,
            Cost::Exact("0".parse().expect("a price")),
            "not billed"
        );
    }
    let totals = layers.usage.snapshot().all;
    assert_eq!(
        (totals.calls, totals.input, totals.output),
        (1, 9, 2),
        "one total"
    );
}

// X10
#[tokio::test]
async fn a_shortened_answer_has_the_right_framing_on_a_socket() {
    let totals = UsageTotals::new();
    let router = Router::new()
        .route(
            "/v1/chat/completions",
            // Of known length, which would be the answer's content-length.
            post(|| async { ([(header::CONTENT_TYPE, "text/event-stream")], stream()) }),
        )
        .layer(UsageRecorderLayer::new(totals.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a socket");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for more in ["", r#","stream_options":{"include_usage":true}"#] {
        let body = format!(r#"{{"model":"model-b","stream":true,"messages":[]{more}}}"#);
        let request = Request::post(format!("{url}/v1/chat/completions"))
            .body(body.into())
            .expect("a request");
        let response = client.request(request).await.expect("an answer");
        let expected = if more.is_empty() {
            stream_without_usage()
        } else {
            stream()
        };
        assert_eq!(
            response.headers().contains_key(header::CONTENT_LENGTH),
            !more.is_empty()
        );
        let body = response
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes();
        assert_eq!(body, expected);
    }
    server.abort();
    assert_eq!(totals.snapshot().all.output, 4);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_a_stack_of_all_layers_is_recorded_once() {
    for frames in 0..6 {
        let layers = Layers::new();
        let (calls, outer) = recorder(&layers.usage);
        let stack = ServiceBuilder::new()
            .layer(outer)
            .model_fallback(layers.chain.clone())
            .retry_on_rate_limit(layers.policy.clone())
            .token_budget(layers.budget.clone())
            .service(Scripted::new([Reply::stream([stream()]).rechunk(40)]));
        let request = chat_with("model-a", r#","stream":true,"max_tokens":16"#);
        let mut body = stack.oneshot(request).await.expect("an answer").into_body();
        for _ in 0..frames {
            body.frame().await;
        }
        drop(body);
        assert_eq!(
            calls.lock().expect("a lock").len(),
            1,
            "after {frames} frames"
        );
    }
}
