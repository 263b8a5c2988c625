//! What the adapters and the layers add to a call of reqwest's: CPU and allocations, over loopback.
//!
//! ```console
//! $ taskset -c 0 cargo bench -p tollgate-reqwest --all-features --bench overhead
//! ```
//!
//! One thread, no limit binding. Rounds are interleaved and each row is the median of its rounds, so that a slow moment of the machine
//! meets all rows. CPU time is the client's thread's own (`CLOCK_THREAD_CPUTIME_ID`); the provider has a thread of its own, which is
//! not counted. Allocations are counted on one call after warm-up.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::{hint::black_box, pin::Pin};

use bytes::Bytes;
use cpu_time::ThreadTime;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use reqwest::{Body, Client};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tollgate_budget::{Budget, Limit, TokenBudgetLayer};
use tollgate_fallback::{ModelChain, ModelFallbackLayer};
use tollgate_reqwest::{
    Reqwest,
    v0_13::{HttpService, MiddlewareClient, TollgateMiddleware},
};
use tollgate_retry::{RateLimitPolicy, RetryOnRateLimitLayer};
use tollgate_usage::{UsageRecorderLayer, UsageTotals};
use tower::{Service, ServiceBuilder, ServiceExt, layer::util::Identity};

const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5","choices":[{"index":0,"message":{"role":"assistant","content":"Hello there, how may I help?"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}"#;

fn prompt(bytes: usize) -> Bytes {
    let text = "a".repeat(bytes);
    Bytes::from(format!(
        r#"{{"model":"gpt-5","messages":[{{"role":"user","content":"{text}"}}],"max_tokens":64}}"#
    ))
}

fn answer() -> Response<Full<Bytes>> {
    Response::builder()
        .header("content-type", "application/json")
        .header("x-ratelimit-limit-requests", "500000")
        .header("x-ratelimit-limit-tokens", "200000000")
        .header("x-ratelimit-remaining-requests", "499999")
        .header("x-ratelimit-remaining-tokens", "199999900")
        .header("x-ratelimit-reset-requests", "1ms")
        .header("x-ratelimit-reset-tokens", "1ms")
        .body(Full::new(Bytes::from_static(ANSWER.as_bytes())))
        .unwrap()
}

/// All four layers, as they usually stand.
macro_rules! all_four {
    () => {
        ServiceBuilder::new()
            .layer(UsageRecorderLayer::new(UsageTotals::new()))
            .layer(ModelFallbackLayer::new(
                ModelChain::new(["gpt-5", "gpt-5-mini"]).unwrap(),
            ))
            .layer(RetryOnRateLimitLayer::new(RateLimitPolicy::default()).classify(Reqwest))
            .layer(TokenBudgetLayer::new(
                Budget::in_memory([
                    Limit::requests(500_000_000_000).per_minute(),
                    Limit::tokens(200_000_000_000_000).per_minute(),
                ])
                .unwrap(),
            ))
    };
}

/// One call, to the last byte of its answer.
type Call<'a> = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = ()> + 'a>> + 'a>;

/// Every row makes its URL of the same text and reads its answer to the end; the box around its future is in all of them.
fn around<'a, S, B>(uri: &'a str, body: &'a Bytes, service: S) -> Call<'a>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + 'a,
    S::Error: std::fmt::Debug,
    B: http_body::Body<Data = Bytes> + 'a,
    B::Error: std::fmt::Debug,
{
    Box::new(move || {
        let service = service.clone();
        Box::pin(async move {
            let request = Request::post(uri)
                .header("content-type", "application/json")
                .header("authorization", "Bearer sk-none")
                .body(Body::from(body.clone()))
                .unwrap();
            let response = service.oneshot(request).await.unwrap();
            black_box(response.into_body().collect().await.unwrap().to_bytes());
        })
    })
}

fn bare<'a>(uri: &'a str, body: &'a Bytes) -> Call<'a> {
    let client = client();
    Box::new(move || {
        let client = client.clone();
        Box::pin(async move {
            let request = client
                .post(uri)
                .header("content-type", "application/json")
                .header("authorization", "Bearer sk-none")
                .body(body.clone());
            black_box(request.send().await.unwrap().bytes().await.unwrap());
        })
    })
}

fn plugged<'a>(uri: &'a str, body: &'a Bytes, client: ClientWithMiddleware) -> Call<'a> {
    Box::new(move || {
        let client = client.clone();
        Box::pin(async move {
            let request = client
                .post(uri)
                .header("content-type", "application/json")
                .header("authorization", "Bearer sk-none")
                .body(body.clone());
            black_box(request.send().await.unwrap().bytes().await.unwrap());
        })
    })
}

fn client() -> Client {
    Client::builder().tcp_nodelay(true).build().unwrap()
}

fn middlewares() -> ClientBuilder {
    ClientBuilder::new(client())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The provider answers at once, on a thread of its own.
fn provider() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let service =
                    hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async {
                        request.into_body().collect().await?;
                        Ok::<_, hyper::Error>(answer())
                    });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service);
                tokio::spawn(connection);
            }
        });
    });
    format!("http://{address}/v1/chat/completions")
}

fn main() {
    // `--test` is what cargo passes when it only wants to see the bench run.
    let once = std::env::args().any(|argument| argument == "--test");
    let (rounds, calls) = if once { (1, 20) } else { (15, 3_000) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let uri = &provider();
    let body = &prompt(200);
    let mut rows: Vec<(&str, Call<'_>)> = vec![
        ("reqwest", bare(uri, body)),
        ("HttpService", around(uri, body, HttpService::new(client()))),
        (
            "HttpService, all four layers",
            around(uri, body, all_four!().service(HttpService::new(client()))),
        ),
        (
            "reqwest-middleware, none",
            plugged(uri, body, middlewares().build()),
        ),
        (
            "TollgateMiddleware, no layer",
            plugged(
                uri,
                body,
                middlewares()
                    .with(TollgateMiddleware::new(Identity::new()))
                    .build(),
            ),
        ),
        (
            "TollgateMiddleware, all four layers",
            plugged(
                uri,
                body,
                middlewares()
                    .with(TollgateMiddleware::new(all_four!()))
                    .build(),
            ),
        ),
        (
            "MiddlewareClient, all four layers",
            around(
                uri,
                body,
                all_four!().service(HttpService::new(MiddlewareClient::new(
                    middlewares().build(),
                ))),
            ),
        ),
    ];
    println!(
        "{:<40} {:>8} {:>9} {:>7} {:>7} {:>8}",
        "a prompt of 200 bytes, over loopback", "CPU µs", "added µs", "ratio", "allocs", "bytes"
    );
    let mut times = vec![Vec::new(); rows.len()];
    for _ in 0..rounds {
        for ((_, call), times) in rows.iter_mut().zip(&mut times) {
            let start = ThreadTime::now();
            runtime.block_on(async {
                for _ in 0..calls {
                    call().await;
                }
            });
            times.push(start.elapsed().as_nanos() as f64 / f64::from(calls) / 1e3);
        }
    }
    let times: Vec<f64> = times.into_iter().map(median).collect();
    for ((name, call), time) in rows.iter_mut().zip(&times) {
        let counted = allocation_counter::measure(|| runtime.block_on(call()));
        println!(
            "{name:<40} {time:>8.2} {:>9.2} {:>7.3} {:>7} {:>8}",
            time - times[0],
            time / times[0],
            counted.count_total,
            counted.bytes_total,
        );
    }
}
