//! The scripted upstream does what it was told and writes down what it saw.
#![allow(clippy::unwrap_used)]
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tollgate_sim::{
    SimBody, SimError, Step,
    script::{BodyFate, Reply, Scripted},
};
use tower::ServiceExt;

fn request(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post("/v1/chat/completions")
        .body(Full::from(body.into()))
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn replies_in_order_and_the_last_repeats() {
    let upstream = Scripted::new([Reply::rate_limited(2), Reply::chat("gpt-test", 3, 5)]);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let answer = upstream.clone().oneshot(request("{}")).await.unwrap();
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [429, 200, 200]);
    assert_eq!(upstream.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn logs_head_body_extensions_and_times() {
    let upstream = Scripted::new([Reply::status(200).after(Duration::from_secs(2))]);
    tokio::time::advance(Duration::from_secs(1)).await;
    let body = Bytes::from(r#"{"model":"gpt-test"}"#);
    let mut req = request(body.clone());
    req.headers_mut().insert("x-test", "1".parse().unwrap());
    req.extensions_mut().insert(7_u8);
    upstream.clone().oneshot(req).await.unwrap();

    let log = upstream.attempts();
    assert_eq!(log[0].model().as_deref(), Some("gpt-test"));
    assert_eq!(
        log[0].body.as_ptr(),
        body.as_ptr(),
        "one frame is not copied"
    );
    assert_eq!(log[0].header("x-test"), Some("1"));
    assert!(
        !format!("{log:?}").contains("gpt-test"),
        "Debug shows no body"
    );
    assert_eq!(log[0].extensions.get(), Some(&7_u8));
    assert_eq!(log[0].at, Duration::from_secs(1));
    assert_eq!(log[0].answered_at, Some(Duration::from_secs(3)));
}

#[tokio::test(start_paused = true)]
async fn a_function_answers_by_what_came() {
    let upstream = Scripted::by(|attempt| match attempt.model().as_deref() {
        Some("gone") => Reply::status(404),
        _ => Reply::status(200),
    });
    let ask = async |body: &'static str| {
        let call = upstream.clone().oneshot(request(body));
        call.await.unwrap().status().as_u16()
    };
    assert_eq!(ask(r#"{"model":"gone"}"#).await, 404);
    assert_eq!(ask(r#"{"model":"here"}"#).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_body_breaks_stalls_waits_and_sends_trailers_where_told() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", "1".parse().unwrap());
    let upstream = Scripted::new([
        Reply::body_breaks_after("abc"),
        Reply::stream(["a", "b"])
            .every(Duration::from_secs(1))
            .trailers(trailers),
        Reply::status(200).chunk("a").stalls(),
        Reply::status(204),
        Reply::ok_json(serde_json::json!({})),
    ]);
    let ask = async || upstream.clone().oneshot(request("")).await.unwrap();

    let mut broken = ask().await.into_body();
    assert_eq!(
        broken.frame().await.unwrap().unwrap().into_data().unwrap(),
        "abc"
    );
    assert_eq!(broken.frame().await.unwrap().unwrap_err(), SimError::Broken);

    let before = tokio::time::Instant::now();
    let collected = ask().await.into_body().collect().await.unwrap();
    assert!(
        collected
            .trailers()
            .is_some_and(|t| t.contains_key("x-end"))
    );
    assert_eq!(collected.to_bytes(), "ab");
    assert_eq!(before.elapsed(), Duration::from_secs(2));

    let mut stalled = ask().await.into_body();
    stalled.frame().await.unwrap().unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(3600), stalled.frame()).await;
    assert!(waited.is_err());
    drop(stalled);

    drop(ask().await);
    let mut whole = ask().await.into_body();
    whole.frame().await.unwrap().unwrap();
    assert!(whole.is_end_stream(), "a reader may stop here");
    assert_eq!(upstream.attempts()[4].body_fate, BodyFate::Complete);

    let fates: Vec<_> = upstream.attempts().iter().map(|a| a.body_fate).collect();
    assert_eq!(
        fates,
        [
            BodyFate::Broken,
            BodyFate::Complete,
            BodyFate::Dropped,
            BodyFate::Complete,
            BodyFate::Complete
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn marks_an_attempt_whose_future_was_dropped() {
    let upstream = Scripted::new([Reply::pending()]);
    let call = upstream.clone().oneshot(request("{}"));
    let waited = tokio::time::timeout(Duration::from_secs(3600), call).await;
    assert!(waited.is_err());
    assert!(upstream.attempts()[0].cancelled);
}

#[tokio::test(start_paused = true)]
async fn answers_before_the_request_was_read_when_told() {
    let upstream = Scripted::new([Reply::status(413).unread()]);
    let body = SimBody::new([Step::Stall]);
    let call = upstream.clone().oneshot(Request::new(body));
    assert_eq!(call.await.unwrap().status(), 413);
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_fails_is_a_service_error() {
    let upstream = Scripted::new([]);
    let body = SimBody::new([Step::Data("a".into()), Step::Break(SimError::Broken)]);
    let call = upstream.clone().oneshot(Request::new(body));
    assert_eq!(call.await.unwrap_err(), SimError::RequestBody);
}

#[tokio::test(start_paused = true)]
async fn rechunking_keeps_the_bytes_and_every_other_step() {
    for size in 1..12 {
        let reply = Reply::sse(["one", "two"])
            .wait(Duration::from_secs(1))
            .chunk("three")
            .rechunk(size);
        let upstream = Scripted::new([reply]);
        let answer = upstream.clone().oneshot(request("")).await.unwrap();
        let before = tokio::time::Instant::now();
        let mut body = answer.into_body();
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= size);
            all.extend_from_slice(&data);
        }
        assert_eq!(all, b"data: one\n\ndata: two\n\nthree");
        assert_eq!(before.elapsed(), Duration::from_secs(1));
    }
}

#[test]
fn a_body_of_data_knows_its_size_and_its_end() {
    let body = SimBody::from(Bytes::from("abc"));
    assert_eq!(body.size_hint().exact(), Some(3));
    assert!(SimBody::from("").is_end_stream());
    assert_eq!(SimBody::new([Step::Stall]).size_hint().exact(), None);
}

#[tokio::test(start_paused = true)]
async fn runs_on_a_body_that_is_not_send() {
    let body = Full::from("x").map_err(|_| std::rc::Rc::new(()));
    let upstream = Scripted::new([]);
    let call = upstream.clone().oneshot(Request::new(body));
    assert_eq!(call.await.unwrap().status(), 200);
}
