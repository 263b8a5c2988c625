//! The provider on a socket, over real loopback.
#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tollgate_sim::{Fault, SimProvider, server::Server};

type Http = Client<HttpConnector, Full<Bytes>>;

fn chat(server: &Server, stream: bool) -> Request<Full<Bytes>> {
    let body = format!(
        r#"{{"model":"gpt-test","max_tokens":40,"stream":{stream},"messages":[{{"role":"user","content":"Hi there"}}]}}"#
    );
    Request::post(format!("{}/v1/chat/completions", server.url()))
        .header("content-type", "application/json")
        .body(Full::from(body))
        .unwrap()
}

async fn get(http: &Http, server: &Server, path: &str) -> Value {
    let uri = format!("{}{path}", server.url()).parse().unwrap();
    let body = http.get(uri).await.unwrap().into_body();
    serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn serves_both_versions_and_tells_its_account() {
    let provider = SimProvider::builder().requests(3).tokens(1_000).build();
    let server = Server::bind("127.0.0.1:0", provider).await.unwrap();
    let one: Http = Client::builder(TokioExecutor::new()).build_http();
    let two: Http = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();

    let answer = one.request(chat(&server, false)).await.unwrap();
    assert_eq!(
        (answer.status(), answer.version()),
        (StatusCode::OK, Version::HTTP_11)
    );
    assert_eq!(answer.headers()["x-ratelimit-remaining-requests"], "2");
    answer.into_body().collect().await.unwrap();

    let answer = two.request(chat(&server, true)).await.unwrap();
    assert_eq!(
        (answer.status(), answer.version()),
        (StatusCode::OK, Version::HTTP_2)
    );
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(b"data: [DONE]\n\n"));

    let account = get(&one, &server, "/sim/account?requests=true").await;
    assert_eq!(account["totals"]["admitted"], 2);
    assert_eq!(account["totals"]["in_flight"], 0);
    assert_eq!(account["max_in_any_window"], serde_json::json!([2, 84]));
    assert_eq!(account["requests"][1]["stream"], true);

    let reset = Request::post(format!("{}/sim/reset", server.url()));
    let reset = one
        .request(reset.body(Full::default()).unwrap())
        .await
        .unwrap();
    assert_eq!(reset.status(), StatusCode::NO_CONTENT);
    let account = get(&one, &server, "/sim/account").await;
    assert_eq!(account["totals"]["requests"], 0);
    assert!(account.get("requests").is_none());
    server.stop().await;
}

#[tokio::test]
async fn faults_break_real_connections() {
    let provider = SimProvider::builder()
        .script([Fault::Reset, Fault::CutBody { bytes: 10 }, Fault::None])
        .build();
    let server = Server::bind("127.0.0.1:0", provider).await.unwrap();
    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    assert!(http.request(chat(&server, false)).await.is_err());
    let cut = http.request(chat(&server, false)).await.unwrap();
    assert_eq!(cut.status(), StatusCode::OK);
    assert!(cut.into_body().collect().await.is_err());
    let fine = http.request(chat(&server, false)).await.unwrap();
    assert!(fine.into_body().collect().await.is_ok());
    let totals = server.provider().totals();
    assert_eq!((totals.requests, totals.admitted), (3, 3));
    assert!(totals.billed_output > 0);
}

#[tokio::test]
async fn stops_when_told_and_frees_its_port() {
    let server = Server::bind("127.0.0.1:0", SimProvider::builder().build())
        .await
        .unwrap();
    let addr = server.addr();
    server.stop().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}
