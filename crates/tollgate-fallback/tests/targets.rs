//! Rewriting: what changes, what stays, and what another origin never gets to see.
#![allow(clippy::unwrap_used)]
mod common;

use common::*;
use http::{HeaderValue, Request};
use http_body_util::Full;
use tollgate_core::{
    call::Skipped,
    extensions::ServedBy,
    wire::prompt::{Dialect, Facts},
};
use tollgate_fallback::{
    Candidate, Credential, FallbackHealth, FallbackPolicy, ModelChain, OnExhausted, Target,
    TargetState,
};
use tollgate_sim::script::{Reply, Scripted};
use tower::Layer;

fn key(secret: &str) -> Credential {
    Credential::bearer(secret).unwrap()
}

fn target(name: &str, url: &str) -> Target {
    Target::new(name, url).unwrap()
}

fn first_fails() -> Scripted {
    Scripted::by(|attempt| match attempt.index {
        0 => error(503, "overloaded"),
        _ => Reply::chat("m", 1, 1),
    })
}

// F19, X09
#[tokio::test(start_paused = true)]
async fn only_the_models_value_changes_and_the_length_is_right() {
    let document = r#" {"x-unknown":{"model":"a"}, "model" : "a", "n":1e0,"n":1,
        "messages":[{"role":"user","content":"model \u00e9"}],"model":"a"} "#;
    let upstream = first_fails();
    let request = post("https://a.example/v1/chat/completions?q=1", document);
    send(&wrap(&upstream, chain(["a", "b-longer"])), request).await;
    let seen = upstream.attempts();
    assert_eq!(seen[0].body, document);
    let expected = document
        .replace(r#""model" : "a""#, r#""model" : "b-longer""#)
        .replace(r#""model":"a"} "#, r#""model":"b-longer"} "#);
    assert_eq!(seen[1].body, expected);
    assert_eq!(
        seen[1].header("content-length"),
        Some(&*expected.len().to_string())
    );
    assert_eq!(
        seen[1].header("authorization"),
        Some("Bearer key-a"),
        "the same origin"
    );
    assert_eq!(seen[1].uri, seen[0].uri);
    let facts = seen[1].extensions.get::<Facts>().unwrap();
    assert!(
        facts.describe(&seen[1].uri, &seen[1].body),
        "read for these very bytes"
    );
    assert_eq!(facts.model.as_deref(), Some("b-longer"));
}

// X09
#[tokio::test(start_paused = true)]
async fn a_length_that_was_not_there_is_not_put_there() {
    let upstream = first_fails();
    let mut request = chat("a");
    request.headers_mut().remove("content-length");
    send(&wrap(&upstream, chain(["a", "b"])), request).await;
    assert_eq!(upstream.attempts()[1].header("content-length"), None);
}

// X09, X11
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_goes_out_once_and_as_it_came() {
    let plain = || Request::post("https://a.example/v1/chat/completions");
    let json = "{\"model\":\"a\"}";
    for request in [
        plain()
            .header("content-encoding", "gzip")
            .body(Full::from("\u{1f}"))
            .unwrap(),
        plain()
            .header("upgrade", "websocket")
            .body(Full::from(json))
            .unwrap(),
        plain()
            .header("expect", "100-continue")
            .body(Full::from(json))
            .unwrap(),
        plain()
            .header("content-type", "multipart/form-data; boundary=x")
            .body(Full::from(json))
            .unwrap(),
        Request::get("https://a.example/v1/models")
            .body(Full::default())
            .unwrap(),
        Request::post("https://a.example/unknown")
            .body(Full::from(json))
            .unwrap(),
        Request::post("https://a.example/v1/batches")
            .body(Full::from(json))
            .unwrap(),
    ] {
        let upstream = Scripted::new([error(503, "overloaded")]);
        let head = request.headers().clone();
        let answer = send(&wrap(&upstream, chain(["a", "b"])), request).await;
        assert_eq!(answer.status(), 503);
        assert_eq!(upstream.count(), 1);
        assert_eq!(upstream.attempts()[0].headers, head);
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_over_the_cap_goes_out_once() {
    let upstream = Scripted::new([error(503, "overloaded")]);
    let policy = FallbackPolicy::default().replay_cap(10);
    let service = layer(chain(["a", "b"]))
        .policy(policy)
        .layer(upstream.clone());
    send(&service, chat("a")).await;
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_signed_request_is_never_rewritten() {
    for (name, value) in [
        ("authorization", "AWS4-HMAC-SHA256 Credential=x"),
        ("content-digest", "sha-256=:x:"),
        ("signature", "sig1=:x:"),
    ] {
        let upstream = Scripted::new([error(503, "overloaded")]);
        let mut request = chat("a");
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        send(&wrap(&upstream, chain(["a", "b"])), request).await;
        assert_eq!(upstream.count(), 1, "{name}");
    }
}

// F19
#[tokio::test(start_paused = true)]
async fn a_model_in_the_path_is_renamed_in_the_path_and_the_document_is_left_alone() {
    let document = r#"{"contents":[{"role":"user","parts":[{"text":"Hi"}]}]}"#;
    let upstream = first_fails();
    let uri = "https://a.example/v1beta/models/g-1:streamGenerateContent?alt=sse";
    send(&wrap(&upstream, chain(["g-1", "g-2"])), post(uri, document)).await;
    let seen = upstream.attempts();
    assert_eq!(seen[1].uri.to_string(), uri.replace("g-1", "g-2"));
    assert_eq!(seen[1].body, document);
}

// F19
#[tokio::test(start_paused = true)]
async fn a_whole_target_gets_its_path_key_version_and_parameters() {
    let azure = target("azure-eu", "https://eu.example")
        .path("/openai/deployments/{model}/{operation}?api-version=2024-10-21")
        .credential(Credential::header("api-key", "key-b").unwrap())
        .header(
            "x-ms-region".parse().unwrap(),
            HeaderValue::from_static("eu"),
        )
        .model("mini")
        .rename("max_tokens", "max_completion_tokens")
        .without("service_tier");
    let chain = ModelChain::new([Candidate::model("a"), azure.into()]).unwrap();
    let document = r#"{"model":"a","max_tokens":5,"service_tier":"flex","messages":[]}"#;
    let upstream = first_fails();
    let request = post("https://a.example/v1/chat/completions?key=secret", document);
    let answer = send(&wrap(&upstream, chain), request).await;
    let seen = &upstream.attempts()[1];
    assert_eq!(
        seen.uri.to_string(),
        "https://eu.example/openai/deployments/mini/chat/completions?api-version=2024-10-21"
    );
    assert_eq!(
        seen.body,
        r#"{"model":"a","max_completion_tokens":5,"messages":[]}"#
    );
    assert_eq!(seen.header("api-key"), Some("key-b"));
    assert!(seen.headers["api-key"].is_sensitive());
    assert_eq!(seen.header("x-ms-region"), Some("eu"));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(
        seen.header("content-length"),
        Some(&*seen.body.len().to_string())
    );
    let served = ServedBy::of(&answer).unwrap();
    assert_eq!(served.target.as_deref(), Some("azure-eu"));
    assert_eq!(served.model.as_deref(), Some("mini"));
}

// F19
#[tokio::test(start_paused = true)]
async fn gemini_bedrock_and_anthropic_targets_get_their_own_path_header_and_model() {
    let goog = |key| Credential::header("x-goog-api-key", key).unwrap();
    let version = HeaderValue::from_static("2023-06-01");
    let contents = r#"{"contents":[{"parts":[{"text":"Hi"}]}]}"#;
    let converse = r#"{"messages":[{"role":"user","content":[{"text":"Hi"}]}]}"#;
    let vertex = "https://v.example/v1/projects/p/locations/l/publishers/google";
    for (uri, document, there, expected, header, sent) in [
        (
            "https://a.example/v1beta/models/g-1:streamGenerateContent?alt=sse&key=secret",
            contents,
            target("vertex", vertex)
                .credential(key("key-b"))
                .model("g-2"),
            "https://v.example/v1/projects/p/locations/l/publishers/google/models/g-2:streamGenerateContent?alt=sse",
            ("authorization", "Bearer key-b"),
            contents,
        ),
        (
            "https://a.example/v1beta/models/g-1:generateContent?key=secret",
            contents,
            target("gemini", "https://g.example").credential(goog("key-b")),
            "https://g.example/v1beta/models/g-1:generateContent",
            ("x-goog-api-key", "key-b"),
            contents,
        ),
        (
            "https://a.example/model/eu.x-v1%3A0/converse-stream",
            converse,
            target("bedrock-us", "https://us.example")
                .credential(key("key-b"))
                .model("us.x-v1:0"),
            "https://us.example/model/us.x-v1%3A0/converse-stream",
            ("authorization", "Bearer key-b"),
            converse,
        ),
        (
            "https://a.example/v1/messages",
            r#"{"model":"claude-a","max_tokens":9,"messages":[]}"#,
            target("claude", "https://c.example")
                .credential(Credential::header("x-api-key", "key-b").unwrap())
                .header("anthropic-version".parse().unwrap(), version)
                .model("claude-b"),
            "https://c.example/v1/messages",
            ("x-api-key", "key-b"),
            r#"{"model":"claude-b","max_tokens":9,"messages":[]}"#,
        ),
    ] {
        let chain = ModelChain::new([Candidate::model("x"), there.into()]).unwrap();
        let upstream = Scripted::by(|attempt| match attempt.uri.host() {
            Some("a.example") => error(503, "overloaded"),
            _ => Reply::chat("m", 1, 1),
        });
        send(&wrap(&upstream, chain), post(uri, document)).await;
        let all = upstream.attempts();
        let seen = all.last().unwrap();
        assert_eq!(seen.uri.to_string(), expected);
        assert_eq!(seen.header(header.0), Some(header.1), "{uri}");
        assert_eq!(seen.body, sent);
        let stranger = seen.header("authorization") == Some("Bearer key-a");
        assert!(!stranger, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_without_a_model_gets_one_where_the_path_has_none() {
    let there = target("b", "https://b.example").model("m-b");
    let chain = ModelChain::new([Candidate::model("dep"), there.into()]).unwrap();
    let upstream = first_fails();
    let uri = "https://a.example/openai/deployments/dep/chat/completions?api-version=1";
    send(&wrap(&upstream, chain), post(uri, r#"{"messages":[]}"#)).await;
    let seen = &upstream.attempts()[1];
    assert_eq!(
        seen.uri.to_string(),
        "https://b.example/v1/chat/completions"
    );
    assert_eq!(seen.body, r#"{"model":"m-b","messages":[]}"#);
}

// F12
#[tokio::test(start_paused = true)]
async fn a_refused_key_is_not_used_again_in_this_call_nor_for_a_while() {
    for status in [401, 403, 402] {
        let upstream = Scripted::by(move |attempt| {
            let good = attempt.header("authorization") == Some("Bearer key-b");
            if good {
                Reply::chat("m", 1, 1)
            } else {
                error(status, "invalid_api_key")
            }
        });
        let chain = ModelChain::new([
            Candidate::model("a"),
            Candidate::model("a-mini"),
            target("same-key", "https://c.example")
                .credential(key("key-a"))
                .into(),
            target("other-key", "https://a.example")
                .credential(key("key-b"))
                .into(),
        ]);
        let health = FallbackHealth::new();
        let service = layer(chain.unwrap())
            .health(health.clone())
            .layer(upstream.clone());
        let answer = send(&service, chat("a")).await;
        assert_eq!(answer.status(), 200, "{status}");
        assert_eq!(upstream.count(), 2, "never the same key twice");
        let skipped: Vec<_> = attempts(&answer).iter().filter_map(|a| a.skipped).collect();
        assert_eq!(skipped, [Skipped::DeadCredential; 2]);
        let seen = health.snapshot();
        assert_eq!(seen.dead_keys, 1);
        assert_eq!(seen.targets[0].state, TargetState::CredentialDead);

        send(&service, chat("a")).await;
        assert_eq!(upstream.count(), 3, "the dead key is passed over");
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
        send(&service, chat("a")).await;
        assert_eq!(upstream.count(), 5, "and tried again after its time");
    }
}

#[tokio::test(start_paused = true)]
async fn stored_state_pins_a_request_to_its_origin() {
    let chain = ModelChain::new([
        Candidate::model("a"),
        target("b", "https://b.example").into(),
        Candidate::model("a-mini"),
    ]);
    let document = r#"{"model":"a","input":"Hi","previous_response_id":"resp_1"}"#;
    let upstream = first_fails();
    let request = post("https://a.example/v1/responses", document);
    let answer = send(&wrap(&upstream, chain.unwrap()), request).await;
    assert_eq!(attempts(&answer)[1].skipped, Some(Skipped::Pinned));
    assert_eq!(upstream.attempts()[1].uri.host(), Some("a.example"));
}

#[tokio::test(start_paused = true)]
async fn a_target_of_another_dialect_or_another_endpoint_is_passed_over() {
    let chain = ModelChain::new([
        Candidate::model("a"),
        target("chat-only", "https://b.example")
            .path("/v1/chat/completions")
            .into(),
        target("any", "https://c.example").into(),
    ]);
    let upstream = first_fails();
    let request = post(
        "https://a.example/v1/embeddings",
        r#"{"model":"a","input":"Hi"}"#,
    );
    let answer = send(&wrap(&upstream, chain.unwrap()), request).await;
    assert_eq!(attempts(&answer)[1].skipped, Some(Skipped::CannotRewrite));
    assert_eq!(upstream.attempts()[1].uri.host(), Some("c.example"));

    let claude = target("claude", "https://b.example").dialect(Dialect::Anthropic);
    let chain = ModelChain::new([Candidate::model("a"), claude.into()]);
    let upstream = first_fails();
    let answer = send(&wrap(&upstream, chain.unwrap()), chat("a")).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(attempts(&answer)[1].skipped, Some(Skipped::OtherDialect));
}

#[tokio::test(start_paused = true)]
async fn a_later_origin_gets_nothing_that_a_stranger_left_in_the_extensions() {
    let chain = ModelChain::new([
        Candidate::model("a"),
        target("b", "https://b.example").into(),
    ]);
    let upstream = first_fails();
    let mut request = chat("a");
    request
        .extensions_mut()
        .insert(String::from("a secret of the first origin"));
    send(&wrap(&upstream, chain.unwrap()), request).await;
    let seen = upstream.attempts();
    assert!(seen[0].extensions.get::<String>().is_some());
    assert!(seen[1].extensions.get::<String>().is_none());
    assert!(
        seen[1]
            .extensions
            .get::<tollgate_core::call::Call>()
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_for_idempotency_is_not_used_for_another_document() {
    let upstream = first_fails();
    let mut request = chat("a");
    request
        .headers_mut()
        .insert("idempotency-key", HeaderValue::from_static("k-1"));
    send(&wrap(&upstream, chain(["a", "b"])), request).await;
    let seen = upstream.attempts();
    assert_eq!(seen[0].header("idempotency-key"), Some("k-1"));
    assert_eq!(seen[1].header("idempotency-key"), None);
}

#[test]
fn a_chain_that_cannot_be_is_refused_with_a_sentence() {
    let none: [&str; 0] = [];
    let gemini = || target("g", "https://g.example").path("/v1beta/models/{model}:{operation}");
    let claude = target("c", "https://c.example").header(
        "anthropic-version".parse().unwrap(),
        HeaderValue::from_static("2023-06-01"),
    );
    let bad_path = target("p", "https://p.example").path("chat");
    let braces = target("p", "https://p.example").path("/{deployment}/chat/completions");
    let nowhere = target("p", "https://p.example").path("/hello");
    for (chain, sentence) in [
        (
            ModelChain::new(none),
            "a chain needs at least one candidate",
        ),
        (
            ModelChain::new(["a", "b", "a"]),
            "`a` stands in the chain twice",
        ),
        (
            ModelChain::new([""]),
            "a candidate's name must not be empty",
        ),
        (
            ModelChain::new([Candidate::model("a").context_window(0)]),
            "the context window of `a` must be above zero",
        ),
        (
            ModelChain::new([claude, gemini()]),
            "`c` speaks Anthropic and `g` speaks Gemini; all candidates of a chain must understand the same request",
        ),
        (
            ModelChain::new([bad_path]),
            "the path of `p` must begin with a slash",
        ),
        (
            ModelChain::new([braces]),
            "the path of `p` may hold {model} and {operation} and no other braces",
        ),
        (
            ModelChain::new([nowhere]),
            "the path of `p` leads to no endpoint that is known",
        ),
    ] {
        assert_eq!(chain.unwrap_err().to_string(), sentence);
    }
    for url in [
        "",
        "b.example",
        "ftp://b.example",
        "https://user:pw@b.example",
        "https://b.example?key=pw",
    ] {
        let error = Target::new("t", url).unwrap_err().to_string();
        assert!(error.starts_with("the base URL of `t` "), "{error}");
        assert!(!error.contains("pw"), "{error}");
    }
}

#[test]
fn no_debug_shows_a_key() {
    let there = target("b", "https://b.example/canary")
        .credential(key("canary"))
        .header(
            "x-token".parse().unwrap(),
            HeaderValue::from_static("canary"),
        );
    let chain = ModelChain::new([Candidate::model("a"), there.into()]).unwrap();
    let service = wrap(&Scripted::new([]), chain.clone());
    let shown = format!(
        "{chain:?} {:?} {service:?} {:?}",
        layer(chain.clone()),
        service.health()
    );
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_is_kept_as_data_and_not_as_a_response() {
    use std::sync::Arc;
    let guard = Arc::new(());
    let held = guard.clone();
    let count = guard.clone();
    let upstream = Scripted::by(move |attempt| match attempt.index {
        0 => error(503, "overloaded").extension(held.clone()),
        _ => {
            // The script's own clones: `guard`, `held`, `count`.
            assert_eq!(Arc::strong_count(&count), 3, "the first response is gone");
            error(502, "bad_gateway")
        }
    });
    let policy = FallbackPolicy::default().on_exhausted(OnExhausted::First);
    let service = layer(chain(["a", "b"])).policy(policy).layer(upstream);
    let answer = send(&service, chat("a")).await;
    assert_eq!(answer.status(), 503);
    assert!(text(answer).await.contains("overloaded"));
    drop(guard);
}
