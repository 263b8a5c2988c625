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
    call::{Call, CallOptions, Steering},
    timeouts::Timeouts,
};
use tollgate_fallback::{
    Candidate, Credential, FallbackHealth, FallbackPolicy, ModelChain, ModelFallback,
    ModelFallbackLayer, ResponseFuture, Target, TargetSnapshot, TargetState,
};
use tollgate_sim::{
    SimBody, SimError,
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

/// The call and the reading of its answer, dropped after so many polls. True if they were done before.
async fn dropped_after(
    polls: usize,
    service: ModelFallback<ReadyProbe<Scripted>, Sim>,
    request: Request<Body>,
) -> bool {
    let whole = async move {
        let answer = service.oneshot(request).await.unwrap();
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            drop(frame.unwrap());
        }
    };
    let mut task = tokio_test::task::spawn(whole);
    for _ in 0..polls {
        if task.poll().is_ready() {
            return true;
        }
        tokio::time::advance(SECOND / 2).await;
    }
    false
}

/// `a` fails in the way of its kind, `b` is a pool of two with a bad key first, `c` serves; all of it slowly,
/// so that every state is met.
fn slow_and_failing(kind: &'static str) -> Scripted {
    let event = r#"{"id":"1","choices":[{"index":0,"delta":{"content":"w"}}]}"#;
    Scripted::by(move |attempt| {
        let key = attempt.header("authorization").unwrap_or_default();
        let stream = attempt.body.windows(6).any(|word| word == b"stream");
        let reply = match attempt.model().as_deref() {
            Some("a") if kind == "timed" => return Reply::pending(),
            Some("a") if kind == "buffered" => Reply::sse([event; 3]).breaks(SimError::Broken),
            Some("a") => error(503, "overloaded"),
            Some("b") if key.ends_with("bad") => error(401, "invalid_api_key"),
            Some("b") => error(500, "server_error"),
            _ if stream => Reply::sse([event, event, "[DONE]"]),
            _ => Reply::chat("c", 1, 1),
        };
        let waits = if stream { SECOND / 2 } else { SECOND };
        reply.every(waits).after(SECOND)
    })
}

fn four_ways() -> ModelChain {
    let there = |name: &str| {
        let key = |end: &str| Credential::bearer(&format!("{name}-{end}")).unwrap();
        let there = Target::new(name, "https://b.example").unwrap();
        there.credential([key("bad"), key("good")]).model("b")
    };
    let pool = Candidate::pool([there("b-1"), there("b-2")]);
    ModelChain::new([Candidate::model("a"), pool, Candidate::model("c")]).unwrap()
}

// F15
#[tokio::test(start_paused = true)]
async fn dropped_at_any_poll_nothing_is_left_behind() {
    for kind in ["document", "stream", "buffered", "timed"] {
        let policy = FallbackPolicy::default()
            .timeouts(Timeouts::new().first_byte(3 * SECOND))
            .attempts(9);
        let health = FallbackHealth::new();
        let probe = ReadyProbe::new(slow_and_failing(kind)).pending_first();
        let seen = probe.handle();
        let service = layer(four_ways()).health(health.clone()).policy(policy);
        let service = service.layer(probe);
        let mut finished = 0;
        for polls in 0..200 {
            let mut options = CallOptions::new().max_attempts(9);
            if kind == "buffered" {
                options = options.buffered();
            }
            let call = Call::new(options);
            let stream = kind == "stream" || kind == "buffered";
            let mut request = if stream { streamed("a") } else { chat("a") };
            request.extensions_mut().insert(call.clone());
            finished += usize::from(dropped_after(polls, service.clone(), request).await);
            let snapshot = seen.snapshot();
            let held = (snapshot.in_flight, snapshot.held_ready);
            assert_eq!(held, (0, 0), "{kind} after {polls} polls");
            assert!(snapshot.violations == 0 && snapshot.peak_in_flight <= 1);
            assert_eq!(call.steering(), Steering::default(), "as it was found");
            assert_eq!(call.attempt_under_way(), None);
            let targets = health.snapshot().targets;
            let stuck = |target: &TargetSnapshot| target.state == TargetState::Probing;
            assert!(!targets.iter().any(stuck), "{kind}: {targets:?}");
            if finished > 2 {
                break;
            }
            // Every second time all are left alone, and the way is another one.
            tokio::time::advance(400 * SECOND * u32::from(polls % 2 == 0)).await;
        }
        assert!(finished > 2, "{kind}: the last rounds went to their end");
    }
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
