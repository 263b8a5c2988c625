//! What the layers add to a call: time, CPU and allocations, over an empty service and over hyper-util on loopback; and how fast
//! bytes of a stream pass the tap.
//!
//! ```console
//! $ taskset -c 0 cargo bench -p tollgate --bench overhead
//! ```
//!
//! One thread, no limit binding. Each row is the median of several rounds that are interleaved with the rows it is compared to,
//! so that a slow moment of the machine meets all of them. CPU time is the thread's own (`CLOCK_THREAD_CPUTIME_ID`); over
//! loopback the provider runs on a thread of its own and is not counted. Allocations are counted on one call after warm-up.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::{convert::Infallible, hint::black_box, time::Duration};

use bytes::Bytes;
use cpu_time::ThreadTime;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tollgate::{
    body::{ObservedBody, Tap},
    prelude::*,
    wire::prompt::Endpoint,
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5","choices":[{"index":0,"message":{"role":"assistant","content":"Hello there, how may I help?"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}"#;

fn prompt(bytes: usize) -> Bytes {
    let text = "a".repeat(bytes);
    Bytes::from(format!(
        r#"{{"model":"gpt-5","messages":[{{"role":"user","content":"{text}"}}],"max_tokens":64}}"#
    ))
}

fn request(uri: &str, body: &Bytes) -> Request<Full<Bytes>> {
    Request::post(uri)
        .header("content-type", "application/json")
        .header("authorization", "Bearer sk-none")
        .body(Full::new(body.clone()))
        .unwrap()
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

fn budget() -> Budget {
    Budget::in_memory([
        Limit::requests(500_000_000_000).per_minute(),
        Limit::tokens(200_000_000_000_000).per_minute(),
    ])
    .unwrap()
}

/// All four layers, as they usually stand.
macro_rules! all_four {
    ($service:expr) => {
        ServiceBuilder::new()
            .record_usage(UsageTotals::new())
            .model_fallback(chain())
            .retry_on_rate_limit(RateLimitPolicy::default())
            .token_budget(budget())
            .service($service)
    };
}

/// One call, to the last byte of its answer.
async fn call<S, B>(service: &mut S, uri: &str, body: &Bytes)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let response = service
        .ready()
        .await
        .unwrap()
        .call(request(uri, body))
        .await
        .unwrap();
    let mut body = std::pin::pin!(response.into_body());
    while let Some(frame) = body.frame().await {
        black_box(frame.unwrap());
    }
}

/// A row of a table: a name, and so many calls of its service.
struct Row<'a> {
    name: &'static str,
    calls: Box<dyn FnMut(u32) + 'a>,
}

fn row<'a, S, B>(
    name: &'static str,
    runtime: &'a tokio::runtime::Runtime,
    uri: &'a str,
    body: &'a Bytes,
    mut service: S,
) -> Row<'a>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + 'a,
    S::Error: std::fmt::Debug,
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let calls = Box::new(move |calls| {
        runtime.block_on(async {
            for _ in 0..calls {
                call(&mut service, uri, body).await;
            }
        });
    });
    Row { name, calls }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures the rows against the first of them. Rounds outside, rows inside: those of one round share the moment.
fn compare(title: &str, rounds: usize, calls: u32, mut rows: Vec<Row<'_>>) {
    println!("\n{title}");
    println!(
        "{:<44} {:>10} {:>10} {:>8} {:>10}",
        "", "CPU µs", "added µs", "allocs", "bytes"
    );
    let mut times = vec![Vec::new(); rows.len()];
    for _ in 0..rounds {
        for (row, times) in rows.iter_mut().zip(&mut times) {
            let start = ThreadTime::now();
            (row.calls)(calls);
            times.push(start.elapsed().as_nanos() as f64 / f64::from(calls) / 1e3);
        }
    }
    let times: Vec<f64> = times.into_iter().map(median).collect();
    for (row, time) in rows.iter_mut().zip(&times) {
        let counted = allocation_counter::measure(|| (row.calls)(1));
        println!(
            "{:<44} {time:>10.2} {:>10.2} {:>8} {:>10}",
            row.name,
            time - times[0],
            counted.count_total,
            counted.bytes_total,
        );
    }
}

fn chain() -> ModelChain {
    ModelChain::new(["gpt-5", "gpt-5-mini"]).unwrap()
}

fn over_an_empty_service(runtime: &tokio::runtime::Runtime, rounds: usize, calls: u32) {
    let empty = || service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(answer()) });
    let uri = "https://api.example/v1/chat/completions";
    for (size, calls) in [(200, calls), (400_000, calls / 50 + 1)] {
        let body = prompt(size);
        let builder = ServiceBuilder::new;
        let rows = vec![
            row("bare", runtime, uri, &body, empty()),
            row(
                "UsageRecorder",
                runtime,
                uri,
                &body,
                builder().record_usage(UsageTotals::new()).service(empty()),
            ),
            row(
                "ModelFallback",
                runtime,
                uri,
                &body,
                builder().model_fallback(chain()).service(empty()),
            ),
            row(
                "RetryOnRateLimit",
                runtime,
                uri,
                &body,
                builder()
                    .retry_on_rate_limit(RateLimitPolicy::default())
                    .service(empty()),
            ),
            row(
                "TokenBudget",
                runtime,
                uri,
                &body,
                builder().token_budget(budget()).service(empty()),
            ),
            row("all four", runtime, uri, &body, all_four!(empty())),
        ];
        compare(
            &format!("Over an empty service, a prompt of {size} bytes"),
            rounds,
            calls,
            rows,
        );
    }
}

fn over_hyper(runtime: &tokio::runtime::Runtime, rounds: usize, calls: u32) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let uri = format!(
        "http://{}/v1/chat/completions",
        listener.local_addr().unwrap()
    );
    // The provider answers at once, on a thread of its own, which is not measured.
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
    let client = || {
        let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
        connector.set_nodelay(true);
        hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .build::<_, Full<Bytes>>(connector)
    };
    let body = prompt(200);
    let rows = vec![
        row("bare", runtime, &uri, &body, client()),
        row("all four", runtime, &uri, &body, all_four!(client())),
    ];
    compare(
        "Over hyper-util on loopback, a prompt of 200 bytes",
        rounds,
        calls,
        rows,
    );
}

/// Bytes of an event stream through the tap that budget and recorder share.
fn through_the_tap(megabytes: usize) {
    let event = |text: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}],\"usage\":null}}\n\n"
        )
    };
    println!("\nA stream of {megabytes} MB through the tap");
    for (name, text, chunk) in [
        (
            "deltas of 5 characters, frames of 16 KiB",
            "hello".to_owned(),
            16 * 1024,
        ),
        (
            "deltas of 5 characters, a frame an event",
            "hello".to_owned(),
            0,
        ),
        (
            "deltas of 400 characters, frames of 16 KiB",
            "hello ".repeat(67),
            16 * 1024,
        ),
    ] {
        let event = event(&text);
        let frame: Bytes = if chunk == 0 {
            event.clone().into()
        } else {
            let mut frame = String::with_capacity(chunk + event.len());
            while frame.len() < chunk {
                frame.push_str(&event);
            }
            frame.into()
        };
        let frames = (megabytes << 20) / frame.len();
        let tap = Tap::new(
            Endpoint::ChatCompletions,
            http::StatusCode::OK,
            &sse_headers(),
        );
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(
            (0..frames).map(|_| Ok::<_, Infallible>(http_body::Frame::data(frame.clone()))),
        ));
        let mut body = std::pin::pin!(ObservedBody::new(body, tap.tapping()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let start = ThreadTime::now();
        let bytes: usize = runtime.block_on(async {
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                bytes += black_box(frame.unwrap()).data_ref().map_or(0, Bytes::len);
            }
            bytes
        });
        let time: Duration = start.elapsed();
        assert!(
            tap.read(|seen| seen.answer().content_started),
            "the tap has read the stream"
        );
        println!(
            "{name:<44} {:>10.2} GB/s",
            bytes as f64 / time.as_nanos() as f64
        );
    }
}

fn sse_headers() -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    headers.insert(
        "content-type",
        http::HeaderValue::from_static("text/event-stream"),
    );
    headers
}

fn main() {
    // `--test` is what cargo passes when it only wants to see the bench run.
    let once = std::env::args().any(|argument| argument == "--test");
    let (rounds, calls, megabytes) = if once { (1, 20, 1) } else { (15, 4_000, 256) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    over_an_empty_service(&runtime, rounds, calls);
    over_hyper(&runtime, rounds, calls);
    through_the_tap(megabytes);
}
