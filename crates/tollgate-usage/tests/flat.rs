//! Long streams: memory stays flat, and a slow reader holds the provider back.
//!
//! `TOLLGATE_STREAM_MB` sets the length of the long one; the bench `stream` runs 100 MB.
#![allow(clippy::unwrap_used)]
mod common;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use common::{DONE, Kept, Req, asked, delta, finish, unasked, usage_chunk};
use http::Response;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tollgate_core::wire::usage::Count;
use tollgate_usage::{UsageRecorderLayer, UsageTotals};
use tower::{Layer, ServiceExt, service_fn};

/// A stream of so many frames of text and its end; counts how many were asked for.
#[derive(Clone)]
struct Long {
    text: Bytes,
    frames: usize,
    asked: Arc<AtomicUsize>,
}

impl Long {
    fn new(frames: usize, text: &str) -> Self {
        let text = Bytes::from(text.to_owned());
        let asked = Arc::default();
        Self {
            text,
            frames,
            asked,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Body for Long {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let end = || Bytes::from([finish("stop"), usage_chunk(11, 7), DONE.to_owned()].concat());
        Poll::Ready(match number.cmp(&self.frames) {
            std::cmp::Ordering::Less => Some(Ok(Frame::data(self.text.clone()))),
            std::cmp::Ordering::Equal => Some(Ok(Frame::data(end()))),
            std::cmp::Ordering::Greater => None,
        })
    }
}

async fn open(
    layer: &UsageRecorderLayer,
    long: &Long,
    request: Req,
) -> impl Body<Data = Bytes> + Unpin + use<> {
    let long = long.clone();
    let upstream = service_fn(move |_: Req| {
        let body = long.clone();
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    layer
        .layer(upstream)
        .oneshot(request)
        .await
        .unwrap()
        .into_body()
}

/// The most bytes that were held at a time while a stream of `megabytes` was read.
fn peak(megabytes: usize, text: &str, request: impl Fn() -> Req) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let totals = UsageTotals::new();
    let layer = UsageRecorderLayer::new(totals.clone());
    let long = Long::new(megabytes * (1 << 20) / text.len(), text);
    let info = allocation_counter::measure(|| {
        runtime.block_on(async {
            let mut body = open(&layer, &long, request()).await;
            while let Some(frame) = body.frame().await {
                assert!(frame.is_ok());
            }
        });
    });
    let used = totals.snapshot().all;
    assert_eq!((used.calls, used.output), (1, 7), "it was read to its end");
    info.bytes_max
}

// U18, L16
#[test]
fn a_long_stream_takes_no_more_memory_than_a_short_one() {
    let long = std::env::var("TOLLGATE_STREAM_MB")
        .ok()
        .and_then(|mb| mb.parse().ok());
    let long = long.unwrap_or(8);
    // Events that stand in their frames, and one that is cut in two by each frame's end.
    let whole = delta("Hello, my dear friend.").repeat(64);
    let cut = format!(
        "{}{whole}{}",
        &whole[whole.len() - 40..],
        &whole[..whole.len() - 40]
    );
    for (text, name) in [(&whole, "whole"), (&cut, "cut")] {
        for (request, kind) in [(asked as fn() -> Req, "asked"), (unasked, "unasked")] {
            let short = peak(1, text, request);
            let long = peak(long, text, request);
            assert!(
                long <= short + 1024,
                "{name}, {kind}: {long} after {short} bytes"
            );
            assert!(long < 256 << 10, "{name}, {kind}: {long} bytes");
        }
    }
}

// L16
#[tokio::test(start_paused = true)]
async fn nothing_is_read_that_the_caller_has_not_asked_for() {
    let text = delta("Hello");
    for request in [asked(), unasked()] {
        let kept = Kept::default();
        let long = Long::new(50, &text);
        let mut body = open(&kept.layer(), &long, request).await;
        assert_eq!(long.asked(), 0, "not a byte before the caller asks");
        for frames in 1..=50 {
            assert!(body.frame().await.unwrap().is_ok());
            assert_eq!(long.asked(), frames);
        }
        assert!(kept.all().is_empty());
        while body.frame().await.is_some() {}
        assert_eq!(kept.one().usage.output, Count::Exact(7));
    }
}
