//! Layers that must own what they stand around, among the middlewares.
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Extensions, Request};
use tollgate::{prelude::*, timeouts::Timeouts};
use tollgate_reqwest::{Reqwest, ResponseExt};
use tollgate_sim::{Fault, SimProvider, server::Server};
use tollgate_tests::Layers;
use tower::{ServiceBuilder, ServiceExt, layer::layer_fn, util::BoxCloneService};

use super::{
    adapter::{BridgedMiddleware, PostService},
    reqwest::{self, Body, Client},
    reqwest_middleware::{ClientBuilder, Error, Middleware, Next, Result},
};
use crate::upstream::{CHAT, Upstream, limited, nobody, served};

/// Counts the attempts that are under way, and the most there were.
#[derive(Clone, Default)]
struct UnderWay(Arc<AtomicUsize>, Arc<AtomicUsize>);

struct Leaves(Arc<AtomicUsize>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Middleware for UnderWay {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response> {
        let before = self.0.fetch_add(1, Ordering::SeqCst);
        self.1.fetch_max(before + 1, Ordering::SeqCst);
        let _leaves = Leaves(Arc::clone(&self.0));
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn a_boxed_stack_tries_again_and_the_response_tells() {
    let upstream = Upstream::scripted(&[limited, served]).await;
    let layers = Layers::new();
    let usage = layers.usage.clone();
    let stack = ServiceBuilder::new()
        // It asks for `'static`.
        .layer(BoxCloneService::layer())
        .record_usage(usage.clone())
        .model_fallback(layers.chain.clone())
        .retry_on_rate_limit(layers.policy.clone())
        .token_budget(layers.budget.clone());
    let client = ClientBuilder::new(Client::new())
        .with(BridgedMiddleware::new(stack))
        .build();
    let url = format!("{}?x=1#part", upstream.chat_url());
    let response = client.post(url).body(CHAT).send().await;
    let response = response.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.attempts().len(), 2);
    assert!(response.text().await.expect("whole").contains("Hi"));
    for (head, body) in upstream.seen() {
        assert_eq!(body, CHAT);
        assert_eq!(head.uri.query(), Some("x=1"));
    }
    assert_eq!(usage.snapshot().all.calls, 1);
}

#[tokio::test]
async fn an_attempt_that_is_given_up_is_dropped_before_the_next_is_sent() {
    let provider = SimProvider::builder()
        .latency(Duration::ZERO)
        .script([Fault::Hang])
        .build();
    let server = Server::bind("127.0.0.1:0", provider)
        .await
        .expect("a socket");
    let under_way = UnderWay::default();
    let policy = Layers::new()
        .policy
        .backoff(|_: u32| Duration::from_millis(1))
        .timeouts(Timeouts::new().first_byte(Duration::from_millis(300)));
    let client = ClientBuilder::new(Client::new())
        .with(BridgedMiddleware::new(RetryOnRateLimitLayer::new(policy)))
        .with(under_way.clone())
        .build();
    let sent = client.post(format!("{}/v1/chat/completions", server.url()));
    let response = sent.body(CHAT).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(server.provider().totals().requests, 2);
    assert_eq!(under_way.0.load(Ordering::SeqCst), 0, "none is left");
    assert_eq!(under_way.1.load(Ordering::SeqCst), 1, "one at a time");
}

#[tokio::test]
async fn the_error_is_the_clients_own() {
    let retry = RetryOnRateLimitLayer::new(Layers::new().policy.attempts(1)).classify(Reqwest);
    let client = ClientBuilder::new(Client::new())
        .with(BridgedMiddleware::new(retry))
        .build();
    let error = client
        .get(nobody())
        .send()
        .await
        .expect_err("nobody listens");
    assert!(error.is_connect(), "{error:?}");
    assert!(matches!(error, Error::Reqwest(_)));
}

#[tokio::test]
async fn an_attempt_after_the_end_of_its_call_fails() {
    let upstream = Upstream::scripted(&[served]).await;
    let kept = Arc::new(Mutex::new(None::<PostService>));
    let keep = Arc::clone(&kept);
    let layer = layer_fn(move |service: PostService| {
        *keep.lock().expect("nobody panics with it") = Some(service.clone());
        service
    });
    let client = ClientBuilder::new(Client::new())
        .with(BridgedMiddleware::new(layer))
        .build();
    let sent = client.post(upstream.chat_url()).body(CHAT).send().await;
    assert_eq!(sent.expect("an answer").status(), 200);
    let late = kept.lock().expect("nobody panics with it").take();
    let request = Request::post(upstream.chat_url()).body(Body::from(CHAT));
    let late = late.expect("kept").oneshot(request.expect("a request"));
    let ended = tokio::time::timeout(Duration::from_secs(20), late).await;
    let error = ended.expect("it ends").expect_err("nobody sends it");
    assert!(error.is_middleware(), "{error:?}");
    assert_eq!(upstream.seen().len(), 1);
}
