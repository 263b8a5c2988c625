//! What is not touched, and that what is sent again is the same.
mod support;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Empty;
use support::*;
use tollgate_core::{
    call::{Attempts, Call},
    extensions::{Reason, Refused},
    wire::prompt::Facts,
};
use tollgate_retry::{GaveUp, GaveUpReason, RateLimitPolicy, RetryOnRateLimit};
use tollgate_sim::{
    SimBody, SimError, Step,
    script::{Reply, Scripted},
};
use tower::{ServiceExt, service_fn};

/// A body whose length nobody knows.
fn upload(chunks: &[&'static str]) -> SimBody {
    let steps = chunks
        .iter()
        .map(|chunk| Step::Data(Bytes::from_static(chunk.as_bytes())));
    // A trailer makes its size unknown.
    SimBody::new(steps.chain([Step::Trailers(http::HeaderMap::new())]))
}

// R19
#[tokio::test(start_paused = true)]
async fn a_streaming_request_is_sent_once_and_says_why_it_was_not_retried() {
    for status in [429, 503] {
        let limited = Reply::status(status).header("retry-after", "1");
        let provider = Scripted::new([limited, ok()]);
        let service = RetryOnRateLimit::new(provider.clone(), RateLimitPolicy::new());
        let request = Request::post("https://api.example/v1/chat/completions")
            .body(upload(&["{\"model\":", "\"m\"}"]))
            .unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        let gave_up = GaveUp::of(&response).unwrap();
        assert_eq!(gave_up.reason, GaveUpReason::NotReplayable);
        assert_eq!(gave_up.wait, Some(std::time::Duration::from_secs(1)));
        assert_eq!(Attempts::of(&response).len(), 1);
        assert_eq!(provider.count(), 1);
        let sent = &provider.attempts()[0];
        assert_eq!(sent.body, "{\"model\":\"m\"}", "not corrupted");
        assert_eq!(sent.header("idempotency-key"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_our_own_to_a_streaming_request_is_not_given_up_on() {
    let refused = Refused::new(Reason::QueueFull);
    let provider = Scripted::new([Reply::status(429).extension(refused)]);
    let service = RetryOnRateLimit::new(provider, RateLimitPolicy::new());
    let request = Request::post("https://api.example/v1/chat/completions")
        .body(upload(&["{}"]))
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert!(GaveUp::of(&response).is_none());
}

// R19
#[tokio::test(start_paused = true)]
async fn a_body_beyond_the_replay_cap_is_sent_once() {
    let exact = u64::try_from(BODY.len()).unwrap();
    for (cap, attempts) in [(exact, 2), (exact - 1, 1)] {
        let policy = RateLimitPolicy::new().replay_cap(cap);
        let seen = send(policy, chat(), [Reply::status(503), ok()]).await;
        assert_eq!(seen.attempts(), attempts);
        assert_eq!(seen.provider.attempts()[0].body, BODY);
    }
}

// R20
#[tokio::test(start_paused = true)]
async fn a_megabyte_is_sent_three_times_from_the_same_memory() {
    let text = "x".repeat(1 << 20);
    let body = Bytes::from(format!(
        r#"{{"model":"gpt-test","messages":[{{"role":"user","content":"{text}"}}]}}"#
    ));
    let address = body.as_ptr();
    let request = post("/v1/chat/completions", body.clone());
    let replies = [Reply::status(500), Reply::rate_limited(1), ok()];
    let seen = send(RateLimitPolicy::new(), request, replies).await;
    let attempts = seen.provider.attempts();
    assert_eq!(attempts.len(), 3);
    for attempt in attempts {
        assert_eq!(attempt.body, body);
        assert_eq!(attempt.body.as_ptr(), address, "shared, not copied");
    }
}

#[tokio::test(start_paused = true)]
async fn every_attempt_has_the_callers_head_and_extensions() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mine(u8);
    let mut request = chat();
    *request.version_mut() = http::Version::HTTP_2;
    request.extensions_mut().insert(Mine(7));
    let headers = request.headers_mut();
    headers.append("x-many", "1".parse().unwrap());
    headers.append("x-many", "2".parse().unwrap());
    let policy = RateLimitPolicy::new().idempotency_key(false);
    let before = request.headers().clone();
    let seen = send(policy, request, [Reply::status(500), ok()]).await;
    let attempts = seen.provider.attempts();
    assert_eq!(attempts.len(), 2);
    for attempt in &attempts {
        assert_eq!(attempt.method, Method::POST);
        assert_eq!(attempt.uri, "https://api.example/v1/chat/completions");
        assert_eq!(attempt.headers, before, "nothing added, nothing lost");
        assert_eq!(attempt.extensions.get(), Some(&Mine(7)));
        let facts = attempt
            .extensions
            .get::<Facts>()
            .expect("left for layers further in");
        assert!(
            facts.describe(&attempt.uri, &attempt.body),
            "they describe these very bytes"
        );
    }
    let call = |at: usize| attempts[at].extensions.get::<Call>().unwrap().id();
    assert_eq!(call(0), call(1), "one call, one ledger");
}

// X11, X13
#[tokio::test(start_paused = true)]
async fn what_is_no_llm_call_passes_untouched() {
    let get = |path: &str| Request::get(path);
    let requests = [
        get("https://api.example/v1/models").body(()),
        get("https://api.example/v1/realtime")
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .body(()),
        Request::post("https://api.example/anything").body(()),
        Request::head("https://api.example/v1/chat/completions").body(()),
        Request::delete("https://api.example/v1/files/file-1").body(()),
    ];
    for request in requests {
        let request = request.unwrap().map(|()| SimBody::from("payload"));
        let (path, headers) = (request.uri().clone(), request.headers().clone());
        let provider = Scripted::new([Reply::rate_limited(1), ok()]);
        let service = RetryOnRateLimit::new(provider.clone(), RateLimitPolicy::new());
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 429, "{path}");
        assert_eq!(provider.count(), 1, "{path}");
        assert!(response.extensions().is_empty(), "{path}");
        let sent = &provider.attempts()[0];
        assert_eq!((&sent.headers, &sent.body[..]), (&headers, &b"payload"[..]));
        assert!(sent.extensions.is_empty(), "{path}");
    }
}

/// A body that may be polled only by the inner service.
struct Untouchable(bool);

impl Body for Untouchable {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("nobody may read this body");
    }

    fn size_hint(&self) -> SizeHint {
        if self.0 {
            SizeHint::with_exact(9)
        } else {
            SizeHint::new()
        }
    }
}

impl From<Bytes> for Untouchable {
    fn from(_: Bytes) -> Self {
        panic!("nobody may replace this body");
    }
}

// X11, X13
#[tokio::test(start_paused = true)]
async fn uploads_compressed_bodies_and_expectations_are_not_read() {
    let chat = || Request::post("https://api.example/v1/chat/completions");
    let upload = Request::post("https://api.example/v1/files");
    let requests = [
        upload
            .header("content-type", "multipart/form-data; boundary=x")
            .body(Untouchable(true)),
        chat()
            .header("content-encoding", "gzip")
            .body(Untouchable(true)),
        chat()
            .header("expect", "100-continue")
            .body(Untouchable(true)),
        chat().body(Untouchable(false)),
    ];
    for request in requests {
        let answer = || async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) };
        let inner = service_fn(move |_: Request<Untouchable>| answer());
        let service = RetryOnRateLimit::new(inner, RateLimitPolicy::new());
        assert_eq!(
            service.oneshot(request.unwrap()).await.unwrap().status(),
            200
        );
    }
}

// X13
#[tokio::test(start_paused = true)]
async fn bodiless_answers_and_redirects_pass() {
    for status in [204, 205, 301, 304, 307] {
        let seen = send_chat([Reply::status(status), ok()]).await;
        assert_eq!(seen.attempts(), 1, "{status}");
        let response = seen.response();
        assert_eq!(response.status().as_u16(), status);
        assert!(GaveUp::of(&response).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_fails_is_answered_and_nothing_is_sent() {
    /// Says that it has nine bytes and breaks after one.
    struct Liar(u8);
    impl Body for Liar {
        type Data = Bytes;
        type Error = SimError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, SimError>>> {
            self.0 += 1;
            Poll::Ready(Some(match self.0 {
                1 => Ok(Frame::data(Bytes::from_static(b"{"))),
                2 => Err(SimError::RequestBody),
                _ => panic!("polled after its end"),
            }))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(9)
        }
    }
    impl From<Bytes> for Liar {
        fn from(_: Bytes) -> Self {
            Self(0)
        }
    }
    let provider = Scripted::new([ok()]);
    let service = RetryOnRateLimit::new(provider.clone(), RateLimitPolicy::new());
    let request = Request::post("https://api.example/v1/chat/completions")
        .body(Liar(0))
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(Refused::of(&response).unwrap().reason, Reason::BodyFailed);
    assert_eq!(provider.count(), 0);
}

// X12
#[tokio::test(start_paused = true)]
async fn a_deferred_job_that_is_refused_is_retried() {
    let request = post("/v1/batches", r#"{"input_file_id":"file-1"}"#);
    let accepted = Reply::ok_json(serde_json::json!({"id": "batch_1", "object": "batch"}));
    let seen = send(
        RateLimitPolicy::new(),
        request,
        [Reply::rate_limited(1), accepted],
    )
    .await;
    assert_eq!(seen.attempts(), 2);
    assert_eq!(seen.response().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_served_answer_says_nothing_of_giving_up_and_keeps_its_head() {
    let answer = ok()
        .header("x-request-id", "req-1")
        .header("content-length", "288");
    let seen = send_chat([answer]).await;
    assert_eq!(seen.attempts(), 1);
    let response = seen.response();
    assert!(GaveUp::of(&response).is_none());
    assert_eq!(response.headers()["x-request-id"], "req-1");
    assert_eq!(Attempts::of(&response).len(), 1);
}
