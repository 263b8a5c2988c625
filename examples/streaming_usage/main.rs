//! What a stream used: tokens, money and time to the first token, without holding a byte of it back.
//!
//! ```text
//! cargo run --example streaming_usage
//! ```
//!
//! The caller asks for no usage; the recorder does, and takes the extra chunk out again. The second caller leaves early,
//! and its record says so. Needs no key and no network.
#![allow(clippy::print_stdout)]
use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::time::Instant;
use tollgate::{
    UsageRecord,
    prelude::*,
    price::{Price, PriceTable},
};
use tollgate_sim::SimProvider;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let provider = SimProvider::builder()
        .latency(Duration::from_millis(200))
        .pace(Duration::from_millis(50))
        .reply_tokens(12)
        .build();
    let prices = PriceTable::new().with("gpt-5", Price::per_million("1.25", "10")?);
    // Any function of a record is a recorder; it must not block. Where it may, use a `SinkQueue`.
    let recorder = UsageRecorderLayer::new(|record: &UsageRecord| tell(record)).prices(prices);
    let client = ServiceBuilder::new().layer(recorder).service(provider);

    for (what, events_wanted) in [("read to its end", usize::MAX), ("left after 5 events", 5)] {
        println!("\na stream, {what}");
        let start = Instant::now();
        let mut body = client.clone().oneshot(ask()?).await?.into_body();
        let mut seen = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            for event in String::from_utf8_lossy(&data).split_terminator("\n\n") {
                println!("{:5} ms  {}", start.elapsed().as_millis(), text(event));
                seen += 1;
            }
            if seen >= events_wanted {
                break;
            }
        }
        // Here the body is dropped: it has ended, or its caller leaves.
    }
    Ok(())
}

fn ask() -> Result<Request<Full<Bytes>>, http::Error> {
    let document = r#"{"model":"gpt-5","stream":true,"max_tokens":64,"messages":[{"role":"user","content":"Say hello"}]}"#;
    Request::post("https://api.example/v1/chat/completions").body(document.into())
}

/// The text of an event, or what else it is.
fn text(event: &str) -> String {
    let data = event.strip_prefix("data: ").unwrap_or(event);
    let Ok(document) = serde_json::from_str::<Value>(data) else {
        return data.to_owned();
    };
    assert!(
        document["usage"].is_null(),
        "taken out: nobody asked for it"
    );
    let choice = &document["choices"][0];
    format!("{} {}", choice["delta"], choice["finish_reason"])
}

fn tell(record: &UsageRecord) {
    println!(
        "{:?}: input {:?}, output {:?} (received: {:?}), cost {:?}; first token after {:?}, end after {:?}",
        record.completion,
        record.usage.input,
        record.usage.output,
        record.estimated_output,
        record.cost,
        record.time_to_first_token.unwrap_or_default(),
        record.duration,
    );
}
