//! What the layers do, seen from outside: fallbacks, retries, limits, costs, failures.
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::json;
use tollgate_sim::{Fault, Incoming, SimBuilder};

use crate::common::{KEY, WIDE, ask, chat, http1, pair, pair_with, sim};

/// A model that is down, among others that are well.
fn dead(name: &'static str, sim: SimBuilder) -> SimBuilder {
    sim.on(move |incoming: &Incoming<'_>| {
        if incoming.model == name {
            Fault::Status(503)
        } else {
            Fault::None
        }
    })
}

#[tokio::test]
async fn the_next_model_of_a_chain_serves_and_the_headers_say_so() {
    let more = format!(
        "{WIDE}\n[[chain]]\ncandidates = [{{ model = \"large\" }}, {{ model = \"small\" }}]\n\
         [retry]\nattempts = 1\n[prices.models]\nsmall = {{ input = \"1\", output = \"2\" }}"
    );
    let pair = pair(dead("large", sim()), &more).await;
    let mut document = chat();
    document["model"] = json!("large");
    let answer = ask(&http1(), pair.post("/v1/chat/completions", &document)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["model"], "small");
    assert_eq!(answer.said("x-tollgate-model"), "small");
    assert_eq!(answer.said("x-tollgate-attempts"), "2");
    // The prompt's tokens at a millionth of a dollar, and eight at two.
    let input = answer.json()["usage"]["prompt_tokens"]
        .as_u64()
        .expect("a count");
    let cost = format!("0.0000{:02}", input + 16);
    assert_eq!(answer.said("x-tollgate-cost"), cost);
    let page = pair.get("/").await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(
        page.contains("CoolingDown") && page.contains("<td>large</td>"),
        "{page}"
    );
}

#[tokio::test]
async fn a_chain_goes_on_at_another_target_with_its_key_and_its_limits() {
    let first = tollgate_sim::server::Server::bind("127.0.0.1:0", dead("large", sim()).build())
        .await
        .expect("a provider");
    let url = first.url();
    let pair = pair_with(sim().api_key(KEY), |second| {
        format!(
            "listen = \"127.0.0.1:0\"\n\
             [[target]]\nname = \"one\"\norigin = \"{url}\"\n{WIDE}\n\
             [[target]]\nname = \"two\"\norigin = \"{second}\"\ncredential_env = \"SIM_KEY\"\nlimits = [{{ requests = 1, per = \"hour\" }}]\n\
             [[chain]]\ncandidates = [{{ target = \"one\", model = \"large\" }}, {{ target = \"two\", model = \"elsewhere\" }}]\n\
             [retry]\nattempts = 1\n[timeouts]\nqueue = \"1s\"\n"
        )
    })
    .await;
    let mut document = chat();
    document["model"] = json!("large");
    let answer = ask(&http1(), pair.post("/v1/chat/completions", &document)).await;
    assert_eq!(
        (answer.status, answer.said("x-tollgate-target")),
        (StatusCode::OK, "two"),
        "{answer:?}"
    );
    assert_eq!(answer.json()["model"], "elsewhere");
    let handles = pair.gateway.handles();
    let used = |name: &str| {
        let (_, budget) = handles
            .targets
            .iter()
            .find(|(target, _)| **target == *name)
            .expect("a target");
        budget.snapshot().limits[0].used
    };
    assert_eq!(
        (used("one"), used("two")),
        (1, 1),
        "each attempt is in the books of its target"
    );
    let answer = ask(&http1(), pair.post("/v1/chat/completions", &document)).await;
    assert_ne!(
        answer.status,
        StatusCode::OK,
        "the second target's limit is used up: {answer:?}"
    );
    assert_eq!(pair.provider.provider().totals().requests, 1);
}

#[tokio::test]
async fn what_the_gateway_allows_waits_for_no_target_that_refuses() {
    let refuses = sim().on(|_| Fault::RateLimited {
        unit: tollgate_sim::Unit::Requests,
        retry_after: Some(Duration::from_secs(60)),
    });
    let first = tollgate_sim::server::Server::bind("127.0.0.1:0", refuses.build())
        .await
        .expect("a provider");
    let url = first.url();
    let pair = pair_with(sim().api_key(KEY), |second| {
        format!(
            "listen = \"127.0.0.1:0\"\n\
             [[target]]\nname = \"one\"\norigin = \"{url}\"\n{WIDE}\n\
             [[target]]\nname = \"two\"\norigin = \"{second}\"\ncredential_env = \"SIM_KEY\"\n{WIDE}\n\
             [[chain]]\ncandidates = [{{ target = \"one\", model = \"m\" }}, {{ target = \"two\", model = \"m\" }}]\n\
             [[limit]]\nrequests = 1_000\nper = \"minute\"\n"
        )
    })
    .await;
    let mut document = chat();
    document["model"] = json!("m");
    let begun = tokio::time::Instant::now();
    for _ in 0..3 {
        let answer = ask(&http1(), pair.post("/v1/chat/completions", &document)).await;
        assert_eq!(
            (answer.status, answer.said("x-tollgate-target")),
            (StatusCode::OK, "two"),
            "{answer:?}"
        );
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_a_502_that_is_not_to_be_asked_again() {
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[[target]]\nname = \"gone\"\norigin = \"http://127.0.0.1:1\"\n{WIDE}\n[retry]\nattempts = 1"
    );
    let pair = pair_with(sim(), |_| text).await;
    let answer = pair.chat().await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.json()["error"]["code"], "provider_unreachable");
    assert_eq!(answer.said("x-should-retry"), "false");
}

#[tokio::test]
async fn a_document_that_breaks_in_its_middle_is_no_whole_answer() {
    let cut = |_: &Incoming<'_>| Fault::CutBody { bytes: 40 };
    let pair = pair(sim().on(cut), &format!("{WIDE}\n[retry]\nattempts = 1")).await;
    let answer = pair.chat().await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{answer:?}");
}

#[tokio::test]
async fn requests_beyond_the_most_are_sent_away_at_once() {
    let hour = Duration::from_secs(3_600);
    let pair = pair_with(sim().latency(hour), |url| {
        format!("listen = \"127.0.0.1:0\"\nmax_requests = 2\n[[target]]\nname = \"sim\"\norigin = \"{url}\"\n{WIDE}")
    })
    .await;
    let client = http1();
    let waiting: Vec<_> = (0..2)
        .map(|_| tokio::spawn(client.request(pair.post("/v1/chat/completions", &chat()))))
        .collect();
    pair.under_way(2).await;
    let answer = pair.chat().await;
    assert_eq!(
        (answer.status, answer.said("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, "1")
    );
    for call in waiting {
        call.abort();
    }
    pair.quiet().await;
}

#[tokio::test]
async fn without_keys_no_web_page_gets_through() {
    let pair = pair(sim(), WIDE).await;
    for (name, value) in [("origin", "https://evil.example"), ("host", "evil.example")] {
        for path in ["/v1/models", "/", "/metrics"] {
            if name == "origin" && path != "/v1/models" {
                continue;
            }
            let request = Request::get(pair.url(path))
                .header(name, value)
                .body(Body::empty())
                .expect("a request");
            let answer = ask(&http1(), request).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name} {path}");
        }
    }
}
