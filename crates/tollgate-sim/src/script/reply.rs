//! What a scripted upstream answers.
use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    SimError,
    body::{SimBody, Step},
};

/// One scripted answer: a status with headers and a body, an error, or silence.
#[derive(Clone)]
pub struct Reply {
    pub(crate) kind: Kind,
    pub(crate) after: Duration,
    pub(crate) read_request: bool,
    status: StatusCode,
    headers: HeaderMap,
    extensions: Extensions,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Answer,
    Error(SimError),
    Pending,
    Panic,
}

impl Reply {
    /// An answer with this status and an empty body.
    ///
    /// # Panics
    ///
    /// If `status` is not from 100 to 999.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            kind: Kind::Answer,
            after: Duration::ZERO,
            read_request: true,
            status: StatusCode::from_u16(status).expect("a status is from 100 to 999"),
            headers: HeaderMap::new(),
            extensions: Extensions::new(),
            steps: Vec::new(),
        }
    }

    /// 200 with a JSON document.
    #[must_use]
    pub fn ok_json(document: Value) -> Self {
        Self::status(200).json(document)
    }

    /// 200 with an OpenAI chat completion that states this usage.
    #[must_use]
    pub fn chat(model: &str, input: u64, output: u64) -> Self {
        Self::ok_json(json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": model,
            "choices": [{"index": 0, "finish_reason": "stop", "logprobs": null,
                "message": {"role": "assistant", "content": "Hello.", "refusal": null}}],
            "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output},
        }))
    }

    /// 200 with an event stream; each item becomes one `data:` event in a frame of its own.
    pub fn sse<T: AsRef<str>>(events: impl IntoIterator<Item = T>) -> Self {
        Self::stream(
            events
                .into_iter()
                .map(|data| format!("data: {}\n\n", data.as_ref())),
        )
    }

    /// 200 with an event stream of named events: (name, data).
    pub fn sse_named<'a>(events: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::stream(
            events
                .into_iter()
                .map(|(name, data)| format!("event: {name}\ndata: {data}\n\n")),
        )
    }

    /// 200 `text/event-stream` with these bytes, each item in a frame of its own.
    pub fn stream<T: Into<Bytes>>(frames: impl IntoIterator<Item = T>) -> Self {
        let reply = Self::status(200).header("content-type", "text/event-stream");
        frames.into_iter().fold(reply, Self::chunk)
    }

    /// 429 in OpenAI's shape, with `retry-after` in seconds.
    #[must_use]
    pub fn rate_limited(retry_after_secs: u64) -> Self {
        Self::status(429)
            .header("retry-after", &retry_after_secs.to_string())
            .json(json!({"error": {
                "message": format!("Rate limit reached for gpt-test in organization org-sim on requests per min (RPM): \
                    Limit 3, Used 3, Requested 1. Please try again in {retry_after_secs}s."),
                "type": "requests", "param": null, "code": "rate_limit_exceeded",
            }}))
    }

    /// A service error instead of an answer.
    #[must_use]
    pub fn transport_error(error: SimError) -> Self {
        Self::of_kind(Kind::Error(error))
    }

    /// 200 whose body sends these bytes and then breaks.
    pub fn body_breaks_after(bytes: impl Into<Bytes>) -> Self {
        Self::status(200).chunk(bytes).breaks(SimError::Broken)
    }

    /// Never answers.
    #[must_use]
    pub fn pending() -> Self {
        Self::of_kind(Kind::Pending)
    }

    /// Panics when the response future is polled.
    #[must_use]
    pub fn panics() -> Self {
        Self::of_kind(Kind::Panic)
    }

    fn of_kind(kind: Kind) -> Self {
        Self {
            kind,
            ..Self::status(200)
        }
    }

    /// Adds a header; a name may be added more than once.
    ///
    /// # Panics
    ///
    /// If the name or the value is not one that HTTP allows.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        let value: HeaderValue = value.parse().expect("a header value");
        self.headers.append(name, value);
        self
    }

    /// Adds a value to the response's extensions.
    #[must_use]
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.extensions.insert(value);
        self
    }

    /// Replaces the body by a JSON document and says so in `content-type`.
    #[must_use]
    pub fn json(mut self, document: Value) -> Self {
        let json = HeaderValue::from_static("application/json");
        self.headers.insert(header::CONTENT_TYPE, json);
        self.body(document.to_string())
    }

    /// Replaces the body by these bytes, in one frame.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.steps.clear();
        self.chunk(bytes)
    }

    /// Adds a frame to the body.
    #[must_use]
    pub fn chunk(mut self, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.steps.push(Step::Data(bytes));
        }
        self
    }

    /// The body waits this long before what is added next.
    #[must_use]
    pub fn wait(mut self, time: Duration) -> Self {
        self.steps.push(Step::Wait(time));
        self
    }

    /// The body waits this long before each frame that it has now.
    #[must_use]
    pub fn every(mut self, time: Duration) -> Self {
        let steps = std::mem::take(&mut self.steps);
        for step in steps {
            if matches!(step, Step::Data(_)) {
                self.steps.push(Step::Wait(time));
            }
            self.steps.push(step);
        }
        self
    }

    /// The body sends trailers.
    #[must_use]
    pub fn trailers(mut self, trailers: HeaderMap) -> Self {
        self.steps.push(Step::Trailers(trailers));
        self
    }

    /// The body fails here.
    #[must_use]
    pub fn breaks(mut self, error: SimError) -> Self {
        self.steps.push(Step::Break(error));
        self
    }

    /// The body sends nothing more and never ends.
    #[must_use]
    pub fn stalls(mut self) -> Self {
        self.steps.push(Step::Stall);
        self
    }

    /// Cuts all bytes of the body into frames of `size` bytes; whatever else the body does stays in its place.
    ///
    /// # Panics
    ///
    /// If `size` is 0.
    #[must_use]
    pub fn rechunk(mut self, size: usize) -> Self {
        self.steps = crate::body::rechunk(self.steps, size);
        self
    }

    /// Answers this long after the request was read.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }

    /// Answers without reading the request's body.
    #[must_use]
    pub fn unread(mut self) -> Self {
        self.read_request = false;
        self
    }

    pub(crate) fn into_response(self) -> Response<SimBody> {
        let mut response = Response::new(SimBody::new(self.steps));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        *response.extensions_mut() = self.extensions;
        response
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("kind", &self.kind)
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("after", &self.after)
            .field("steps", &self.steps.len())
            .finish_non_exhaustive()
    }
}
