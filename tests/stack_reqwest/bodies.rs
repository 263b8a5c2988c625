//! What is sent again, and what cannot be.
use http::Request;
use tollgate::prelude::*;
use tollgate_reqwest::ResponseExt;
use tollgate_tests::Layers;
use tower::{ServiceBuilder, ServiceExt};

use super::{
    adapter::{HttpService, TollgateMiddleware},
    reqwest::{Body, Client, multipart::Form},
    reqwest_middleware::{ClientBuilder, ClientWithMiddleware},
};
use crate::upstream::{CHAT, Upstream, limited, served};

fn retrying() -> ClientWithMiddleware {
    let retry = RetryOnRateLimitLayer::new(Layers::new().policy);
    ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(retry))
        .build()
}

// R20
#[tokio::test]
async fn what_is_sent_again_is_the_same_to_the_byte() {
    for form in ["service", "middleware"] {
        let upstream = Upstream::scripted(&[limited, served]).await;
        let url = format!("{}?api-version=1%202&x=%2F", upstream.chat_url());
        let status = if form == "service" {
            let client = ServiceBuilder::new()
                .retry_on_rate_limit(Layers::new().policy)
                .service(HttpService::new(Client::new()));
            let request = Request::post(url)
                .header("authorization", "Bearer sk-test")
                .header("x-twice", "1")
                .header("x-twice", "2")
                .body(Body::from(CHAT))
                .expect("a request");
            client.oneshot(request).await.expect("an answer").status()
        } else {
            let request = retrying()
                .post(url)
                .header("authorization", "Bearer sk-test")
                .header("x-twice", "1")
                .header("x-twice", "2")
                .body(CHAT);
            request.send().await.expect("an answer").status()
        };
        assert_eq!(status, 200);
        let seen = upstream.seen();
        assert_eq!(seen.len(), 2, "{form}");
        for (head, body) in &seen {
            assert_eq!(body, CHAT, "{form}");
            assert_eq!(
                head.uri.path_and_query().expect("a path").as_str(),
                "/v1/chat/completions?api-version=1%202&x=%2F"
            );
            assert_eq!(head.headers["authorization"], "Bearer sk-test");
            assert_eq!(head.headers.get_all("x-twice").iter().count(), 2);
            assert_eq!(head.headers["content-length"], CHAT.len().to_string());
        }
        assert_eq!(
            seen[0].0.headers.get("idempotency-key"),
            seen[1].0.headers.get("idempotency-key")
        );
    }
}

#[tokio::test]
async fn a_form_passes_whole_and_once() {
    let upstream = Upstream::scripted(&[limited, served]).await;
    let form = Form::new().text("purpose", "batch").text("file", "{}");
    let request = retrying().post(format!("{}/v1/files", upstream.url));
    let response = request.multipart(form).send().await.expect("an answer");
    assert_eq!(response.status(), 429, "the provider's own answer");
    assert!(response.refused().is_none());
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1, "a form cannot be sent again");
    let body = std::str::from_utf8(&seen[0].1).expect("text");
    assert!(
        body.contains("batch") && body.trim_end().ends_with("--"),
        "{body}"
    );
}

#[tokio::test]
async fn a_stream_of_unknown_length_passes_whole_and_once() {
    let upstream = Upstream::scripted(&[limited, served]).await;
    let (front, back) = CHAT.split_at(20);
    let parts = futures_util::stream::iter([front, back].map(Ok::<_, std::io::Error>));
    let request = retrying().post(upstream.chat_url());
    let request = request.body(Body::wrap_stream(parts));
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 429);
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].1, CHAT);
    assert_eq!(seen[0].0.headers["transfer-encoding"], "chunked");
}

#[tokio::test]
async fn a_request_without_a_body_has_none() {
    let upstream = Upstream::scripted(&[served]).await;
    let response = retrying().get(format!("{}/v1/models", upstream.url));
    let response = response.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    for (head, body) in upstream.seen() {
        assert!(body.is_empty());
        assert!(!head.headers.contains_key("content-length"), "{head:?}");
        assert!(!head.headers.contains_key("transfer-encoding"));
    }
}
