//! The layers as a middleware: for a crate that takes a `ClientWithMiddleware` and knows nothing of tower.
//!
//! ```text
//! cargo run --example reqwest_middleware
//! ```
//!
//! The provider is the simulated one, on a socket of this machine: needs no key and no network.
#![allow(clippy::print_stdout)]
use std::{error::Error, time::Duration};

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tollgate::{
    prelude::*,
    reqwest::{Reqwest, ResponseExt, v0_13::TollgateMiddleware},
};
use tollgate_sim::{Fault, SimProvider, Unit, server::Server};
use tower::ServiceBuilder;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let limited = Fault::RateLimited {
        unit: Unit::Requests,
        retry_after: Some(Duration::from_millis(300)),
    };
    let provider = SimProvider::builder().script([limited]).build();
    let server = Server::bind("127.0.0.1:0", provider).await?;

    let layers = ServiceBuilder::new()
        .model_fallback(ModelChain::new(["gpt-5", "gpt-5-mini"])?)
        .layer(RetryOnRateLimitLayer::new(RateLimitPolicy::default()).classify(Reqwest))
        .token_budget(Budget::in_memory([Limit::tokens(1_000).per_minute()])?);
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(TollgateMiddleware::new(layers))
        .build();

    ask(&client, &server.url(), 16).await?;
    // More than the limit, for either model: nothing is sent.
    ask(&client, &server.url(), 5_000).await
}

/// Stands for somebody else's crate.
async fn ask(client: &ClientWithMiddleware, url: &str, cap: u32) -> Result<(), Box<dyn Error>> {
    let document = format!(
        r#"{{"model":"gpt-5","max_tokens":{cap},"messages":[{{"role":"user","content":"Hi"}}]}}"#
    );
    let response = client
        .post(format!("{url}/v1/chat/completions"))
        .header("content-type", "application/json")
        // A call may say more of itself than its request does.
        .with_extension(
            CallOptions::new()
                .principal("alice")
                .within(Duration::from_secs(30)),
        )
        .body(document)
        .send()
        .await?;
    println!("{} for a cap of {cap} tokens", response.status());
    for attempt in response.attempts() {
        println!("  {:?}: {:?}", attempt.model, attempt.outcome);
    }
    if let Some(refused) = response.refused() {
        println!("  refused by the budget: {:?}", refused.reason);
    }
    println!("  {} bytes", response.bytes().await?.len());
    Ok(())
}
