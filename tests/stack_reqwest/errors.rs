//! Errors come out as the client's own, and tell the layers what was sent.
use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use tollgate::{
    BoxError,
    classify::{Classify, Fault},
    extensions::Reason,
    prelude::*,
    resend::Resend,
};
use tollgate_reqwest::{Reqwest, ResponseExt};
use tollgate_sim::{Fault as SimFault, SimProvider, server::Server};
use tollgate_tests::Layers;
use tower::{ServiceBuilder, ServiceExt};

use super::{
    adapter::{HttpService, MiddlewareClient, TollgateMiddleware},
    reqwest::{
        Body, Client,
        dns::{Name, Resolve, Resolving},
    },
    reqwest_middleware::{self, ClientBuilder},
};
use crate::upstream::{CHAT, Upstream, nobody, served};

/// Long enough for a request to arrive on a busy machine.
const SHORT: Duration = Duration::from_millis(500);
/// After which a test has failed.
const LONG: Duration = Duration::from_secs(20);

fn policy() -> RateLimitPolicy {
    let backoff = |_: u32| Duration::from_millis(1);
    // What may have been received is not sent again: a second attempt shows that nothing was sent.
    let policy = Layers::new().policy.backoff(backoff);
    policy.resend(Resend::OnlyUnsent)
}

fn chat(url: &str) -> Request<Body> {
    Request::post(format!("{url}/v1/chat/completions"))
        .body(Body::from(CHAT))
        .expect("a request")
}

// X05
#[tokio::test]
async fn a_refused_connection_is_tried_again_as_never_sent_and_comes_out_as_the_clients_own() {
    let url = nobody();
    let stats = tollgate::RetryStats::new();
    let retry = RetryOnRateLimitLayer::new(policy())
        .stats(stats.clone())
        .classify(Reqwest);

    let bare = retry.clone();
    let bare = ServiceBuilder::new()
        .layer(bare)
        .service(HttpService::new(Client::new()));
    let error = bare.oneshot(chat(&url)).await.expect_err("nobody listens");
    assert!(error.is_connect(), "reqwest's own error: {error}");
    assert_eq!(stats.snapshot().retries, 2, "three attempts");

    let inner = MiddlewareClient::new(ClientBuilder::new(Client::new()).build());
    let with = ServiceBuilder::new()
        .layer(retry.clone())
        .service(HttpService::new(inner));
    let error = with.oneshot(chat(&url)).await.expect_err("nobody listens");
    assert!(error.is_connect(), "the client's own error: {error}");
    assert_eq!(stats.snapshot().retries, 4);

    let plugged = ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(retry))
        .build();
    let sent = plugged
        .post(format!("{url}/v1/chat/completions"))
        .body(CHAT);
    let error = sent.send().await.expect_err("nobody listens");
    assert!(error.is_connect(), "the client's own error: {error}");
    assert!(matches!(error, reqwest_middleware::Error::Reqwest(_)));
    assert_eq!(
        error.url().map(|url| url.path()),
        Some("/v1/chat/completions")
    );
    assert_eq!(stats.snapshot().retries, 6);
}

// R11
#[tokio::test]
async fn a_timeout_of_reqwests_own_reaches_the_caller_as_one() {
    let provider = SimProvider::builder().on(|_| SimFault::Hang).build();
    let server = Server::bind("127.0.0.1:0", provider)
        .await
        .expect("a socket");
    let layers = Layers::new();
    let retry = RetryOnRateLimitLayer::new(policy()).classify(Reqwest);
    let plug = ServiceBuilder::new()
        .record_usage(layers.usage.clone())
        .layer(retry.clone())
        .token_budget(layers.budget.clone());

    // The client's.
    let client = Client::builder().timeout(SHORT).build().expect("a client");
    let bare = ServiceBuilder::new()
        .layer(retry)
        .service(HttpService::new(client));
    let error = bare
        .oneshot(chat(&server.url()))
        .await
        .expect_err("no answer");
    assert!(error.is_timeout(), "{error:?}");
    assert!(!error.is_connect());

    // The request's, which is kept with it in its own way.
    let client = ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(plug))
        .build();
    let sent = client.post(format!("{}/v1/chat/completions", server.url()));
    let error = sent.timeout(SHORT).body(CHAT).send();
    let ended = tokio::time::timeout(LONG, error).await;
    let error = ended.expect("it ends").expect_err("no answer");
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(
        server.provider().totals().requests,
        2,
        "sent, and so not sent again"
    );
}

#[tokio::test]
async fn a_timeout_within_a_body_reaches_the_caller_as_one() {
    let upstream = Upstream::answering(|_, _| {
        let event = "data: {\"model\":\"model-a\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
        let stalls = futures_util::StreamExt::chain(
            futures_util::stream::iter([Ok::<_, std::io::Error>(event)]),
            futures_util::stream::pending(),
        );
        let response = Response::builder().header("content-type", "text/event-stream");
        response.body(axum::body::Body::from_stream(stalls)).expect("a response")
    })
    .await;
    let layers = Layers::new();
    let plug = ServiceBuilder::new()
        .record_usage(layers.usage.clone())
        .model_fallback(layers.chain.clone())
        .retry_on_rate_limit(policy())
        .token_budget(layers.budget.clone());
    let client = ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(plug))
        .build();
    let body = CHAT.replace("\"max_tokens\"", "\"stream\":true,\"max_tokens\"");
    let sent = client
        .post(upstream.chat_url())
        .timeout(2 * SHORT)
        .body(body);
    let mut response = sent.send().await.expect("the head has come");
    assert!(response.chunk().await.expect("an event").is_some());
    let chunk = tokio::time::timeout(LONG, response.chunk()).await;
    let error = chunk.expect("it ends").expect_err("no more");
    assert!(error.is_timeout(), "{error:?}");
    let totals = layers.usage.snapshot().all;
    assert_eq!((totals.calls, totals.errors), (1, 1), "{totals:?}");
}

// X05
#[tokio::test]
async fn a_refusal_of_the_budget_is_an_answer_and_nothing_is_sent() {
    let upstream = Upstream::scripted(&[served]).await;
    let budget = Budget::in_memory([Limit::tokens(10).per_minute()]).expect("a limit");
    let client = ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(TokenBudgetLayer::new(budget)))
        .build();
    let url = upstream.chat_url();
    let body = CHAT.replace("16", "16000");
    let response = client
        .post(&url)
        .body(body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 429);
    let refused = response.refused().expect("ours");
    assert_eq!(refused.reason, Reason::NeverFits);
    assert_eq!(response.url().as_str(), url, "as if it had answered");
    assert!(response.text().await.expect("a document").contains("error"));
    assert!(upstream.seen().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn an_error_is_found_behind_foreign_middlewares_and_boxes() {
    let error = Client::new()
        .get(nobody())
        .send()
        .await
        .expect_err("nobody listens");
    assert_eq!(Reqwest.classify(&error), Fault::NotSent);
    let error = reqwest_middleware::Error::from(error);
    assert_eq!(Reqwest.classify(&error), Fault::NotSent);
    // As reqwest-retry wraps the last error.
    let wrapped = reqwest_middleware::Error::middleware(std::io::Error::other(error));
    assert_eq!(Reqwest.classify(&wrapped), Fault::NotSent, "{wrapped:?}");
    let boxed: BoxError = Box::new(wrapped);
    assert_eq!(Reqwest.classify(&boxed), Fault::NotSent);
    let foreign = reqwest_middleware::Error::middleware(std::fmt::Error);
    assert_eq!(Reqwest.classify(&foreign), Fault::MaybeSent);
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_anywhere_was_not_sent() {
    let client = HttpService::new(Client::new());
    let request = Request::get("/relative").body(Body::default());
    let error = client
        .oneshot(request.expect("a request"))
        .await
        .expect_err("nowhere");
    assert!(error.is_builder(), "{error:?}");
    assert_eq!(Reqwest.classify(&error), Fault::NotSent);
}

/// No address, for ever.
struct Nowhere;

impl Resolve for Nowhere {
    fn resolve(&self, _: Name) -> Resolving {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_in_time_was_not_sent() {
    let client = Client::builder().dns_resolver(Arc::new(Nowhere));
    let client = client.connect_timeout(SHORT).build().expect("a client");
    let sent = client.get("http://nowhere.example").send().await;
    let error = sent.expect_err("no connection");
    assert!(error.is_timeout() && error.is_connect(), "{error:?}");
    assert_eq!(Reqwest.classify(&error), Fault::ConnectTimeout);
}
