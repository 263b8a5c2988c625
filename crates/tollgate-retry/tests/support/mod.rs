//! Requests, a layer around a script, and what the script saw.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // not every test file uses all of it
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tollgate_core::{
    body::Replay,
    call::CallOptions,
    classify::{By, Fault},
};
use tollgate_retry::{RateLimitPolicy, RetryOnRateLimitLayer, RetryStats};
use tollgate_sim::{
    SimBody, SimError,
    script::{Reply, Scripted},
};
use tower::{Layer, ServiceExt};

pub const BODY: &str =
    r#"{"model":"gpt-test","messages":[{"role":"user","content":"Say hello."}],"max_tokens":20}"#;

/// The most that may be added to a server's wait.
pub fn jitter_cap(wait: Duration) -> Duration {
    (wait / 10).min(Duration::from_secs(1))
}

/// The largest pause of the default back-off before the first retry.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);

pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("https://api.example{path}"))
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

pub fn chat() -> Request<Full<Bytes>> {
    post("/v1/chat/completions", BODY)
}

/// A request that asks for a stream.
pub fn chat_stream() -> Request<Full<Bytes>> {
    let body = BODY.replacen('{', r#"{"stream":true,"#, 1);
    post("/v1/chat/completions", body)
}

pub fn within(mut request: Request<Full<Bytes>>, seconds: u64) -> Request<Full<Bytes>> {
    let options = CallOptions::new().within(Duration::from_secs(seconds));
    request.extensions_mut().insert(options);
    request
}

pub fn fault(error: &SimError) -> Fault {
    if error.sent() {
        Fault::MaybeSent
    } else {
        Fault::NotSent
    }
}

/// One request through the layer: what the caller gets, and the provider's log.
pub struct Outcome {
    pub result: Result<Response<Replay<SimBody>>, SimError>,
    pub provider: Scripted,
    pub stats: RetryStats,
}

impl Outcome {
    pub fn response(self) -> Response<Replay<SimBody>> {
        self.result.unwrap()
    }

    pub fn attempts(&self) -> usize {
        self.provider.count()
    }

    /// The time between the first two attempts.
    pub fn gap(&self) -> Duration {
        let times = self.provider.times();
        assert!(times.len() >= 2, "there was one attempt only");
        times[1] - times[0]
    }
}

pub async fn send(
    policy: RateLimitPolicy,
    request: Request<Full<Bytes>>,
    replies: impl IntoIterator<Item = Reply>,
) -> Outcome {
    let provider = Scripted::new(replies);
    let stats = RetryStats::new();
    let result = RetryOnRateLimitLayer::new(policy)
        .stats(stats.clone())
        .classify(By(fault))
        .layer(provider.clone())
        .oneshot(request)
        .await;
    Outcome {
        result,
        provider,
        stats,
    }
}

/// With the default policy.
pub async fn send_chat(replies: impl IntoIterator<Item = Reply>) -> Outcome {
    send(RateLimitPolicy::default(), chat(), replies).await
}

pub fn ok() -> Reply {
    Reply::chat("gpt-test", 9, 2)
}

/// Reads a body to its end.
pub async fn bytes<B>(body: B) -> Bytes
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    body.collect().await.unwrap().to_bytes()
}
