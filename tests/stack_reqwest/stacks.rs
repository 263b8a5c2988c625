//! All four layers in each of the three places: around a client, around a client with middlewares, among the middlewares.
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use tollgate::prelude::*;
use tollgate_reqwest::{Reqwest, ResponseExt};
use tollgate_sim::{SimProvider, server::Server};
use tollgate_tests::Layers;
use tower::{Service, ServiceBuilder, ServiceExt};

use super::{
    adapter::{HttpService, MiddlewareClient, TollgateMiddleware},
    reqwest::{self, Body, Client},
    reqwest_middleware::{self, ClientBuilder, ClientWithMiddleware},
};
use crate::upstream::{CHAT, Upstream, limited, served};

/// All four layers, as they usually stand, in a macro because nobody wants to write their type.
macro_rules! four {
    ($layers:expr) => {
        ServiceBuilder::new()
            .record_usage($layers.usage.clone())
            .layer(ModelFallbackLayer::new($layers.chain.clone()).classify(Reqwest))
            .layer(RetryOnRateLimitLayer::new($layers.policy.clone()).classify(Reqwest))
            .layer(TokenBudgetLayer::new($layers.budget.clone()).classify(Reqwest))
    };
}

fn document(more: &str) -> String {
    format!(
        r#"{{"model":"model-a","messages":[{{"role":"user","content":"Hello"}}],"max_tokens":16{more}}}"#
    )
}

async fn server() -> Server {
    let provider = SimProvider::builder()
        .latency(Duration::ZERO)
        .reply_tokens(12)
        .build();
    Server::bind("127.0.0.1:0", provider)
        .await
        .expect("a socket")
}

fn check(text: &str, stream: bool) {
    assert_eq!(text.contains("data: [DONE]"), stream, "{text}");
    assert!(
        !text.contains(r#""choices":[],"usage""#),
        "our usage chunk is taken out: {text}"
    );
}

fn recorded(layers: &Layers, server: &Server) {
    let totals = layers.usage.snapshot().all;
    assert_eq!((totals.calls, totals.output), (2, 24), "{totals:?}");
    assert_eq!(
        server.provider().totals().billed_output,
        24,
        "as the provider counts"
    );
}

async fn around<S, RB>(mut client: S, layers: &Layers, server: &Server)
where
    S: Service<Request<Body>, Response = Response<RB>>,
    S::Error: std::fmt::Debug,
    RB: http_body::Body<Data = Bytes>,
    RB::Error: std::fmt::Debug,
{
    for more in ["", r#","stream":true"#] {
        let request = Request::post(format!("{}/v1/chat/completions", server.url()))
            .header("content-type", "application/json")
            .body(document(more).into())
            .expect("a request");
        let response = client.ready().await.expect("ready").call(request);
        let response = response.await.expect("an answer");
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.expect("whole");
        let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
        check(&text, !more.is_empty());
    }
    recorded(layers, server);
}

#[tokio::test]
async fn answers_and_streams_come_whole_through_layers_around_a_client() {
    let (layers, server) = (Layers::new(), server().await);
    let client = four!(layers).service(HttpService::new(Client::new()));
    around(client, &layers, &server).await;
}

#[tokio::test]
async fn answers_and_streams_come_whole_through_layers_around_a_client_with_middlewares() {
    let (layers, server) = (Layers::new(), server().await);
    let inner = MiddlewareClient::new(ClientBuilder::new(Client::new()).build());
    let client = four!(layers).service(HttpService::new(inner));
    around(client, &layers, &server).await;
}

#[tokio::test]
async fn answers_and_streams_come_whole_through_layers_among_the_middlewares() {
    let (layers, server) = (Layers::new(), server().await);
    let client = ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(four!(layers)))
        .build();
    for more in ["", r#","stream":true"#] {
        let response = client
            .post(format!("{}/v1/chat/completions", server.url()))
            .header("content-type", "application/json")
            .body(document(more))
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.attempts().len(), 1);
        check(&response.text().await.expect("whole"), !more.is_empty());
    }
    recorded(&layers, &server);
}

// U01: no byte of a stream waits for the next one, in either form.
#[tokio::test]
async fn the_events_of_a_stream_come_one_by_one() {
    let (go, wait) = tokio::sync::watch::channel(0);
    let upstream = Upstream::answering(move |_, _| {
        let wait = wait.clone();
        let events = futures_util::stream::unfold((0, wait), |(number, mut wait)| async move {
            // The next event is made when the one before has been received.
            wait.wait_for(|seen| *seen >= number).await.ok()?;
            let event = format!(
                "data: {{\"model\":\"model-a\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{number}\"}}}}]}}\n\n"
            );
            (number < 3).then_some((Ok::<_, std::io::Error>(event), (number + 1, wait)))
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(axum::body::Body::from_stream(events))
            .expect("a response")
    })
    .await;
    let layers = Layers::new();
    let plugged = ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(four!(layers)))
        .build();
    for form in ["service", "middleware"] {
        go.send_replace(0);
        let mut response = if form == "service" {
            let client = four!(layers).service(HttpService::new(Client::new()));
            let request = Request::post(upstream.chat_url())
                .body(Body::from(document(r#","stream":true"#)))
                .expect("a request");
            let response = client.oneshot(request).await.expect("an answer");
            reqwest::Response::from(response.map(Body::wrap))
        } else {
            let request = plugged.post(upstream.chat_url());
            let request = request.body(document(r#","stream":true"#));
            request.send().await.expect("an answer")
        };
        for number in 0..3 {
            let chunk = response.chunk().await.expect("whole").expect("not the end");
            let content = format!("\"content\":\"{number}\"");
            assert!(
                std::str::from_utf8(&chunk)
                    .expect("text")
                    .contains(&content),
                "{form}: event {number} has come before the next was made"
            );
            go.send_replace(number + 1);
        }
    }
}

// X05
#[tokio::test]
async fn a_limited_call_is_tried_again_and_the_response_tells() {
    let upstream = Upstream::scripted(&[limited, served]).await;
    let layers = Layers::new();
    let client = ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(four!(layers)))
        .build();
    let response = client.post(upstream.chat_url()).body(CHAT).send().await;
    let response = response.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.attempts().len(), 2);
    let served = response.served_by().expect("the fallback layer was there");
    assert_eq!(served.model.as_deref(), Some("model-a"));
    assert_eq!(
        response.content_length(),
        Some(response.bytes().await.expect("whole").len() as u64)
    );
    let totals = layers.usage.snapshot().all;
    assert_eq!((totals.calls, totals.failed_attempts), (1, 1), "{totals:?}");
}

fn service_is_all<T: Clone + Send + Sync + 'static>(service: T) -> T {
    service
}

fn future_is_send<T: Send + 'static>(future: T) -> T {
    future
}

fn body_is_all<T: Send + Sync + Unpin + 'static>(_: &T) {}

fn fails_with<E, S: Service<Request<Body>, Error = E>>(_: &S) {}

#[tokio::test]
async fn everything_stays_clone_send_and_sync_and_the_error_is_the_clients() {
    let upstream = Upstream::scripted(&[served]).await;
    let request = || {
        Request::post(upstream.chat_url())
            .body(Body::from(CHAT))
            .expect("a request")
    };
    let layers = Layers::new();
    let bare = service_is_all(four!(layers).service(HttpService::new(Client::new())));
    fails_with::<reqwest::Error, _>(&bare);
    let response = future_is_send(bare.oneshot(request()));
    body_is_all(response.await.expect("an answer").body());

    let inner = ClientWithMiddleware::from(Client::new());
    let inner = service_is_all(MiddlewareClient::new(inner));
    let with = service_is_all(four!(layers).service(HttpService::new(inner)));
    fails_with::<reqwest_middleware::Error, _>(&with);
    let response = future_is_send(with.oneshot(request()));
    body_is_all(response.await.expect("an answer").body());

    let plug = service_is_all(TollgateMiddleware::new(four!(layers)));
    let client = service_is_all(ClientBuilder::new(Client::new()).with(plug).build());
    let sent = future_is_send(client.post(upstream.chat_url()).body(CHAT).send());
    assert_eq!(sent.await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_known_size_stays_known() {
    let upstream = Upstream::scripted(&[served]).await;
    let client = HttpService::new(Client::new());
    let request = Request::get(&upstream.url).body(Body::default());
    let response = client.oneshot(request.expect("a request")).await;
    let body = response.expect("an answer").into_body();
    let size = body.size_hint().exact().expect("a stated length");
    let read = body.collect().await.expect("whole").to_bytes();
    assert_eq!(size, read.len() as u64);
}
