//! The layers around a `reqwest::Client`: a limited call that waits, and a stream.
//!
//! ```text
//! cargo run --example reqwest
//! ```
//!
//! The provider is the simulated one, on a socket of this machine: needs no key and no network.
#![allow(clippy::print_stdout)]
use std::{error::Error, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use reqwest::Body;
use tollgate::{
    prelude::*,
    reqwest::{Reqwest, v0_13::HttpService},
};
use tollgate_sim::{Fault, SimProvider, Unit, server::Server};
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let limited = Fault::RateLimited {
        unit: Unit::Requests,
        retry_after: Some(Duration::from_millis(300)),
    };
    let provider = SimProvider::builder()
        .pace(Duration::from_millis(50))
        .reply_tokens(8)
        .script([limited])
        .build();
    let server = Server::bind("127.0.0.1:0", provider).await?;

    let usage = UsageTotals::new();
    let client = ServiceBuilder::new()
        .record_usage(usage.clone())
        .layer(RetryOnRateLimitLayer::new(RateLimitPolicy::default()).classify(Reqwest))
        .token_budget(Budget::in_memory([Limit::requests(500).per_minute()])?)
        // Timeouts, proxies and certificates are reqwest's business.
        .service(HttpService::new(reqwest::Client::new()));

    for stream in [false, true] {
        let document = format!(
            r#"{{"model":"gpt-5","stream":{stream},"max_tokens":16,"messages":[{{"role":"user","content":"Hi"}}]}}"#
        );
        let request = Request::post(format!("{}/v1/chat/completions", server.url()))
            .header("content-type", "application/json")
            .body(Body::from(document))?;
        let response = client.clone().oneshot(request).await?;
        println!("{}, stream: {stream}", response.status());
        for attempt in Attempts::of(&response) {
            println!("  attempt: {:?}", attempt.outcome);
        }
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                println!("  {} bytes", data.len());
            }
        }
    }
    println!("{} tokens in all", usage.snapshot().all.total);
    Ok(())
}
