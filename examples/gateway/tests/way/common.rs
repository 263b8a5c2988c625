//! A gateway with a provider behind it, and clients for it.
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tollgate_gateway::{Config, Gateway, client::Proxies};
use tollgate_sim::{SimBuilder, SimProvider, server::Server};

/// Both on sockets of their own.
pub(crate) struct Pair {
    pub(crate) gateway: Gateway,
    pub(crate) provider: Server,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a document")
    }

    pub(crate) fn said(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }
}

pub(crate) const KEY: &str = "the key that the provider knows";

/// Limits that never bind.
pub(crate) const WIDE: &str = "limits = [{ requests = 1_000_000, per = \"minute\" }]";

/// A gateway with one OpenAI-shaped target; `more` goes below its table, in which it stands first.
pub(crate) async fn pair(sim: SimBuilder, more: &str) -> Pair {
    pair_with(sim.api_key(KEY), |url| {
        format!(
            "listen = \"127.0.0.1:0\"\ndrain = \"10s\"\n[[target]]\nname = \"sim\"\norigin = \"{url}\"\ncredential_env = \"SIM_KEY\"\n{more}"
        )
    })
    .await
}

/// A gateway with a configuration that knows where the provider is.
pub(crate) async fn pair_with(sim: SimBuilder, config: impl FnOnce(&str) -> String) -> Pair {
    let provider = Server::bind("127.0.0.1:0", sim.build())
        .await
        .expect("a provider");
    let text = config(&provider.url());
    let env = |name: &str| (name == "SIM_KEY").then(|| KEY.to_owned());
    let config = Config::parse(&text, &env).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let gateway = Gateway::start_behind(config, Proxies::none())
        .await
        .expect("a gateway");
    Pair { gateway, provider }
}

pub(crate) fn sim() -> SimBuilder {
    SimProvider::builder().reply_tokens(8)
}

pub(crate) fn chat() -> Value {
    json!({ "model": "gpt-5-mini", "max_tokens": 50, "messages": [{ "role": "user", "content": "Say hello." }] })
}

pub(crate) fn streamed() -> Value {
    let mut chat = chat();
    chat["stream"] = json!(true);
    chat
}

impl Pair {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.addr())
    }

    pub(crate) fn post(&self, path: &str, document: &Value) -> Request<Body> {
        Request::post(self.url(path))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(document.to_string()))
            .expect("a request")
    }

    pub(crate) async fn chat(&self) -> Answer {
        ask(&http1(), self.post("/v1/chat/completions", &chat())).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = Request::get(self.url(path))
            .body(Body::empty())
            .expect("a request");
        ask(&http1(), request).await
    }

    /// Waits until so many are at the provider.
    pub(crate) async fn under_way(&self, calls: u64) {
        let there = async {
            while self.provider.provider().totals().in_flight < calls {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), there)
            .await
            .expect("they come");
    }

    /// Waits until nothing is under way, neither here nor there.
    pub(crate) async fn quiet(&self) {
        let quiet = async {
            while self.gateway.under_way() > 0 || self.provider.provider().totals().in_flight > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), quiet)
            .await
            .expect("all is done at last");
    }
}

pub(crate) type Http = Client<HttpConnector, Body>;

pub(crate) fn http1() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Prior knowledge.
pub(crate) fn http2() -> Http {
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

pub(crate) async fn ask(client: &Http, request: Request<Body>) -> Answer {
    let answer = client.request(request).await.expect("an answer");
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Answer {
        status: head.status,
        headers: head.headers,
        body,
    }
}
