//! What the tests share: requests, streams, and a recorder that keeps everything.
#![allow(dead_code, unreachable_pub)]
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, response::Parts};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tollgate_usage::{ResponseBody, UsageRecord, UsageRecorder, UsageRecorderLayer};
use tower::{Layer, ServiceExt};

/// Keeps every record.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<UsageRecord>>>);

impl Kept {
    pub fn recorder(&self) -> impl Fn(&UsageRecord) + Send + Sync + use<> {
        let kept = Arc::clone(&self.0);
        move |record: &UsageRecord| kept.lock().unwrap().push(record.clone())
    }

    pub fn layer(&self) -> UsageRecorderLayer {
        UsageRecorderLayer::new(self.recorder())
    }

    pub fn all(&self) -> Vec<UsageRecord> {
        self.0.lock().unwrap().clone()
    }

    /// The one record.
    #[track_caller]
    pub fn one(&self) -> UsageRecord {
        let mut all = self.all();
        assert_eq!(all.len(), 1, "exactly one record");
        all.remove(0)
    }
}

pub type Req = Request<Full<Bytes>>;

pub fn post(path: &str, body: &Value) -> Req {
    let body = body.to_string();
    Request::post(format!("https://api.example{path}"))
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .body(Full::from(body))
        .unwrap()
}

/// A chat request with these members beside model and messages.
pub fn chat(extra: Value) -> Req {
    post("/v1/chat/completions", &chat_body(extra))
}

pub fn chat_body(extra: Value) -> Value {
    let mut body = json!({"model": "gpt-test", "messages": [{"role": "user", "content": "Hi"}]});
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// A stream whose usage needs no injection.
pub fn asked() -> Req {
    chat(json!({"stream": true, "stream_options": {"include_usage": true}}))
}

/// A stream whose caller did not ask for usage.
pub fn unasked() -> Req {
    chat(json!({"stream": true}))
}

pub fn delta(text: &str) -> String {
    event(
        &json!({"id": "c-1", "object": "chat.completion.chunk", "model": "gpt-test-2025-01-01",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}], "usage": null}),
    )
}

pub fn finish(reason: &str) -> String {
    event(
        &json!({"id": "c-1", "object": "chat.completion.chunk", "model": "gpt-test-2025-01-01",
        "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": null}),
    )
}

pub fn usage_chunk(input: u64, output: u64) -> String {
    event(
        &json!({"id": "c-1", "object": "chat.completion.chunk", "model": "gpt-test-2025-01-01",
        "choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output,
            "total_tokens": input + output, "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2}}}),
    )
}

pub fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

pub const DONE: &str = "data: [DONE]\n\n";

/// An OpenAI chat stream with the usage chunk.
pub fn stream() -> Vec<String> {
    vec![
        delta("Hello, "),
        delta("my dear friend."),
        finish("stop"),
        usage_chunk(11, 7),
        DONE.to_owned(),
    ]
}

/// The same without it.
pub fn stream_without_usage() -> String {
    let mut events = stream();
    events.remove(3);
    events.concat()
}

pub async fn send(
    service: &UsageRecorder<Scripted>,
    request: Req,
) -> Response<ResponseBody<tollgate_sim::SimBody>> {
    service.clone().oneshot(request).await.expect("an answer")
}

/// Sends a request through the layer and reads the answer to its end.
pub async fn exchange(
    layer: &UsageRecorderLayer,
    upstream: &Scripted,
    request: Req,
) -> (Parts, Result<Bytes, SimError>) {
    let response = send(&layer.layer(upstream.clone()), request).await;
    let (parts, body) = response.into_parts();
    (parts, body.collect().await.map(|body| body.to_bytes()))
}

/// An error of a server that does not know the field which asks for usage.
pub fn unknown_field(status: u16) -> Reply {
    Reply::status(status).json(json!({"detail": [{"type": "extra_forbidden",
        "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}))
}

/// What must not depend on how the bytes were cut.
pub fn gist(record: &UsageRecord) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {}",
        record.model_served,
        record.usage,
        record.cost,
        record.finish,
        record.finish_reason,
        record.outcome,
        record.completion,
        record.status,
        record.bytes_received
    )
}

/// An error that cannot be.
pub fn never(error: Infallible) -> ! {
    match error {}
}
