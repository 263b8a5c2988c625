//! What is left with a request reaches the layers, and the middlewares inside of them.
use std::sync::{Arc, Mutex};

use http::{Extensions, Request};
use tollgate::{call::Call, prelude::*};
use tollgate_reqwest::ResponseExt;
use tollgate_tests::Layers;
use tower::{ServiceBuilder, ServiceExt};

use super::{
    adapter::{HttpService, MiddlewareClient, TollgateMiddleware},
    reqwest::{self, Body, Client},
    reqwest_middleware::{ClientBuilder, Middleware, Next, Result},
};
use crate::upstream::{CHAT, Upstream, limited, served};

#[derive(Clone, Debug, PartialEq)]
struct Mark(u32);

/// Looks at the extensions of every attempt, and leaves something there.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Vec<Sight>>>);

/// The mark that an attempt came with, and whether the call's ledger came with it.
type Sight = (Option<Mark>, bool);

#[async_trait::async_trait]
impl Middleware for Watch {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response> {
        let seen = (
            extensions.get::<Mark>().cloned(),
            extensions.get::<Call>().is_some(),
        );
        self.0.lock().expect("nobody panics with it").push(seen);
        extensions.insert(Mark(99));
        next.run(request, extensions).await
    }
}

// X05
#[tokio::test]
async fn options_of_a_call_reach_the_layers() {
    let upstream = Upstream::scripted(&[limited]).await;
    let client = ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(RetryOnRateLimitLayer::new(
            Layers::new().policy,
        )))
        .build();
    let sent = client.post(upstream.chat_url()).body(CHAT);
    let options = CallOptions::new().max_attempts(2);
    let response = sent
        .with_extension(options)
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 429);
    assert_eq!(response.attempts().len(), 2, "and not three");
    assert_eq!(upstream.seen().len(), 2);
    assert!(response.gave_up().is_some());
}

#[tokio::test]
async fn every_attempt_takes_a_map_of_its_own_to_the_middlewares_inside() {
    let upstream = Upstream::scripted(&[limited, served]).await;
    let watch = Watch::default();
    let client = ClientBuilder::new(Client::new())
        .with(TollgateMiddleware::new(RetryOnRateLimitLayer::new(
            Layers::new().policy,
        )))
        .with(watch.clone())
        .build();
    let sent = client.post(upstream.chat_url()).body(CHAT);
    sent.with_extension(Mark(7))
        .send()
        .await
        .expect("an answer");
    let expected = [(Some(Mark(7)), true), (Some(Mark(7)), true)];
    assert_eq!(*watch.0.lock().expect("nobody panics with it"), expected);
}

#[tokio::test]
async fn a_client_with_middlewares_inside_of_the_layers_sees_the_extensions_too() {
    let upstream = Upstream::scripted(&[limited, served]).await;
    let watch = Watch::default();
    let inner = ClientBuilder::new(Client::new())
        .with(watch.clone())
        .build();
    let client = ServiceBuilder::new()
        .retry_on_rate_limit(Layers::new().policy)
        .service(HttpService::new(MiddlewareClient::new(inner)));
    let request = Request::post(upstream.chat_url()).extension(Mark(7));
    let request = request.body(Body::from(CHAT)).expect("a request");
    let response = client.oneshot(request).await.expect("an answer");
    assert_eq!(Attempts::of(&response).len(), 2);
    let expected = [(Some(Mark(7)), true), (Some(Mark(7)), true)];
    assert_eq!(*watch.0.lock().expect("nobody panics with it"), expected);
}
