//! All four layers over hyper-util's client and a real socket on loopback. X05.
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tollgate::{classify::HyperUtil, prelude::*};
use tollgate_sim::{SimProvider, server::Server};
use tollgate_tests::Layers;
use tower::{Service, ServiceBuilder, ServiceExt};

fn request(url: &str, more: &str) -> Request<Full<Bytes>> {
    let body = format!(
        r#"{{"model":"model-a","messages":[{{"role":"user","content":"Hello"}}],"max_tokens":16{more}}}"#
    );
    Request::post(format!("{url}/v1/chat/completions"))
        .header("content-type", "application/json")
        .body(body.into())
        .expect("a request")
}

#[tokio::test]
async fn answers_and_streams_come_through_whole_and_are_recorded() {
    let provider = SimProvider::builder()
        .latency(Duration::ZERO)
        .reply_tokens(12)
        .build();
    let server = Server::bind("127.0.0.1:0", provider)
        .await
        .expect("a socket");
    let layers = Layers::new();
    let mut client = ServiceBuilder::new()
        .record_usage(layers.usage.clone())
        .model_fallback(layers.chain.clone())
        .layer(RetryOnRateLimitLayer::new(layers.policy.clone()).classify(HyperUtil))
        .token_budget(layers.budget.clone())
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    for more in ["", r#","stream":true"#] {
        let sent = request(&server.url(), more);
        let response = client
            .ready()
            .await
            .expect("ready")
            .call(sent)
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200);
        let body = response
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("text");
        assert_eq!(text.contains("data: [DONE]"), !more.is_empty(), "{text}");
        assert!(
            !text.contains(r#""choices":[],"usage""#),
            "our usage chunk is taken out: {text}"
        );
    }
    let totals = layers.usage.snapshot().all;
    assert_eq!((totals.calls, totals.output), (2, 24), "{totals:?}");
    assert_eq!(
        server.provider().totals().billed_output,
        24,
        "as the provider counts"
    );
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_and_comes_out_as_the_clients_own_error() {
    // A port that was just free: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let layers = Layers::new();
    let stats = RetryStatsProbe::default();
    let client = ServiceBuilder::new()
        .layer(
            RetryOnRateLimitLayer::new(
                layers
                    .policy
                    .clone()
                    .backoff(|_: u32| Duration::from_millis(1)),
            )
            .stats(stats.0.clone())
            .classify(HyperUtil),
        )
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let error = client
        .oneshot(request(&url, ""))
        .await
        .expect_err("nobody listens");
    assert!(
        error.is_connect(),
        "hyper-util's own error, untouched: {error}"
    );
    assert_eq!(stats.0.snapshot().retries, 2, "three attempts");
}

/// Accepts one connection, answers with `answer` once the request has begun, tells that, and then that the other side closed.
async fn one_connection(
    listener: tokio::net::TcpListener,
    answer: &'static [u8],
    answered: tokio::sync::oneshot::Sender<()>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut socket, _) = listener.accept().await.expect("a connection");
    let mut buffer = vec![0; 64 << 10];
    let read = socket.read(&mut buffer).await.expect("a request");
    assert!(read > 0);
    socket.write_all(answer).await.expect("an answer");
    answered.send(()).expect("somebody waits");
    // The rest of the request, then the end. A reset is an end, too.
    while socket.read(&mut buffer).await.unwrap_or(0) > 0 {}
}

// U11
#[tokio::test]
async fn the_connection_is_closed_when_the_caller_leaves() {
    let head =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
        8\r\n: ping\n\n\r\n";
    for (answer, more) in [
        (&b""[..], ""),
        (&head[..], r#","stream":true"#),
        // Not streamed, and half of it has come.
        (
            &b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{\"model\""[..],
            "",
        ),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (tell, answered) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(one_connection(listener, answer, tell));
        let layers = Layers::new();
        let client = ServiceBuilder::new()
            .record_usage(layers.usage.clone())
            .token_budget(layers.budget.clone())
            .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
        // The client lives on: it is the call that ends.
        let call = client.clone().oneshot(request(&url, more));
        if answer.is_empty() {
            tokio::select! {
                _ = call => panic!("there is no answer"),
                told = answered => told.expect("the server has the request"),
            }
        } else {
            let mut body = call.await.expect("an answer").into_body();
            body.frame().await.expect("a frame").expect("whole");
        }
        tokio::time::timeout(Duration::from_secs(60), server)
            .await
            .expect("the connection was closed")
            .expect("the server did not fail");
        let used = layers.usage.snapshot().all;
        assert_eq!((used.calls, used.partial), (1, 1));
        drop(client);
    }
}

#[derive(Default)]
struct RetryStatsProbe(tollgate::RetryStats);
