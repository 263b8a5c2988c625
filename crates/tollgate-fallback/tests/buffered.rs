//! Callers that read a whole answer before they use it: a stream that breaks is asked again.
#![allow(clippy::unwrap_used)]
mod common;

use std::time::Duration;

use common::*;
use http::Request;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tollgate_core::{body::BodyError, call::CallOptions, wire::outcome::Outcome};
use tollgate_fallback::{FallbackPolicy, ModelFallback};
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tower::Layer;

const SECOND: Duration = Duration::from_secs(1);

fn word(n: usize, of: &str) -> String {
    format!(
        r#"{{"id":"1","model":"{of}","choices":[{{"index":0,"delta":{{"content":"{of}{n} "}}}}]}}"#
    )
}

fn words(of: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| word(n, of)).collect()
}

fn whole(of: &str, count: usize) -> Reply {
    let mut events = words(of, count);
    events.push(r#"{"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#.into());
    events.push("[DONE]".to_owned());
    Reply::sse(events)
}

fn buffered(request: Request<Body>) -> Request<Body> {
    let mut request = request;
    let options = CallOptions::new().buffered();
    request.extensions_mut().insert(options);
    request
}

fn by_policy(upstream: &Scripted) -> ModelFallback<Scripted, Sim> {
    let policy = FallbackPolicy::default().buffered(true);
    layer(chain(["a", "b"]))
        .policy(policy)
        .layer(upstream.clone())
}

/// `a` delivers 40 of 60 words and then this happens; `b` is well.
fn after_forty(then: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Scripted {
    upstream(move |model, _| {
        Some(if model == "a" {
            then(Reply::sse(words("a", 40)))
        } else {
            whole("b", 60)
        })
    })
}

fn ends() -> [(Outcome, Scripted); 3] {
    [
        (
            Outcome::Broken,
            after_forty(|reply| reply.breaks(SimError::Broken)),
        ),
        // A clean end of the connection in the middle of an answer is no end of the answer.
        (Outcome::Broken, after_forty(|reply| reply)),
        (Outcome::Overloaded, {
            let mut events = words("a", 40);
            events.push(r#"{"error":{"message":"busy","type":"overloaded_error"}}"#.to_owned());
            let failed = Reply::sse(events);
            after_forty(move |_| failed.clone())
        }),
    ]
}

// F05
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_cut_is_replaced_by_the_whole_answer_of_the_next_model() {
    for by_call in [true, false] {
        for (outcome, upstream) in ends() {
            let answer = if by_call {
                send(&wrap(&upstream, chain(["a", "b"])), buffered(streamed("a"))).await
            } else {
                send(&by_policy(&upstream), streamed("a")).await
            };
            assert_eq!(served_by(&answer), (1, "b".to_owned()));
            assert_eq!(attempts(&answer)[0].outcome, Some(outcome));
            let text = text(answer).await;
            assert!(!text.contains("a0 "), "nothing of the first: {text}");
            for n in 0..60 {
                assert_eq!(text.matches(&format!("\"b{n} \"")).count(), 1, "{n}");
            }
            assert_eq!(models(&upstream), ["a", "b"]);
        }
    }
}

// F04, F20
#[tokio::test(start_paused = true)]
async fn without_fallbacks_a_buffered_stream_that_is_cut_ends_in_its_error_and_is_not_held() {
    let upstream = after_forty(|reply| reply.every(SECOND).breaks(SimError::Broken));
    let mut request = streamed("a");
    let options = CallOptions::new().buffered().without_fallbacks();
    request.extensions_mut().insert(options);
    let answer = send(&by_policy(&upstream), request).await;
    let start = Instant::now();
    let mut body = answer.into_body();
    let mut delivered = 0;
    let end = loop {
        match body.frame().await {
            Some(Ok(_)) => delivered += 1,
            other => break other,
        }
    };
    assert_eq!(delivered, 40);
    let end = end.unwrap().unwrap_err();
    assert_eq!(end, BodyError::Inner(SimError::Broken), "no clean end");
    assert_eq!(models(&upstream), ["a"], "mid-stream as before it");
    assert_eq!(
        start.elapsed(),
        40 * SECOND,
        "each word came when it was sent"
    );
}

// F04, F05
#[tokio::test(start_paused = true)]
async fn when_the_last_candidate_breaks_too_its_stream_ends_in_its_error() {
    let upstream = upstream(|model, _| Some(Reply::sse(words(model, 40)).breaks(SimError::Broken)));
    let answer = send(&by_policy(&upstream), streamed("a")).await;
    assert_eq!(served_by(&answer).1, "b");
    let mut body = answer.into_body();
    let mut last = None;
    while let Some(frame) = body.frame().await {
        last = Some(frame.map(drop));
    }
    assert_eq!(last, Some(Err(BodyError::Inner(SimError::Broken))));
    assert_eq!(models(&upstream), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_buffer_gets_each_word_when_it_comes() {
    let upstream = upstream(|_, _| Some(whole("a", 3).every(SECOND)));
    let start = Instant::now();
    let answer = send(&wrap(&upstream, chain(["a", "b"])), streamed("a")).await;
    assert_eq!(start.elapsed(), SECOND, "with its first word");
    drop(answer);
}

#[tokio::test(start_paused = true)]
async fn a_stream_beyond_the_cap_is_passed_as_it_comes() {
    let upstream = after_forty(|reply| reply.breaks(SimError::Broken));
    let mut policy = FallbackPolicy::default().buffered(true);
    let peek = tollgate_core::body::PeekPolicy {
        hold_answer: Some(1_000),
        ..Default::default()
    };
    policy = policy.peek(peek);
    let service = layer(chain(["a", "b"]))
        .policy(policy)
        .layer(upstream.clone());
    let answer = send(&service, streamed("a")).await;
    assert_eq!(served_by(&answer), (0, "a".to_owned()));
    assert!(answer.into_body().collect().await.is_err());
}
