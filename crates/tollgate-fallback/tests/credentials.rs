//! No byte of one origin's credentials, cookies or query reaches another origin.
#![allow(clippy::unwrap_used)]
mod common;

use bytes::Bytes;
use common::*;
use http::{HeaderValue, Request};
use http_body_util::Full;
use proptest::{collection::vec, prelude::*};
use tollgate_fallback::{Candidate, Credential, ModelChain, Target};
use tollgate_sim::script::{Reply, Scripted};

const NAMES: [&str; 24] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "cookie2",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-goog-user-project",
    "openai-organization",
    "openai-project",
    "x-auth-token",
    "x-amz-security-token",
    "ocp-apim-subscription-key",
    "x-functions-key",
    "cf-access-client-secret",
    "helicone-auth",
    "x-portkey-api-key",
    "idempotency-key",
    "referer",
    "origin",
    "host",
    "forwarded",
    "x-forwarded-for",
    "x-stainless-helper",
];

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(NAMES.to_vec()).prop_map(str::to_owned),
        "x-[a-z]{1,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    // F19
    #[test]
    fn no_byte_of_one_origins_secrets_reaches_another(
        names in vec(any_name(), 0..12),
        query in vec(("[a-z]{1,8}", any::<bool>()), 0..4),
        path_secret in any::<bool>(),
        template in any::<bool>(),
        own_key in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut b = Target::new("b", "https://b.example/base").unwrap().model("m-b");
            if template {
                b = b.path("/openai/deployments/{model}/{operation}?api-version=1");
            }
            if own_key {
                b = b.credential(Credential::bearer("key-b").unwrap());
            }
            let chain = ModelChain::new([Candidate::model("a"), b.into()]).unwrap();
            let mut uri = String::from("https://a.example");
            if path_secret {
                uri.push_str("/canary");
            }
            uri.push_str("/v1/chat/completions");
            for (n, (name, plain)) in query.iter().enumerate() {
                uri.push(if n == 0 { '?' } else { '&' });
                uri.push_str(if *plain { "canary" } else { name });
                uri.push_str("=canary");
            }
            let mut request = Request::post(uri)
                .body(Full::<Bytes>::from(r#"{"model":"a","messages":[]}"#)).unwrap();
            for (n, name) in names.iter().enumerate() {
                let value = HeaderValue::from_str(&format!("Bearer canary-{n}")).unwrap();
                request.headers_mut().append(
                    http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
            let upstream = Scripted::by(|attempt| match attempt.index {
                    0 => error(503, "overloaded"),
                    _ => Reply::chat("m", 1, 1),
                });
            send(&wrap(&upstream, chain), request).await;
            let seen = upstream.attempts();
            assert_eq!(seen.len(), 2);
            let sent = &seen[1];
            assert_eq!(sent.uri.host(), Some("b.example"));
            let mut whole = sent.uri.to_string().into_bytes();
            for (name, value) in &sent.headers {
                whole.extend_from_slice(name.as_str().as_bytes());
                whole.extend_from_slice(value.as_bytes());
            }
            whole.extend_from_slice(&sent.body);
            let whole = String::from_utf8_lossy(&whole);
            assert!(!whole.contains("canary"), "{whole}");
            let expected = own_key.then_some("Bearer key-b");
            assert_eq!(sent.header("authorization"), expected);
        });
    }
}
