//! The laws of tower: readiness, errors, what flows through, what is left behind.
#![allow(clippy::unwrap_used)]
mod common;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use common::*;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tollgate_core::{extensions::Refused, wire::outcome::Outcome};
use tollgate_sim::{
    SimBody, SimError, Step,
    probe::ReadyProbe,
    script::{Reply, Scripted},
};
use tollgate_usage::{Completion, ResponseBody, UsageRecorder, UsageTotals};
use tower::{Layer, Service, ServiceExt, service_fn};

#[tokio::test(start_paused = true)]
async fn calls_only_the_instance_that_was_made_ready() {
    let probe = ReadyProbe::new(Scripted::new([Reply::chat("m", 1, 1)])).pending_first();
    let seen = probe.handle();
    let mut service = UsageRecorder::new(probe, UsageTotals::new());
    for request in [
        chat(json!({})),
        // Unreadable: passed on at once.
        Request::get("/v1/models").body(Full::default()).unwrap(),
        chat(json!({"stream": true})),
    ] {
        let response = ServiceExt::<Req>::ready(&mut service)
            .await
            .unwrap()
            .call(request);
        response.await.unwrap().collect().await.unwrap();
    }
    let seen = seen.snapshot();
    assert_eq!((seen.calls, seen.violations), (3, 0));
    assert_eq!(
        (seen.held_ready, seen.in_flight, seen.dropped_ready),
        (0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn makes_the_instance_ready_again_before_it_asks_again() {
    let upstream = Scripted::new([
        Reply::status(400).json(json!({"error": {"message": "unknown field stream_options"}})),
        Reply::sse(["[DONE]"]),
    ]);
    let probe = ReadyProbe::new(upstream.clone()).pending_first();
    let seen = probe.handle();
    let service = UsageRecorder::new(probe, UsageTotals::new());
    let response = service.oneshot(unasked()).await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = seen.snapshot();
    assert_eq!((seen.calls, seen.violations, seen.held_ready), (2, 0, 0));
}

// X03
#[tokio::test(start_paused = true)]
async fn ready_and_dropped_without_a_call_leaves_nothing() {
    let kept = Kept::default();
    let probe = ReadyProbe::new(Scripted::new([]));
    let seen = probe.handle();
    let mut service = kept.layer().layer(probe);
    ServiceExt::<Req>::ready(&mut service).await.unwrap();
    drop(service);
    assert_eq!(seen.snapshot().held_ready, 0);
    assert!(kept.all().is_empty(), "no call, no record");
}

#[tokio::test(start_paused = true)]
async fn a_service_error_arrives_unchanged_and_is_recorded() {
    let kept = Kept::default();
    let service = kept
        .layer()
        .layer(Scripted::new([Reply::transport_error(SimError::Reset)]));
    let error = service.oneshot(chat(json!({}))).await.unwrap_err();
    assert_eq!(error, SimError::Reset);
    let record = kept.one();
    assert_eq!(record.completion, Completion::Failed);
    assert_eq!(record.status, None);
    assert_eq!(record.outcome, Some(Outcome::Unreachable { sent: true }));
}

#[tokio::test(start_paused = true)]
async fn infallible_stays_infallible() {
    let inner = service_fn(|_: Req| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("hello"))))
    });
    let service = UsageRecorder::new(inner, UsageTotals::new());
    let response = service
        .oneshot(chat(json!({})))
        .await
        .unwrap_or_else(|error| never(error));
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "hello"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_fails_is_a_400_and_nothing_is_sent() {
    // A body that breaks has no exact size, so one that lies about it stands in.
    struct Lies;
    impl http_body::Body for Lies {
        type Data = Bytes;
        type Error = SimError;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, SimError>>> {
            Poll::Ready(Some(Err(SimError::Broken)))
        }
        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(9)
        }
    }
    impl From<Bytes> for Lies {
        fn from(_: Bytes) -> Self {
            Self
        }
    }
    let kept = Kept::default();
    let upstream = Scripted::new([]);
    let request = Request::post("/v1/chat/completions").body(Lies).unwrap();
    let response = kept
        .layer()
        .layer(upstream.clone())
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(response.status(), 400);
    assert!(Refused::of(&response).is_some());
    let length: usize = response.headers()["content-length"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .len(),
        length
    );
    assert_eq!(upstream.count(), 0);
    assert_eq!(
        kept.one().refused.map(|reason| reason.code()),
        Some("request_body_failed")
    );
}

#[tokio::test(start_paused = true)]
async fn works_over_a_service_that_is_not_send() {
    #[derive(Clone)]
    struct Local(Rc<()>);
    impl Service<Req> for Local {
        type Response = Response<LocalBody>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Req) -> Self::Future {
            std::future::ready(Ok(Response::new(LocalBody(
                Rc::clone(&self.0),
                Full::from("x"),
            ))))
        }
    }
    struct LocalBody(#[allow(dead_code)] Rc<()>, Full<Bytes>);
    impl http_body::Body for LocalBody {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            std::pin::Pin::new(&mut self.1).poll_frame(cx)
        }
    }
    let service = UsageRecorder::new(Local(Rc::default()), UsageTotals::new());
    let response = service.oneshot(chat(json!({}))).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "x"
    );
}

#[test]
fn auto_traits_flow_through() {
    fn all<T: Clone + Send + Sync + 'static>() {}
    fn body<T: Send + Sync + Unpin + Default + 'static>() {}
    fn future<T: Send + 'static>(_: &T) {}
    all::<UsageRecorder<Scripted>>();
    all::<UsageTotals>();
    all::<tollgate_usage::UsageRecorderLayer>();
    body::<ResponseBody<SimBody>>();
    let mut service = UsageRecorder::new(
        service_fn(|_: Req| async { Ok::<_, Infallible>(Response::new(SimBody::default())) }),
        UsageTotals::new(),
    );
    let response = service.call(chat(json!({})));
    future(&response);
    let size = size_of_val(&response);
    assert!(size <= 512, "the future has grown to {size} bytes");
}

/// Polls a future `polls` times, then drops it.
async fn poll_times(future: impl Future, polls: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        let done = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if done {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test(start_paused = true)]
async fn dropped_at_every_poll_leaves_exactly_one_record() {
    // Refused first, so that looking and readying are among the states that are dropped.
    let script = || {
        let error = json!({"error": {"message": "stream_options is not permitted"}}).to_string();
        let (half, rest) = error.split_at(20);
        let blame = Reply::status(400).chunk(half.to_owned());
        let blame = blame.wait(std::time::Duration::ZERO).chunk(rest.to_owned());
        Scripted::new([blame, Reply::sse(["[DONE]"])])
    };
    let mut finished = false;
    for polls in 0..30 {
        let kept = Kept::default();
        let probe = ReadyProbe::new(script()).pending_first();
        let seen = probe.handle();
        let mut service = kept.layer().layer(probe);
        let ready = ServiceExt::<Req>::ready(&mut service).await.unwrap();
        finished = poll_times(ready.call(unasked()), polls).await;
        drop(service);
        let record = kept.one();
        if !finished {
            assert_eq!(
                record.completion,
                Completion::Partial,
                "after {polls} polls"
            );
            assert_eq!(record.outcome, None);
        }
        let seen = seen.snapshot();
        assert_eq!(
            (seen.in_flight, seen.held_ready, seen.violations),
            (0, 0, 0)
        );
    }
    assert!(finished, "thirty polls are enough");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_ours_passes_untouched() {
    // X11: counted as a request, neither read nor parsed.
    let kept = Kept::default();
    let steps = [Step::Data("up".into()), Step::Data("load".into())];
    let upload = Request::post("https://api.example/v1/unheard-of")
        .header("content-type", "multipart/form-data; boundary=x")
        .body(SimBody::new(steps))
        .unwrap();
    let upstream = Scripted::new([Reply::status(200).body("{\"usage\":{\"prompt_tokens\":9}}")]);
    let response = kept
        .layer()
        .layer(upstream.clone())
        .oneshot(upload)
        .await
        .unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(upstream.attempts()[0].body, "upload");
    let record = kept.one();
    assert_eq!(record.status.map(|status| status.as_u16()), Some(200));
    assert_eq!(record.outcome, Some(Outcome::Ok));
    assert!(!record.has_usage);
    assert_eq!(record.bytes_received, 29);
}
