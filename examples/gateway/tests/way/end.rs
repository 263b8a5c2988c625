//! How a gateway ends: who is still served, what is told, what is kept.
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::net::TcpStream;

use crate::common::{Answer, WIDE, ask, chat, http1, http2, pair_with, sim, streamed};

const HOUR: Duration = Duration::from_secs(3_600);

/// Over a connection of its own.
async fn get(addr: std::net::SocketAddr, path: &str) -> Answer {
    let request = Request::get(format!("http://{addr}{path}"))
        .body(Body::empty())
        .expect("a request");
    ask(&http1(), request).await
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .expect("it comes to pass");
}

#[tokio::test]
async fn while_it_says_that_it_is_not_ready_whoever_comes_is_served() {
    let pair = pair_with(sim(), |url| {
        format!("listen = \"127.0.0.1:0\"\ndrain_delay = \"1h\"\n[[target]]\nname = \"sim\"\norigin = \"{url}\"\n{WIDE}")
    })
    .await;
    let addr = pair.gateway.addr();
    assert_eq!(get(addr, "/readyz").await.status, StatusCode::OK);
    let chat = pair.post("/v1/chat/completions", &chat());
    let stopping = tokio::spawn(pair.gateway.stop());
    until(async || get(addr, "/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(get(addr, "/healthz").await.status, StatusCode::OK);
    assert_eq!(ask(&http1(), chat).await.status, StatusCode::OK);
    stopping.abort();
}

#[tokio::test]
async fn the_pages_on_an_address_of_their_own_outlast_the_callers() {
    let pair = pair_with(sim().reply_tokens(50).pace(HOUR), |url| {
        format!("listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[[target]]\nname = \"sim\"\norigin = \"{url}\"\n{WIDE}")
    })
    .await;
    let call = pair.post("/v1/chat/completions", &streamed());
    let mut body = http1().request(call).await.expect("a head").into_body();
    body.frame().await.expect("a frame").expect("a good one");
    let (public, admin) = (pair.gateway.addr(), pair.gateway.admin_addr());
    let stopping = tokio::spawn(pair.gateway.stop());
    until(async || TcpStream::connect(public).await.is_err()).await;
    let metrics = get(admin, "/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(
        metrics.contains("tollgate_gateway_requests_under_way 1"),
        "{metrics}"
    );
    assert_eq!(
        get(admin, "/readyz").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    drop(body);
    assert!(stopping.await.expect("it stops"), "nobody was cut");
    assert!(TcpStream::connect(admin).await.is_err());
}

/// Enough that some of them are still on their way when the first one has been cut.
const CALLS: u64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_cut_at_the_end_is_recorded() {
    for client in [http1(), http2()] {
        // In a stream, and before any answer.
        for stream in [true, false] {
            let dir = tempfile::tempdir().expect("a directory");
            let jsonl = dir.path().join("usage.jsonl");
            let sim = sim().reply_tokens(50);
            let sim = if stream {
                sim.pace(HOUR)
            } else {
                sim.latency(HOUR)
            };
            let pair = pair_with(sim, |url| {
                format!(
                    "listen = \"127.0.0.1:0\"\ndrain = \"50ms\"\n[[target]]\nname = \"sim\"\norigin = \"{url}\"\n{WIDE}\n\
                     [sinks]\njsonl = {jsonl:?}"
                )
            })
            .await;
            let document = if stream { streamed() } else { chat() };
            let calls: Vec<_> = (0..CALLS)
                .map(|_| client.request(pair.post("/v1/chat/completions", &document)))
                .map(|call| {
                    tokio::spawn(async move {
                        let Ok(answer) = call.await else { return };
                        let _ = answer.into_body().collect().await;
                    })
                })
                .collect();
            pair.under_way(CALLS).await;
            let sink = pair.gateway.handles().sinks.jsonl.clone();
            assert!(!pair.gateway.stop().await, "they were cut");
            // The process could end now.
            let written = sink.expect("a file").snapshot().written;
            assert_eq!(written, CALLS, "stream: {stream}");
            let lines = std::fs::read_to_string(&jsonl).expect("lines");
            assert_eq!(lines.lines().count() as u64, CALLS);
            for call in calls {
                call.await.expect("it is at its end");
            }
        }
    }
}
