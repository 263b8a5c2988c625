//! What the tests share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tollgate_core::{
    body::Replay,
    call::{Attempt, Attempts},
    classify::{Classify, Fault},
    extensions::ServedBy,
};
use tollgate_fallback::{ModelChain, ModelFallback, ModelFallbackLayer};
use tollgate_sim::{
    SimBody, SimError,
    script::{Reply, Scripted},
};
use tower::{Layer, ServiceExt};

pub type Body = Full<Bytes>;
pub type Answer = Response<Replay<SimBody>>;

/// Knows the simulator's errors.
#[derive(Clone, Copy, Debug)]
pub struct Sim;

impl Classify<SimError> for Sim {
    fn classify(&self, error: &SimError) -> Fault {
        if error.sent() {
            Fault::MaybeSent
        } else {
            Fault::NotSent
        }
    }
}

pub fn chain<const N: usize>(models: [&str; N]) -> ModelChain {
    ModelChain::new(models).unwrap()
}

pub fn layer(chain: ModelChain) -> ModelFallbackLayer<Sim> {
    ModelFallbackLayer::new(chain).classify(Sim)
}

pub fn chat(model: &str) -> Request<Body> {
    let document = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
    post(
        "https://a.example/v1/chat/completions",
        &document.to_string(),
    )
}

pub fn streamed(model: &str) -> Request<Body> {
    let document = format!(r#"{{"model":"{model}","messages":[],"stream":true}}"#);
    post("https://a.example/v1/chat/completions", &document)
}

pub fn post(uri: &str, document: &str) -> Request<Body> {
    Request::post(uri)
        .header("content-type", "application/json")
        .header("content-length", document.len())
        .header("authorization", "Bearer key-a")
        .body(Full::from(document.to_owned()))
        .unwrap()
}

/// Answers by model: what is not listed is served.
pub fn upstream(answer: impl Fn(&str, usize) -> Option<Reply> + Send + Sync + 'static) -> Scripted {
    Scripted::by(move |attempt| {
        let model = attempt.model().unwrap_or_default();
        answer(&model, attempt.index).unwrap_or_else(|| Reply::chat(&model, 3, 2))
    })
}

pub fn error(status: u16, code: &str) -> Reply {
    Reply::status(status).json(json!({"error": {
        "message": "Something went wrong.", "type": code, "param": null, "code": code,
    }}))
}

pub fn too_long() -> Reply {
    Reply::status(400).json(json!({"error": {
        "message": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 \
            tokens. Please reduce the length of the messages.",
        "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded",
    }}))
}

pub fn models(upstream: &Scripted) -> Vec<String> {
    let seen = upstream.attempts();
    seen.iter().map(|a| a.model().unwrap_or_default()).collect()
}

pub async fn send<C>(service: &ModelFallback<Scripted, C>, request: Request<Body>) -> Answer
where
    C: Classify<SimError>,
{
    service.clone().oneshot(request).await.unwrap()
}

pub fn wrap(upstream: &Scripted, chain: ModelChain) -> ModelFallback<Scripted, Sim> {
    layer(chain).layer(upstream.clone())
}

pub async fn text(answer: Answer) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn attempts(answer: &Answer) -> Vec<Attempt> {
    Attempts::of(answer)
}

pub fn served_by(answer: &Answer) -> (usize, String) {
    let served = ServedBy::of(answer).expect("a fallback signs its answers");
    let model = served.model.as_deref().unwrap_or_default();
    (served.position, model.to_owned())
}
