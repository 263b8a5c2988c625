//! Every order of the four layers, around a client and among the middlewares.
use http::Request;
use tollgate_tests::{Layers, every_order, layer};
use tower::{Service, ServiceBuilder, ServiceExt};

use super::{
    adapter::{HttpService, TollgateMiddleware},
    reqwest::{self, Body, Client},
    reqwest_middleware::ClientBuilder,
};
use crate::upstream::{CHAT, Upstream, served};

fn fails_with<E, S: Service<Request<Body>, Error = E> + Clone + Send + Sync + 'static>(_: &S) {}

fn future_is_send<T: Send + 'static>(future: T) -> T {
    future
}

// X05
#[tokio::test]
async fn every_order_serves_in_both_forms() {
    let upstream = Upstream::scripted(&[served]).await;
    let mut sent = 0;
    macro_rules! serves {
        ($name:ident: $a:ident $b:ident $c:ident $d:ident) => {{
            let name = stringify!($name);
            let layers = Layers::new();
            let stack = ServiceBuilder::new()
                .layer(layer!($a, layers))
                .layer(layer!($b, layers))
                .layer(layer!($c, layers))
                .layer(layer!($d, layers));
            let around = stack.clone().service(HttpService::new(Client::new()));
            fails_with::<reqwest::Error, _>(&around);
            let request = Request::post(upstream.chat_url()).body(Body::from(CHAT));
            let call = future_is_send(around.oneshot(request.expect("a request")));
            let response = call.await.expect("an answer");
            let whole = http_body_util::BodyExt::collect(response.into_body()).await;
            assert!(!whole.expect("whole").to_bytes().is_empty(), "{name}");

            let plug = TollgateMiddleware::new(stack);
            let client = ClientBuilder::new(Client::new()).with(plug).build();
            let call = future_is_send(client.post(upstream.chat_url()).body(CHAT).send());
            let response = call.await.expect("an answer");
            assert!(
                response.text().await.expect("whole").contains("Hi"),
                "{name}"
            );

            let totals = layers.usage.snapshot().all;
            assert_eq!((totals.calls, totals.input), (2, 18), "{name}: {totals:?}");
            sent += 2;
        }};
    }
    every_order!(serves);
    assert_eq!(upstream.seen().len(), sent);
    assert_eq!(sent, 48);
}
