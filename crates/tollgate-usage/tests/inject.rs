//! Asking for usage in the caller's place, and taking the chunk out of the answer again.
#![allow(clippy::unwrap_used)]
mod common;

use std::time::Duration;

use common::*;
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::json;
use tollgate_core::wire::usage::Count;
use tollgate_sim::{
    BodyFate, SimError,
    script::{Reply, Scripted},
};
use tollgate_usage::Completion;
use tower::Layer;

// U05
#[tokio::test(start_paused = true)]
async fn a_stream_that_was_not_asked_states_its_usage_to_us_and_not_to_the_caller() {
    for size in [1, 2, 5, 33, 100_000] {
        let kept = Kept::default();
        let upstream = Scripted::new([Reply::stream([stream().concat()]).rechunk(size)]);
        let (_, body) = exchange(&kept.layer(), &upstream, unasked()).await;
        assert_eq!(body.unwrap(), stream_without_usage(), "in frames of {size}");
        let sent = upstream.attempts()[0].json();
        assert_eq!(sent["stream_options"]["include_usage"], true);
        let record = kept.one();
        assert_eq!(record.usage.input, Count::Exact(11));
        assert_eq!(record.usage.output, Count::Exact(7));
        assert_eq!(record.completion, Completion::Complete);
    }
}

// X09
#[tokio::test(start_paused = true)]
async fn what_is_sent_has_the_right_length_and_everything_else_in_it() {
    let kept = Kept::default();
    let upstream = Scripted::new([Reply::stream(stream())]);
    let text = r#"{ "unheard_of":1.50, "stream":true,"model":"m","messages":[{"content":"\u00e9"}], "seed":1,"seed":2 }"#;
    for length in [true, false] {
        let mut request = chat(json!({}));
        *request.body_mut() = text.into();
        request.headers_mut().remove("content-length");
        if length {
            let value = text.len().to_string().parse().unwrap();
            request.headers_mut().insert("content-length", value);
        }
        exchange(&kept.layer(), &upstream, request).await.1.unwrap();
        let sent = upstream.attempts().pop().unwrap();
        let body = std::str::from_utf8(&sent.body).unwrap();
        let expected = length.then(|| body.len().to_string());
        assert_eq!(sent.header("content-length"), expected.as_deref());
        let rest = body.replacen(r#""stream_options":{"include_usage":true},"#, "", 1);
        assert_eq!(rest, text, "every other byte as it was");
    }
}

// X09
#[tokio::test(start_paused = true)]
async fn a_coded_or_signed_request_is_not_touched() {
    let kept = Kept::default();
    for (name, value) in [
        ("content-encoding", "gzip"),
        ("content-digest", "sha-256=:x:"),
        ("authorization", "AWS4-HMAC-SHA256 Credential=x"),
    ] {
        let upstream = Scripted::new([Reply::stream(stream())]);
        let mut request = unasked();
        request.headers_mut().insert(name, value.parse().unwrap());
        let before = request.body().clone().collect().await.unwrap().to_bytes();
        let (_, body) = exchange(&kept.layer(), &upstream, request).await;
        assert_eq!(upstream.attempts()[0].body, before, "{name}");
        assert_eq!(body.unwrap(), stream().concat(), "{name}");
    }
}

// U06
#[tokio::test(start_paused = true)]
async fn a_caller_that_asked_gets_what_it_asked_for() {
    let kept = Kept::default();
    let upstream = Scripted::new([Reply::stream(stream()).header("content-length", "7")]);
    let request = asked();
    let before = request.body().clone().collect().await.unwrap().to_bytes();
    let (head, body) = exchange(&kept.layer(), &upstream, request).await;
    assert_eq!(upstream.attempts()[0].body, before);
    assert_eq!(body.unwrap(), stream().concat());
    assert!(head.headers.contains_key("content-length"));
    assert_eq!(kept.one().usage.output, Count::Exact(7));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_what_is_no_stream_or_takes_no_options() {
    let kept = Kept::default();
    let upstream = Scripted::new([Reply::stream(stream())]);
    let responses = json!({"model": "m", "input": "x", "stream": true});
    for request in [chat(json!({})), post("/v1/responses", &responses)] {
        exchange(&kept.layer(), &upstream, request).await.1.unwrap();
    }
    let silent = kept.layer().inject_usage(false);
    let (_, body) = exchange(&silent, &upstream, unasked()).await;
    assert_eq!(body.unwrap(), stream().concat());
    for attempt in upstream.attempts() {
        assert!(attempt.json().get("stream_options").is_none());
    }
}

// U06
#[tokio::test(start_paused = true)]
async fn a_target_that_refuses_the_field_is_asked_again_without_and_remembered() {
    for status in [400, 422] {
        let kept = Kept::default();
        let layer = kept.layer();
        let upstream = Scripted::by(move |attempt| {
            if attempt.json().get("stream_options").is_some() {
                unknown_field(status)
            } else {
                Reply::stream([stream_without_usage()])
            }
        });
        for _ in 0..2 {
            let (head, body) = exchange(&layer, &upstream, unasked()).await;
            assert_eq!(head.status, 200);
            assert_eq!(body.unwrap(), stream_without_usage());
        }
        assert_eq!(
            upstream.count(),
            3,
            "refused, again without, and never asked again"
        );
        assert_eq!(kept.all().len(), 2, "one record a call");
        let first = &kept.all()[0];
        assert_eq!((first.attempt, first.has_usage), (2, false));
        // Another model of the same provider may know it.
        let other = chat(json!({"stream": true, "model": "other"}));
        exchange(&layer, &upstream, other).await.1.unwrap();
        assert_eq!(upstream.count(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn another_400_arrives_as_it_came_and_is_not_sent_again() {
    let error = json!({"error": {"message": "max_tokens is too large", "code": "invalid_value"}});
    let text = error.to_string();
    let broken = Reply::status(400)
        .chunk("{\"error\"")
        .breaks(SimError::Broken);
    let long = vec![b'x'; 200 << 10];
    for (name, reply, expected) in [
        (
            "whole",
            Reply::status(400).json(error.clone()),
            Ok(text.clone()),
        ),
        (
            "in pieces",
            Reply::status(400).json(error).rechunk(3),
            Ok(text),
        ),
        ("broken", broken, Err(SimError::Broken)),
        (
            "long",
            Reply::status(400).body(long.clone()).rechunk(9000),
            Ok(String::from_utf8(long).unwrap()),
        ),
    ] {
        let kept = Kept::default();
        let upstream = Scripted::new([reply.header("x-id", "7")]);
        let (head, body) = exchange(&kept.layer(), &upstream, unasked()).await;
        assert_eq!(
            (head.status.as_u16(), &head.headers["x-id"]),
            (400, &"7".parse().unwrap())
        );
        assert_eq!(
            body.map(|body| String::from_utf8(body.to_vec()).unwrap()),
            expected,
            "{name}"
        );
        assert_eq!(upstream.count(), 1, "{name}");
        assert_eq!(
            kept.one().status.map(|status| status.as_u16()),
            Some(400),
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_400_that_stalls_is_passed_on_after_a_while() {
    let kept = Kept::default();
    let upstream = Scripted::new([Reply::status(400).chunk("{\"err").stalls()]);
    let response = send(&kept.layer().layer(upstream.clone()), unasked()).await;
    let mut body = response.into_body();
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "{\"err"
    );
    drop(body);
    assert_eq!(upstream.attempts()[0].body_fate, BodyFate::Dropped);
    kept.one();
}

// X10
#[tokio::test(start_paused = true)]
async fn the_answer_has_no_stale_length_and_keeps_its_trailers() {
    let kept = Kept::default();
    let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
    let length = stream().concat().len().to_string();
    let upstream = Scripted::new([Reply::stream(stream())
        .header("content-length", &length)
        .trailers(trailers.clone())]);
    let response = send(&kept.layer().layer(upstream), unasked()).await;
    assert!(!response.headers().contains_key("content-length"));
    let hint = response.body().size_hint();
    assert_eq!(
        hint.exact(),
        None,
        "nobody knows yet what will be taken out"
    );
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers(), Some(&trailers));
    assert_eq!(body.to_bytes(), stream_without_usage());
}

#[tokio::test(start_paused = true)]
async fn size_hints_stay_honest_while_the_chunk_is_cut_out() {
    let text = stream().concat();
    let kept = Kept::default();
    let upstream = Scripted::new([Reply::stream([text.clone()]).rechunk(10)]);
    let mut body = send(&kept.layer().layer(upstream), unasked())
        .await
        .into_body();
    let mut hints = vec![(0, body.size_hint())];
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len() as u64;
        hints.push((read, body.size_hint()));
    }
    for (before, hint) in hints {
        let rest = read - before;
        assert!(hint.lower() <= rest && hint.upper().is_none_or(|upper| rest <= upper));
    }
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn held_bytes_come_before_the_error() {
    let kept = Kept::default();
    let torn = format!("{}data: {{\"choices\":[", delta("Hello"));
    let upstream = Scripted::new([Reply::stream([torn.clone()]).breaks(SimError::Broken)]);
    let mut body = send(&kept.layer().layer(upstream), unasked())
        .await
        .into_body();
    let mut read = Vec::new();
    let error = loop {
        match body.frame().await.expect("an error before the end") {
            Ok(frame) => read.extend(frame.into_data().unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!((read, error), (torn.into_bytes(), SimError::Broken));
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn whole_events_are_not_held() {
    let kept = Kept::default();
    let upstream = Scripted::new([Reply::stream([delta("Hello")])
        .wait(Duration::from_secs(60))
        .chunk(DONE)]);
    let mut body = send(&kept.layer().layer(upstream), unasked())
        .await
        .into_body();
    let start = tokio::time::Instant::now();
    body.frame().await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_stream_passes_whole() {
    let kept = Kept::default();
    let reply = || Reply::chat("gpt-test", 3, 4).rechunk(11);
    let (_, asked_body) = exchange(&kept.layer(), &Scripted::new([reply()]), asked()).await;
    let (_, body) = exchange(&kept.layer(), &Scripted::new([reply()]), unasked()).await;
    assert_eq!(body.unwrap(), asked_body.unwrap());
    assert_eq!(kept.all()[1].usage.output, Count::Exact(4));
}

#[tokio::test(start_paused = true)]
async fn an_endless_event_is_not_held_without_bound() {
    let mut frames = vec![b"data: ".to_vec()];
    frames.extend(std::iter::repeat_n(vec![b'x'; 10_000], 100));
    let fed = frames.concat().len();
    let upstream = Scripted::new([Reply::stream(frames).stalls()]);
    let mut body = send(&Kept::default().layer().layer(upstream), unasked())
        .await
        .into_body();
    let mut read = 0;
    while let Ok(frame) = tokio::time::timeout(Duration::from_secs(1), body.frame()).await {
        read += frame.unwrap().unwrap().into_data().unwrap().len();
    }
    assert!(fed - read <= 64 << 10, "{} bytes are held", fed - read);
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_its_length() {
    let upstream = Scripted::new([Reply::status(500).header("content-length", "2").body("{}")]);
    let (head, body) = exchange(&Kept::default().layer(), &upstream, unasked()).await;
    assert_eq!(
        (&head.headers["content-length"], &body.unwrap()[..]),
        (&2.into(), &b"{}"[..])
    );
}

#[tokio::test(start_paused = true)]
async fn of_a_long_400_only_the_beginning_is_waited_for() {
    let upstream = Scripted::new([Reply::status(400).body(vec![b'x'; 70 << 10]).stalls()]);
    let start = tokio::time::Instant::now();
    let response = send(&Kept::default().layer().layer(upstream), unasked()).await;
    assert_eq!(
        (response.status().as_u16(), start.elapsed()),
        (400, Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn an_inner_reading_is_used_for_the_cut() {
    // The outer one asks and cuts; the inner one reads.
    let kept = Kept::default();
    for size in [1, 13, 100_000] {
        let upstream = Scripted::new([Reply::stream([stream().concat()]).rechunk(size)]);
        let inner = kept.layer().layer(upstream);
        let stack = kept.layer().layer(inner);
        let response = tower::ServiceExt::oneshot(stack, unasked()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, stream_without_usage());
    }
}
