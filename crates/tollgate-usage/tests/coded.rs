//! Compressed answers: the caller gets the bytes as they came, the record what is in them.
#![allow(clippy::unwrap_used)]
mod common;

use std::io::Write;

use common::{Kept, asked, exchange, stream};
use flate2::{Compression, write::GzEncoder};
use tollgate_core::wire::usage::{Count, Usage};
use tollgate_sim::script::{Reply, Scripted};
use tollgate_usage::Completion;

fn gzip(pieces: &[String]) -> Vec<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut all = Vec::new();
    for piece in pieces {
        encoder.write_all(piece.as_bytes()).unwrap();
        encoder.flush().unwrap();
        all.push(std::mem::take(encoder.get_mut()));
    }
    all.push(encoder.finish().unwrap());
    all
}

// U17
#[tokio::test(start_paused = true)]
async fn a_compressed_stream_is_recorded_and_handed_on_as_it_came() {
    let kept = Kept::default();
    let frames = gzip(&stream());
    let reply = Reply::stream(frames.clone()).header("content-encoding", "gzip");
    let (parts, body) = exchange(&kept.layer(), &Scripted::new([reply]), asked()).await;
    assert_eq!(body.unwrap(), frames.concat());
    assert_eq!(parts.headers["content-encoding"], "gzip");
    let record = kept.one();
    assert_eq!(record.completion, Completion::Complete);
    assert_eq!(record.usage.input, Count::Exact(11));
    assert_eq!(record.usage.output, Count::Exact(7));
    assert!(record.time_to_first_token.is_some());
}

// U17
#[tokio::test(start_paused = true)]
async fn one_that_breaks_is_handed_on_as_it_came_and_unknown() {
    let kept = Kept::default();
    let mut frames = gzip(&stream());
    frames.truncate(4);
    frames.push(vec![0xff; 64]);
    let reply = Reply::stream(frames.clone()).header("content-encoding", "gzip");
    let (_, body) = exchange(&kept.layer(), &Scripted::new([reply]), asked()).await;
    assert_eq!(body.unwrap(), frames.concat());
    let record = kept.one();
    assert_eq!((record.has_usage, record.usage), (false, Usage::default()));
}
