//! Other layers between two recorders, or between the recorder and the wire.
#![allow(clippy::unwrap_used)]
mod common;

use std::convert::Infallible;

use bytes::Bytes;
use common::*;
use http::Response;
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::json;
use tollgate_core::{
    body::{Peek, PeekPolicy, ReadRequest, Replay},
    wire::{prompt::Endpoint, usage::Count},
};
use tollgate_sim::{
    SimBody, SimError,
    script::{Reply, Scripted},
};
use tollgate_usage::{Completion, ResponseBody, UsageRecorder};
use tower::{Layer, ServiceExt, service_fn};

type Inner = UsageRecorder<Scripted>;
type InnerAnswer = Response<ResponseBody<SimBody>>;

/// Looks into each answer as a layer does that may ask again, so that the inner reading runs ahead.
async fn looks(
    inner: Inner,
    request: Req,
) -> Result<Response<Replay<ResponseBody<SimBody>>>, SimError> {
    let mut read = std::pin::pin!(ReadRequest::new(request));
    let whole = std::future::poll_fn(|cx| read.as_mut().poll_read(cx)).await;
    let (parts, body, facts) = whole.map_err(|_| SimError::RequestBody)?;
    let request = Req::from_parts(parts, body.into());
    let response = inner.oneshot(request).await?;
    let (response, _) = Peek::new(response, Some(&facts), &PeekPolicy::default()).await;
    Ok(response)
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_is_ahead_is_used_for_the_cut() {
    for size in [1, 7, 50, 400, 100_000] {
        let (inside, outside) = (Kept::default(), Kept::default());
        let inner = inside.layer().layer(Scripted::new([
            Reply::stream([stream().concat()]).rechunk(size)
        ]));
        let stack = outside
            .layer()
            .layer(service_fn(move |request| looks(inner.clone(), request)));
        let response = stack.oneshot(unasked()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, stream_without_usage(), "in frames of {size}");
        assert_eq!(gist(&inside.one()), gist(&outside.one()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_is_at_the_end_already_is_used_for_the_cut() {
    for size in [1, 7, 50, 400, 100_000] {
        let upstream = Scripted::new([Reply::stream([stream().concat()]).rechunk(size)]);
        let inner = Kept::default().layer().layer(upstream);
        let holds = ServiceExt::<Req>::and_then(inner, |response: InnerAnswer| async {
            let (parts, mut body) = response.into_parts();
            let mut frames = std::collections::VecDeque::new();
            while let Some(frame) = body.frame().await {
                frames.push_back(frame?);
            }
            let body = Replay::<SimBody>::buffered(frames, None);
            Ok::<_, SimError>(Response::from_parts(parts, body))
        });
        let outside = Kept::default();
        let response = outside
            .layer()
            .layer(holds)
            .oneshot(unasked())
            .await
            .unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, stream_without_usage(), "in frames of {size}");
        assert_eq!(outside.one().usage.output, Count::Exact(7));
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_an_answer_that_was_held_whole_leaves_a_whole_record() {
    let outside = Kept::default();
    let inner = Kept::default()
        .layer()
        .layer(Scripted::new([Reply::chat("m", 3, 4).rechunk(9)]));
    let stack = outside
        .layer()
        .layer(service_fn(move |request| looks(inner.clone(), request)));
    drop(stack.oneshot(chat(json!({}))).await.unwrap());
    let record = outside.one();
    assert_eq!(
        record.completion,
        Completion::Complete,
        "the provider has said everything"
    );
    assert_eq!(record.usage.output, Count::Exact(4));
}

// U17: without a decoder, or where there is nothing in it, it is unknown and never wrong.
#[tokio::test(start_paused = true)]
async fn a_coded_answer_passes_and_its_usage_is_unknown() {
    let kept = Kept::default();
    let coded = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0].repeat(9);
    let reply = Reply::status(200)
        .header("content-encoding", "gzip")
        .header("content-type", "text/event-stream")
        .header("content-length", "72")
        .body(coded.clone());
    let mut request = unasked();
    request
        .headers_mut()
        .insert("accept-encoding", "gzip".parse().unwrap());
    let upstream = Scripted::new([reply]);
    let (_, body) = exchange(&kept.layer(), &upstream, request).await;
    assert_eq!(body.unwrap(), coded);
    assert_eq!(
        upstream.attempts()[0].header("accept-encoding"),
        Some("identity")
    );
    let record = kept.one();
    assert_eq!(
        (record.has_usage, record.completion),
        (false, Completion::Complete)
    );
    assert_eq!(record.bytes_received, 72);
}

/// Decodes, as far as the test is concerned.
fn decodes(response: InnerAnswer) -> Response<SimBody> {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove("content-encoding");
    Response::from_parts(parts, SimBody::from(stream().concat()))
}

#[tokio::test(start_paused = true)]
async fn a_decoder_between_two_recorders_makes_the_outer_one_read_for_itself() {
    let (inside, outside) = (Kept::default(), Kept::default());
    let reply = Reply::stream([vec![0x1f, 0x8b, 8, 0]]).header("content-encoding", "gzip");
    let inner = inside.layer().layer(Scripted::new([reply]));
    let stack = outside
        .layer()
        .layer(ServiceExt::<Req>::map_response(inner, decodes));
    let response = stack.oneshot(unasked()).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, stream_without_usage());
    assert_eq!(outside.one().usage.output, Count::Exact(7));
    assert!(!inside.one().has_usage);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_a_layer_between_has_changed_is_not_cut_in_the_wrong_place() {
    let inner = Kept::default()
        .layer()
        .layer(Scripted::new([Reply::stream(stream())]));
    let other = format!(
        "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n",
        "x".repeat(2_000)
    );
    let changed = other.clone();
    let rewrites = ServiceExt::<Req>::and_then(inner, move |response: InnerAnswer| {
        let changed = changed.clone();
        async move {
            let (parts, body) = response.into_parts();
            body.collect().await?;
            Ok::<_, SimError>(Response::from_parts(parts, SimBody::from(changed)))
        }
    });
    let stack = Kept::default().layer().layer(rewrites);
    let response = stack.oneshot(unasked()).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        other
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_moved_will_do() {
    /// `!Unpin`, as bodies made of async blocks are.
    struct Pinned(std::marker::PhantomPinned);
    impl Body for Pinned {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            std::task::Poll::Ready(None)
        }
    }
    let kept = Kept::default();
    let inner = service_fn(|_: Req| async {
        let mut response = Response::new(Pinned(std::marker::PhantomPinned));
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
        Ok::<_, Infallible>(response)
    });
    let response = kept.layer().layer(inner).oneshot(unasked()).await.unwrap();
    assert_eq!(response.status(), 400);
    response.into_body().collect().await.unwrap();
    assert_eq!(kept.one().endpoint, Endpoint::ChatCompletions);
}
