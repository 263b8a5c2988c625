//! Two providers and one chain: what callers see of an outage.
//!
//! ```text
//! cargo run --example failover
//! ```
//!
//! `large` at the first provider is down between the first second and the fourth; `medium` at the second one has another
//! key and another path. One line a call: who served it, and what was tried. Needs no key and no network.
#![allow(clippy::print_stdout)]
use std::{
    error::Error,
    sync::{Arc, RwLock},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tollgate::{
    fallback::{Candidate, Credential, FallbackHealth, FallbackPolicy, Target},
    prelude::*,
    timeouts::Timeouts,
};
use tollgate_sim::{Fault, SimClassify, SimProvider};
use tower::{ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let first = SimProvider::builder()
        .latency(SECOND / 20)
        .on(move |_| match start.elapsed().as_secs() {
            1..4 => Fault::Status(503),
            _ => Fault::None,
        })
        .build();
    let second = SimProvider::builder()
        .latency(SECOND / 10)
        .api_key("key of the second")
        .build();

    // Stands for an HTTP client: the request goes where its URI says.
    let (one, two) = (first.clone(), second.clone());
    let client = service_fn(move |request: Request<Full<Bytes>>| {
        match request.uri().host() {
            Some("second.example") => two.clone(),
            _ => one.clone(),
        }
        .oneshot(request)
    });

    // A task that renews the key would write here; every request asks.
    let key = Arc::new(RwLock::new(Credential::bearer("key of the second")?));
    let chain = ModelChain::new([
        Candidate::model("large").context_window(128_000),
        Target::new("second", "https://second.example/openai/v1")?
            .credential(move || key.read().expect("no writer panics").clone())
            .model("medium")
            .into(),
    ])?;
    let policy = FallbackPolicy::default().timeouts(Timeouts::new().first_byte(10 * SECOND));
    let health = FallbackHealth::new().cool_down(SECOND, 4 * SECOND);
    let service = ServiceBuilder::new()
        .layer(
            ModelFallbackLayer::new(chain)
                .policy(policy)
                .health(health.clone())
                .classify(SimClassify),
        )
        .retry_on_rate_limit(RateLimitPolicy::default().backoff(|_| SECOND / 10))
        .service(client);

    for _ in 0..12 {
        let answer = service.clone().oneshot(ask()?).await?;
        println!("{:4.1} s  {}", start.elapsed().as_secs_f64(), line(&answer));
        answer.into_body().collect().await?;
        sleep(SECOND / 2).await;
    }
    let (one, two) = (first.totals(), second.totals());
    println!(
        "requests: {} at the first provider, {} at the second; billed: {} and {} tokens",
        one.requests, two.requests, one.billed_output, two.billed_output
    );
    println!("left alone now: {:?}", health.snapshot().targets);
    Ok(())
}

fn ask() -> Result<Request<Full<Bytes>>, http::Error> {
    let document =
        r#"{"model":"large","max_tokens":16,"messages":[{"role":"user","content":"Say hello"}]}"#;
    Request::post("https://first.example/v1/chat/completions")
        .header("authorization", "Bearer key of the first")
        .body(document.into())
}

/// Who served, and what was tried.
fn line<B>(answer: &Response<B>) -> String {
    let served = ServedBy::of(answer).and_then(|served| served.model.clone());
    let tried = Attempts::of(answer).into_iter().map(|attempt| {
        let model = attempt.model.as_deref().unwrap_or("?").to_owned();
        match (attempt.status, attempt.skipped) {
            (_, Some(why)) => format!("{model} {why:?}"),
            (Some(status), _) => format!("{model} {}", status.as_u16()),
            (None, None) => format!("{model} unreached"),
        }
    });
    let tried: Vec<_> = tried.collect();
    format!(
        "{:<7} ← {}",
        served.as_deref().unwrap_or("nobody"),
        tried.join(", ")
    )
}
