//! URLs, there and back.
use std::sync::{Arc, Mutex};

use axum::body::Body as AxumBody;
use http::{Extensions, Request, Response};
use tollgate::prelude::*;
use tollgate_tests::Layers;
use tower::{ServiceBuilder, ServiceExt};

use super::{
    adapter::{HttpService, TollgateMiddleware},
    reqwest::{self, Body, Client},
    reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result},
};
use crate::upstream::{CHAT, Upstream, limited, served};

fn plugged() -> ClientWithMiddleware {
    let layers = Layers::new();
    let plug = ServiceBuilder::new()
        .retry_on_rate_limit(layers.policy.clone())
        .token_budget(layers.budget.clone());
    ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(plug))
        .build()
}

async fn redirecting() -> Upstream {
    Upstream::answering(|_, path| {
        if path.starts_with("/new") {
            return served();
        }
        let response = Response::builder().status(307);
        let response = response.header("location", "/new/chat/completions");
        response.body(AxumBody::empty()).expect("a response")
    })
    .await
}

#[tokio::test]
async fn a_redirect_is_followed_with_the_body_and_the_last_url_is_told() {
    let upstream = redirecting().await;
    let last = format!("{}/new/chat/completions", upstream.url);
    let sent = plugged().post(upstream.chat_url()).body(CHAT).send().await;
    assert_eq!(sent.expect("an answer").url().as_str(), last);

    let client = ServiceBuilder::new()
        .retry_on_rate_limit(Layers::new().policy)
        .service(HttpService::new(Client::new()));
    let request = Request::post(upstream.chat_url()).body(Body::from(CHAT));
    let response = client
        .oneshot(request.expect("a request"))
        .await
        .expect("an answer");
    let response = reqwest::Response::from(response.map(Body::wrap));
    assert_eq!(response.url().as_str(), last);
    for (_, body) in upstream.seen() {
        assert_eq!(body, CHAT);
    }
}

/// Keeps the URL of every request that goes to the client.
#[derive(Clone, Default)]
struct Urls(Arc<Mutex<Vec<String>>>);

#[async_trait::async_trait]
impl Middleware for Urls {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response> {
        let url = request.url().to_string();
        self.0.lock().expect("nobody panics with it").push(url);
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn a_url_goes_in_as_it_was_asked_for() {
    let upstream = Upstream::scripted(&[served, limited, served]).await;
    let url = format!("{}?x=a%20b&y=%C3%A4#part", upstream.chat_url());
    let bare = Client::new()
        .post(&url)
        .body(CHAT)
        .send()
        .await
        .expect("an answer");
    let urls = Urls::default();
    let plug = TollgateMiddleware::new(RetryOnRateLimitLayer::new(Layers::new().policy));
    let client = ClientBuilder::new(Client::new())
        .with(plug)
        .with(urls.clone())
        .build();
    let response = client
        .post(&url)
        .body(CHAT)
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.url(), bare.url(), "as reqwest alone tells");
    // `http` knows no fragments.
    assert_eq!(
        *urls.0.lock().expect("nobody panics with it"),
        [url.clone(), url]
    );
}

#[tokio::test]
async fn a_url_that_a_layer_has_written_is_asked_instead() {
    let upstream = Upstream::scripted(&[served]).await;
    let moved = tower::util::MapRequestLayer::new(|mut request: Request<Body>| {
        let uri = request.uri().to_string().replace("/old/", "/v1/");
        *request.uri_mut() = uri.parse().expect("a URI");
        request
    });
    let client = ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(moved))
        .build();
    let url = upstream.chat_url();
    let sent = client
        .post(url.replace("/v1/", "/old/"))
        .body(CHAT)
        .send()
        .await;
    assert_eq!(sent.expect("an answer").url().as_str(), url);
    assert_eq!(upstream.seen()[0].0.uri.path(), "/v1/chat/completions");
}

#[tokio::test]
async fn credentials_in_a_url_are_sent_by_reqwests_own_builder_alone() {
    let upstream = Upstream::scripted(&[served]).await;
    let url = upstream
        .chat_url()
        .replace("http://", "http://user:secret@");
    plugged()
        .post(&url)
        .body(CHAT)
        .send()
        .await
        .expect("an answer");
    let request = Request::post(&url)
        .body(Body::from(CHAT))
        .expect("a request");
    let client = HttpService::new(Client::new());
    client.oneshot(request).await.expect("an answer");
    let seen = upstream.seen();
    assert_eq!(seen[0].0.headers["authorization"], "Basic dXNlcjpzZWNyZXQ=");
    // `http` knows no such thing; hyper-util's client does the same.
    assert!(!seen[1].0.headers.contains_key("authorization"));
    assert!(
        !seen[1].0.headers["host"]
            .to_str()
            .expect("text")
            .contains('@')
    );
}
