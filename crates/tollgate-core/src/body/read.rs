//! Read a request's body once, up to a cap, and share it.
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{Request, header, request::Parts};
use http_body::Body;
use pin_project::pin_project;

use crate::wire::prompt::{Endpoint, Facts, RequestFacts, endpoint};

/// Whether a request's body may be read and sent again: a known endpoint, an exact size within
/// `cap` bytes, a JSON document that is not compressed.
///
/// Everything else passes unread and once: uploads, upgrades, unknown paths, chunked bodies.
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tollgate_core::body::readable;
///
/// let chat = Request::post("https://api.example/v1/chat/completions").body(Full::<Bytes>::from("{}")).unwrap();
/// assert!(readable(&chat, 32 << 20));
/// let unknown = Request::post("https://api.example/upload").body(Full::<Bytes>::from("{}")).unwrap();
/// assert!(!readable(&unknown, 32 << 20));
/// ```
pub fn readable<B: Body>(request: &Request<B>, cap: u64) -> bool {
    let headers = request.headers();
    let encoded = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    // A missing content type is common in hand-written clients; a form or an upload always has one.
    let json = headers.get(header::CONTENT_TYPE).is_none_or(|kind| {
        // What stands behind the semicolon is anything, a boundary for one.
        let kind = kind.as_bytes().split(|byte| *byte == b';').next();
        kind.unwrap_or_default()
            .windows(4)
            .any(|word| word.eq_ignore_ascii_case(b"json"))
    });
    !encoded
        && json
        && !headers.contains_key(header::EXPECT)
        && !headers.contains_key(header::UPGRADE)
        && request
            .body()
            .size_hint()
            .exact()
            .is_some_and(|size| size <= cap)
        && endpoint(request.method(), request.uri()) != Endpoint::Other
}

/// A request that was read: its head, its whole body, and what it asks for.
pub type WholeRequest = (Parts, Bytes, Facts);

/// Reads a request whose body is [`readable`], and its [`Facts`].
///
/// Facts that a layer further out has left are taken over when they describe these very bytes, sent to
/// this very path; else
/// they are read, and left in the extensions. A body of one frame of [`Bytes`] is not copied.
#[pin_project]
pub struct ReadRequest<B> {
    parts: Option<Parts>,
    #[pin]
    body: B,
    first: Bytes,
    more: BytesMut,
    size: u64,
}

/// The most that is set aside on the word of a size hint; beyond it memory grows as bytes come.
const MAX_RESERVE: u64 = 1 << 20;

impl<B: Body> ReadRequest<B> {
    /// Begins to read.
    pub fn new(request: Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        let size = body.size_hint().exact().unwrap_or(0);
        Self {
            parts: Some(parts),
            body,
            first: Bytes::new(),
            more: BytesMut::new(),
            size,
        }
    }

    /// The whole request.
    ///
    /// # Errors
    ///
    /// The head alone, so that an answer can be made, if the body failed, or was longer or shorter
    /// than its exact size hint said. The body's own error has nowhere to go: no layer mints errors.
    ///
    /// # Panics
    ///
    /// If polled again after it was ready.
    pub fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<WholeRequest, Parts>> {
        let mut this = self.project();
        let whole = loop {
            let held = (this.first.len() + this.more.len()) as u64;
            if this.body.is_end_stream() || held > *this.size {
                break true;
            }
            let data = match ready!(this.body.as_mut().poll_frame(cx)) {
                None => break true,
                Some(Err(_)) => break false,
                Some(Ok(frame)) => match frame.into_data() {
                    // No copy when the data is `Bytes` already.
                    Ok(mut data) => data.copy_to_bytes(data.remaining()),
                    // Trailers end a body. Those of a request are of no use to a provider and
                    // cannot be sent again.
                    Err(_) => break true,
                },
            };
            if held == 0 {
                *this.first = data;
                continue;
            }
            if this.more.is_empty() {
                let size = usize::try_from((*this.size).min(MAX_RESERVE)).unwrap_or(0);
                this.more.reserve(size);
                this.more.extend_from_slice(this.first);
                this.first.clear();
            }
            this.more.extend_from_slice(&data);
        };
        let mut parts = this.parts.take().expect("polled again after it was ready");
        let body = if this.more.is_empty() {
            std::mem::take(this.first)
        } else {
            std::mem::take(this.more).freeze()
        };
        if !whole || body.len() as u64 != *this.size {
            return Poll::Ready(Err(parts));
        }
        let facts = match parts.extensions.get::<Facts>() {
            Some(facts) if facts.describe(&parts.uri, &body) => facts.clone(),
            _ => {
                let read = RequestFacts::read(&parts.method, &parts.uri, &parts.headers, &body);
                let facts = Facts::new(read);
                parts.extensions.insert(facts.clone());
                facts
            }
        };
        Poll::Ready(Ok((parts, body, facts)))
    }
}

impl<B> fmt::Debug for ReadRequest<B> {
    /// Shows how much was read, and none of it: it is a prompt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadRequest")
            .field("read", &(self.first.len() + self.more.len()))
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
