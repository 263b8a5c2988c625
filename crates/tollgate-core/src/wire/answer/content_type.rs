//! What the `content-type` header claims a body to be.
use http::{HeaderMap, header};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentType {
    Json,
    Sse,
    Ndjson,
    Frames,
    Text,
    Binary,
    Unknown,
}

impl ContentType {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
        else {
            return Self::Unknown;
        };
        let essence = value.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        if is("text/event-stream") {
            Self::Sse
        } else if is("application/x-ndjson")
            || is("application/ndjson")
            || is("application/jsonl")
            || is("application/stream+json")
        {
            Self::Ndjson
        } else if is("application/vnd.amazon.eventstream") {
            Self::Frames
        } else if ends_with(essence, "json") {
            Self::Json
        } else if starts_with(essence, "text/") {
            Self::Text
        } else if ["audio/", "image/", "video/"]
            .iter()
            .any(|kind| starts_with(essence, kind))
        {
            Self::Binary
        } else {
            Self::Unknown
        }
    }
}

fn starts_with(text: &str, word: &str) -> bool {
    let head = text.as_bytes().get(..word.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(word.as_bytes()))
}

fn ends_with(text: &str, word: &str) -> bool {
    let from = text.len().checked_sub(word.len());
    let tail = from.and_then(|from| text.as_bytes().get(from..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(word.as_bytes()))
}
