//! Streams: another model as long as nothing was delivered, and never a byte held after that.
#![allow(clippy::unwrap_used)]
mod common;

use std::time::Duration;

use common::*;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tollgate_core::{body::BodyError, wire::outcome::Outcome};
use tollgate_fallback::{FallbackPolicy, OnExhausted};
use tollgate_sim::{SimError, script::Reply};
use tower::Layer;

const SECOND: Duration = Duration::from_secs(1);

fn delta(text: &str) -> String {
    format!(r#"{{"id":"1","model":"m","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#)
}

fn stream(words: &[&str]) -> Reply {
    let mut events: Vec<String> = words.iter().map(|word| delta(word)).collect();
    events.push("[DONE]".to_owned());
    Reply::sse(events)
}

fn in_band() -> Reply {
    Reply::sse([
        r#"{"error":{"message":"The server had an error.","type":"server_error","code":null}}"#,
    ])
}

/// What comes of a body, each frame with the seconds since `start`.
async fn timed(answer: Answer, start: Instant) -> Vec<(u64, String)> {
    let mut body = answer.into_body();
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        seen.push((
            start.elapsed().as_secs(),
            String::from_utf8_lossy(&data).into_owned(),
        ));
    }
    seen
}

// F03
#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_before_its_first_event_is_taken_over_chunk_by_chunk() {
    for failure in [
        error(503, "overloaded"),
        in_band(),
        Reply::body_breaks_after(""),
    ] {
        let failure = failure.header("content-type", "text/event-stream");
        let upstream = upstream(move |model, _| {
            Some(if model == "a" {
                failure.clone()
            } else {
                stream(&["one", "two", "three"]).every(SECOND)
            })
        });
        let start = Instant::now();
        let answer = send(&wrap(&upstream, chain(["a", "b"])), streamed("a")).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(served_by(&answer), (1, "b".to_owned()));
        let seen = timed(answer, start).await;
        let times: Vec<u64> = seen.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [1, 2, 3, 4], "each chunk comes when it was sent");
        assert!(seen[0].1.contains("one"));
    }
}

// F03
#[tokio::test(start_paused = true)]
async fn events_without_content_do_not_yet_bind_the_stream_to_a_model() {
    let role = r#"{"id":"1","choices":[{"index":0,"delta":{"role":"assistant"}}]}"#;
    let upstream = upstream(move |model, _| {
        Some(if model == "a" {
            Reply::sse([role]).breaks(SimError::Broken)
        } else {
            stream(&["fine"])
        })
    });
    let answer = send(&wrap(&upstream, chain(["a", "b"])), streamed("a")).await;
    assert_eq!(attempts(&answer)[0].outcome, Some(Outcome::Broken));
    let whole = text(answer).await;
    assert!(
        whole.contains("fine") && !whole.contains("assistant"),
        "{whole}"
    );
}

// F04
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_cut_after_content_ends_in_an_error_and_not_in_a_clean_end() {
    let words: Vec<String> = (0..40).map(|n| format!("w{n}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let events: Vec<String> = words.iter().map(|word| delta(word)).collect();
    let upstream = upstream(move |_, _| Some(Reply::sse(events.clone()).breaks(SimError::Broken)));
    let answer = send(&wrap(&upstream, chain(["a", "b"])), streamed("a")).await;
    let mut body = answer.into_body();
    let mut delivered = 0;
    let error = loop {
        match body.frame().await {
            Some(Ok(_)) => delivered += 1,
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    assert_eq!(
        (delivered, error),
        (40, Some(BodyError::Inner(SimError::Broken)))
    );
    assert_eq!(
        upstream.count(),
        1,
        "what was delivered is not asked for again"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_before_it_is_whole_is_taken_over() {
    let upstream =
        upstream(|model, _| (model == "a").then(|| Reply::body_breaks_after(r#"{"choices":["#)));
    let answer = send(&wrap(&upstream, chain(["a", "b"])), chat("a")).await;
    assert_eq!(served_by(&answer).1, "b");
    assert!(text(answer).await.contains("Hello."));
}

#[tokio::test(start_paused = true)]
async fn the_last_candidates_answer_is_held_no_longer_than_an_errors_document_may_be() {
    let head = " ".repeat(64 << 10);
    let upstream = upstream(move |model, _| {
        Some(if model == "a" {
            error(503, "overloaded")
        } else {
            Reply::status(200)
                .header("content-type", "application/json")
                .chunk(head.clone())
                .chunk("{")
                .wait(5 * SECOND)
                .chunk("}")
        })
    });
    let start = Instant::now();
    let answer = send(&wrap(&upstream, chain(["a", "b"])), chat("a")).await;
    assert_eq!(start.elapsed(), Duration::ZERO, "passed on as it comes");
    assert_eq!(text(answer).await.trim(), "{}");
}

#[tokio::test(start_paused = true)]
async fn an_error_within_a_200_of_the_last_candidate_is_judged_too() {
    let upstream = upstream(|model, _| {
        Some(if model == "a" {
            error(503, "overloaded")
        } else {
            Reply::ok_json(serde_json::json!({"error": {
                "message": "Rate limit exceeded", "code": 429, "metadata": {"provider_name": "x"}}}))
        })
    });
    let policy = FallbackPolicy::default().on_exhausted(OnExhausted::First);
    let service = layer(chain(["a", "b"])).policy(policy).layer(upstream);
    let answer = send(&service, chat("a")).await;
    let last = attempts(&answer)[1].outcome.clone();
    assert!(
        matches!(last, Some(Outcome::RateLimited { .. })),
        "{last:?}"
    );
    assert_eq!(answer.status(), 503, "the first one's answer");
    assert_eq!(service.health().snapshot().targets.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_not_restarted_when_it_may_have_been_sent_and_must_not_be_twice() {
    let upstream = upstream(|_, _| Some(Reply::transport_error(SimError::Reset)));
    let policy = FallbackPolicy::default().resend(tollgate_core::resend::Resend::OnlyUnsent);
    let service = layer(chain(["a", "b"]))
        .policy(policy)
        .layer(upstream.clone());
    let error = tower::ServiceExt::oneshot(service, streamed("a"))
        .await
        .unwrap_err();
    assert_eq!((error, upstream.count()), (SimError::Reset, 1));
}
