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
        } else if essence.ends_with("json") {
            Self::Json
        } else if essence.starts_with("text/") {
            Self::Text
        } else if ["audio/", "image/", "video/"]
            .iter()
            .any(|kind| essence.starts_with(kind))
        {
            Self::Binary
        } else {
            Self::Unknown
        }
    }
}
