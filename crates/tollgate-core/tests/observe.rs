//! A body under observation: the five ways to end, and one report for each.
#![allow(clippy::unwrap_used)] // helpers of tests are tests
mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use proptest::prelude::*;
use support::*;
use tollgate_core::body::{End, ObservedBody, Observer};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    bytes: Vec<u8>,
    trailers: u32,
    ends: Vec<End>,
}

impl Observer for Log {
    fn data(&mut self, data: &Bytes) {
        self.0.lock().unwrap().bytes.extend_from_slice(data);
    }

    fn trailers(&mut self, _: &HeaderMap) {
        self.0.lock().unwrap().trailers += 1;
    }

    fn end(&mut self, end: End) {
        self.0.lock().unwrap().ends.push(end);
    }
}

impl Log {
    fn ends(&self) -> Vec<End> {
        self.0.lock().unwrap().ends.clone()
    }
}

fn watched(body: Strict) -> (ObservedBody<Strict, Log>, Log) {
    let log = Log::default();
    (ObservedBody::new(body, log.clone()), log)
}

/// Polls on after the end, as a careless reader does, and drops the body.
async fn over_the_end(mut body: ObservedBody<Strict, Log>) {
    for _ in 0..3 {
        let _ = body.frame().await;
    }
}

#[tokio::test]
async fn the_end_of_the_stream_is_reported_once() {
    let (mut body, log) = watched(Strict::new([data("a"), data("b")]));
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    assert_eq!(
        log.ends(),
        [],
        "nobody knows yet that it was the last frame"
    );
    assert!(body.frame().await.is_none());
    assert_eq!(log.ends(), [End::Complete]);
    over_the_end(body).await;
    assert_eq!(log.ends(), [End::Complete]);
}

#[tokio::test]
async fn trailers_are_shown_and_reported_as_the_end_once() {
    let (mut body, log) = watched(Strict::new([data("a"), Do::Trailers(trailers())]));
    body.frame().await.unwrap().unwrap();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap(), trailers());
    assert_eq!(log.ends(), [End::Complete], "a reader may not ask again");
    assert_eq!(log.0.lock().unwrap().trailers, 1);
    over_the_end(body).await;
    assert_eq!(log.ends(), [End::Complete]);
}

#[tokio::test]
async fn an_error_is_reported_once() {
    let (mut body, log) = watched(Strict::new([data("a"), Do::Fail]));
    body.frame().await.unwrap().unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap_err(), Failed);
    assert_eq!(log.ends(), [End::Failed]);
    assert!(body.is_end_stream(), "nothing comes after an error");
    over_the_end(body).await;
    assert_eq!(log.ends(), [End::Failed]);
}

#[tokio::test]
async fn a_body_that_knows_its_end_is_reported_with_its_last_frame() {
    let (mut body, log) = watched(Strict::new([data("a"), data("b")]).knowing_its_end());
    body.frame().await.unwrap().unwrap();
    assert_eq!(log.ends(), []);
    body.frame().await.unwrap().unwrap();
    assert_eq!(log.ends(), [End::Complete], "a reader may not ask again");
    assert!(body.is_end_stream());
    over_the_end(body).await;
    assert_eq!(log.ends(), [End::Complete]);
}

#[tokio::test]
async fn a_drop_is_reported_once() {
    let (mut body, log) = watched(Strict::new([data("a"), data("b")]));
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(log.ends(), [End::Dropped]);
    assert_eq!(log.0.lock().unwrap().bytes, b"a");

    let (body, log) = watched(Strict::new([data("a")]));
    drop(body);
    assert_eq!(log.ends(), [End::Dropped], "also before it was read at all");
}

#[tokio::test]
async fn a_body_that_is_empty_from_the_start_is_complete_at_once() {
    let (body, log) = watched(Strict::new([]).knowing_its_end());
    assert_eq!(log.ends(), [End::Complete]);
    over_the_end(body).await;
    assert_eq!(log.ends(), [End::Complete]);
}

#[tokio::test]
async fn an_inner_observer_has_reported_when_an_outer_one_hears_of_the_drop() {
    struct Outer(Log, Arc<Mutex<Vec<End>>>);
    impl Observer for Outer {
        fn data(&mut self, _: &Bytes) {}
        fn end(&mut self, _: End) {
            *self.1.lock().unwrap() = self.0.ends();
        }
    }
    let inner = Log::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let body = ObservedBody::new(Strict::new([data("a")]), inner.clone());
    let body = ObservedBody::new(body, Outer(inner, seen.clone()));
    drop(body);
    assert_eq!(*seen.lock().unwrap(), [End::Dropped]);
}

#[test]
fn hints_are_those_of_the_body_inside() {
    let full = ObservedBody::new(Full::new(Bytes::from("four")), Log::default());
    assert_eq!(full.size_hint().exact(), Some(4));
    assert!(!full.is_end_stream());
    let empty = ObservedBody::new(Empty::<Bytes>::new(), Log::default());
    assert_eq!(empty.size_hint().exact(), Some(0));
    assert!(empty.is_end_stream());
    let default: ObservedBody<Empty<Bytes>, Log> = ObservedBody::default();
    assert!(default.is_end_stream());
}

proptest! {
    #[test]
    fn however_it_is_cut_the_same_bytes_pass_and_one_end_is_reported(
        places in proptest::collection::vec(any::<usize>(), 0..8),
        end in 0..5_u8, reads in 0..12_usize, knows in any::<bool>(),
    ) {
        let whole = Bytes::from("data: {\"a\":1}\n\ndata: [DONE]\n\n");
        let mut steps: Vec<Do> = cut(&whole, &places).into_iter().map(Do::Data).collect();
        match end {
            1 => steps.push(Do::Trailers(trailers())),
            2 => steps.push(Do::Fail),
            _ => {}
        }
        let mut body = Strict::new(steps);
        if knows {
            body = body.knowing_its_end();
        }
        let (mut body, log) = watched(body);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            if end == 3 {
                let mut got = Vec::new();
                for _ in 0..reads {
                    if let Some(Ok(frame)) = body.frame().await {
                        got.extend_from_slice(frame.data_ref().unwrap());
                    }
                }
                assert!(whole.starts_with(&got));
                drop(body);
            } else {
                let drained = drain(body).await;
                assert_eq!(drained.bytes, whole);
                assert_eq!(drained.trailers.is_some(), end == 1);
                assert_eq!(drained.error.is_some(), end == 2);
                assert_eq!(log.0.lock().unwrap().bytes, whole);
            }
        });
        prop_assert_eq!(log.ends().len(), 1);
    }
}
