//! No byte of one origin's credentials, cookies or query reaches another origin.
#![allow(clippy::unwrap_used)]
mod common;

use bytes::Bytes;
use common::*;
use http::{HeaderValue, Request};
use http_body_util::Full;
use proptest::{collection::vec, prelude::*};
use tollgate_fallback::{Candidate, Credential, ModelChain, Target};
use tollgate_sim::script::Scripted;

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

/// A target whose every secret names it.
#[derive(Clone, Debug)]
struct Place {
    template: bool,
    keys: usize,
    own_header: Option<String>,
    same_origin: bool,
}

fn any_place() -> impl Strategy<Value = Place> {
    let header = proptest::option::of(any_name());
    (any::<bool>(), 0..3_usize, header, prop::bool::weighted(0.2)).prop_map(
        |(template, keys, own_header, same_origin)| Place {
            template,
            keys,
            own_header,
            same_origin,
        },
    )
}

impl Place {
    fn target(&self, name: char) -> Target {
        let host = if self.same_origin { 'a' } else { name };
        let base = format!("https://{host}.example/canary-{name}");
        let mut target = Target::new(name.to_string(), &base).unwrap();
        target = target.model(format!("m-{name}"));
        if self.template {
            target = target.path("/openai/deployments/{model}/{operation}?api-version=1");
        }
        let keys: Vec<_> = (0..self.keys)
            .map(|n| Credential::bearer(&format!("canary-{name}-{n}")).unwrap())
            .collect();
        if !keys.is_empty() {
            target = target.credential(keys);
        }
        if let Some(header) = &self.own_header {
            let value = HeaderValue::from_str(&format!("canary-{name}")).unwrap();
            target = target.header(header.parse().unwrap(), value);
        }
        target
    }

    /// Whether it is given what the caller meant for its own origin.
    fn is_trusted(&self) -> bool {
        self.same_origin && self.keys == 0
    }
}

fn everything(sent: &tollgate_sim::script::Attempt) -> String {
    let mut whole = sent.uri.to_string().into_bytes();
    for (name, value) in &sent.headers {
        whole.extend_from_slice(name.as_str().as_bytes());
        whole.push(b'=');
        whole.extend_from_slice(value.as_bytes());
        whole.push(b';');
    }
    whole.extend_from_slice(&sent.body);
    String::from_utf8_lossy(&whole).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    // F19
    #[test]
    fn no_byte_of_one_origins_secrets_reaches_another(
        names in vec(any_name(), 0..12),
        query in vec(("[a-z]{1,8}", any::<bool>()), 0..4),
        path_secret in any::<bool>(),
        places in vec(any_place(), 1..4),
        statuses in vec(proptest::sample::select(vec![401_u16, 402, 403, 404, 429, 500, 503, 529]), 12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut candidates = vec![Candidate::model("a")];
            for (place, name) in places.iter().zip('b'..) {
                candidates.push(place.target(name).into());
            }
            let mut uri = String::from("https://a.example");
            if path_secret {
                uri.push_str("/canary-a");
            }
            uri.push_str("/v1/chat/completions");
            for (n, (name, plain)) in query.iter().enumerate() {
                uri.push(if n == 0 { '?' } else { '&' });
                uri.push_str(if *plain { "canary-a" } else { name });
                uri.push_str("=canary-a");
            }
            let mut request = Request::post(uri)
                .extension(String::from("canary-a"))
                .body(Full::<Bytes>::from(r#"{"model":"a","messages":[]}"#)).unwrap();
            for (n, name) in names.iter().enumerate() {
                let value = HeaderValue::from_str(&format!("Bearer canary-a-{n}")).unwrap();
                request.headers_mut().append(
                    http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
            let upstream = Scripted::by(move |attempt| {
                error(statuses[attempt.index % statuses.len()], "something")
            });
            send(&wrap(&upstream, ModelChain::new(candidates).unwrap()), request).await;
            for sent in upstream.attempts() {
                let whole = everything(&sent);
                // Whose it is shows in the path, which has its own secret.
                let mut owner = 'a';
                let mut trusted = true;
                for (place, name) in places.iter().zip('b'..) {
                    if sent.uri.path().starts_with(&format!("/canary-{name}")) {
                        (owner, trusted) = (name, place.is_trusted());
                        let (host, of) = (if place.same_origin { 'a' } else { name }, sent.uri.host());
                        assert_eq!(of, Some(&*format!("{host}.example")));
                    }
                }
                for other in 'a'..='d' {
                    let may = other == owner || (other == 'a' && trusted);
                    assert!(may || !whole.contains(&format!("canary-{other}")), "{owner}: {whole}");
                }
                assert!(trusted || sent.extensions.get::<String>().is_none());
            }
            assert!(upstream.count() > 0);
        });
    }
}
