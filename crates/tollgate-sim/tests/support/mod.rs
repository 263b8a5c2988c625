//! Requests and answers for the tests of the provider.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tollgate_sim::{SimBody, SimError, SimProvider};
use tower::ServiceExt;

pub type Body = Full<Bytes>;

pub fn post(path: &str, document: &Value) -> Request<Body> {
    Request::post(path)
        .body(Full::from(document.to_string()))
        .unwrap()
}

/// A chat request whose prompt has so many characters.
pub fn chat(chars: usize, max_tokens: u64) -> Request<Body> {
    chat_of("gpt-test", chars, max_tokens)
}

pub fn chat_of(model: &str, chars: usize, max_tokens: u64) -> Request<Body> {
    let messages = json!([{"role": "user", "content": "x".repeat(chars)}]);
    post(
        "/v1/chat/completions",
        &json!({"model": model, "max_tokens": max_tokens, "messages": messages}),
    )
}

pub fn chat_stream(max_tokens: u64, usage: bool) -> Request<Body> {
    let messages = json!([{"role": "user", "content": "Tell me."}]);
    post(
        "/v1/chat/completions",
        &json!({"model": "gpt-test", "max_tokens": max_tokens, "messages": messages,
            "stream": true, "stream_options": {"include_usage": usage}}),
    )
}

pub fn messages(chars: usize, max_tokens: u64, stream: bool) -> Request<Body> {
    let messages =
        json!([{"role": "user", "content": [{"type": "text", "text": "x".repeat(chars)}]}]);
    post(
        "/v1/messages",
        &json!({"model": "claude-test", "max_tokens": max_tokens, "messages": messages, "stream": stream}),
    )
}

pub fn responses(cap: u64, stream: bool) -> Request<Body> {
    post(
        "/v1/responses",
        &json!({"model": "gpt-test", "max_output_tokens": cap, "input": "Tell me.", "stream": stream}),
    )
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The events of a stream: (name, data).
    pub fn events(&self) -> Vec<(String, String)> {
        self.text()
            .split_terminator("\n\n")
            .map(|event| {
                let field = |name: &str| {
                    let value = event.lines().find_map(|line| line.strip_prefix(name));
                    value.unwrap_or_default().trim().to_owned()
                };
                (field("event:"), field("data:"))
            })
            .collect()
    }

    /// The documents of a stream; what is no JSON is left out.
    pub fn documents(&self) -> Vec<Value> {
        let events = self.events();
        events
            .iter()
            .filter_map(|(_, data)| serde_json::from_str(data).ok())
            .collect()
    }
}

pub async fn send(
    provider: &SimProvider,
    request: Request<Body>,
) -> Result<Response<SimBody>, SimError> {
    provider.clone().oneshot(request).await
}

/// Sends and reads to the end.
pub async fn ask(provider: &SimProvider, request: Request<Body>) -> Answer {
    let (head, body) = send(provider, request).await.unwrap().into_parts();
    Answer {
        status: head.status,
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}
