//! Every order of the four layers: the same scripts, the same answers, the same books. X01, X02.
use bytes::Bytes;
use http_body_util::Full;
use tokio::time::Instant;
use tollgate::{
    Budget, Limit,
    budget::Scope,
    call::{Attempts, CallOptions},
    extensions::Refused,
};
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tollgate_tests::{Layers, chat, chat_with, every_order, layer, send};
use tower::ServiceBuilder;

const SSE: [&str; 3] = [
    r#"{"model":"model-a","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}"#,
    r#"{"model":"model-a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    r#"{"model":"model-a","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#,
];

/// What a script must lead to, in every order.
struct Expect {
    script: fn() -> Vec<Reply>,
    request: &'static str,
    status: u16,
    sent: usize,
    /// (input, output) in the totals, where they must be known.
    used: Option<(u64, u64)>,
    /// The caller reads all of a stream before it uses any of it.
    buffered: bool,
}

fn cases() -> Vec<(&'static str, Expect)> {
    let stream = r#","stream":true,"stream_options":{"include_usage":true}"#;
    let case = |script, request, status, sent, used| Expect {
        script,
        request,
        status,
        sent,
        used,
        buffered: false,
    };
    vec![
        (
            "an answer",
            case(
                || vec![Reply::chat("model-a", 9, 2)],
                "",
                200,
                1,
                Some((9, 2)),
            ),
        ),
        (
            "a stream",
            case(
                || vec![Reply::sse(SSE.iter().chain(&["[DONE]"]))],
                stream,
                200,
                1,
                Some((9, 2)),
            ),
        ),
        (
            "refused once",
            case(
                || vec![Reply::rate_limited(2), Reply::chat("model-a", 9, 2)],
                "",
                200,
                2,
                Some((9, 2)),
            ),
        ),
        (
            "two failures, then a stream",
            case(
                || {
                    vec![
                        Reply::status(500),
                        Reply::status(503),
                        Reply::sse(SSE.iter().chain(&["[DONE]"])),
                    ]
                },
                stream,
                200,
                3,
                Some((9, 2)),
            ),
        ),
        (
            "an answer that breaks in its body",
            case(
                || {
                    vec![
                        Reply::body_breaks_after(r#"{"model":"model-a","choi"#),
                        Reply::chat("model-a", 9, 2),
                    ]
                },
                "",
                200,
                2,
                Some((9, 2)),
            ),
        ),
        (
            "an error as the first event of a stream",
            case(
                || {
                    vec![
                        Reply::sse([
                            r#"{"error":{"type":"server_error","message":"overloaded","code":"server_is_overloaded"}}"#,
                        ]),
                        Reply::sse(SSE.iter().chain(&["[DONE]"])),
                    ]
                },
                stream,
                200,
                2,
                Some((9, 2)),
            ),
        ),
        // F05
        (
            "a stream that breaks behind its first content, for who buffers",
            Expect {
                buffered: true,
                ..case(
                    || {
                        vec![
                            Reply::sse(&SSE[..1]).breaks(SimError::Broken),
                            Reply::sse(SSE.iter().chain(&["[DONE]"])),
                        ]
                    },
                    stream,
                    200,
                    2,
                    None,
                )
            },
        ),
    ]
}

macro_rules! run {
    ($name:ident: $a:ident $b:ident $c:ident $d:ident) => {
        for (what, expect) in cases() {
            let layers = Layers::new();
            let provider = Scripted::new((expect.script)());
            let stack = ServiceBuilder::new()
                .layer(layer!($a, layers))
                .layer(layer!($b, layers))
                .layer(layer!($c, layers))
                .layer(layer!($d, layers))
                .service(provider.clone());
            let order = stringify!($name);
            let mut request = chat_with("model-a", expect.request);
            if expect.buffered {
                let options = CallOptions::new().buffered();
                request.extensions_mut().insert(options);
            }
            let (head, body) = send(stack, request).await;
            assert_eq!(
                head.status().as_u16(),
                expect.status,
                "{what} in order {order}"
            );
            let body = body.unwrap_or_else(|| panic!("{what} in order {order}: the body is whole"));
            if expect.request.contains("stream") {
                let text = String::from_utf8_lossy(&body);
                let words = text.matches("Hello").count();
                assert_eq!(words, 1, "{what} in order {order}: no word is doubled");
            }
            assert_eq!(
                provider.count(),
                expect.sent,
                "{what} in order {order}: requests sent"
            );
            assert!(
                Refused::of(&head).is_none(),
                "{what} in order {order}: not ours"
            );
            let attempts = Attempts::of(&head);
            assert!(
                !attempts.is_empty(),
                "{what} in order {order}: the ledger is in the answer"
            );
            let totals = layers.usage.snapshot().all;
            if let Some(used) = expect.used {
                assert_eq!(
                    (totals.input, totals.output),
                    used,
                    "{what} in order {order}: tokens recorded"
                );
            }
            let held = layers.budget.snapshot();
            assert_eq!(held.queued, 0, "{what} in order {order}: nobody waits");
            assert!(
                held.limits.iter().all(|limit| limit.reserved == 0),
                "{what} in order {order}: nothing stays reserved: {held:?}"
            );
        }
    };
}

// X01
#[tokio::test(start_paused = true)]
async fn every_order_gives_the_same_answers_and_the_same_books() {
    every_order!(run);
}

// X02
#[tokio::test(start_paused = true)]
async fn a_budget_inside_the_retry_charges_every_attempt_and_one_outside_the_call() {
    async fn charged(inside: bool) -> u64 {
        let layers = Layers::new();
        let provider = Scripted::new([Reply::rate_limited(1), Reply::chat("model-a", 9, 2)]);
        let builder = ServiceBuilder::new();
        if inside {
            let stack = builder
                .layer(layer!(r, layers))
                .layer(layer!(b, layers))
                .service(provider);
            send(stack, chat("model-a")).await;
        } else {
            let stack = builder
                .layer(layer!(b, layers))
                .layer(layer!(r, layers))
                .service(provider);
            send(stack, chat("model-a")).await;
        }
        layers.budget.snapshot().limits[0].used
    }
    assert_eq!(
        charged(true).await,
        2,
        "each attempt is a request to the provider"
    );
    assert_eq!(
        charged(false).await,
        1,
        "the call is one request to the budget"
    );
}

macro_rules! always_refused {
    ($name:ident: $a:ident $b:ident $c:ident $d:ident) => {{
        let layers = Layers::new();
        let provider = Scripted::new([Reply::rate_limited(1)]);
        let stack = ServiceBuilder::new()
            .layer(layer!($a, layers))
            .layer(layer!($b, layers))
            .layer(layer!($c, layers))
            .layer(layer!($d, layers))
            .service(provider.clone());
        let mut request = chat("model-a");
        request
            .extensions_mut()
            .insert(tollgate::call::CallOptions::new().max_attempts(4));
        let (head, _) = send(stack, request).await;
        assert_eq!(head.status(), 429, "in order {}", stringify!($name));
        assert!(
            provider.count() <= 4,
            "in order {}: {} sent",
            stringify!($name),
            provider.count()
        );
    }};
}

// R18
#[tokio::test(start_paused = true)]
async fn attempts_do_not_multiply_in_any_order() {
    every_order!(always_refused);
}

// R18
#[tokio::test(start_paused = true)]
async fn two_retry_layers_send_no_more_than_the_calls_maximum() {
    let layers = Layers::new();
    let provider = Scripted::new([Reply::status(503)]);
    let stack = ServiceBuilder::new()
        .layer(layer!(r, layers))
        .layer(layer!(r, layers))
        .service(provider.clone());
    let (head, _) = send(stack, chat("model-a")).await;
    assert_eq!(head.status(), 503);
    assert_eq!(provider.count(), 3, "not nine");
}

// X13
#[tokio::test(start_paused = true)]
async fn a_transport_error_comes_out_as_it_went_in() {
    let layers = Layers::new();
    let provider = Scripted::new([Reply::transport_error(SimError::Reset)]);
    let stack = ServiceBuilder::new()
        .layer(layer!(u, layers))
        .layer(layer!(f, layers))
        .layer(layer!(r, layers))
        .layer(layer!(b, layers))
        .service(provider);
    let error = tower::ServiceExt::<http::Request<Full<Bytes>>>::oneshot(stack, chat("model-a"))
        .await
        .err();
    assert_eq!(error, Some(SimError::Reset));
}

/// What the budget was charged, by model.
fn charged(budget: &Budget) -> String {
    let mut charged: Vec<_> = budget
        .snapshot()
        .limits
        .iter()
        .map(|limit| format!("{} {}", limit.key.as_deref().unwrap_or("?"), limit.used))
        .collect();
    charged.sort();
    charged.join(", ").replace("model-", "")
}

// X01, X02
#[tokio::test(start_paused = true)]
async fn what_each_order_means_is_what_the_book_says() {
    let mut rows = Vec::new();
    macro_rules! observe {
        ($name:ident: $a:ident $b:ident $c:ident $d:ident) => {{
            let limit = Limit::requests(1_000).per_minute().scope(Scope::Model);
            let layers = Layers {
                budget: Budget::in_memory([limit]).expect("a limit"),
                ..Layers::new()
            };
            // The first model is limited once and then down; the second one serves.
            let provider = Scripted::by(|attempt| match attempt.model().as_deref() {
                Some("model-a") if attempt.index == 0 => Reply::rate_limited(2),
                Some("model-a") => Reply::status(503),
                _ => Reply::chat("model-b", 9, 2),
            });
            let stack = ServiceBuilder::new()
                .layer(layer!($a, layers))
                .layer(layer!($b, layers))
                .layer(layer!($c, layers))
                .layer(layer!($d, layers))
                .service(provider.clone());
            let start = Instant::now();
            let (head, _) = send(stack, chat("model-a")).await;
            assert_eq!(head.status(), 200, "in order {}", stringify!($name));
            let sent: String = provider
                .attempts()
                .iter()
                .filter_map(|attempt| attempt.model())
                .collect();
            let totals = layers.usage.snapshot().all;
            rows.push(format!(
                "| `{}` | {} | {} | {} | {} |",
                stringify!($name).to_uppercase(),
                sent.replace("model-", ""),
                charged(&layers.budget),
                totals.records,
                if start.elapsed().as_secs() >= 2 {
                    "yes"
                } else {
                    "no"
                },
            ));
            assert_eq!(totals.calls, 1, "in order {}", stringify!($name));
        }};
    }
    every_order!(observe);
    let chapter = include_str!("../docs/ordering.md");
    let written: Vec<&str> = chapter
        .lines()
        .filter(|line| line.starts_with("| `") && line.get(7..8) == Some("`"))
        .collect();
    assert_eq!(
        written,
        rows,
        "docs/ordering.md should have these rows:\n{}",
        rows.join("\n")
    );
}
