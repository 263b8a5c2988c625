//! What an answer says, read while its bytes pass by.
use std::sync::Arc;

use super::usage::{Count, Finish, Usage};

#[cfg(feature = "decompression")]
mod coding;
mod content_type;
mod reader;
mod splitter;
mod state;
mod template;

pub use self::reader::AnswerReader;
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
    /// A tool of the provider's own ran that is charged beside the tokens: a search, a sandbox.
    pub hosted_tools: bool,
    /// The answer's id.
    pub response_id: Option<Box<str>>,
    /// What the body is.
    pub kind: BodyKind,
    /// Whether the body can be read: false for an unknown coding (each one without the feature
    /// `decompression`), for a broken one, or beyond a cap.
    pub readable: bool,
    /// All tokens of such an answer are input.
    pub(crate) only_reads: bool,
}

impl Answer {
    /// The usage as it is charged: [`usage`](Self::usage), with the total as input where an answer that generates nothing
    /// states a total alone, as the embeddings of Voyage and Jina do.
    #[must_use]
    pub fn billed_usage(&self) -> Usage {
        let mut usage = self.usage;
        let split = usage.input != Count::Unknown || usage.output != Count::Unknown;
        if self.only_reads && !split {
            usage.input = usage.total;
        }
        usage
    }
}

/// Bounds of what a reader keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caps {
    /// One line of a stream, in bytes. Default 8 MiB: a picture in base64 is one line, with the usage behind it.
    pub line: usize,
    /// One event of a stream, in bytes. Default 8 MiB.
    pub event: usize,
    /// One JSON document, in bytes. Default 8 MiB.
    pub document: usize,
    /// What a compressed answer may decode to in all, in bytes. Default 64 MiB.
    pub decoded: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            line: 8 << 20,
            event: 8 << 20,
            document: 8 << 20,
            decoded: 64 << 20,
        }
    }
}
