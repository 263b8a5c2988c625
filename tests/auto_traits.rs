//! `Clone`, `Send`, `Sync`, `Unpin` and `'static` flow through the layers and are not demanded.
use std::{convert::Infallible, fmt::Debug, rc::Rc};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use hyper_util::{
    client::legacy::{self, Client},
    rt::TokioExecutor,
};
use tollgate_reqwest::v0_13::HttpService;
use tollgate_tests::{Layers, chat, every_order, layer, send};
use tower::{Service, ServiceBuilder, service_fn};

fn service_is_all<T: Clone + Send + Sync + 'static>(service: T) -> T {
    service
}

fn future_is_send<T: Send + 'static>(future: T) -> T {
    future
}

fn body_is_all<T: Send + Sync + Unpin + 'static>(_: &T) {}

async fn empty<B>(_: Request<B>) -> Result<Response<Empty<Bytes>>, Infallible> {
    Ok(Response::new(Empty::new()))
}

macro_rules! flows {
    ($name:ident: $a:ident $b:ident $c:ident $d:ident) => {{
        let layers = Layers::new();
        let stack = ServiceBuilder::new()
            .layer(layer!($a, layers))
            .layer(layer!($b, layers))
            .layer(layer!($c, layers))
            .layer(layer!($d, layers))
            .service(tollgate_sim::script::Scripted::new([
                tollgate_sim::script::Reply::chat("model-a", 1, 1),
            ]));
        let mut stack = service_is_all(stack);
        let ready = tower::ServiceExt::<Request<Full<Bytes>>>::ready(&mut stack).await;
        let response = future_is_send(ready.expect("ready").call(chat("model-a"))).await;
        body_is_all(response.expect("an answer").body());
    }};
}

#[tokio::test(start_paused = true)]
async fn they_flow_through_every_order() {
    every_order!(flows);
}

macro_rules! not_send {
    ($name:ident: $a:ident $b:ident $c:ident $d:ident) => {{
        let layers = Layers::new();
        let here = Rc::new(());
        let stack = ServiceBuilder::new()
            .layer(layer!($a, layers))
            .layer(layer!($b, layers))
            .layer(layer!($c, layers))
            .layer(layer!($d, layers))
            .service(service_fn(move |request| {
                let here = Rc::clone(&here);
                async move {
                    let _here = here;
                    empty::<Full<Bytes>>(request).await
                }
            }));
        let _answered = send(stack, chat("model-a")).await;
    }};
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_stays_on_its_thread_will_do_in_every_order() {
    every_order!(not_send);
}

#[tokio::test(start_paused = true)]
async fn a_borrowed_inner_service_will_do() {
    let layers = Layers::new();
    let text = String::from("borrowed");
    let borrowed = &text;
    let stack = ServiceBuilder::new()
        .layer(layer!(u, layers))
        .layer(layer!(f, layers))
        .layer(layer!(r, layers))
        .layer(layer!(b, layers))
        .service(service_fn(move |request| async move {
            assert_eq!(borrowed, "borrowed");
            empty::<Full<Bytes>>(request).await
        }));
    let _answered = send(stack, chat("model-a")).await;
}

/// A service as a client or a server wants one, over a body of type `B`.
fn serves<B, E, S>(_: S)
where
    S: Service<Request<B>, Error = E, Future: Send + 'static> + Clone + Send + Sync + 'static,
{
}

macro_rules! stands {
    ($name:ident: $a:ident $b:ident $c:ident $d:ident) => {{
        let layers = Layers::new();
        let stack = || {
            ServiceBuilder::new()
                .layer(layer!($a, layers))
                .layer(layer!($b, layers))
                .layer(layer!($c, layers))
                .layer(layer!($d, layers))
        };
        let hyper = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        serves::<Full<Bytes>, legacy::Error, _>(stack().service(hyper));
        let gateway = Client::builder(TokioExecutor::new()).build_http::<Body>();
        serves::<Body, legacy::Error, _>(stack().service(gateway));
        let reqwest = HttpService::new(reqwest::Client::new());
        serves::<reqwest::Body, reqwest::Error, _>(stack().service(reqwest));
        // Asks for all that a server needs by itself.
        let _server: Router = Router::new()
            .route("/", get(|| async {}))
            .layer(stack().into_inner());
    }};
}

// X05
#[tokio::test]
async fn every_order_stands_over_hyper_and_reqwest_and_in_an_axum_server() {
    every_order!(stands);
}

fn shared<T: Clone + Debug + Send + Sync + Unpin + 'static>() {}

// X04
#[test]
fn handles_layers_and_settings_are_shared_between_threads() {
    shared::<tollgate::Budget>();
    shared::<tollgate::UsageTotals>();
    shared::<tollgate::RetryStats>();
    shared::<tollgate::FallbackHealth>();
    shared::<tollgate::Ledger>();
    shared::<tollgate::usage::SinkQueue>();
    shared::<tollgate::price::Prices>();
    shared::<tollgate::retry::RetryBudget>();

    shared::<tollgate::UsageRecorderLayer>();
    shared::<tollgate::ModelFallbackLayer>();
    shared::<tollgate::RetryOnRateLimitLayer>();
    shared::<tollgate::TokenBudgetLayer>();

    shared::<tollgate::ModelChain>();
    shared::<tollgate::RateLimitPolicy>();
    shared::<tollgate::Limit>();
    shared::<tollgate::UsageRecord>();
}

#[test]
fn what_travels_in_extensions_may_go_to_any_thread() {
    shared::<tollgate::call::CallOptions>();
    shared::<tollgate::call::Call>();
    shared::<tollgate::wire::prompt::Facts>();
    shared::<tollgate::wire::outcome::Verdict>();
    shared::<tollgate::extensions::Refused>();
    shared::<tollgate::extensions::GaveUp>();
    shared::<tollgate::extensions::TimedOut>();
    shared::<tollgate::extensions::ServedBy>();
}
