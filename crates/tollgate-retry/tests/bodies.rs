//! What only the answer's body tells.
mod support;

use http_body_util::BodyExt;
use serde_json::json;
use support::*;
use tollgate_core::{
    body::{BodyError, PeekPolicy},
    call::Attempts,
    wire::outcome::Outcome as Meaning,
};
use tollgate_retry::{RateLimitPolicy, Resend};
use tollgate_sim::{SimError, script::Reply};

const DELTA: &str = r#"{"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}"#;
const ROLE: &str =
    r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const OVERLOADED: &str =
    r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;

fn stream() -> Reply {
    Reply::sse([ROLE, DELTA, STOP, "[DONE]"])
}

// R21
#[tokio::test(start_paused = true)]
async fn an_error_as_the_first_event_of_a_stream_is_retried_and_not_seen() {
    let seen = send(
        RateLimitPolicy::new(),
        chat_stream(),
        [Reply::sse([OVERLOADED]), stream()],
    )
    .await;
    assert_eq!(seen.attempts(), 2);
    let response = seen.response();
    assert_eq!(
        Attempts::of(&response)[0].outcome,
        Some(Meaning::Overloaded)
    );
    let text = bytes(response.into_body()).await;
    let text = std::str::from_utf8(&text).unwrap();
    assert!(
        text.contains("Hello") && !text.contains("overloaded"),
        "{text}"
    );
}

// R21
#[tokio::test(start_paused = true)]
async fn an_error_behind_head_events_and_pings_is_still_before_the_content() {
    let anthropic = Reply::sse_named([
        (
            "message_start",
            r#"{"type":"message_start","message":{"id":"m","model":"c","usage":{"input_tokens":9,"output_tokens":1}}}"#,
        ),
        ("ping", r#"{"type":"ping"}"#),
        ("error", OVERLOADED),
    ]);
    let good = Reply::sse_named([
        (
            "message_start",
            r#"{"type":"message_start","message":{"id":"m","model":"c","usage":{"input_tokens":9,"output_tokens":1}}}"#,
        ),
        (
            "content_block_delta",
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"#,
        ),
        ("message_stop", r#"{"type":"message_stop"}"#),
    ]);
    let body = r#"{"model":"claude-test","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let request = post("/v1/messages", body);
    let seen = send(RateLimitPolicy::new(), request, [anthropic, good]).await;
    assert_eq!(seen.attempts(), 2);
    let text = bytes(seen.response().into_body()).await;
    assert!(std::str::from_utf8(&text).unwrap().contains("Hello"));
}

// R22
#[tokio::test(start_paused = true)]
async fn an_error_after_the_first_content_passes_through() {
    let broken = Reply::sse([ROLE, DELTA, OVERLOADED]);
    let seen = send(RateLimitPolicy::new(), chat_stream(), [broken, stream()]).await;
    assert_eq!(seen.attempts(), 1);
    let text = bytes(seen.response().into_body()).await;
    let expected = format!("data: {ROLE}\n\ndata: {DELTA}\n\ndata: {OVERLOADED}\n\n");
    assert_eq!(text, expected, "byte for byte");
}

// R22: it is the order of the events that counts, not that of the frames.
#[tokio::test(start_paused = true)]
async fn content_and_error_in_one_frame_are_still_content_first() {
    let broken = Reply::stream([format!("data: {DELTA}\n\ndata: {OVERLOADED}\n\n")]);
    let seen = send(RateLimitPolicy::new(), chat_stream(), [broken, stream()]).await;
    assert_eq!(seen.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_before_its_first_content_is_retried() {
    let cut = Reply::sse([ROLE]).breaks(SimError::Broken);
    let seen = send(RateLimitPolicy::new(), chat_stream(), [cut, stream()]).await;
    assert_eq!(seen.attempts(), 2);

    let cut = Reply::sse([ROLE, DELTA]).breaks(SimError::Broken);
    let seen = send(RateLimitPolicy::new(), chat_stream(), [cut, stream()]).await;
    assert_eq!(seen.attempts(), 1, "content was delivered");
    let error = seen.response().into_body().collect().await.unwrap_err();
    let own = BodyError::Inner(SimError::Broken);
    assert_eq!(error, own, "truncation is never a clean end");
}

#[tokio::test(start_paused = true)]
async fn a_document_that_breaks_half_way_is_retried() {
    let whole = json!({"id": "1", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "Hello."}}]})
    .to_string();
    let half = whole[..whole.len() / 2].to_owned();
    let reset = Reply::body_breaks_after(half.clone());
    let cut = Reply::status(200)
        .header("content-type", "application/json")
        .body(half.clone());
    let garbled = Reply::status(200)
        .header("content-type", "application/json")
        .body(format!("{half}@@"));
    for broken in [reset, cut, garbled] {
        let seen = send_chat([broken, ok()]).await;
        assert_eq!(seen.attempts(), 2);
        let response = seen.response();
        assert_eq!(Attempts::of(&response)[0].outcome, Some(Meaning::Broken));
    }
    let strict = RateLimitPolicy::new().resend(Resend::OnlyUnsent);
    let seen = send(
        strict,
        chat(),
        [Reply::body_breaks_after(half.clone()), ok()],
    )
    .await;
    assert_eq!(seen.attempts(), 1, "it was served");

    let peek = PeekPolicy {
        hold_answer: None,
        ..PeekPolicy::default()
    };
    let policy = RateLimitPolicy::new().peek(peek);
    let seen = send(policy, chat(), [Reply::body_breaks_after(half), ok()]).await;
    assert_eq!(seen.attempts(), 1, "held answers are off");
}

#[tokio::test(start_paused = true)]
async fn an_error_in_a_document_of_status_200_is_retried() {
    let hidden =
        Reply::ok_json(json!({"error": {"message": "Overloaded", "type": "overloaded_error"}}));
    let seen = send_chat([hidden, ok()]).await;
    assert_eq!(seen.attempts(), 2);
}
