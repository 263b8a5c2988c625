//! The layers around an axum router, as a gateway has them. X05.
use axum::{Router, body::Body, routing::post};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tollgate::{call::Attempts, prelude::*};
use tollgate_sim::script::{Reply, Scripted};
use tollgate_tests::{Layers, chat, send};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_http::timeout::TimeoutLayer;

fn router(provider: Scripted, layers: &Layers) -> Router {
    let upstream = ServiceBuilder::new()
        .record_usage(layers.usage.clone())
        .model_fallback(layers.chain.clone())
        .retry_on_rate_limit(layers.policy.clone())
        .token_budget(layers.budget.clone())
        .service(provider);
    Router::new().route(
        "/v1/{*rest}",
        post(move |request: Request<Body>| {
            let upstream = upstream.clone();
            async move {
                // A gateway buffers first, so that the request can be sent again.
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let request = Request::from_parts(parts, Body::from(body));
                let response = upstream.oneshot(request).await.expect("an answer");
                let attempts = Attempts::of(&response).len();
                let mut response = response.map(Body::new);
                response.headers_mut().insert("x-attempts", attempts.into());
                response
            }
        }),
    )
}

async fn ask(router: &mut Router) -> Response<Body> {
    let request = Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Body::from(r#"{"model":"model-a","messages":[]}"#))
        .expect("a request");
    router
        .as_service()
        .ready()
        .await
        .expect("ready")
        .call(request)
        .await
        .expect("an answer")
}

#[tokio::test(start_paused = true)]
async fn a_gateway_retries_records_and_answers() {
    let layers = Layers::new();
    let provider = Scripted::new([Reply::rate_limited(1), Reply::chat("model-a", 9, 2)]);
    let mut router = router(provider, &layers);
    let response = ask(&mut router).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-attempts"], "2");
    let body: Bytes = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    assert!(body.starts_with(b"{"));
    assert_eq!(layers.usage.snapshot().all.input, 9);
}

#[tokio::test(start_paused = true)]
async fn the_layers_stand_on_a_router_as_server_middleware() {
    let layers = Layers::new();
    let mut router = Router::new()
        .route(
            "/v1/chat/completions",
            post(|| async { r#"{"model":"m","usage":{"prompt_tokens":4,"completion_tokens":1}}"# }),
        )
        .layer(TokenBudgetLayer::new(layers.budget.clone()))
        .layer(UsageRecorderLayer::new(layers.usage.clone()));
    let response = ask(&mut router).await;
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("a body");
    assert_eq!(
        layers.budget.snapshot().limits[0].used,
        1,
        "the request was admitted"
    );
    assert_eq!(layers.usage.snapshot().all.calls, 1);
}

// R13
#[tokio::test(start_paused = true)]
async fn a_timeout_of_tower_http_inside_the_retry_is_tried_again() {
    let layers = Layers::new();
    let provider = Scripted::new([Reply::pending(), Reply::chat("model-a", 9, 2)]);
    let client = ServiceBuilder::new()
        .retry_on_rate_limit(layers.policy.clone())
        .map_response(|response: Response<Body>| response)
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            Duration::from_secs(5),
        ))
        .map_response(|response: Response<tollgate_sim::SimBody>| response.map(Body::new))
        .service(provider.clone());
    let (head, body) = send(client, chat("model-a")).await;
    assert_eq!(head.status(), 200);
    assert!(body.is_some(), "whole");
    assert_eq!(provider.count(), 2, "the one that hung, and another");
}
