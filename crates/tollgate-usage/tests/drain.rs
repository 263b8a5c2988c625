//! What becomes of an answer whose caller leaves: read to its end within bounds, or closed at once.
#![allow(clippy::unwrap_used)]
mod common;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use common::{Kept, Req, asked, chat, stream};
use http::Response;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use serde_json::json;
use tollgate_core::wire::{outcome::Outcome, usage::Count};
use tollgate_sim::script::{Reply, Scripted};
use tollgate_usage::{Completion, Drain, DrainLayer};
use tower::{Layer, ServiceExt, service_fn};

const TICK: Duration = Duration::from_secs(1);

fn slow() -> Scripted {
    Scripted::new([Reply::stream(stream()).every(TICK)])
}

/// Reads one frame and leaves.
async fn taste<B: Body<Data = Bytes> + Unpin>(response: Response<B>) {
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().is_ok());
}

// U10
#[tokio::test(start_paused = true)]
async fn an_abandoned_stream_is_read_to_its_end_and_recorded_whole() {
    let (kept, drain) = (Kept::default(), Drain::new());
    let stack = DrainLayer::new(drain.clone()).layer(kept.layer().layer(slow()));
    taste(stack.oneshot(asked()).await.unwrap()).await;
    assert_eq!(drain.snapshot().running, 1);
    tokio::time::sleep(TICK * 10).await;
    let record = kept.one();
    assert_eq!(record.completion, Completion::Complete);
    assert_eq!(record.usage.output, Count::Exact(7));
    let now = drain.snapshot();
    assert_eq!((now.running, now.finished, now.cut_off), (0, 1, 0));
}

// U10
#[tokio::test(start_paused = true)]
async fn a_call_that_is_abandoned_before_its_answer_is_read_to_its_end() {
    let (kept, drain) = (Kept::default(), Drain::new());
    let upstream = Scripted::new([Reply::chat("m", 3, 5).after(TICK)]);
    let stack = DrainLayer::new(drain.clone()).layer(kept.layer().layer(upstream));
    let call = tokio::time::timeout(TICK / 2, stack.oneshot(chat(json!({})))).await;
    assert!(call.is_err(), "the caller left");
    tokio::time::sleep(TICK).await;
    let record = kept.one();
    assert_eq!(
        (record.completion, record.usage.output),
        (Completion::Complete, Count::Exact(5))
    );
    assert_eq!(drain.snapshot().finished, 1);
}

// U10
#[tokio::test(start_paused = true)]
async fn beyond_a_cap_the_record_is_partial() {
    let first = stream()[0].len() as u64;
    let second = stream()[1].len() as u64;
    for (drain, what) in [
        (Drain::new().within(TICK * 5 / 2), "time"),
        (Drain::new().at_most(second + 3), "bytes"),
        (Drain::new().at_once(0), "at once"),
    ] {
        let kept = Kept::default();
        let stack = DrainLayer::new(drain.clone()).layer(kept.layer().layer(slow()));
        taste(stack.oneshot(asked()).await.unwrap()).await;
        tokio::time::sleep(TICK * 10).await;
        let record = kept.one();
        assert_eq!(record.completion, Completion::Partial, "{what}");
        assert_eq!(record.outcome, Some(Outcome::Ok), "{what}");
        assert!(!record.has_usage, "{what}");
        let now = drain.snapshot();
        assert_eq!((now.running, now.finished), (0, 0), "{what}");
        if what == "at once" {
            assert_eq!((now.cut_off, now.refused), (0, 1));
            assert_eq!(record.bytes_received, first);
        } else {
            assert_eq!((now.cut_off, now.refused), (1, 0), "{what}");
            assert!(record.bytes_received > first, "{what}");
        }
    }
}

// U10
#[tokio::test(start_paused = true)]
async fn an_answer_that_was_read_is_not_read_again_and_passes_unchanged() {
    let (kept, drain) = (Kept::default(), Drain::new());
    let stack = DrainLayer::new(drain.clone()).layer(kept.layer().layer(slow()));
    let body = stack.oneshot(asked()).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), stream().concat());
    assert_eq!(drain.snapshot(), Drain::new().snapshot());
}

// U10
#[test]
fn outside_of_a_runtime_it_is_closed_at_once() {
    let (kept, drain) = (Kept::default(), Drain::new());
    let stack = DrainLayer::new(drain.clone())
        .layer(kept.layer().layer(Scripted::new([Reply::stream(stream())])));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let response = runtime.block_on(stack.oneshot(asked())).unwrap();
    drop(response);
    assert_eq!(kept.one().completion, Completion::Partial);
    assert_eq!(drain.snapshot().refused, 1);
}

/// Tells when it is dropped, as a connection would be closed.
struct Open(Arc<AtomicBool>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

struct Endless(#[allow(dead_code)] Open);

impl Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b": ping\n\n")))))
    }
}

// U11
#[tokio::test(start_paused = true)]
async fn without_a_drain_the_upstream_is_closed_the_moment_its_caller_leaves() {
    for answered in [false, true] {
        for request in [asked(), chat(json!({}))] {
            let kept = Kept::default();
            let open = Arc::new(AtomicBool::new(true));
            let connection = Arc::clone(&open);
            let upstream = service_fn(move |_: Req| {
                let open = Open(Arc::clone(&connection));
                async move {
                    if !answered {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, std::convert::Infallible>(Response::new(Endless(open)))
                }
            });
            let mut call = Box::pin(kept.layer().layer(upstream).oneshot(request));
            if answered {
                taste(call.await.unwrap()).await;
            } else {
                let polled = tokio::time::timeout(TICK, &mut call).await;
                assert!(polled.is_err(), "still under way");
                assert!(open.load(Ordering::SeqCst));
                drop(call);
            }
            assert!(!open.load(Ordering::SeqCst), "closed at once");
            assert_eq!(kept.one().completion, Completion::Partial);
        }
    }
}
