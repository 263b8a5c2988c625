//! What the tests of this crate share: requests, a stack over the simulated provider, a job of many calls.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its part

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tollgate_budget::{Budget, Limit, TokenBudget, TokenBudgetLayer};
use tollgate_sim::{Account, SimProvider};
use tower::{Layer, Service, ServiceExt};

/// A chat request whose prompt has so many characters.
pub fn chat(chars: usize, cap: impl Into<Option<u64>>) -> Request<Full<Bytes>> {
    let mut document = serde_json::json!({
        "model": "gpt-test",
        "messages": [{"role": "user", "content": "x".repeat(chars)}],
    });
    if let Some(cap) = cap.into() {
        document["max_tokens"] = cap.into();
    }
    post("/v1/chat/completions", document)
}

pub fn post(path: &str, document: serde_json::Value) -> Request<Full<Bytes>> {
    Request::post(format!("http://provider.test{path}"))
        .header("content-type", "application/json")
        .body(Full::from(document.to_string()))
        .unwrap()
}

/// Two thousand chat calls: prompts of 120 tokens in the middle, caps of 64 to 1,024.
pub fn calls(seed: u64, count: usize) -> Vec<(usize, u64)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..count)
        .map(|_| {
            let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
            let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
            let tokens = (120.0 * (0.6 * normal).exp()).clamp(1.0, 4000.0);
            ((tokens * 4.0) as usize, rng.u64(64..=704))
        })
        .collect()
}

/// Sends all calls, so many at a time, each up to eight times, and counts those without a 200.
pub async fn run(
    provider: &SimProvider,
    budget: &Budget,
    calls: Vec<(usize, u64)>,
    concurrency: usize,
) -> (Account, usize) {
    let service = TokenBudgetLayer::new(budget.clone()).layer(provider.clone());
    let failed = stream::iter(calls)
        .map(|(chars, cap)| {
            let service = service.clone();
            // A task for each, as a caller would have.
            tokio::spawn(async move {
                for _ in 0..8 {
                    let request = match cap {
                        0 => embedding(chars),
                        _ => chat(chars, cap),
                    };
                    let response = service.clone().oneshot(request).await.unwrap();
                    let status = response.status();
                    let _ = response.into_body().collect().await;
                    if status == StatusCode::OK {
                        return 0;
                    }
                }
                1
            })
        })
        .buffer_unordered(concurrency)
        .fold(0, |sum, failed| async move { sum + failed.unwrap() })
        .await;
    (provider.account(), failed)
}

/// An embedding of one text.
pub fn embedding(chars: usize) -> Request<Full<Bytes>> {
    let document = serde_json::json!({"model": "embed-test", "input": "x".repeat(chars)});
    post("/v1/embeddings", document)
}

pub const W: Duration = Duration::from_secs(6);

/// A budget of these limits.
pub fn limits(limits: impl IntoIterator<Item = Limit>) -> Budget {
    Budget::in_memory(limits).unwrap()
}

/// A budget over a service.
pub fn stack<S: Clone>(budget: &Budget, service: &S) -> TokenBudget<S> {
    TokenBudgetLayer::new(budget.clone()).layer(service.clone())
}

/// Calls so often at once, each in a task of its own, and reads all answers to their end.
pub async fn at_once<S, B>(
    service: S,
    count: usize,
    request: impl Fn() -> Request<Full<Bytes>>,
) -> Vec<StatusCode>
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: std::fmt::Debug + Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    let calls: Vec<_> = (0..count)
        .map(|_| {
            let call = service.clone().oneshot(request());
            tokio::spawn(async move {
                let response = call.await.unwrap();
                let status = response.status();
                let _ = response.into_body().collect().await;
                status
            })
        })
        .collect();
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.unwrap());
    }
    statuses
}
