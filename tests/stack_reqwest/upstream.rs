//! A provider that keeps what it was sent and answers as it was told.
use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
};
use bytes::Bytes;
use http::{Response, request::Parts};

type Seen = Arc<Mutex<Vec<(Parts, Bytes)>>>;

/// On a socket until the test's runtime ends.
pub(crate) struct Upstream {
    pub(crate) url: String,
    seen: Seen,
}

impl Upstream {
    /// Answers by the number of the request, which begins at 0, and its path.
    pub(crate) async fn answering(
        answer: impl Fn(usize, &str) -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Seen::default();
        let keep = Arc::clone(&seen);
        let router = Router::new().fallback(move |request: Request| {
            let (keep, answer) = (Arc::clone(&keep), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.expect("a whole body");
                let path = parts.uri.path().to_owned();
                let mut seen = keep.lock().expect("nobody panics with it");
                seen.push((parts, body));
                answer(seen.len() - 1, &path)
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, seen }
    }

    /// Answers to one after the other; the last one for ever.
    pub(crate) async fn scripted(answers: &'static [fn() -> Response<Body>]) -> Self {
        Self::answering(move |number, _| answers[number.min(answers.len() - 1)]()).await
    }

    /// The requests that arrived.
    pub(crate) fn seen(&self) -> Vec<(Parts, Bytes)> {
        self.seen.lock().expect("nobody panics with it").clone()
    }

    pub(crate) fn chat_url(&self) -> String {
        format!("{}/v1/chat/completions", self.url)
    }
}

/// A document that asks for a model.
pub(crate) const CHAT: &str =
    r#"{"model":"model-a","messages":[{"role":"user","content":"Hello"}],"max_tokens":16}"#;

/// It comes back at once.
pub(crate) fn limited() -> Response<Body> {
    let error = r#"{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}"#;
    Response::builder()
        .status(429)
        .header("retry-after-ms", "1")
        .header("content-type", "application/json")
        .body(error.into())
        .expect("a response")
}

/// A completion.
pub(crate) fn served() -> Response<Body> {
    let answer = r#"{"model":"model-a","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#;
    Response::builder()
        .header("content-type", "application/json")
        .body(answer.into())
        .expect("a response")
}

/// The URL of a port at which nobody listens.
pub(crate) fn nobody() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", free.local_addr().expect("an address"))
}
