//! Caps that outlast the process.
use std::path::Path;

use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::json;
use tollgate_gateway::{Config, Gateway, client::Proxies};
use tollgate_sim::server::Server;

use crate::common::{Pair, WIDE, ask, chat, http1, sim};

const ANN: &str = "key-of-ann-0123456789";
const BOB: &str = "key-of-bob-0123456789";

/// A gateway with one more life on the same ledger.
async fn start(ledger: &Path, limit: &str) -> Pair {
    let digest = |key: &str| tollgate_gateway::keys::hash(key.as_bytes()).expect("a digest");
    let provider = Server::bind("127.0.0.1:0", sim().build())
        .await
        .expect("a provider");
    let text = format!(
        "listen = \"127.0.0.1:0\"\ndigest_key_env = \"DIGESTS\"\n[[target]]\nname = \"sim\"\norigin = \"{}\"\n{WIDE}\n\
         [[limit]]\n{limit}\nname = \"cap\"\nrefuse = true\n\
         [prices.models]\n\"gpt-5-mini\" = {{ input = \"1000\", output = \"1000\" }}\n\
         \"gpt-5\" = {{ input = \"1000\", output = \"1000\" }}\n\
         [[key]]\nname = \"ann\"\nsha256 = \"{}\"\ntenant = \"acme\"\ntag = \"night\"\n\
         [[key]]\nname = \"bob\"\nsha256 = \"{}\"\ntenant = \"acme\"\ntag = \"day\"\n\
         [sinks]\nledger = {ledger:?}",
        provider.url(),
        digest(ANN),
        digest(BOB)
    );
    let config = Config::parse(&text, &|_| Some("0f".repeat(16)));
    let config = config.unwrap_or_else(|error| panic!("{error}\n{text}"));
    let gateway = Gateway::start_behind(config, Proxies::none()).await;
    Pair {
        gateway: gateway.expect("a gateway"),
        provider,
    }
}

async fn call(pair: &Pair, key: &str, model: &str) -> StatusCode {
    let mut document = chat();
    document["model"] = json!(model);
    let request = Request::post(pair.url("/v1/chat/completions"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .body(Body::from(document.to_string()));
    ask(&http1(), request.expect("a request")).await.status
}

fn used(pair: &Pair) -> Vec<(Option<String>, u64)> {
    let own = pair.gateway.handles().own.as_ref().expect("limits of ours");
    let limits = own.snapshot().limits.into_iter();
    let used = limits.filter(|limit| limit.used > 0);
    let mut used: Vec<_> = used
        .map(|limit| (limit.key.map(|key| key.to_string()), limit.used))
        .collect();
    used.sort();
    used
}

#[tokio::test]
async fn caps_of_every_unit_and_scope_are_remembered_on_the_ledger() {
    for limit in [
        "dollars = \"5\"\ncalendar = \"month\"",
        "dollars = \"5\"\ncalendar = \"day\"\nzone = \"Pacific/Apia\"\nstart_hour = 7\nscope = \"principal\"",
        "requests = 100\ncalendar = \"week\"\nscope = \"tenant\"",
        "tokens = 100_000\ncalendar = \"day\"\nscope = \"tag\"",
        "input_tokens = 100_000\ncalendar = \"day\"\nscope = \"model\"",
        "output_tokens = 100_000\ncalendar = \"day\"\nmodels = [\"gpt-5-mini\"]\nscope = \"principal\"",
        "requests = 100\ncalendar = \"day\"\nmodels = [\"gpt-5\"]",
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let ledger = dir.path().join("usage.sqlite");
        let pair = start(&ledger, limit).await;
        for (key, model) in [(ANN, "gpt-5-mini"), (BOB, "gpt-5"), (BOB, "gpt-5-mini")] {
            assert_eq!(call(&pair, key, model).await, 200, "{limit}");
        }
        pair.quiet().await;
        let before = used(&pair);
        assert!(!before.is_empty(), "{limit}");
        assert!(pair.gateway.stop().await);
        let pair = start(&ledger, limit).await;
        assert_eq!(used(&pair), before, "{limit}");
    }
}

#[tokio::test]
async fn a_cap_that_is_spent_stays_so_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = dir.path().join("usage.sqlite");
    let limit = "requests = 2\ncalendar = \"month\"\nscope = \"principal\"";
    let pair = start(&ledger, limit).await;
    for status in [200, 200, 429] {
        assert_eq!(call(&pair, ANN, "gpt-5-mini").await, status);
    }
    assert!(pair.gateway.stop().await);
    let pair = start(&ledger, limit).await;
    assert_eq!(call(&pair, ANN, "gpt-5-mini").await, 429);
    assert_eq!(call(&pair, BOB, "gpt-5-mini").await, 200);
}

#[tokio::test]
async fn what_never_reached_the_provider_is_not_remembered_as_a_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = dir.path().join("usage.sqlite");
    let limit = "requests = 10\ncalendar = \"month\"";
    let mut pair = start(&ledger, limit).await;
    assert_eq!(call(&pair, ANN, "gpt-5-mini").await, 200);
    pair.quiet().await;
    // Nobody listens any more.
    let other = Server::bind("127.0.0.1:0", sim().build()).await;
    drop(std::mem::replace(
        &mut pair.provider,
        other.expect("unused"),
    ));
    assert_eq!(call(&pair, ANN, "gpt-5-mini").await, 502);
    pair.quiet().await;
    let before = used(&pair);
    assert_eq!(before, [(None, 1)]);
    assert!(pair.gateway.stop().await);
    let pair = start(&ledger, limit).await;
    assert_eq!(used(&pair), before);
}
