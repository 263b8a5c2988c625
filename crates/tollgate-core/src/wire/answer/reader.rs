//! The reader: finds out what a body is and reads it as it comes.
use std::{fmt, ops::Range};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

#[cfg(feature = "decompression")]
use super::coding::Decoder;
use super::{Answer, BodyKind, Caps, content_type::ContentType, splitter::Splitter, state::State};
#[cfg(feature = "decompression")]
use crate::wire::usage::{Usage, tally::Tally};
use crate::wire::{error, prompt::Endpoint, provider::frames, sse::Scanner};

/// As much of an error that is no JSON as is kept.
const LONGEST_TEXT: usize = 64 * 1024;

/// Pieces of a document that are kept apart.
const MOST_CHUNKS: usize = 4096;

/// Reads an answer while its bytes pass by.
///
/// It never fails and never changes a byte: what it cannot read stays unknown. Its state is bounded by [`Caps`]; events of a
/// stream are read in place.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderMap, StatusCode};
/// use tollgate_core::wire::{answer::AnswerReader, prompt::Endpoint, usage::Count};
///
/// let mut reader = AnswerReader::new(Endpoint::ChatCompletions, StatusCode::OK, &HeaderMap::new());
/// reader.feed(&Bytes::from("data: {\"model\":\"gpt-5\",\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n"));
/// reader.feed(&Bytes::from("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n"));
/// reader.feed(&Bytes::from("data: [DONE]\n\n"));
/// reader.end();
///
/// let answer = reader.answer();
/// assert_eq!(answer.model.as_deref(), Some("gpt-5"));
/// assert_eq!(answer.usage.total, Count::Exact(10));
/// assert!(answer.complete);
/// assert_eq!(reader.usage_only_events().len(), 1);
/// ```
pub struct AnswerReader {
    shape: Shape,
    state: State,
    content_type: ContentType,
    caps: Caps,
    offset: u64,
    /// Where the first chunk begins that is not blank.
    begins: u64,
    /// The bytes are compressed, so that no offset of an event is one of theirs.
    coded: bool,
    #[cfg(feature = "decompression")]
    decoder: Option<Box<Decoder>>,
    /// Bytes that were decoded so far.
    #[cfg(feature = "decompression")]
    decoded: u64,
}

/// What the body is taken for.
enum Shape {
    /// Too little has come to tell; nothing but white space before the held bytes.
    Unknown(Vec<Bytes>),
    /// Read at its end.
    Document {
        chunks: Vec<Bytes>,
        len: usize,
    },
    Sse(Scanner),
    Split(Splitter),
    Frames(Vec<u8>),
    /// Not read at all.
    Opaque,
}

impl AnswerReader {
    /// A reader for the answer to a request to `endpoint`.
    #[must_use]
    pub fn new(endpoint: Endpoint, status: StatusCode, headers: &HeaderMap) -> Self {
        let coding = headers.get(header::CONTENT_ENCODING).filter(|coding| {
            !coding.is_empty() && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
        });
        #[cfg(feature = "decompression")]
        let decoder = coding.and_then(|coding| Decoder::new(coding.as_bytes()));
        #[cfg(feature = "decompression")]
        let opaque = coding.is_some() && decoder.is_none();
        #[cfg(not(feature = "decompression"))]
        let opaque = coding.is_some();
        let mut state = State::new(endpoint, status, headers);
        if opaque {
            state.answer.readable = false;
            state.answer.kind = BodyKind::Binary;
        }
        Self {
            shape: if opaque {
                Shape::Opaque
            } else {
                Shape::Unknown(Vec::new())
            },
            state,
            content_type: ContentType::of(headers),
            caps: Caps::default(),
            offset: 0,
            begins: 0,
            coded: coding.is_some(),
            #[cfg(feature = "decompression")]
            decoder: decoder.map(Box::new),
            #[cfg(feature = "decompression")]
            decoded: 0,
        }
    }

    /// The same with other bounds; to be called before the first [`feed`](Self::feed).
    #[must_use]
    pub fn with_caps(mut self, caps: Caps) -> Self {
        self.caps = caps;
        self
    }

    /// Reads the next bytes. Cheap clones of `chunk` may be kept up to the caps.
    pub fn feed(&mut self, chunk: &Bytes) {
        if chunk.is_empty() {
            return;
        }
        let before = self.offset;
        self.offset += chunk.len() as u64;
        #[cfg(feature = "decompression")]
        if let Some(decoder) = self.decoder.take() {
            return self.decode(decoder, chunk);
        }
        self.plain(chunk, before);
    }

    /// Reads a decoded copy, up to the cap; what is not what its coding promises, or too much, is
    /// unknown.
    #[cfg(feature = "decompression")]
    fn decode(&mut self, mut decoder: Box<Decoder>, chunk: &Bytes) {
        let mut enough = false;
        let result = decoder.feed(chunk, |piece| {
            self.decoded = self.decoded.saturating_add(piece.len() as u64);
            enough = self.decoded > self.caps.decoded;
            if !enough {
                self.plain(&Bytes::copy_from_slice(piece), 0);
            }
            !enough
        });
        if result.is_ok() && !enough {
            self.decoder = Some(decoder);
            return;
        }
        self.shape = Shape::Opaque;
        self.state.answer.readable = false;
        if self.state.answer.kind == BodyKind::Empty {
            // Not what its coding promises, so nobody knows what it is.
            self.state.answer.kind = BodyKind::Binary;
        }
        if !self.state.answer.complete {
            // What was stated so far need not be the last word, and there may be none to come.
            self.state.tally = Tally::default();
            self.state.answer.usage = Usage::default();
            self.state.settle_usage();
        }
    }

    /// Reads bytes that are not compressed.
    fn plain(&mut self, chunk: &Bytes, before: u64) {
        if !matches!(self.shape, Shape::Unknown(_)) {
            return self.read(chunk);
        }
        let Shape::Unknown(mut held) = std::mem::replace(&mut self.shape, Shape::Opaque) else {
            return;
        };
        // Keep-alives in front of a document may go on for minutes; each is looked at once, and none is kept.
        if held.is_empty() && chunk.iter().all(u8::is_ascii_whitespace) {
            self.shape = Shape::Unknown(held);
            return;
        }
        if held.is_empty() {
            self.begins = before;
        }
        held.push(chunk.clone());
        match self.guess(&held, false) {
            Some(shape) => {
                self.shape = shape;
                for chunk in &held {
                    self.read(chunk);
                }
            }
            // A few bytes more will tell.
            None => self.shape = Shape::Unknown(held),
        }
    }

    /// The body has ended whole.
    pub fn end(&mut self) {
        if let Shape::Unknown(held) = &mut self.shape {
            let held = std::mem::take(held);
            self.shape = self.guess(&held, true).unwrap_or(Shape::Document {
                chunks: Vec::new(),
                len: 0,
            });
            for chunk in &held {
                self.read(chunk);
            }
        }
        let state = &mut self.state;
        match &mut self.shape {
            Shape::Unknown(_) => {}
            Shape::Document { chunks, .. } => {
                let chunks = std::mem::take(chunks);
                let body = match &*chunks {
                    [one] => one.clone(),
                    many => many.concat().into(),
                };
                state.document(&body, self.content_type);
            }
            Shape::Sse(scanner) => {
                scanner.end(|event| state.event(&event));
                state.answer.readable &= !scanner.skipped();
                // Not all dialects have a sentinel.
                state.answer.complete |=
                    state.answer.finish.is_some() || state.answer.error.is_some();
            }
            Shape::Split(splitter) => {
                // An array has an end of its own; between two lines anything may be missing.
                let ended = state.answer.finish.is_some() || state.answer.error.is_some();
                state.answer.complete |= splitter.is_whole() && (splitter.is_array() || ended);
            }
            Shape::Frames(pending) => {
                let ended = state.answer.finish.is_some() || state.answer.error.is_some();
                state.answer.complete |= pending.is_empty() && ended;
            }
            Shape::Opaque => {
                state.answer.complete |= state.answer.readable;
            }
        }
        // Whatever its body is, a failure is one.
        if state.status.as_u16() >= 400 {
            state.fail(&error::Document::default());
        }
        self.shape = Shape::Opaque;
    }

    /// What is known so far.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        &self.state.answer
    }

    /// Gives up reading and returns what is known.
    #[must_use]
    pub fn into_answer(self) -> Answer {
        self.state.answer
    }

    /// Bytes fed so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the bytes are compressed, so that no offset of an event can be one of theirs.
    #[must_use]
    pub fn is_coded(&self) -> bool {
        self.coded
    }

    /// Offset of the end of the last whole event of a stream; 0 before the first.
    ///
    /// When the body is no event stream, is compressed or has ended, this is [`offset`](Self::offset): nothing needs holding.
    #[must_use]
    pub fn boundary(&self) -> u64 {
        match &self.shape {
            _ if self.coded => self.offset,
            Shape::Sse(scanner) => scanner.boundary(),
            Shape::Unknown(_) if self.content_type == ContentType::Sse => 0,
            _ => self.offset,
        }
    }

    /// Where whole events stand that hold only usage (`choices: []`), the first 16 of them.
    ///
    /// These are what `stream_options.include_usage` adds, so whoever asked for it in the caller's place can take them
    /// out again.
    #[must_use]
    pub fn usage_only_events(&self) -> &[Range<u64>] {
        if self.coded {
            return &[];
        }
        &self.state.usage_only
    }

    /// Tells the shape by the first bytes that are not blank, and by the content type only where they leave it open.
    fn guess(&mut self, held: &[Bytes], ended: bool) -> Option<Shape> {
        let bytes = held.iter().flat_map(|chunk| chunk.iter().copied());
        let mut start = [0u8; 16];
        let mut len = 0;
        for byte in bytes.skip_while(u8::is_ascii_whitespace).take(start.len()) {
            start[len] = byte;
            len += 1;
        }
        let start = &start[..len];
        let first = *start.first()?;
        let caps = self.caps;
        let document = Shape::Document {
            chunks: Vec::new(),
            len: 0,
        };
        let kind = &mut self.state.answer.kind;
        let failed = self.state.status.as_u16() >= 400;
        let looks_sse = ["data:", "event:", "error:", "id:", "retry:", ":"]
            .iter()
            .any(|field| start.starts_with(field.as_bytes()));
        let sse = self.content_type == ContentType::Sse || looks_sse;
        let frames = (start.len() >= frames::PRELUDE).then(|| frames::prelude(start));
        Some(match first {
            b'{' if self.content_type == ContentType::Ndjson && !failed => {
                *kind = BodyKind::Ndjson;
                Shape::Split(Splitter::lines(caps.document))
            }
            b'[' if self.state.endpoint == Endpoint::GenerateContent && !failed => {
                *kind = BodyKind::Json;
                Shape::Split(Splitter::items(caps.document))
            }
            b'{' | b'[' | b'"' => {
                *kind = BodyKind::Json;
                document
            }
            _ if sse => {
                *kind = BodyKind::Sse;
                Shape::Sse(Scanner::new(caps.line, caps.event).starting_at(self.begins))
            }
            _ if frames.flatten().is_some() => {
                *kind = BodyKind::EventStream;
                Shape::Frames(Vec::new())
            }
            // "da" may become "data:".
            _ if start.len() < frames::PRELUDE && !ended => return None,
            _ => {
                let binary = match self.content_type {
                    ContentType::Binary | ContentType::Frames => true,
                    ContentType::Unknown => {
                        std::str::from_utf8(start).is_err_and(|error| error.error_len().is_some())
                    }
                    _ => false,
                };
                *kind = if binary {
                    BodyKind::Binary
                } else {
                    BodyKind::Text
                };
                if failed || self.content_type == ContentType::Json {
                    document
                } else {
                    Shape::Opaque
                }
            }
        })
    }

    fn read(&mut self, chunk: &Bytes) {
        let state = &mut self.state;
        match &mut self.shape {
            Shape::Opaque | Shape::Unknown(_) => {}
            Shape::Document { chunks, len } => {
                *len += chunk.len();
                let text = state.answer.kind != BodyKind::Json;
                if text && *len - chunk.len() > LONGEST_TEXT {
                    return;
                }
                if *len > self.caps.document {
                    state.answer.readable = false;
                    self.shape = Shape::Opaque;
                } else {
                    chunks.push(chunk.clone());
                    // A byte a frame must not cost a pointer a byte.
                    if chunks.len() >= MOST_CHUNKS {
                        *chunks = vec![chunks.concat().into()];
                    }
                }
            }
            Shape::Sse(scanner) => {
                scanner.feed(chunk, |event| state.event(&event));
                state.answer.readable &= !scanner.skipped();
            }
            Shape::Split(splitter) => {
                splitter.feed(chunk, |document| state.item(document));
                state.answer.readable &= !splitter.skipped;
            }
            Shape::Frames(pending) => {
                if pending.is_empty() {
                    let rest = state.frames(chunk, self.caps.event);
                    pending.extend_from_slice(rest);
                } else {
                    pending.extend_from_slice(chunk);
                    let held = std::mem::take(pending);
                    let rest = state.frames(&held, self.caps.event).len();
                    *pending = held;
                    pending.drain(..pending.len() - rest);
                }
                if !state.answer.readable {
                    self.shape = Shape::Opaque;
                }
            }
        }
    }
}

impl fmt::Debug for AnswerReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerReader")
            .field("answer", &self.state.answer)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
