//! What a recorder further out has put into the request, and a candidate does not know.
#![allow(clippy::unwrap_used)]
mod common;

use bytes::Bytes;
use common::*;
use http::Request;
use http_body_util::Full;
use tollgate_core::extensions::AskedForUsage;
use tollgate_sim::script::{Reply, Scripted};

const ORIGINAL: &str = r#"{"model":"a","stream":true,"stream_options":{"x":1},"messages":[]}"#;
const ASKING: &str =
    r#"{"model":"a","stream":true,"stream_options":{"include_usage":true,"x":1},"messages":[]}"#;

/// `a` is overloaded, and `b` does not know the question.
fn old() -> Scripted {
    Scripted::by(|attempt| {
        let asked = attempt.json()["stream_options"]
            .get("include_usage")
            .is_some();
        match attempt.json()["model"].as_str() {
            Some("a") => error(503, "overloaded"),
            _ if asked => error(400, "unknown_parameter"),
            _ => Reply::chat("b", 1, 1),
        }
    })
}

fn request(marked: bool) -> Request<Full<Bytes>> {
    let body = Bytes::from_static(ASKING.as_bytes());
    let mut request = Request::post("https://a.example/v1/chat/completions")
        .header("content-length", body.len())
        .body(Full::new(body.clone()))
        .unwrap();
    if marked {
        let original = Bytes::from_static(ORIGINAL.as_bytes());
        let question = AskedForUsage::new(body, original);
        request.extensions_mut().insert(question);
    }
    request
}

// U06
#[tokio::test(start_paused = true)]
async fn a_question_that_a_candidate_does_not_know_is_taken_back() {
    let upstream = old();
    let answer = send(&wrap(&upstream, chain(["a", "b", "c"])), request(true)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(served_by(&answer), (1, "b".to_owned()));
    assert_eq!(models(&upstream), ["a", "b", "b"]);
    let last = upstream.attempts().pop().unwrap();
    assert_eq!(last.body, ORIGINAL.replace(r#""a""#, r#""b""#));
    assert_eq!(
        last.header("content-length"),
        Some(&*last.body.len().to_string())
    );
}

// U06
#[tokio::test(start_paused = true)]
async fn a_fault_that_is_the_callers_is_not_asked_about_without_end() {
    // Nobody else has asked for usage: the caller has.
    let upstream = old();
    let answer = send(&wrap(&upstream, chain(["a", "b", "c"])), request(false)).await;
    assert_eq!((answer.status().as_u16(), upstream.count()), (503, 2));
    // It is taken back once.
    let upstream = Scripted::by(|attempt| match attempt.json()["model"].as_str() {
        Some("a") => error(503, "overloaded"),
        _ => error(400, "invalid_value"),
    });
    let answer = send(&wrap(&upstream, chain(["a", "b", "c"])), request(true)).await;
    assert_eq!((answer.status().as_u16(), upstream.count()), (503, 3));
}
