//! A cap for each user, a share for each tenant, and the bill: what a service that resells a model must have.
//!
//! ```text
//! cargo run --example per_user_caps
//! ```
//!
//! Users are named by the caller and kept as digests. A user who has used up the day is refused at once and told when to come
//! back; others go on. Needs no key and no network.
#![allow(clippy::print_stdout)]
use std::error::Error;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tollgate::{budget::Scope, prelude::*, principal::Principal};
use tollgate_sim::SimProvider;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let budget = Budget::in_memory([
        // The provider's.
        Limit::tokens(200_000).per_minute(),
        // Ours. A cap is a count until midnight; what is reserved of it is the most that a request can use.
        Limit::tokens(250)
            .per_calendar_day("Europe/Berlin")
            .scope(Scope::Principal)
            .named("a user's day")
            .refuse(),
        Limit::requests(5)
            .per_minute()
            .scope(Scope::Tenant)
            .named("a tenant's minute")
            .refuse(),
    ])?;
    let usage = UsageTotals::new();
    let client = ServiceBuilder::new()
        .record_usage(usage.clone())
        .token_budget(budget.clone())
        .service(SimProvider::builder().reply_tokens(40).build());

    for (user, tenant) in [
        ("ann", "acme"),
        ("ann", "acme"),
        ("ann", "acme"),
        ("ann", "acme"),
        ("ben", "acme"),
        ("ben", "acme"),
        ("ben", "acme"),
        ("cleo", "duck"),
    ] {
        let document = r#"{"model":"gpt-5","max_tokens":150,"messages":[{"role":"user","content":"Say hello"}]}"#;
        let mut request =
            Request::post("https://api.example/v1/chat/completions")
                .body(Full::<Bytes>::from(document))?;
        let options = CallOptions::new().principal(user).tenant(tenant);
        request.extensions_mut().insert(options);
        let response = client.clone().oneshot(request).await?;
        match Refused::of(&response) {
            None => println!("{user:5} served"),
            Some(refused) => println!(
                "{user:5} refused by {:?} ({}), come back in {:?}",
                refused.limit.as_deref().unwrap_or_default(),
                refused.reason.code(),
                refused.retry_after.unwrap_or_default(),
            ),
        }
        // The cap is settled to the real usage when the answer has ended.
        response.into_body().collect().await?;
    }

    println!();
    for limit in budget.snapshot().limits {
        let key = limit.key.as_deref().unwrap_or("all");
        println!(
            "{:18} {key:16} {:3} of {}",
            limit.name, limit.used, limit.limit
        );
    }
    let used = usage.snapshot();
    for user in ["ann", "ben", "cleo"] {
        // Names are digests with a key of this process; to look one up, make the digest again.
        let sums = used.principal(Principal::of(user));
        println!("{user:5} used {} tokens", sums.map_or(0, |sums| sums.total));
    }
    Ok(())
}
