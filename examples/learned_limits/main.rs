//! No limit is told: the budget learns them from the provider's headers, and hardly anything is refused.
//!
//! ```text
//! cargo run --example learned_limits
//! ```
//!
//! Sixty calls at once against 20 requests in two seconds, of which the client knows nothing. Needs no key and no network; takes some
//! five seconds.
#![allow(clippy::print_stdout)]
use std::{error::Error, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tollgate::prelude::*;
use tollgate_sim::SimProvider;
use tower::{ServiceBuilder, ServiceExt};

const WINDOW: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let provider = SimProvider::builder()
        .requests(20)
        .window(WINDOW)
        .latency(Duration::from_millis(100))
        .build();
    // `Budget::learned()` is this with a period of a minute: headers seldom say of what period a limit is.
    let budget = Budget::builder().learn(true).learn_period(WINDOW).build()?;
    let client = ServiceBuilder::new()
        .retry_on_rate_limit(RateLimitPolicy::default())
        .token_budget(budget.clone())
        .service(provider.clone());
    show(&budget, "before the first answer");

    let start = Instant::now();
    let calls = (0..60).map(|number| {
        let (client, budget) = (client.clone(), &budget);
        async move {
            let response = client.oneshot(ask()?).await?;
            let at = start.elapsed().as_secs_f64();
            if number % 10 == 0 {
                println!("{at:4.1} s  call {number}: {}", response.status());
            }
            if number == 20 {
                show(budget, "once more is known");
            }
            response.into_body().collect().await?;
            Ok::<_, Box<dyn Error>>(())
        }
    });
    try_join_all(calls).await?;

    let totals = provider.totals();
    println!(
        "{} served, {} refused by the provider, {:.1} s",
        totals.admitted,
        totals.status_429,
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn show(budget: &Budget, when: &str) {
    let snapshot = budget.snapshot();
    println!(
        "{when}: {} in flight, {} wait",
        snapshot.in_flight, snapshot.queued
    );
    for limit in snapshot.limits {
        let model = limit.key.as_deref().unwrap_or("all models");
        println!(
            "  learned: {} {:?} in {:?} for {model}",
            limit.limit, limit.unit, limit.period
        );
    }
}

fn ask() -> Result<Request<Full<Bytes>>, http::Error> {
    let document =
        r#"{"model":"gpt-5","max_tokens":8,"messages":[{"role":"user","content":"Hi"}]}"#;
    Request::post("https://api.example/v1/chat/completions").body(document.into())
}
