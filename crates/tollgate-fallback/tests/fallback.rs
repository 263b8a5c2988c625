//! Which candidate answers, and what the caller gets to know.
#![allow(clippy::unwrap_used)]
mod common;

use std::time::Duration;

use common::*;
use tollgate_core::{
    call::{Call, CallOptions, Skipped, Steering},
    extensions::{Reason, Refused, ServedBy, TimedOut},
    wire::outcome::{Outcome, TimeoutKind},
};
use tollgate_fallback::{Candidate, Capability, FallbackPolicy, ModelChain, OnExhausted};
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tower::{Layer, ServiceExt};

// F01
#[tokio::test(start_paused = true)]
async fn the_next_model_answers_when_the_first_is_down_and_the_response_says_so() {
    let upstream = upstream(|model, _| (model == "a").then(|| error(503, "overloaded")));
    let answer = send(&wrap(&upstream, chain(["a", "b"])), chat("a")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(served_by(&answer), (1, "b".to_owned()));
    let tried = attempts(&answer);
    assert_eq!(tried.len(), 2);
    assert_eq!(tried[0].model.as_deref(), Some("a"));
    assert_eq!(tried[0].status.unwrap(), 503);
    assert!(matches!(
        tried[0].outcome,
        Some(Outcome::Overloaded | Outcome::ServerError)
    ));
    assert_eq!(tried[1].model.as_deref(), Some("b"));
    assert_eq!(tried[1].outcome, Some(Outcome::Ok));
    assert!(text(answer).await.contains(r#""model":"b""#));
    assert_eq!(models(&upstream), ["a", "b"]);
}

// F01
#[tokio::test(start_paused = true)]
async fn a_model_outside_the_chain_is_tried_first_and_then_the_chain() {
    let upstream = upstream(|model, _| (model != "b").then(|| error(500, "server_error")));
    let answer = send(&wrap(&upstream, chain(["a", "b"])), chat("x")).await;
    assert_eq!(served_by(&answer), (2, "b".to_owned()));
    assert_eq!(models(&upstream), ["x", "a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_the_second_model_is_not_given_the_first() {
    let upstream = upstream(|_, _| Some(error(500, "server_error")));
    let answer = send(&wrap(&upstream, chain(["a", "b", "c"])), chat("b")).await;
    assert_eq!(answer.status(), 500);
    assert_eq!(models(&upstream), ["b", "c"]);
}

// F02
#[tokio::test(start_paused = true)]
async fn when_all_fail_every_reason_is_told_and_the_caller_gets_the_last_answer_or_the_first() {
    for (whose, status, position) in [(OnExhausted::Last, 502, 2), (OnExhausted::First, 503, 0)] {
        let upstream = upstream(|model, _| {
            Some(match model {
                "a" => error(503, "a-broke").header("x-of", "a"),
                "b" => error(500, "b-broke"),
                _ => error(502, "c-broke").header("x-of", "c"),
            })
        });
        let policy = FallbackPolicy::default().on_exhausted(whose);
        let service = layer(chain(["a", "b", "c"])).policy(policy).layer(upstream);
        let answer = send(&service, chat("a")).await;
        assert_eq!(answer.status(), status, "{whose:?}");
        assert_eq!(served_by(&answer).0, position);
        let reasons: Vec<_> = attempts(&answer)
            .iter()
            .map(|a| a.status.unwrap().as_u16())
            .collect();
        assert_eq!(reasons, [503, 500, 502]);
        let of = answer.headers()["x-of"].to_str().unwrap().to_owned();
        assert!(text(answer).await.contains(&format!("{of}-broke")));
    }
}

// F02
#[tokio::test(start_paused = true)]
async fn when_no_connection_can_be_made_the_first_or_the_last_error_is_given_back() {
    for (whose, expected) in [
        (OnExhausted::First, SimError::Refused),
        (OnExhausted::Last, SimError::Reset),
    ] {
        let upstream = Scripted::new([
            Reply::transport_error(SimError::Refused),
            Reply::transport_error(SimError::Reset),
        ]);
        let policy = FallbackPolicy::default().on_exhausted(whose);
        let service = layer(chain(["a", "b"])).policy(policy).layer(upstream);
        let error = service.oneshot(chat("a")).await.unwrap_err();
        assert_eq!(error, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_candidates_400_gives_back_the_firsts_answer() {
    let upstream = upstream(|model, _| {
        Some(match model {
            "a" => error(503, "overloaded"),
            _ => error(400, "unknown_parameter"),
        })
    });
    let answer = send(&wrap(&upstream, chain(["a", "b"])), chat("a")).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(served_by(&answer), (0, "a".to_owned()));
    assert_eq!(attempts(&answer).len(), 2, "the 400 is told in the list");
}

// F11
#[tokio::test(start_paused = true)]
async fn an_invalid_request_and_a_content_refusal_are_not_put_to_another_model() {
    for reply in [
        error(400, "invalid_request_error"),
        error(400, "content_filter"),
    ] {
        let upstream = Scripted::new([reply]);
        let answer = send(&wrap(&upstream, chain(["a", "b"])), chat("a")).await;
        assert_eq!(answer.status(), 400);
        assert_eq!(upstream.count(), 1);
    }
}

// F11
#[tokio::test(start_paused = true)]
async fn a_content_refusal_is_routed_around_when_told() {
    let upstream = upstream(|model, _| (model == "a").then(|| error(400, "content_filter")));
    let policy = FallbackPolicy::default().route_around_refusals(true);
    let service = layer(chain(["a", "b"])).policy(policy).layer(upstream);
    assert_eq!(send(&service, chat("a")).await.status(), 200);
}

// F09
#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_long_goes_to_a_larger_window_only() {
    let upstream = upstream(|model, _| (model != "large").then(too_long));
    let chain = ModelChain::new([
        Candidate::model("small").context_window(8_192),
        Candidate::model("as-small").context_window(8_192),
        Candidate::model("unknown"),
        Candidate::model("large").context_window(100_000),
    ]);
    let answer = send(&wrap(&upstream, chain.unwrap()), chat("small")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(models(&upstream), ["small", "large"]);
    let skipped: Vec<_> = attempts(&answer).iter().filter_map(|a| a.skipped).collect();
    assert_eq!(skipped, [Skipped::TooSmall, Skipped::TooSmall]);
}

// F09
#[tokio::test(start_paused = true)]
async fn a_prompt_that_is_too_long_is_understood_in_every_providers_words() {
    let openai = too_long();
    let anthropic = Reply::status(400).json(serde_json::json!({"type": "error", "error": {
        "type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}}));
    let vllm = Reply::status(400).json(serde_json::json!({
        "object": "error", "type": "BadRequestError", "param": null, "code": 400,
        "message": "This model's maximum context length is 8192 tokens. However, you requested 9216 tokens (9000 \
            in the messages, 216 in the completion). Please reduce the length of the messages or completion."}));
    // SGLang says it within the stream.
    let sglang = Reply::sse([concat!(
        r#"{"error":{"object":"error","message":"The input (9000 tokens) is longer than the model's context "#,
        r#"length (8192 tokens).","type":"BadRequestError","code":400}}"#
    )]);
    for (reply, stream) in [
        (openai, false),
        (anthropic, false),
        (vllm, false),
        (sglang, true),
    ] {
        let upstream = upstream(move |model, _| (model != "large").then(|| reply.clone()));
        let chain = ModelChain::new([
            Candidate::model("small").context_window(8_192),
            Candidate::model("as-small").context_window(8_192),
            Candidate::model("large").context_window(100_000),
        ]);
        let request = if stream {
            streamed("small")
        } else {
            chat("small")
        };
        let answer = send(&wrap(&upstream, chain.unwrap()), request).await;
        assert_eq!(models(&upstream), ["small", "large"]);
        assert_eq!(attempts(&answer)[0].outcome, Some(Outcome::TooLong));
    }
}

// F09
#[tokio::test(start_paused = true)]
async fn without_a_larger_model_the_first_too_long_is_given_back_after_one_attempt() {
    let upstream = Scripted::new([too_long()]);
    let chain = ModelChain::new([
        Candidate::model("a").context_window(8_192),
        Candidate::model("b").context_window(8_192),
    ]);
    let answer = send(&wrap(&upstream, chain.unwrap()), chat("a")).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(upstream.count(), 1);
}

// F10
#[tokio::test(start_paused = true)]
async fn a_candidate_that_is_too_small_is_passed_over_before_sending_with_the_reason() {
    let upstream = upstream(|model, _| (model == "a").then(|| error(503, "overloaded")));
    let chain = ModelChain::new([
        Candidate::model("a"),
        Candidate::model("tiny").context_window(100),
        Candidate::model("b").context_window(100_000),
    ]);
    let long = "word ".repeat(1_000);
    let document = format!(r#"{{"model":"a","messages":[{{"role":"user","content":"{long}"}}]}}"#);
    let request = post("https://a.example/v1/chat/completions", &document);
    let answer = send(&wrap(&upstream, chain.unwrap()), request).await;
    assert_eq!(models(&upstream), ["a", "b"]);
    let tiny = &attempts(&answer)[1];
    assert_eq!(tiny.model.as_deref(), Some("tiny"));
    assert_eq!(tiny.skipped, Some(Skipped::TooSmall));
    assert_eq!(served_by(&answer), (2, "b".to_owned()));
}

// F06
#[tokio::test(start_paused = true)]
async fn a_candidate_that_cannot_do_what_is_asked_is_passed_over_and_the_first_error_is_kept() {
    let with = |more: &str| {
        let document = format!(r#"{{"model":"a","messages":[{{"role":"user"}}]{more}}}"#);
        post("https://a.example/v1/chat/completions", &document)
    };
    // The caller goes on with an answer that broke: its beginning stands at the end.
    let prefill =
        r#"{"model":"a","messages":[{"role":"user"},{"role":"assistant","content":"So"}]}"#;
    let prefill = post("https://a.example/v1/chat/completions", prefill);
    let schema = r#","response_format":{"type":"json_schema","json_schema":{}}"#;
    for (request, needed) in [
        (prefill, Capability::Prefill),
        (with(r#","tools":[{"type":"function"}]"#), Capability::Tools),
        (with(schema), Capability::JsonSchema),
        (with(r#","stream":true"#), Capability::Streaming),
    ] {
        let upstream = Scripted::new([error(503, "overloaded").header("x-of", "a")]);
        let all = [needed, Capability::Vision];
        let chain = ModelChain::new([Candidate::model("a"), Candidate::model("b").cannot(all)]);
        let answer = send(&wrap(&upstream, chain.unwrap()), request).await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["x-of"], "a");
        assert_eq!(upstream.count(), 1, "{needed:?}");
        let passed_over = &attempts(&answer)[1];
        assert_eq!(passed_over.model.as_deref(), Some("b"));
        assert_eq!(passed_over.skipped, Some(Skipped::Incapable(needed)));
    }
    // Who needs none of it goes there.
    let upstream = upstream(|model, _| (model == "a").then(|| error(503, "overloaded")));
    let all = [Capability::Prefill, Capability::Vision, Capability::Tools];
    let chain = ModelChain::new([Candidate::model("a"), Candidate::model("b").cannot(all)]);
    let answer = send(&wrap(&upstream, chain.unwrap()), chat("a")).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn when_every_window_is_too_small_the_largest_is_tried_all_the_same() {
    let upstream = upstream(|_, _| None);
    let chain = ModelChain::new([
        Candidate::model("a").context_window(10),
        Candidate::model("b").context_window(20),
    ]);
    let long = "word ".repeat(1_000);
    let document = format!(r#"{{"model":"a","messages":[{{"role":"user","content":"{long}"}}]}}"#);
    let request = post("https://a.example/v1/chat/completions", &document);
    let answer = send(&wrap(&upstream, chain.unwrap()), request).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(models(&upstream), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_gone_is_followed_by_the_next() {
    let upstream = upstream(|model, _| {
        (model == "a").then(|| {
            Reply::status(404).json(serde_json::json!({"error": {
                "message": "The model `a` does not exist or you do not have access to it.",
                "type": "invalid_request_error", "param": null, "code": "model_not_found",
            }}))
        })
    });
    let answer = send(&wrap(&upstream, chain(["a", "b"])), chat("a")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(models(&upstream), ["a", "b"]);
}

// F20
#[tokio::test(start_paused = true)]
async fn a_call_without_fallbacks_gets_its_own_models_answer() {
    let upstream = upstream(|model, _| (model == "a").then(|| error(503, "overloaded")));
    let service = wrap(&upstream, chain(["a", "b"]));
    let mut request = chat("a");
    request
        .extensions_mut()
        .insert(CallOptions::new().without_fallbacks());
    let answer = send(&service, request).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_candidate_is_tried_after_the_deadline() {
    let upstream = Scripted::new([error(503, "overloaded").after(Duration::from_secs(2))]);
    let mut request = chat("a");
    let options = CallOptions::new().within(Duration::from_secs(1));
    request.extensions_mut().insert(options);
    let service = wrap(&upstream, chain(["a", "b"]));
    let answer = send(&service, request).await;
    assert_eq!(answer.status(), 504);
    assert_eq!(TimedOut::of(&answer).unwrap().what, TimeoutKind::Total);
    assert_eq!(upstream.count(), 1);
    let left_alone = service.health().snapshot().targets;
    assert!(left_alone.is_empty(), "the caller's hurry is not its fault");
}

#[tokio::test(start_paused = true)]
async fn the_callers_most_attempts_hold_over_all_candidates() {
    let upstream = Scripted::new([error(503, "overloaded")]);
    let mut request = chat("a");
    request
        .extensions_mut()
        .insert(CallOptions::new().max_attempts(2));
    send(&wrap(&upstream, chain(["a", "b", "c"])), request).await;
    assert_eq!(models(&upstream), ["a", "b"]);
}

// F13, F14
#[tokio::test(start_paused = true)]
async fn a_candidate_that_its_budget_refuses_is_passed_over_and_does_not_count() {
    let upstream = Scripted::by(|attempt| {
        let call = attempt.extensions.get::<Call>().unwrap();
        let model = attempt.model().unwrap();
        let last = model == "c";
        let wait = (!last).then_some(Duration::from_secs(10));
        assert_eq!(
            call.max_queue_wait(),
            wait,
            "the last one may queue: {model}"
        );
        let reply = Reply::chat(&model, 1, 1);
        if last {
            return reply;
        }
        let refused = Refused::new(Reason::WaitTooLong).retry_after(Duration::from_secs(40));
        error(429, "wait_too_long").extension(refused)
    });
    let mut request = chat("a");
    let call = Call::new(CallOptions::new().max_attempts(1));
    request.extensions_mut().insert(call.clone());
    let answer = send(&wrap(&upstream, chain(["a", "b", "c"])), request).await;
    assert_eq!(answer.status(), 200, "what was not sent does not count");
    let tried = attempts(&answer);
    assert_eq!(
        tried[0].skipped,
        Some(Skipped::Refused(Reason::WaitTooLong))
    );
    assert_eq!(tried[2].skipped, None);
    assert_eq!(call.attempts_begun(), 1);
    assert_eq!(call.max_queue_wait(), None, "put back as it was found");
}

// F01
#[tokio::test(start_paused = true)]
async fn retries_inside_cannot_use_up_what_the_next_candidate_needs() {
    let upstream = upstream(|model, _| (model != "c").then(|| error(503, "overloaded")));
    let retrying = {
        let upstream = upstream.clone();
        tower::service_fn(move |request: http::Request<Body>| {
            let upstream = upstream.clone();
            async move {
                // As stubborn as a retry layer can be: as long as the ledger gives attempts.
                let call = request.extensions().get::<Call>().unwrap().clone();
                loop {
                    let _ = call.begin_attempt(100);
                    let answer = upstream.clone().oneshot(request.clone()).await?;
                    call.end_attempt();
                    if answer.status() == 200 || call.attempts_left(100) == 0 {
                        return Ok::<_, SimError>(answer);
                    }
                }
            }
        })
    };
    let service = layer(chain(["a", "b", "c"])).layer(retrying);
    let answer = service.oneshot(chat("a")).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(models(&upstream), ["a", "a", "a", "b", "c"]);
    let named: Vec<_> = attempts(&answer)
        .iter()
        .map(|a| a.model.as_deref().unwrap().to_owned())
        .collect();
    assert_eq!(
        named,
        ["a", "a", "a", "b", "c"],
        "retries are entered under their model"
    );
}

#[tokio::test(start_paused = true)]
async fn a_fallback_inside_leaves_alone_what_the_one_outside_keeps_back() {
    // Outside a1, then b1 and c1; inside, for each of them, a second choice.
    let upstream = upstream(|model, _| (model != "c1").then(|| error(503, "overloaded")));
    let inner = ModelChain::new(["a1", "a2", "a3", "a4"]).unwrap();
    let service = layer(chain(["a1", "b1", "c1"])).layer(layer(inner).layer(upstream.clone()));
    let call = Call::new(CallOptions::new().max_attempts(4));
    let mut request = chat("a1");
    request.extensions_mut().insert(call.clone());
    let answer = service.oneshot(request).await.unwrap();
    assert_eq!(models(&upstream), ["a1", "a2", "b1", "c1"]);
    let served = ServedBy::of(&answer).unwrap();
    assert_eq!(served.position, 2, "of the chain outside");
    assert_eq!(served.model.as_deref(), Some("c1"));
    assert_eq!(call.steering(), Steering::default(), "as it was found");
    let named = attempts_of(&answer);
    assert_eq!(named, ["a1", "a2", "b1", "c1"]);
}

#[tokio::test(start_paused = true)]
async fn the_model_that_a_fallback_inside_has_chosen_is_the_one_that_served() {
    let upstream = upstream(|model, _| (model == "a1").then(|| error(503, "overloaded")));
    let inner = layer(chain(["a1", "a2"])).layer(upstream);
    let service = layer(chain(["a1", "b1"])).layer(inner);
    let answer = service.oneshot(chat("a1")).await.unwrap();
    let served = ServedBy::of(&answer).unwrap();
    assert_eq!((served.position, served.model.as_deref()), (0, Some("a2")));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_down_for_all() {
    let refused = Refused::new(Reason::StoreDown);
    let upstream = Scripted::new([error(503, "store_down").extension(refused)]);
    let answer = send(&wrap(&upstream, chain(["a", "b"])), chat("a")).await;
    assert_eq!(Refused::of(&answer).unwrap().reason, Reason::StoreDown);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_model_header_is_there_only_when_asked_for() {
    let upstream = upstream(|model, _| (model == "a").then(|| error(503, "overloaded")));
    let plain = send(&wrap(&upstream, chain(["a", "b"])), chat("a")).await;
    assert!(!plain.headers().contains_key("x-tollgate-model"));
    let policy = FallbackPolicy::default().model_header(true);
    let service = layer(chain(["a", "b"])).policy(policy).layer(upstream);
    let named = send(&service, chat("a")).await;
    assert_eq!(named.headers()["x-tollgate-model"], "b");
    assert_eq!(ServedBy::of(&named).unwrap().target, None);
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_fails_is_a_400_and_nothing_is_sent() {
    let upstream = Scripted::new([]);
    let service = wrap(&upstream, chain(["a", "b"]));
    let short = Short(Some("{}".into()));
    let request = http::Request::post("/v1/chat/completions")
        .body(short)
        .unwrap();
    let answer = service.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(Refused::of(&answer).unwrap().reason, Reason::BodyFailed);
    assert_eq!(upstream.count(), 0);
}

/// The models of all attempts.
fn attempts_of<B>(answer: &http::Response<B>) -> Vec<String> {
    let all = tollgate_core::call::Attempts::of(answer);
    all.iter()
        .map(|a| a.model.as_deref().unwrap_or_default().to_owned())
        .collect()
}

/// Promises ten bytes and sends two.
struct Short(Option<bytes::Bytes>);

impl From<bytes::Bytes> for Short {
    fn from(bytes: bytes::Bytes) -> Self {
        Self(Some(bytes))
    }
}

impl http_body::Body for Short {
    type Data = bytes::Bytes;
    type Error = SimError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, SimError>>> {
        std::task::Poll::Ready(self.0.take().map(|b| Ok(http_body::Frame::data(b))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(10)
    }
}
