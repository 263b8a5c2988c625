//! Somebody else on the key: sends for a while and pauses for as long, whatever the provider says.
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::case::{Competitor, Limits};

/// Tokens of each of its requests: 100 of the prompt, and a cap.
const TOKENS: u32 = 500;

/// Sends until it is dropped.
pub(crate) async fn run(url: String, who: Competitor, limits: Limits) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    #[allow(clippy::cast_precision_loss)]
    let a_second = limits.tokens as f64 * who.share / limits.window / f64::from(TOKENS);
    let mut ticks = interval(Duration::from_secs_f64(1.0 / a_second));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begun = Instant::now();
    let document = json!({
        "model": "gpt-4o-mini",
        "max_tokens": TOKENS - 100,
        "messages": [{"role": "user", "content": "x".repeat(400)}],
    });
    let document = Bytes::from(document.to_string());
    loop {
        ticks.tick().await;
        if begun.elapsed().as_secs_f64() % (2.0 * who.phase) >= who.phase {
            continue;
        }
        let request = Request::post(format!("{url}/v1/chat/completions"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, "Bearer stranger")
            .body(Full::new(document.clone()));
        let Ok(request) = request else { return };
        let answer = client.request(request);
        tokio::spawn(async move {
            if let Ok(answer) = answer.await {
                let _ = answer.into_body().collect().await;
            }
        });
    }
}

/// Leaves its requests out of the sums. The client itself shows no key.
pub(crate) fn leave_out(account: &mut Value, all: &[u8]) -> Result<(), String> {
    let all: Value = serde_json::from_slice(all).map_err(|error| error.to_string())?;
    let requests = all["requests"].as_array().map_or(&[][..], Vec::as_slice);
    let ours = || requests.iter().filter(|seen| seen["key"].is_null());
    account["totals"]["requests"] = ours().count().into();
    account["totals"]["status_429"] = ours().filter(|seen| seen["status"] == 429).count().into();
    Ok(())
}
