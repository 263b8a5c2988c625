//! What is made of an error that may blame our asking for usage.
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
    SimError,
    script::{Reply, Scripted},
};
use tower::Layer;

/// An error that repeats the request, as vLLM's do.
fn echo(status: u16, body: &serde_json::Value) -> Reply {
    Reply::status(status).json(json!({"error": {"type": "Bad Request",
        "message": format!("[{{'type': 'value_error', 'input': {body}}}]")}}))
}

// U06
#[tokio::test(start_paused = true)]
async fn an_error_that_repeats_the_request_does_not_end_the_asking_for_others() {
    let kept = Kept::default();
    let layer = kept.layer();
    let upstream = Scripted::by(|attempt| match attempt.json() {
        bad if bad["temperature"] == 9 => echo(400, &bad),
        _ => Reply::stream(stream()),
    });
    let bad = chat(json!({"stream": true, "temperature": 9}));
    let (head, body) = exchange(&layer, &upstream, bad).await;
    assert_eq!((head.status.as_u16(), upstream.count()), (400, 2));
    let text = String::from_utf8(body.unwrap().to_vec()).unwrap();
    assert!(
        !text.contains("stream_options"),
        "the answer to the caller's own request"
    );
    exchange(&layer, &upstream, unasked()).await.1.unwrap();
    let sent = upstream.attempts().pop().unwrap().json();
    assert_eq!(sent["stream_options"]["include_usage"], true);
    assert_eq!(kept.all()[1].usage.output, Count::Exact(7));
}

// U06
#[tokio::test(start_paused = true)]
async fn a_call_of_one_request_asks_only_who_is_known_to_take_it() {
    use tollgate_core::call::{Call, CallOptions};
    for counted in [true, false] {
        let kept = Kept::default();
        let layer = kept.layer();
        let upstream = Scripted::by(|attempt| match attempt.json() {
            new if new["model"] == "old" && new.get("stream_options").is_some() => {
                unknown_field(400)
            }
            _ => Reply::stream(stream()),
        });
        let once = |model: &str| {
            let mut request = chat(json!({"stream": true, "model": model}));
            let options = CallOptions::new().max_attempts(1);
            request.extensions_mut().insert(options);
            if counted {
                // As a layer that tries again would have it.
                assert_eq!(Call::of(request.extensions_mut()).begin_attempt(3), Some(1));
            }
            request
        };
        for model in ["old", "new"] {
            let (head, _) = exchange(&layer, &upstream, once(model)).await;
            assert_eq!(head.status, 200, "{model}");
            let sent = upstream.attempts().pop().unwrap().json();
            assert!(sent.get("stream_options").is_none(), "nobody knows yet");
        }
        assert_eq!(upstream.count(), 2, "one request a call");
        let free = chat(json!({"stream": true, "model": "new"}));
        exchange(&layer, &upstream, free).await.1.unwrap();
        exchange(&layer, &upstream, once("new")).await.1.unwrap();
        let sent = upstream.attempts().pop().unwrap().json();
        assert_eq!(sent["stream_options"]["include_usage"], true, "it is known");
        assert_eq!(upstream.count(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_recorder_counts_what_it_sends() {
    use tollgate_core::call::CallOptions;
    let layer = Kept::default().layer();
    let asked = std::sync::atomic::AtomicBool::new(false);
    // It has taken the field once, and refuses it since.
    let upstream = Scripted::by(move |attempt| {
        let field = attempt.json().get("stream_options").is_some();
        if field && asked.swap(true, std::sync::atomic::Ordering::Relaxed) {
            unknown_field(400)
        } else {
            Reply::stream(stream())
        }
    });
    exchange(&layer, &upstream, unasked()).await.1.unwrap();
    let mut request = unasked();
    let options = CallOptions::new().max_attempts(1);
    request.extensions_mut().insert(options);
    let (head, _) = exchange(&layer, &upstream, request).await;
    assert_eq!((head.status.as_u16(), upstream.count()), (400, 2));
}

#[tokio::test(start_paused = true)]
async fn a_400_that_stalls_is_not_waited_for_beyond_the_calls_deadline() {
    use tollgate_core::call::CallOptions;
    let upstream = Scripted::new([Reply::status(400).chunk("{\"err").stalls()]);
    let mut request = unasked();
    let options = CallOptions::new().within(Duration::from_secs(2));
    request.extensions_mut().insert(options);
    let start = tokio::time::Instant::now();
    let response = send(&Kept::default().layer().layer(upstream), request).await;
    let passed = start.elapsed().as_secs_f64();
    assert_eq!((response.status().as_u16(), passed.round()), (400, 2.0));
}

/// A request's body whose data is no [`Bytes`](bytes::Bytes).
struct Own(Option<bytes::Bytes>);

impl From<bytes::Bytes> for Own {
    fn from(data: bytes::Bytes) -> Self {
        Self(Some(data))
    }
}

impl Body for Own {
    type Data = std::io::Cursor<Vec<u8>>;
    type Error = SimError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, SimError>>> {
        let data = self
            .0
            .take()
            .map(|data| std::io::Cursor::new(data.to_vec()));
        std::task::Poll::Ready(data.map(|data| Ok(http_body::Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.len() as u64))
    }
}

#[tokio::test(start_paused = true)]
async fn any_kind_of_data_in_a_request_is_read() {
    let upstream = tower::service_fn(|request: http::Request<Own>| async move {
        let sent = request.into_body().0.unwrap();
        assert!(sent.windows(14).any(|at| at == b"stream_options"));
        Ok::<_, SimError>(http::Response::new(http_body_util::Full::new(sent)))
    });
    let (parts, body) = unasked().into_parts();
    let body = Own::from(body.collect().await.unwrap().to_bytes());
    let service = Kept::default().layer().layer(upstream);
    let request = http::Request::from_parts(parts, body);
    let response = tower::ServiceExt::oneshot(service, request).await.unwrap();
    assert_eq!(response.status(), 200);
}

/// An answer whose end is its trailers: it says of itself neither before nor after that it has ended.
struct Trailed(bool);

impl Body for Trailed {
    type Data = bytes::Bytes;
    type Error = SimError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, SimError>>> {
        assert!(
            !std::mem::replace(&mut self.0, true),
            "polled after its trailers"
        );
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
        std::task::Poll::Ready(Some(Ok(http_body::Frame::trailers(trailers))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_at_an_error_ends_with_its_trailers() {
    let upstream = tower::service_fn(|_: Req| async {
        let mut response = http::Response::new(Trailed(false));
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
        Ok::<_, SimError>(response)
    });
    let service = Kept::default().layer().layer(upstream);
    let response = tower::ServiceExt::oneshot(service, unasked())
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert!(body.trailers().is_some());
}
