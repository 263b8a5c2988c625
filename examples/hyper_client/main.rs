//! hyper-util's client with all four layers: eight calls where five are allowed in two seconds.
//!
//! ```text
//! cargo run --example hyper_client
//! ```
//!
//! The budget is told six, more than the truth; the provider's headers put it right before a call is refused. The provider is the
//! simulated one, on a socket of this machine: needs no key and no network.
#![allow(clippy::print_stdout)]
use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::Instant;
use tollgate::{classify::HyperUtil, prelude::*};
use tollgate_sim::{SimProvider, server::Server};
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let window = Duration::from_secs(2);
    let provider = SimProvider::builder().requests(5).window(window).build();
    let server = Server::bind("127.0.0.1:0", provider).await?;

    // The handles: made first, cheap to clone, to be asked at any time.
    let budget = Budget::in_memory([Limit::requests(6).per(window)])?;
    let usage = UsageTotals::new();
    let client = ServiceBuilder::new()
        .record_usage(usage.clone())
        .model_fallback(ModelChain::new(["gpt-5", "gpt-5-mini"])?)
        // What was never sent is told from what may have been.
        .layer(RetryOnRateLimitLayer::new(RateLimitPolicy::default()).classify(HyperUtil))
        .token_budget(budget.clone())
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    let start = Instant::now();
    for number in 1..=8 {
        let request = Request::post(format!("{}/v1/chat/completions", server.url()))
            .header("content-type", "application/json")
            .body(
                r#"{"model":"gpt-5","max_tokens":16,"messages":[{"role":"user","content":"Hi"}]}"#
                    .into(),
            )?;
        let response = client.clone().oneshot(request).await?;
        println!(
            "{:5} ms  call {number}: {} after {} attempts",
            start.elapsed().as_millis(),
            response.status(),
            Attempts::of(&response).len()
        );
        response.into_body().collect().await?;
    }
    let used = usage.snapshot().all;
    println!("{} calls, {} tokens", used.calls, used.total);
    println!("{:?}", budget.snapshot().limits);
    Ok(())
}
