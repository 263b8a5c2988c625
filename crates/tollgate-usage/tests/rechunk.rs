//! However a stream is cut into frames, the caller gets all of it but the usage chunk.
#![allow(clippy::unwrap_used)]
mod common;

use common::*;
use proptest::prelude::*;
use serde_json::json;
use tollgate_core::wire::usage::Count;
use tollgate_sim::script::{Reply, Scripted};

/// Streams around a usage chunk, as events.
fn events() -> impl Strategy<Value = (Vec<String>, Option<usize>)> {
    let other = prop_oneof![
        "[a-zA-Z \\\\\"é🙂]{0,40}".prop_map(|text| delta(&text)),
        Just(finish("stop")),
        Just(": ping\n\n".to_owned()),
        Just("event: x\ndata: {\"choices\":[]}\n\n".to_owned()),
        Just("data: not json\n\n".to_owned()),
        Just("\n".to_owned()),
    ];
    (
        prop::collection::vec(other, 0..8),
        prop::option::of(any::<prop::sample::Index>()),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(mut events, usage, done, crlf)| {
            let at = usage.map(|index| index.index(events.len() + 1));
            if let Some(at) = at {
                events.insert(at, usage_chunk(5, 6));
            }
            if done {
                events.push(DONE.to_owned());
            }
            if crlf {
                events
                    .iter_mut()
                    .for_each(|event| *event = event.replace('\n', "\r\n"));
            }
            (events, at)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // U05, U07
    #[test]
    fn however_a_stream_is_cut_the_caller_gets_all_but_the_usage_chunk(
        (events, usage) in events(), sizes in prop::collection::vec(1usize..60, 1..40),
        empty_end in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let text = events.concat();
            let mut frames = Vec::new();
            let mut rest = text.as_bytes();
            let mut sizes = sizes.iter().cycle();
            while !rest.is_empty() {
                let (frame, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                frames.push(frame.to_vec());
                rest = after;
            }
            // HTTP/2 servers end streams so.
            if empty_end {
                frames.push(Vec::new());
            }
            let kept = Kept::default();
            let upstream = Scripted::new([Reply::stream(frames)]);
            let (_, body) = exchange(&kept.layer(), &upstream, unasked()).await;
            let mut expected = events.clone();
            if let Some(at) = usage {
                expected.remove(at);
            }
            assert_eq!(body.unwrap(), expected.concat());
            let record = kept.one();
            assert_eq!(record.usage.output.get(), usage.map(|_| 6));

            let whole = Kept::default();
            let upstream = Scripted::new([Reply::stream([text])]);
            exchange(&whole.layer(), &upstream, unasked()).await.1.unwrap();
            assert_eq!(gist(&record), gist(&whole.one()), "the same record");
        });
    }
}

// U05
#[tokio::test(start_paused = true)]
async fn a_cut_at_every_byte_boundary_changes_nothing() {
    for newline in ["\n", "\r\n", "\r"] {
        let text = stream().concat().replace('\n', newline);
        let expected = stream_without_usage().replace('\n', newline);
        for at in 1..text.len() {
            let (a, b) = text.as_bytes().split_at(at);
            let kept = Kept::default();
            let upstream = Scripted::new([Reply::stream([a.to_vec(), b.to_vec()])]);
            let (_, body) = exchange(&kept.layer(), &upstream, unasked()).await;
            assert_eq!(
                body.unwrap(),
                expected,
                "cut at {at}, lines end in {newline:?}"
            );
            assert_eq!(kept.one().usage.output, Count::Exact(7), "cut at {at}");
        }
    }
}

// U05
#[tokio::test(start_paused = true)]
async fn only_the_usage_chunk_goes() {
    let azure = event(&json!({"choices": [], "model": "", "usage": null,
        "prompt_filter_results": [{"prompt_index": 0}]}));
    let groq = event(&json!({"model": "m",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "x_groq": {"usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}}}));
    let same = event(&json!({"model": "m", "choices": [],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}}));
    for (name, before, usage, after) in [
        ("Azure's first chunk stays", azure, usage_chunk(1, 2), ""),
        ("Groq says it twice", groq, same, ""),
        (
            "a chunk after it stays",
            delta("x"),
            usage_chunk(1, 2),
            &*delta("y"),
        ),
    ] {
        let kept = Kept::default();
        let frames = [before.clone(), usage, after.to_owned(), DONE.to_owned()];
        let upstream = Scripted::new([Reply::stream(frames)]);
        let (_, body) = exchange(&kept.layer(), &upstream, unasked()).await;
        assert_eq!(body.unwrap(), [&before, after, DONE].concat(), "{name}");
        assert!(kept.one().has_usage, "{name}");
    }
}
