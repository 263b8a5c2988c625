//! The probe counts what a layer may not do.
#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tollgate_sim::{
    SimError,
    probe::ReadyProbe,
    script::{Reply, Scripted},
};
use tower::{Service, ServiceExt};

fn request() -> Request<Full<Bytes>> {
    Request::post("/v1/chat/completions")
        .body(Full::from("{}"))
        .unwrap()
}

async fn ready(service: &mut ReadyProbe<Scripted>) -> &mut ReadyProbe<Scripted> {
    ServiceExt::<Request<Full<Bytes>>>::ready(service)
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn counts_a_call_without_readiness_and_a_second_call_on_one_readiness() {
    let mut service = ReadyProbe::new(Scripted::new([]));
    let seen = service.handle();
    ready(&mut service).await.call(request()).await.unwrap();
    assert_eq!(seen.snapshot().violations, 0);
    service.call(request()).await.unwrap();
    assert_eq!(seen.snapshot().violations, 1);
    assert_eq!(seen.snapshot().calls, 2);
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_a_ready_service_is_not_ready() {
    let mut service = ReadyProbe::new(Scripted::new([]));
    let seen = service.handle();
    ready(&mut service).await;
    assert_eq!(seen.snapshot().held_ready, 1);
    service.clone().call(request()).await.unwrap();
    assert_eq!(seen.snapshot().violations, 1);
    drop(service);
    assert_eq!(seen.snapshot().held_ready, 0);
    assert_eq!(seen.snapshot().dropped_ready, 1);
}

#[tokio::test(start_paused = true)]
async fn counts_flights_cancellations_and_errors() {
    let mut service = ReadyProbe::new(Scripted::new([
        Reply::pending(),
        Reply::transport_error(SimError::Reset),
    ]));
    let seen = service.handle();
    let hanging = ready(&mut service).await.call(request());
    let failing = ready(&mut service).await.call(request());
    assert_eq!(seen.snapshot().in_flight, 2);
    assert_eq!(failing.await.unwrap_err(), SimError::Reset);
    drop(hanging);
    let snapshot = seen.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.peak_in_flight), (0, 2));
    assert_eq!((snapshot.cancelled, snapshot.errors), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn says_pending_once_before_each_readiness_when_told() {
    let mut service = ReadyProbe::new(Scripted::new([])).pending_first();
    for _ in 0..2 {
        let mut task = tokio_test::task::spawn(());
        task.enter(|cx, _| {
            assert!(Service::<Request<Full<Bytes>>>::poll_ready(&mut service, cx).is_pending());
            assert!(Service::<Request<Full<Bytes>>>::poll_ready(&mut service, cx).is_ready());
        });
        assert!(task.is_woken());
        service.call(request()).await.unwrap();
    }
    assert_eq!(service.handle().snapshot().violations, 0);
}
