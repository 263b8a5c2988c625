//! A provider that speaks like no other: one small service in front of it, and all layers understand it.
//!
//! ```text
//! cargo run --example own_dialect
//! ```
//!
//! Layers read shapes. A provider with other paths, errors and usage gets a translator as the innermost service, so what it says is said in
//! OpenAI's words before anybody reads it. What it charges is told to the budget. Needs no key and no network.
#![allow(clippy::print_stdout)]
use std::{
    convert::Infallible,
    error::Error,
    sync::atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tollgate::{
    budget::{ChargeProfile, Charging},
    prelude::*,
};
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// The provider: `/acme/generate`, answers of its own shape, 420 instead of 429, and its wait in `x-acme-wait`.
async fn acme(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    assert_eq!(request.uri().path(), "/acme/generate");
    let mut response = Response::default();
    if ASKED.fetch_add(1, Ordering::Relaxed) == 0 {
        *response.status_mut() = StatusCode::from_u16(420).expect("a status");
        let headers = response.headers_mut();
        headers.insert("x-acme-wait", "1".parse().expect("a value"));
        return Ok(response);
    }
    let answer = json!({"text": "Hello!", "engine": "acme-1", "spent": {"in": 9, "out": 2}});
    *response.body_mut() = answer.to_string().into();
    Ok(response)
}

/// The translator: another path on the way in, another document and status on the way out.
async fn translated(
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    *request.uri_mut() = Uri::from_static("https://acme.example/acme/generate");
    let (mut head, body) = acme(request).await?.into_parts();
    if head.status == 420 {
        head.status = StatusCode::TOO_MANY_REQUESTS;
        if let Some(wait) = head.headers.remove("x-acme-wait") {
            head.headers.insert("retry-after", wait);
        }
        return Ok(Response::from_parts(head, body));
    }
    let body = body.collect().await?.to_bytes();
    let Ok(said) = serde_json::from_slice::<Value>(&body) else {
        return Ok(Response::from_parts(head, body.into()));
    };
    let answer = json!({
        "object": "chat.completion",
        "model": said["engine"],
        "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": said["text"]}}],
        "usage": {"prompt_tokens": said["spent"]["in"], "completion_tokens": said["spent"]["out"]},
    });
    Ok(Response::from_parts(head, answer.to_string().into()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let usage = UsageTotals::new();
    let budget = Budget::builder()
        .limit(Limit::tokens(10_000).per_minute())
        // This provider reserves prompt and cap, and gives back what was not used.
        .charging(Charging::all(ChargeProfile::sum().settles(true)))
        .build()?;
    let client = ServiceBuilder::new()
        .record_usage(usage.clone())
        .retry_on_rate_limit(RateLimitPolicy::default())
        .token_budget(budget.clone())
        .service(service_fn(translated));

    let document =
        r#"{"model":"acme-1","max_tokens":500,"messages":[{"role":"user","content":"Say hello"}]}"#;
    let request =
        Request::post("https://acme.example/v1/chat/completions").body(document.into())?;
    let response = client.oneshot(request).await?;
    for attempt in Attempts::of(&response) {
        println!("{:?}, waited {:?}", attempt.outcome, attempt.waited);
    }
    println!("{}", response.status());
    response.into_body().collect().await?;
    println!("recorded: {:?}", usage.snapshot().models.entries);
    println!("charged: {}", budget.snapshot().limits[0].used);
    Ok(())
}
