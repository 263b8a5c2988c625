//! Bodies: a request read once, a response looked into and given back whole.
#![allow(clippy::unwrap_used)] // helpers of tests are tests
mod support;

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use support::*;
use tokio::time::Instant;
use tollgate_core::{
    body::{Peek, PeekPolicy, ReadRequest, Replay, WholeRequest, readable},
    extensions::{Reason, Refused},
    wire::{
        outcome::{Outcome, Verdict},
        prompt::{Endpoint, Facts, RequestFacts},
    },
};

const CHAT: &str = "https://api.example/v1/chat/completions";

// ===== a request =====

async fn read<B: Body>(request: Request<B>) -> Result<WholeRequest, http::request::Parts> {
    let mut read = pin!(ReadRequest::new(request));
    poll_fn(|cx| read.as_mut().poll_read(cx)).await
}

fn strict(body: Strict) -> Request<Strict> {
    Request::post(CHAT).body(body).unwrap()
}

#[tokio::test]
async fn one_frame_is_read_without_a_copy() {
    let body = Bytes::from(String::from(r#"{"model":"m"}"#));
    let address = body.as_ptr();
    let request = Request::post(CHAT).body(Full::new(body.clone())).unwrap();
    let (parts, whole, facts) = read(request).await.unwrap();
    assert_eq!(whole, body);
    assert_eq!(whole.as_ptr(), address);
    assert!(facts.describe(&parts.uri, &whole));
    assert!(
        parts
            .extensions
            .get::<Facts>()
            .unwrap()
            .describe(&parts.uri, &whole),
        "left for others"
    );
}

#[tokio::test]
async fn facts_of_another_path_are_not_believed() {
    let request = Request::post("https://a.example/v1beta/models/old:generateContent")
        .body(Full::new(Bytes::from(r#"{"contents":[]}"#)))
        .unwrap();
    let (mut parts, body, facts) = read(request).await.unwrap();
    assert_eq!(facts.model.as_deref(), Some("old"));
    // A foreign layer moves it: the same bytes, to another place.
    parts.uri = "https://a.example/v1beta/models/new:streamGenerateContent?alt=sse"
        .parse()
        .unwrap();
    let (mut parts, body, facts) = read(Request::from_parts(parts, Full::new(body)))
        .await
        .unwrap();
    assert_eq!((facts.model.as_deref(), facts.stream), (Some("new"), true));
    // Another host or query changes nothing of what was read.
    parts.uri = "https://b.example/v1beta/models/new:streamGenerateContent"
        .parse()
        .unwrap();
    assert!(facts.describe(&parts.uri, &body));
}

#[tokio::test]
async fn facts_of_other_bytes_are_not_believed() {
    let request = Request::post(CHAT)
        .body(Full::new(Bytes::from(r#"{"model":"first"}"#)))
        .unwrap();
    let (parts, _, _) = read(request).await.unwrap();
    // A foreign layer has put another body in its place.
    let other = Full::new(Bytes::from(r#"{"model":"other"}"#));
    let (_, _, facts) = read(Request::from_parts(parts, other)).await.unwrap();
    assert_eq!(facts.model.as_deref(), Some("other"));
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_said_is_an_error() {
    for (size, ok) in [(2, false), (3, true), (4, false)] {
        let body = Strict::new([data("a"), Do::Wait, data("bc")]).exactly(size);
        assert_eq!(read(strict(body)).await.is_ok(), ok, "{size}");
    }
    // It is not read on for ever.
    let body = Strict::new([data("a"), data("bcd"), Do::Stall]).exactly(3);
    assert!(read(strict(body)).await.is_err());
    let body = Strict::new([data("abc"), Do::Fail]).exactly(3);
    assert!(read(strict(body)).await.is_err(), "it did not end well");
    let body = Strict::new([data("a"), Do::Fail]).exactly(3);
    let parts = read(strict(body)).await.unwrap_err();
    assert_eq!(parts.uri, CHAT, "the head is given back");
}

#[tokio::test]
async fn a_request_is_not_polled_after_its_trailers() {
    let body = Strict::new([data("a"), data("bc"), Do::Trailers(trailers())]).exactly(3);
    let (_, whole, _) = read(strict(body)).await.unwrap();
    assert_eq!(whole, "abc");
}

#[test]
fn only_what_is_whole_and_small_and_known_is_readable() {
    let request = |path: &str| {
        Request::post(path)
            .body(Full::new(Bytes::from("{}")))
            .unwrap()
    };
    assert!(readable(&request(CHAT), 2));
    assert!(!readable(&request(CHAT), 1), "over the cap");
    assert!(!readable(&request("/unknown"), 2));
    assert!(
        !readable(&strict(Strict::new([])), 1 << 20),
        "of unknown length"
    );
    for (name, value) in [
        ("content-encoding", "gzip"),
        ("content-type", "multipart/form-data; boundary=x"),
        ("expect", "100-continue"),
        ("upgrade", "websocket"),
    ] {
        let mut request = request(CHAT);
        request.headers_mut().insert(name, value.parse().unwrap());
        assert!(!readable(&request, 2), "{name}");
    }
    let mut get = request(CHAT);
    *get.method_mut() = Method::GET;
    assert!(!readable(&get, 2));
    let mut twice = request(CHAT);
    for coding in ["identity", "gzip"] {
        let headers = twice.headers_mut();
        headers.append("content-encoding", coding.parse().unwrap());
    }
    assert!(!readable(&twice, 2), "the second header counts, too");
}

#[tokio::test]
async fn a_prompt_is_not_shown() {
    let read = ReadRequest::new(
        Request::post(CHAT)
            .body(Full::new(Bytes::from("secret")))
            .unwrap(),
    );
    let mut read = Box::pin(read);
    assert!(!format!("{read:?}").contains("secret"));
    let _ = poll_fn(|cx| Pin::as_mut(&mut read).poll_read(cx)).await;
    assert!(!format!("{read:?}").contains("secret"));
}

// ===== a response =====

fn facts(body: &'static str) -> RequestFacts {
    let body = Bytes::from_static(body.as_bytes());
    RequestFacts::read(
        &Method::POST,
        &Uri::from_static(CHAT),
        &HeaderMap::new(),
        &body,
    )
}

fn plain() -> RequestFacts {
    facts(r#"{"model":"m","messages":[]}"#)
}

fn streaming() -> RequestFacts {
    facts(r#"{"model":"m","messages":[],"stream":true}"#)
}

fn answer(status: u16, body: Strict) -> Response<Strict> {
    Response::builder().status(status).body(body).unwrap()
}

async fn look(
    response: Response<Strict>,
    facts: &RequestFacts,
    policy: &PeekPolicy,
) -> (Drained, Verdict) {
    let (response, verdict) = Peek::new(response, Some(facts), policy).await;
    assert_eq!(
        response.extensions().get(),
        Some(&verdict),
        "left for others"
    );
    (drain(response.into_body()).await, verdict)
}

const DELTA: &str = r#"data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}"#;
const ROLE: &str = r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
const ERROR: &str = r#"data: {"error":{"message":"Overloaded","type":"overloaded_error"}}"#;

/// Answers of every kind: (status, whether a stream was asked for, body).
fn answers() -> Vec<(u16, bool, Bytes)> {
    let events =
        |lines: &[&str], end: &str| lines.iter().map(|line| format!("{line}{end}")).collect();
    let streams: Vec<String> = vec![
        events(&[ROLE, DELTA, "data: [DONE]"], "\n\n"),
        events(&[ROLE, DELTA, ERROR], "\n\n"),
        events(&[ROLE, ERROR, DELTA], "\n\n"),
        events(&[": keep-alive", ERROR], "\r\n\r\n"),
        events(&["event: ping\ndata: {}", ROLE], "\n\n"),
        String::new(),
    ];
    let documents = [
        r#"{"id":"1","choices":[{"index":0,"finish_reason":"stop","message":{"content":"Hi"}}]}"#,
        r#"{"id":"1","choices":[{"index":0,"fini"#,
        r#"{"error":{"message":"Overloaded","type":"overloaded_error"}}"#,
        "\n\n  {\n  \"choices\": []\n}\n",
        "<html>oops</html>",
        "",
    ];
    let errors = [
        (
            429,
            r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#,
        ),
        (
            429,
            r#"{"error":{"message":"Please try again in 1.5s.","code":"rate_limit_exceeded"}}"#,
        ),
        (500, "upstream connect error"),
        (
            400,
            r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#,
        ),
    ];
    let mut all: Vec<(u16, bool, Bytes)> = Vec::new();
    all.extend(streams.into_iter().map(|text| (200, true, text.into())));
    all.extend(documents.map(|text| (200, false, Bytes::from(text))));
    all.extend(errors.map(|(status, text)| (status, true, Bytes::from(text))));
    all
}

fn of(stream: bool) -> RequestFacts {
    if stream { streaming() } else { plain() }
}

#[tokio::test(start_paused = true)]
async fn cut_at_every_byte_the_same_bytes_come_back_and_the_same_verdict() {
    let policy = PeekPolicy::default();
    for (status, stream, whole) in answers() {
        let facts = of(stream);
        let steps = (!whole.is_empty()).then(|| data(whole.clone()));
        let (drained, expected) = look(answer(status, Strict::new(steps)), &facts, &policy).await;
        assert_eq!(drained.bytes, whole);
        for at in 0..=whole.len() {
            let steps = cut(&whole, &[at]).into_iter().map(Do::Data);
            let (drained, verdict) =
                look(answer(status, Strict::new(steps)), &facts, &policy).await;
            assert_eq!(drained.bytes, whole, "cut at {at}");
            assert_eq!((drained.trailers, drained.error), (None, None));
            assert_eq!(verdict, expected, "cut at {at}: {whole:?}");
        }
    }
}

proptest! {
    #[test]
    fn however_it_is_cut_the_same_comes_back_and_the_same_verdict(
        which in any::<usize>(), places in proptest::collection::vec(any::<usize>(), 0..12),
        waits in any::<bool>(), knows in any::<bool>(), end in 0..3_u8,
        cap in prop_oneof![0..300_usize, Just(32 * 1024)], hold in 0..300_usize,
    ) {
        let answers = answers();
        let (status, stream, whole) = answers[which % answers.len()].clone();
        let policy = PeekPolicy { stream_cap: cap, error_cap: cap, hold_answer: Some(hold), ..PeekPolicy::default() };
        let body = |places: &[usize]| {
            let mut steps = Vec::new();
            for piece in cut(&whole, places) {
                if waits {
                    steps.push(Do::Wait);
                }
                steps.push(Do::Data(piece));
            }
            match end {
                1 => steps.push(Do::Trailers(trailers())),
                2 => steps.push(Do::Fail),
                _ => {}
            }
            let body = Strict::new(steps);
            if knows { body.knowing_its_end() } else { body }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let facts = of(stream);
        let (one, expected) = runtime.block_on(look(answer(status, body(&[])), &facts, &policy));
        let (many, verdict) = runtime.block_on(look(answer(status, body(&places)), &facts, &policy));
        prop_assert_eq!(&many.bytes, &whole);
        prop_assert_eq!(many.trailers.is_some(), end == 1);
        prop_assert_eq!(many.error.is_some(), end == 2, "a truncation is never a clean end");
        prop_assert_eq!(one, many);
        // Whether the error behind the last byte that is looked at has been seen may depend on the cut: only
        // for an answer of exactly the cap's length.
        if whole.len() != cap && whole.len() != hold {
            prop_assert_eq!(verdict, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_in_the_body_comes_after_the_bytes_that_came_before_it() {
    let broken = || Strict::new([data("{\"id\":"), data("1"), Do::Fail]);
    let (drained, verdict) = look(answer(200, broken()), &plain(), &PeekPolicy::default()).await;
    assert_eq!(verdict.outcome, Outcome::Broken);
    assert_eq!(drained.bytes, b"{\"id\":1");
    assert_eq!(drained.error, Some(Failed));

    let (drained, verdict) = look(answer(429, broken()), &plain(), &PeekPolicy::default()).await;
    assert!(
        matches!(verdict.outcome, Outcome::RateLimited { .. }),
        "the status tells enough"
    );
    assert_eq!(drained.error, Some(Failed));
}

#[tokio::test(start_paused = true)]
async fn a_broken_answer_does_not_promise_an_end() {
    let body = Strict::new([data("abc"), Do::Fail]).exactly(9);
    let (response, _) = Peek::new(answer(200, body), Some(&plain()), &PeekPolicy::default()).await;
    let mut body = response.into_body();
    assert_eq!(
        (body.size_hint().lower(), body.size_hint().upper()),
        (3, None)
    );
    body.frame().await.unwrap().unwrap();
    assert!(!body.is_end_stream(), "the error is still to come");
    assert!(body.frame().await.unwrap().is_err());
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn trailers_are_kept() {
    for (status, facts) in [(200, plain()), (200, streaming()), (503, plain())] {
        let body = Strict::new([data("{}"), Do::Trailers(trailers())]);
        let (drained, _) = look(answer(status, body), &facts, &PeekPolicy::default()).await;
        assert_eq!(drained.trailers, Some(trailers()), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_document_is_read_to_its_cap_and_the_rest_still_comes() {
    let policy = PeekPolicy {
        error_cap: 4,
        ..PeekPolicy::default()
    };
    let body = Strict::new([data("abcdef"), Do::Stall]);
    let (response, _) = Peek::new(answer(500, body), Some(&plain()), &policy).await;
    let mut body = response.into_body();
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "abcdef"
    );

    let body = Strict::new([data("abc"), data("def"), data("ghi")]);
    let (drained, _) = look(answer(500, body), &plain(), &policy).await;
    assert_eq!(drained.bytes, b"abcdefghi");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_passed_on_after_the_timeout() {
    for (status, facts) in [(200, plain()), (200, streaming()), (503, plain())] {
        let body = Strict::new([data("{"), Do::Stall]);
        let start = Instant::now();
        let (response, verdict) =
            Peek::new(answer(status, body), Some(&facts), &PeekPolicy::default()).await;
        assert_eq!(start.elapsed(), Duration::from_secs(30));
        assert_eq!(verdict.outcome == Outcome::Ok, status == 200);
        let mut body = response.into_body();
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_data().unwrap(),
            "{"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_keeps_coming_is_held_however_long_it_takes() {
    // White space to keep the connection alive, as several providers send it.
    let steps = (0..10).flat_map(|_| [Do::Sleep(Duration::from_secs(20)), data("\n")]);
    let body = Strict::new(steps.chain([data("{\"a\":"), Do::Fail]));
    let (drained, verdict) = look(answer(200, body), &plain(), &PeekPolicy::default()).await;
    assert_eq!(verdict.outcome, Outcome::Broken);
    assert_eq!(drained.bytes, b"\n\n\n\n\n\n\n\n\n\n{\"a\":");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_exactly_the_cap_is_held() {
    for (cap, outcome) in [(4, Outcome::Ok), (5, Outcome::Broken), (6, Outcome::Broken)] {
        let policy = PeekPolicy {
            hold_answer: Some(cap),
            ..PeekPolicy::default()
        };
        let body = Strict::new([data("{\"a\""), data(":"), Do::Fail]);
        let (_, verdict) = look(answer(200, body), &plain(), &policy).await;
        assert_eq!(verdict.outcome, outcome, "{cap}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_is_passed_as_it_comes() {
    let policy = PeekPolicy {
        hold_answer: Some(4),
        ..PeekPolicy::default()
    };
    let body = Strict::new([data("{\"a\""), data(":1"), Do::Stall]);
    let (_, verdict) = Peek::new(answer(200, body), Some(&plain()), &policy).await;
    assert_eq!(verdict.outcome, Outcome::Ok);
    // By its own word.
    let body = Strict::new([Do::Stall]).exactly(5);
    let (_, verdict) = Peek::new(answer(200, body), Some(&plain()), &policy).await;
    assert_eq!(verdict.outcome, Outcome::Ok);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_needs_to_look_into_is_not_polled() {
    let unread = |status| answer(status, Strict::new([Do::Stall]));
    let policy = PeekPolicy::default();
    let other = RequestFacts::unread(Endpoint::Other);
    let speech = RequestFacts::unread(Endpoint::Speech);
    let mut background = plain();
    background.background = true;
    let start = Instant::now();
    for (status, facts) in [
        (200, Some(&other)),
        (200, Some(&speech)),
        (200, Some(&background)),
        (429, None),
        (204, Some(&plain())),
        (304, Some(&plain())),
    ] {
        Peek::new(unread(status), facts, &policy).await;
    }
    let mut ours = unread(429);
    ours.extensions_mut()
        .insert(Refused::new(Reason::QueueFull));
    Peek::new(ours, Some(&plain()), &policy).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_of_a_layer_further_in_is_taken_over_only_if_it_has_seen_the_body() {
    let policy = PeekPolicy::default();
    let quota = r#"{"error":{"message":"no","code":"insufficient_quota"}}"#;
    let body = Strict::new([data(quota)]);
    let (response, inner) = Peek::new(answer(429, body), Some(&plain()), &policy).await;
    assert_eq!(inner.outcome, Outcome::QuotaExhausted);
    let (response, outer) = Peek::new(response, Some(&plain()), &policy).await;
    assert_eq!(outer, inner);
    assert_eq!(drain(response.into_body()).await.bytes, quota.as_bytes());

    // A verdict from the head alone is not enough where the body says more.
    let mut response = answer(429, Strict::new([data(quota)]));
    let head = Verdict::of(
        StatusCode::TOO_MANY_REQUESTS,
        Outcome::RateLimited {
            what: None,
            retry_after: None,
            never_fits: false,
        },
    );
    response.extensions_mut().insert(head);
    let (_, verdict) = Peek::new(response, Some(&plain()), &policy).await;
    assert_eq!(verdict.outcome, Outcome::QuotaExhausted);

    // Nor is one of another status: somebody in between has changed the answer.
    let body = Strict::new([data(quota)]);
    let (mut response, _) = Peek::new(answer(429, body), Some(&plain()), &policy).await;
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let (_, verdict) = Peek::new(response, Some(&plain()), &policy).await;
    assert_eq!(verdict.status, 503);
}

// ===== giving back =====

#[tokio::test]
async fn hints_are_honest_while_a_body_is_given_back() {
    let front = [Bytes::from("ab"), Bytes::from("c")].map(http_body::Frame::data);
    let rest = Strict::new([data("def")]).exactly(3);
    let mut body = Replay::peeked(front.into(), rest);
    assert_eq!(body.size_hint().exact(), Some(6));
    assert!(!body.is_end_stream());
    body.frame().await.unwrap().unwrap();
    assert_eq!(body.size_hint().exact(), Some(4));
    let rest = drain(body).await;
    assert_eq!(rest.bytes, b"cdef");

    let empty: Replay<Strict> = Replay::document(Bytes::new());
    assert!(empty.is_end_stream());
    assert_eq!(empty.size_hint().exact(), Some(0));
    let passing = Replay::passing(Strict::new([data("x"), Do::Trailers(trailers())]));
    let drained = drain(passing).await;
    assert_eq!(
        (&drained.bytes[..], drained.trailers),
        (&b"x"[..], Some(trailers()))
    );
}

// F05
#[tokio::test(start_paused = true)]
async fn a_stream_is_held_until_it_is_whole_where_that_is_asked_for() {
    const WORD: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"w\"}}]}\n\n";
    const END: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const DONE: &str = "data: [DONE]\n\n";
    const ERROR: &str =
        "data: {\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
    let policy = PeekPolicy {
        hold_streams: true,
        ..PeekPolicy::default()
    };
    for (steps, expected) in [
        (vec![data(WORD), data(END), data(DONE)], Outcome::Ok),
        (vec![data(WORD), data(END)], Outcome::Ok),
        (vec![data(WORD)], Outcome::Broken),
        (vec![data(WORD), Do::Fail], Outcome::Broken),
        (vec![data(WORD), data(ERROR)], Outcome::Overloaded),
    ] {
        let shown = format!("{steps:?}");
        let whole = answer(200, Strict::new(steps));
        let (_, verdict) = look(whole, &streaming(), &policy).await;
        assert_eq!(verdict.outcome, expected, "{shown}");
    }

    // Whatever the connection does after the terminal event.
    for steps in [
        vec![data(WORD), data(DONE), Do::Stall],
        vec![data(WORD), data(ERROR), Do::Stall],
    ] {
        let start = Instant::now();
        let held = answer(200, Strict::new(steps));
        let _ = Peek::new(held, Some(&streaming()), &policy).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    let small = PeekPolicy {
        hold_answer: Some(2 * WORD.len()),
        ..policy
    };
    let long = answer(
        200,
        Strict::new([data(WORD), data(WORD), data(WORD), Do::Stall]),
    );
    let (_, verdict) = Peek::new(long, Some(&streaming()), &small).await;
    assert_eq!(verdict.outcome, Outcome::Ok, "passed as it comes");
}
