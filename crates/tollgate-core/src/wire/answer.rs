//! What an answer says, read while its bytes pass by.
use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{
    prompt::Endpoint,
    usage::{Finish, Usage},
};

pub use super::error::{Code, WireError};

/// What a body is, whatever its content type says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyKind {
    /// Nothing but white space has come.
    #[default]
    Empty,
    /// One JSON document.
    Json,
    /// Server-sent events.
    Sse,
    /// One JSON document a line.
    Ndjson,
    /// Bedrock's binary event stream.
    EventStream,
    /// Text that is no JSON.
    Text,
    /// Anything else, or encoded.
    Binary,
}

/// What one answer says.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Answer {
    /// The model that served.
    pub model: Option<Arc<str>>,
    /// The token counts, of one meaning for all providers.
    pub usage: Usage,
    /// Whether the answer has a usage object at all.
    pub has_usage: bool,
    /// Why generation ended.
    pub finish: Option<Finish>,
    /// The same as sent.
    pub finish_reason: Option<Box<str>>,
    /// The error that the answer states, also within a 200.
    pub error: Option<WireError>,
    /// A terminal event came, or the document was whole.
    pub complete: bool,
    /// The first content came (not a ping, a comment or a head event).
    pub content_started: bool,
    /// Characters of generated text seen.
    pub output_chars: u64,
    /// The tier that served.
    pub service_tier: Option<Box<str>>,
    /// The answer's id.
    pub response_id: Option<Box<str>>,
    /// What the body is.
    pub kind: BodyKind,
    /// Whether the body can be read: false for an unknown coding, or beyond a cap.
    pub readable: bool,
}

/// Bounds of what a reader keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caps {
    /// One line of a stream, in bytes. Default 1 MiB.
    pub line: usize,
    /// One event of a stream, in bytes. Default 8 MiB.
    pub event: usize,
    /// One JSON document, in bytes. Default 8 MiB.
    pub document: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            line: 1 << 20,
            event: 8 << 20,
            document: 8 << 20,
        }
    }
}

/// Reads an answer while its bytes pass by.
///
/// It never fails and never changes a byte: what it cannot read stays unknown.
#[derive(Debug)]
pub struct AnswerReader {
    answer: Answer,
    caps: Caps,
    offset: u64,
    boundary: u64,
    usage_only: Vec<Range<u64>>,
}

impl AnswerReader {
    /// A reader for the answer to a request to `endpoint`.
    #[must_use]
    pub fn new(endpoint: Endpoint, status: StatusCode, headers: &HeaderMap) -> Self {
        let _ = (endpoint, status, headers);
        Self {
            answer: Answer::default(),
            caps: Caps::default(),
            offset: 0,
            boundary: 0,
            usage_only: Vec::new(),
        }
    }

    /// The same with other bounds.
    #[must_use]
    pub fn with_caps(mut self, caps: Caps) -> Self {
        self.caps = caps;
        self
    }

    /// Reads the next bytes. Cheap clones of `chunk` may be kept up to the caps.
    pub fn feed(&mut self, chunk: &Bytes) {
        self.offset += chunk.len() as u64;
    }

    /// The body has ended whole.
    pub fn end(&mut self) {}

    /// What is known so far.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Gives up reading and returns what is known.
    #[must_use]
    pub fn into_answer(self) -> Answer {
        self.answer
    }

    /// Bytes fed so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Offset of the end of the last whole event of a stream; 0 before the first.
    ///
    /// When the body is no event stream this is [`offset`](Self::offset): nothing needs holding.
    #[must_use]
    pub fn boundary(&self) -> u64 {
        self.boundary
    }

    /// Where whole events stand that hold only usage (`choices: []`), the first 16 of them.
    ///
    /// These are what `stream_options.include_usage` adds, so whoever asked for it in the caller's place can take them
    /// out again.
    #[must_use]
    pub fn usage_only_events(&self) -> &[Range<u64>] {
        &self.usage_only
    }
}
