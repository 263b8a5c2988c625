//! Documents and streams over HTTP/1.1 and HTTP/2, headers, keys, sizes.
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::json;
use tollgate_sim::{BodyFate, Fault, script::Reply};

use crate::common::{KEY, Pair, WIDE, ask, chat, http1, http2, pair, pair_with, sim, streamed};

#[tokio::test]
async fn documents_and_streams_come_whole_over_http_1_and_2() {
    let pair = pair(sim(), WIDE).await;
    for client in [http1(), http2()] {
        let answer = ask(&client, pair.post("/v1/chat/completions", &chat())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["usage"]["completion_tokens"], 8);
        assert_eq!(answer.said("x-tollgate-attempts"), "1");
        assert_eq!(answer.said("x-tollgate-model"), "gpt-5-mini");
        assert_eq!(answer.said("x-tollgate-target"), "sim");
        let answer = ask(&client, pair.post("/v1/chat/completions", &streamed())).await;
        assert!(answer.said("content-type").starts_with("text/event-stream"));
        assert!(answer.body.ends_with(b"data: [DONE]\n\n"), "{answer:?}");
    }
    let account = pair.provider.provider().account();
    assert_eq!(account.requests.len(), 4);
    assert!(
        account
            .requests
            .iter()
            .all(|seen| seen.decision == tollgate_sim::Decision::Admitted)
    );
}

#[tokio::test]
async fn a_stream_is_passed_on_while_it_is_made() {
    let pair = pair(
        sim().reply_tokens(1_000).pace(Duration::from_millis(20)),
        WIDE,
    )
    .await;
    for client in [http1(), http2()] {
        let mut chat = streamed();
        chat["max_tokens"] = json!(1_000);
        let answer = client
            .request(pair.post("/v1/chat/completions", &chat))
            .await
            .expect("a head");
        let mut body = answer.into_body();
        let frame = body.frame().await.expect("a frame").expect("a good one");
        assert!(
            frame
                .data_ref()
                .is_some_and(|data| data.starts_with(b"data: "))
        );
        let open = pair.provider.provider().account();
        let open = open.requests.last().expect("seen").body_fate;
        assert_eq!(
            open,
            BodyFate::Open,
            "twenty seconds of it are still to come"
        );
        drop(body);
    }
    pair.quiet().await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_ends_the_call_at_the_provider() {
    let hour = Duration::from_secs(3_600);
    // In a stream, and before any answer.
    for stream in [true, false] {
        let sim = sim().reply_tokens(50);
        let sim = if stream {
            sim.pace(hour)
        } else {
            sim.latency(hour)
        };
        let pair = pair(sim, WIDE).await;
        for client in [http1(), http2()] {
            let document = if stream { streamed() } else { chat() };
            let request = pair.post("/v1/chat/completions", &document);
            let call = tokio::spawn(async move {
                let body = client.request(request).await.expect("a head").into_body();
                body.collect().await.expect("nobody waits that long")
            });
            pair.under_way(1).await;
            call.abort();
            pair.quiet().await;
            let seen = pair.provider.provider().account();
            let seen = seen.requests.last().expect("it came");
            assert_ne!(seen.body_fate, BodyFate::Complete, "stream: {stream}");
        }
        assert_eq!(
            pair.provider.provider().totals().requests,
            2,
            "nothing was tried again"
        );
    }
}

#[tokio::test]
async fn neither_key_nor_headers_of_a_connection_pass() {
    let text = "credential_header = \"authorization\"\nheaders = { x-team = \"seven\" }";
    let echo = |incoming: &tollgate_sim::Incoming<'_>| {
        let said: Vec<String> = incoming
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let reply = Reply::ok_json(json!({ "heard": said }))
            .header("connection", "x-secret")
            .header("x-secret", "1")
            .header("set-cookie", "session=1")
            .header("x-tollgate-cost", "0")
            .header("x-kept", "1");
        Fault::Answer(Box::new(reply))
    };
    let pair = pair(sim().on(echo), &format!("{WIDE}\n{text}")).await;
    let request = Request::post(pair.url("/v1/chat/completions?key=gateway-key&beta=1"))
        .header("authorization", "Bearer callers-own-key")
        .header("x-api-key", "callers-other-key")
        .header("connection", "x-private")
        .header("x-private", "1")
        .header("te", "trailers")
        .header("proxy-authorization", "Basic callers-proxy-key")
        .header("x-public", "1")
        .header("x-team", "eight")
        .body(Body::from(chat().to_string()))
        .expect("a request");
    let answer = ask(&http1(), request).await;
    let heard = answer.json()["heard"].to_string();
    assert!(
        heard.contains(&format!("authorization: Bearer {KEY}")),
        "{heard}"
    );
    assert!(
        heard.contains("x-public: 1") && heard.contains("x-team: seven"),
        "{heard}"
    );
    for secret in ["callers", "x-private", "trailers", "eight"] {
        assert!(!heard.contains(secret), "{secret} passed: {heard}");
    }
    assert_eq!(answer.said("x-kept"), "1");
    for name in ["x-secret", "set-cookie", "x-tollgate-cost"] {
        assert_eq!(answer.said(name), "", "{name} passed");
    }
}

async fn with_keys() -> Pair {
    let digest = |key: &str| tollgate_gateway::keys::hash(key.as_bytes()).expect("a digest");
    let (ann, bob) = (
        digest("key-of-ann-0123456789"),
        digest("key-of-bob-0123456789"),
    );
    pair_with(sim().api_key(KEY), |url| {
        format!(
            "listen = \"127.0.0.1:0\"\n[[target]]\nname = \"sim\"\norigin = \"{url}\"\ncredential_env = \"SIM_KEY\"\n{WIDE}\n\
             [[limit]]\nrequests = 2\nper = \"hour\"\nscope = \"principal\"\nname = \"two a key\"\nrefuse = true\n\
             [[key]]\nname = \"ann\"\nsha256 = \"{ann}\"\n[[key]]\nname = \"bob\"\nsha256 = \"{bob}\"\n"
        )
    })
    .await
}

fn as_user(pair: &Pair, key: &str, user: &str) -> Request<Body> {
    let mut document = chat();
    document["user"] = json!(user);
    let mut request = pair.post("/v1/chat/completions", &document);
    if !key.is_empty() {
        let shown = format!("Bearer {key}").parse().expect("a header");
        request.headers_mut().insert(header::AUTHORIZATION, shown);
    }
    request
}

#[tokio::test]
async fn each_key_has_a_budget_and_the_user_in_a_document_selects_none() {
    let pair = with_keys().await;
    let client = http1();
    for (key, user, status) in [
        ("", "u", 401),
        ("nobody's key, by any measure", "u", 401),
        ("key-of-ann-0123456789", "u-1", 200),
        ("key-of-ann-0123456789", "u-2", 200),
        ("key-of-ann-0123456789", "u-3", 429),
        ("key-of-bob-0123456789", "u-1", 200),
    ] {
        let answer = ask(&client, as_user(&pair, key, user)).await;
        assert_eq!(answer.status.as_u16(), status, "{key} {user}: {answer:?}");
        if status == 401 {
            assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
            assert_eq!(answer.said("x-should-retry"), "false");
        }
        if status == 429 {
            assert_eq!(answer.json()["error"]["code"], "budget_exhausted");
            assert!(answer.body.windows(9).any(|part| part == b"two a key"));
        }
    }
    assert_eq!(
        pair.provider.provider().totals().requests,
        3,
        "what is refused is not sent"
    );
    let page = pair.get("/").await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(
        page.contains("key ann")
            && page.contains("stranger")
            && page.contains("budget_exhausted (two a key)"),
        "{page}"
    );
    assert!(
        !page.contains("0123456789") && !page.contains(KEY),
        "no secret is on the page"
    );
}

#[tokio::test]
async fn what_is_too_large_is_refused_in_the_providers_shape() {
    let pair = pair_with(sim(), |url| {
        format!("listen = \"127.0.0.1:0\"\nmax_body = 1_000\n[[target]]\nname = \"sim\"\norigin = \"{url}\"\ndialect = \"anthropic\"\n{WIDE}")
    })
    .await;
    let document = json!({ "model": "claude", "max_tokens": 5, "messages": [{ "role": "user", "content": "x".repeat(2_000) }] });
    let answer = ask(&http1(), pair.post("/v1/messages", &document)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.json()["type"], "error");
    assert_eq!(answer.json()["error"]["type"], "request_too_large");
    let answer = pair.chat().await;
    assert_eq!(
        answer.status,
        StatusCode::NOT_FOUND,
        "no target speaks it: {answer:?}"
    );
    assert_eq!(pair.provider.provider().totals().requests, 0);
}

#[tokio::test]
async fn a_path_that_leads_upwards_goes_nowhere() {
    let pair = pair(sim(), WIDE).await;
    for path in [
        "/v1/../sim/account",
        "/v1/%2e%2e/sim/account",
        // A server would read it as what no limit here has seen.
        "/v1/chat/%63ompletions",
    ] {
        let answer = pair.get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
    }
    let answer = pair.get("/elsewhere").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.json()["error"]["code"], "not_found");
}

#[tokio::test]
async fn a_request_that_the_limits_cannot_read_is_not_passed() {
    let pair = pair(sim(), WIDE).await;
    let mut request = pair.post("/v1/chat/completions", &chat());
    let coding = http::HeaderValue::from_static("gzip");
    request.headers_mut().insert("content-encoding", coding);
    let answer = ask(&http1(), request).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(pair.provider.provider().totals().requests, 0);
}

#[tokio::test]
async fn a_connection_that_says_nothing_does_not_hold_up_the_end() {
    let pair = pair(sim(), WIDE).await;
    let silent = tokio::net::TcpStream::connect(pair.gateway.addr())
        .await
        .expect("a connection");
    assert_eq!(pair.chat().await.status, StatusCode::OK);
    let begun = tokio::time::Instant::now();
    assert!(pair.gateway.stop().await, "nothing was under way");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop(silent);
}
