//! What tower and the other layers may rely on.
#![allow(clippy::unwrap_used)]
mod common;

use std::{
    convert::Infallible,
    future::Future,
    marker::PhantomData,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use common::*;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use tollgate_core::{
    body::Replay,
    call::{Call, CallOptions},
};
use tollgate_fallback::{
    FallbackHealth, ModelChain, ModelFallback, ModelFallbackLayer, ResponseFuture, TargetState,
};
use tollgate_sim::{
    SimBody,
    probe::ReadyProbe,
    script::{Reply, Scripted},
};
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn down_a() -> Scripted {
    upstream(|model, _| (model == "a").then(|| error(503, "overloaded")))
}

#[tokio::test(start_paused = true)]
async fn every_attempt_goes_to_an_instance_that_was_made_ready() {
    let probe = ReadyProbe::new(down_a()).pending_first();
    let seen = probe.handle();
    let mut service = ModelFallback::new(probe, chain(["a", "b"]));
    for _ in 0..3 {
        let ready = ServiceExt::<Request<Body>>::ready(&mut service)
            .await
            .unwrap();
        assert_eq!(ready.call(chat("x")).await.unwrap().status(), 200);
    }
    let seen = seen.snapshot();
    assert_eq!((seen.calls, seen.violations, seen.held_ready), (3, 0, 0));

    let probe = ReadyProbe::new(down_a()).pending_first();
    let seen = probe.handle();
    let service = ModelFallback::new(probe, chain(["a", "b"]));
    assert_eq!(service.oneshot(chat("a")).await.unwrap().status(), 200);
    let seen = seen.snapshot();
    assert_eq!((seen.calls, seen.violations, seen.held_ready), (2, 0, 0));
    assert_eq!(seen.peak_in_flight, 1, "one attempt at a time");
}

#[tokio::test(start_paused = true)]
async fn what_passes_unread_goes_to_the_ready_instance_too() {
    let probe = ReadyProbe::new(down_a()).pending_first();
    let seen = probe.handle();
    let service = ModelFallback::new(probe, chain(["a", "b"]));
    let request = Request::get("/v1/models").body(Body::default()).unwrap();
    service.oneshot(request).await.unwrap();
    assert_eq!(seen.snapshot().violations, 0);
}

// X03
#[tokio::test(start_paused = true)]
async fn readiness_that_is_not_used_leaks_nothing() {
    let probe = ReadyProbe::new(down_a());
    let seen = probe.handle();
    let mut service = ModelFallback::new(probe, chain(["a", "b"]));
    ServiceExt::<Request<Body>>::ready(&mut service)
        .await
        .unwrap();
    let clone = service.clone();
    assert_eq!(seen.snapshot().held_ready, 1, "a clone is not ready");
    drop((service, clone));
    assert_eq!(seen.snapshot().held_ready, 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_poll_nothing_is_left_behind() {
    // Each attempt waits before its head and within its body, so that every state is met.
    let slow = |reply: Reply| reply.wait(SECOND).chunk(" ").wait(SECOND).after(SECOND);
    let upstream = Scripted::by(move |attempt| {
        slow(if attempt.model().as_deref() == Some("b") {
            Reply::chat("b", 1, 1)
        } else {
            error(503, "overloaded")
        })
    });
    let health = FallbackHealth::new();
    let probe = ReadyProbe::new(upstream.clone()).pending_first();
    let seen = probe.handle();
    let service = layer(chain(["a", "b"])).health(health.clone()).layer(probe);
    let mut finished = false;
    for polls in 0..40 {
        let call = Call::new(CallOptions::new());
        let mut request = chat("a");
        request.extensions_mut().insert(call.clone());
        let mut task = tokio_test::task::spawn(service.clone().oneshot(request));
        for _ in 0..polls {
            finished = task.poll().is_ready();
            if finished {
                break;
            }
            tokio::time::advance(SECOND / 2).await;
        }
        drop(task);
        let snapshot = seen.snapshot();
        assert_eq!(
            (snapshot.in_flight, snapshot.held_ready),
            (0, 0),
            "after {polls} polls"
        );
        assert_eq!(snapshot.violations, 0);
        assert_eq!(call.max_queue_wait(), None);
        let begun = call.attempts_begun();
        if begun > 0 {
            assert_eq!(call.attempts_left(9), 4 - begun, "nothing is kept back");
        }
        assert_eq!(
            call.begin_attempt(9),
            Some(begun + 1),
            "no attempt under way"
        );
        let probing = |state| state == TargetState::Probing;
        assert!(!health.snapshot().targets.iter().any(|t| probing(t.state)));
        if finished {
            break;
        }
        tokio::time::advance(400 * SECOND).await;
    }
    assert!(finished, "the last round went to its end");
}

#[tokio::test(start_paused = true)]
async fn an_answer_arrives_byte_for_byte_with_its_trailers() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    for (request, reply) in [
        (
            chat("a"),
            Reply::chat("a", 1, 1)
                .header("x-one", "1")
                .trailers(trailers.clone()),
        ),
        (chat("a"), Reply::status(204)),
        (chat("a"), Reply::status(302).header("location", "/x")),
        (
            streamed("a"),
            Reply::sse(["{\"choices\":[]}", "[DONE]"]).trailers(trailers.clone()),
        ),
    ] {
        let plain = Scripted::new([reply.clone()])
            .oneshot(chat("a"))
            .await
            .unwrap();
        let answer = send(&wrap(&Scripted::new([reply]), chain(["a", "b"])), request).await;
        assert_eq!(answer.status(), plain.status());
        assert_eq!(answer.headers(), plain.headers());
        let plain = plain.into_body().collect().await.unwrap();
        let answer = answer.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers(), plain.trailers());
        assert_eq!(answer.to_bytes(), plain.to_bytes());
    }
}

/// Is neither `Send` nor able to fail; its readiness is checked by the probe around it.
#[derive(Clone)]
struct Local(PhantomData<Rc<()>>);

impl Service<Request<Body>> for Local {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut response = Response::new(Full::from("{}"));
        if request.headers()["content-length"] == "1" {
            *response.status_mut() = http::StatusCode::BAD_REQUEST;
        }
        std::future::ready(Ok(response))
    }
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_cannot_fail_or_be_sent_stays_what_it_is() {
    let service = ModelFallback::new(Local(PhantomData), chain(["a", "b"]));
    let answer: Result<Response<Replay<Full<Bytes>>>, Infallible> =
        service.oneshot(chat("a")).await;
    let Ok(answer) = answer;
    assert_eq!(answer.status(), 200);
}

#[test]
fn what_the_inner_service_is_flows_through() {
    fn is<T: Clone + Send + Sync + 'static>() {}
    fn sends<T: Send>() {}
    fn body<T: Send + Sync + Unpin + 'static>() {}
    is::<ModelFallback<Scripted>>();
    is::<ModelFallbackLayer>();
    is::<FallbackHealth>();
    is::<ModelChain>();
    sends::<ResponseFuture<Scripted, tollgate_core::classify::Opaque, Body, SimBody>>();
    body::<Replay<SimBody>>();
    fn future<F: Future + Send>(_: &F) {}
    future(&ModelFallback::new(Scripted::new([]), chain(["a"])).oneshot(chat("a")));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_is_the_calls_error() {
    #[derive(Clone)]
    struct Broken(u32);
    impl Service<Request<Body>> for Broken {
        type Response = Response<Full<Bytes>>;
        type Error = &'static str;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            self.0 += 1;
            Poll::Ready(if self.0 > 1 { Err("closed") } else { Ok(()) })
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let mut response = Response::new(Full::from("{}"));
            *response.status_mut() = http::StatusCode::BAD_GATEWAY;
            std::future::ready(Ok(response))
        }
    }
    let service = ModelFallback::new(Broken(0), chain(["a", "b"]));
    assert_eq!(service.oneshot(chat("a")).await.unwrap_err(), "closed");
}
