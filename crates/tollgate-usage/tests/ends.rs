//! Every end of a body, and a caller that leaves at every frame.
#![allow(clippy::unwrap_used)]
mod common;

use std::{future::poll_fn, pin::Pin, time::Duration};

use bytes::Bytes;
use common::*;
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::json;
use tollgate_core::{
    price::{Cost, Price, PriceTable},
    wire::{outcome::Outcome, usage::Count},
};
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tollgate_usage::{Completion, UsageTotals};
use tower::Layer;

/// Reads `frames` frames and leaves.
async fn read_frames<B: Body<Data = Bytes> + Unpin>(mut body: B, frames: usize) -> Vec<u8> {
    let mut read = Vec::new();
    for _ in 0..frames {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => read.extend(frame.into_data().unwrap_or_default()),
            _ => break,
        }
    }
    read
}

// U09
#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_at_any_chunk_leaves_one_partial_record() {
    let frames = stream();
    for leave in 0..=frames.len() {
        let kept = Kept::default();
        let totals = UsageTotals::new();
        let prices = PriceTable::new().with("gpt-test", Price::per_million("1", "2").unwrap());
        let layer = kept.layer().and(totals.clone()).prices(prices);
        let upstream =
            Scripted::new([Reply::stream(frames.clone()).every(Duration::from_millis(5))]);
        let response = send(&layer.layer(upstream), asked()).await;
        let read = read_frames(response.into_body(), leave).await;

        let record = kept.one();
        assert_eq!(
            record.bytes_received,
            read.len() as u64,
            "after {leave} chunks"
        );
        if leave == frames.len() {
            assert_eq!(record.completion, Completion::Complete, "[DONE] has come");
            assert_eq!(record.usage.output, Count::Exact(7));
            continue;
        }
        assert_eq!(
            record.completion,
            Completion::Partial,
            "after {leave} chunks"
        );
        assert_eq!(record.outcome, Some(Outcome::Ok));
        let text = ["", "Hello, ", "Hello, my dear friend."][leave.min(2)];
        let estimate = match text.len() / 4 {
            0 => Count::Unknown,
            tokens => Count::AtLeast(tokens as u64),
        };
        assert_eq!(record.estimated_output, estimate, "after {leave} chunks");
        assert_eq!(record.has_usage, leave == 4);
        match leave {
            0 => assert_eq!(record.cost, Cost::Unknown),
            1..4 => assert!(matches!(record.cost, Cost::AtLeast(_)), "{:?}", record.cost),
            // The usage was the last word; only `[DONE]` was missing.
            _ => assert!(matches!(record.cost, Cost::Exact(_)), "{:?}", record.cost),
        }
        let totals = totals.snapshot().all;
        assert_eq!((totals.calls, totals.partial), (1, 1));
        assert_eq!(totals.errors, 0);
    }
}

// U09
#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_while_the_usage_chunk_is_cut_out_leaves_one_record() {
    for leave in 0..=5 {
        let kept = Kept::default();
        let upstream = Scripted::new([Reply::stream(stream())]);
        let response = send(&kept.layer().layer(upstream), unasked()).await;
        drop(read_frames(response.into_body(), leave).await);
        kept.one();
    }
}

#[tokio::test(start_paused = true)]
async fn every_end_of_a_body_is_told_once() {
    let text = stream().concat();
    let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
    let plain = || Reply::stream([text.clone()]);
    let cases = [
        ("is_end_stream after a frame", plain(), Completion::Complete),
        ("none", plain().wait(Duration::ZERO), Completion::Complete),
        ("trailers", plain().trailers(trailers), Completion::Complete),
        (
            "error",
            Reply::stream([delta("Hello")]).breaks(SimError::Broken),
            Completion::Failed,
        ),
        ("empty", Reply::status(200), Completion::Complete),
    ];
    for (name, reply, completion) in cases {
        for request in [asked(), unasked()] {
            let kept = Kept::default();
            let (_, body) = exchange(&kept.layer(), &Scripted::new([reply.clone()]), request).await;
            assert_eq!(body.is_err(), completion == Completion::Failed, "{name}");
            let record = kept.one();
            assert_eq!(record.completion, completion, "{name}");
            let outcome = if body.is_err() {
                Outcome::Broken
            } else {
                Outcome::Ok
            };
            assert_eq!(record.outcome, Some(outcome), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn times_are_those_of_the_call() {
    let kept = Kept::default();
    let second = Duration::from_secs(1);
    let reply = Reply::stream([": ping\n\n".to_owned()])
        .wait(second)
        .chunk(delta("Hello"))
        .wait(second)
        .chunk(usage_chunk(3, 4))
        .chunk(DONE)
        .after(second);
    exchange(&kept.layer(), &Scripted::new([reply]), asked())
        .await
        .1
        .unwrap();
    let record = kept.one();
    assert_eq!(
        record.time_to_first_token,
        Some(2 * second),
        "a ping is no token"
    );
    assert_eq!(record.duration, 3 * second);
}

#[tokio::test(start_paused = true)]
async fn frames_and_hints_are_forwarded() {
    let kept = Kept::default();
    let upstream = Scripted::new([Reply::chat("m", 1, 2)]);
    let response = send(&kept.layer().layer(upstream), chat(json!({}))).await;
    let mut body = response.into_body();
    let exact = body
        .size_hint()
        .exact()
        .expect("the inner body knows its size");
    assert!(!body.is_end_stream());
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame.len() as u64, exact);
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    kept.one();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_just_stops_is_no_whole_one() {
    for request in [asked(), unasked()] {
        let kept = Kept::default();
        let upstream = Scripted::new([Reply::stream([delta("Hello, my friend")])]);
        exchange(&kept.layer(), &upstream, request).await.1.unwrap();
        let record = kept.one();
        assert_eq!(record.completion, Completion::Partial);
        assert_eq!(record.estimated_output, Count::AtLeast(4));
    }
    let kept = Kept::default();
    let half = Reply::status(200).body("{\"choices\":[");
    exchange(&kept.layer(), &Scripted::new([half]), chat(json!({})))
        .await
        .1
        .unwrap();
    assert_eq!(kept.one().completion, Completion::Partial);
}
