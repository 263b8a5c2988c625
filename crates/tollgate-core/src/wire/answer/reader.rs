//! The reader: finds out what a body is and reads it as it comes.
use std::{fmt, ops::Range};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{Answer, BodyKind, Caps, splitter::Splitter, template::Template};
use crate::wire::{
    error::{self, Head},
    json::{Cursor, Kind, Result},
    prompt::Endpoint,
    provider::{
        Reason, Said,
        frames::{self, Frame},
    },
    sse::{Event, Scanner},
    usage::{Finish, tally::Tally},
};

/// Most usage-only events that are told.
const MOST_USAGE_ONLY: usize = 16;
/// As much of an error that is no JSON as is kept.
const LONGEST_TEXT: usize = 64 * 1024;

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
}

/// All but the bytes.
struct State {
    answer: Answer,
    endpoint: Endpoint,
    status: StatusCode,
    /// The few headers that an error is judged by.
    headers: HeaderMap,
    tally: Tally,
    usage_only: Vec<Range<u64>>,
    template: Template,
}

/// What the body is taken for.
enum Shape {
    /// Too little has come to tell.
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum ContentType {
    Json,
    Sse,
    Ndjson,
    Frames,
    Text,
    Binary,
    Unknown,
}

impl AnswerReader {
    /// A reader for the answer to a request to `endpoint`.
    #[must_use]
    pub fn new(endpoint: Endpoint, status: StatusCode, headers: &HeaderMap) -> Self {
        const KEPT: [HeaderName; 5] = [
            HeaderName::from_static("x-should-retry"),
            HeaderName::from_static("x-amzn-errortype"),
            HeaderName::from_static("retry-after-ms"),
            header::RETRY_AFTER,
            header::DATE,
        ];
        let mut kept = HeaderMap::new();
        for name in KEPT {
            if let Some(value) = headers.get(&name) {
                kept.insert(name, value.clone());
            }
        }
        let coded = headers
            .get(header::CONTENT_ENCODING)
            .is_some_and(|coding| !coding.is_empty() && coding != "identity");
        let mut tally = Tally::default();
        bedrock_counts(headers, &mut tally);
        let mut reader = Self {
            shape: if coded {
                Shape::Opaque
            } else {
                Shape::Unknown(Vec::new())
            },
            state: State {
                answer: Answer {
                    readable: !coded,
                    kind: if coded {
                        BodyKind::Binary
                    } else {
                        BodyKind::Empty
                    },
                    ..Answer::default()
                },
                endpoint,
                status,
                headers: kept,
                tally,
                usage_only: Vec::new(),
                template: Template::default(),
            },
            content_type: ContentType::of(headers),
            caps: Caps::default(),
            offset: 0,
        };
        reader.state.settle_usage();
        reader
    }

    /// The same with other bounds; to be called before the first [`feed`](Self::feed).
    #[must_use]
    pub fn with_caps(mut self, caps: Caps) -> Self {
        self.caps = caps;
        self
    }

    /// Reads the next bytes. Cheap clones of `chunk` may be kept up to the caps.
    pub fn feed(&mut self, chunk: &Bytes) {
        self.offset += chunk.len() as u64;
        if !matches!(self.shape, Shape::Unknown(_)) {
            return self.read(chunk);
        }
        let Shape::Unknown(mut held) = std::mem::replace(&mut self.shape, Shape::Opaque) else {
            return;
        };
        held.push(chunk.clone());
        match self.guess(&held, false) {
            Some(shape) => {
                self.shape = shape;
                for chunk in &held {
                    self.read(chunk);
                }
            }
            // Keep-alives in front of a document may go on for minutes.
            None => {
                if held.len() > 64 {
                    held = vec![held.concat().into()];
                }
                if held.iter().map(Bytes::len).sum::<usize>() > self.caps.document {
                    self.state.answer.readable = false;
                } else {
                    self.shape = Shape::Unknown(held);
                }
            }
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
                state.answer.complete |= splitter.is_whole();
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

    /// Offset of the end of the last whole event of a stream; 0 before the first.
    ///
    /// When the body is no event stream, or has ended, this is [`offset`](Self::offset): nothing needs holding.
    #[must_use]
    pub fn boundary(&self) -> u64 {
        match &self.shape {
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
                Shape::Sse(Scanner::new(caps.line, caps.event))
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

impl State {
    /// One server-sent event.
    fn event(&mut self, event: &Event<'_>) {
        if event.data == b"[DONE]" {
            self.answer.complete = true;
            return;
        }
        if let Some(text) = self.template.text(event.name, event.data) {
            let answer = &mut self.answer;
            answer.content_started |= !text.is_empty();
            answer.output_chars = answer.output_chars.saturating_add(text.chars());
            return;
        }
        let mut said = Said {
            event: true,
            ..Said::default()
        };
        let before = self.tally.clone();
        let mut cursor = Cursor::new(event.data);
        let read = said.read(self.endpoint, &mut cursor, &mut self.tally);
        let failed = event.error_field || event.name == b"error";
        if read.is_err() {
            self.tally = before;
            if failed {
                self.fail(&error::plain(event.data));
            }
            return;
        }
        if self.tally != before {
            self.settle_usage();
        }
        // Groq states the same counts on the chunk before, too.
        let only_usage = said.usage && said.no_choices && !said.error;
        if only_usage && self.usage_only.len() < MOST_USAGE_ONLY {
            self.usage_only.push(event.span.clone());
        }
        self.take(&said, event.name, event.data, failed);
        let repeats = said.kind.is_some_and(|kind| kind.raw().ends_with(b".done"));
        if !said.usage && !failed && !repeats && Template::fits(&said) {
            self.template.set(event.name, event.data, &said);
        }
    }

    /// One document of a stream of documents.
    fn item(&mut self, document: &[u8]) {
        self.read_part(document, b"", false);
    }

    fn read_part(&mut self, document: &[u8], name: &[u8], failed: bool) {
        let mut said = Said {
            event: true,
            ..Said::default()
        };
        let before = self.tally.clone();
        let mut cursor = Cursor::new(document);
        if said
            .read(self.endpoint, &mut cursor, &mut self.tally)
            .is_err()
        {
            self.tally = before;
            return;
        }
        self.settle_usage();
        self.take(&said, name, document, failed);
    }

    /// Whole frames; returns what is left.
    fn frames<'c>(&mut self, mut bytes: &'c [u8], cap: usize) -> &'c [u8] {
        while bytes.len() >= frames::PRELUDE {
            let Some(lengths) = frames::prelude(bytes).filter(|l| l.total <= cap) else {
                self.answer.readable = false;
                return b"";
            };
            if bytes.len() < lengths.total {
                break;
            }
            if let Some(frame) = Frame::read(bytes, lengths) {
                self.frame(&frame);
            }
            bytes = &bytes[lengths.total..];
        }
        bytes
    }

    fn frame(&mut self, frame: &Frame<'_>) {
        if frame.exception {
            let mut document = error::read(frame.payload).unwrap_or_default();
            document.kind = Some(frame.kind.into());
            self.fail(&document);
        } else if let Some(document) = frame.wrapped() {
            self.read_part(&document, frame.kind.as_bytes(), false);
        } else {
            self.read_part(frame.payload, frame.kind.as_bytes(), false);
        }
        // Usage comes after the message has stopped.
        self.answer.complete |= frame.kind == "metadata";
    }

    /// A whole body.
    fn document(&mut self, body: &[u8], content_type: ContentType) {
        if self.status.as_u16() >= 400 {
            self.answer.complete = true;
            let document = error::read(body).unwrap_or_else(|| error::plain(body));
            return self.fail(&document);
        }
        if self.answer.kind != BodyKind::Json {
            // Text where JSON was promised is not the document that was asked for.
            let empty = self.answer.kind == BodyKind::Empty;
            self.answer.complete = match content_type {
                ContentType::Json => false,
                _ if empty => !self.endpoint.generates() || self.status != StatusCode::OK,
                _ => true,
            };
            return;
        }
        let mut cursor = Cursor::new(body);
        let mut documents = 0;
        while !cursor.at_end() {
            let document = &body[cursor.at()..];
            documents += 1;
            let whole = match cursor.kind() {
                Ok(Kind::Array) => cursor
                    .array(|c| {
                        let item = &body[c.at()..];
                        self.whole(c, item)
                    })
                    .map(drop),
                Ok(_) => self.whole(&mut cursor, document),
                Err(error) => Err(error),
            };
            if whole.is_err() {
                return;
            }
        }
        if documents > 1 {
            self.answer.kind = BodyKind::Ndjson;
        }
        self.answer.complete = true;
    }

    fn whole(&mut self, c: &mut Cursor<'_>, document: &[u8]) -> Result {
        let mut said = Said::default();
        let before = self.tally.clone();
        if let Err(error) = said.read(self.endpoint, c, &mut self.tally) {
            self.tally = before;
            return Err(error);
        }
        self.settle_usage();
        said.content |= !said.error;
        self.take(&said, b"", document, false);
        Ok(())
    }

    /// Takes over what a document said.
    fn take(&mut self, said: &Said<'_>, name: &[u8], data: &[u8], failed: bool) {
        let answer = &mut self.answer;
        if answer.model.is_none() {
            answer.model = said.model.map(|model| model.to_str().into());
        }
        if answer.response_id.is_none() {
            answer.response_id = said.id.map(|id| id.to_str().into());
        }
        if let Some(tier) = said.tier {
            if answer
                .service_tier
                .as_deref()
                .is_none_or(|have| tier != *have)
            {
                answer.service_tier = Some(tier.to_str().into());
            }
        }
        let kind = said.kind.map_or(name, |kind| kind.raw());
        let last = said.last
            || matches!(
                kind,
                b"message_stop"
                    | b"response.completed"
                    | b"response.incomplete"
                    | b"response.failed"
                    | b"response.cancelled"
                    | b"message-end"
                    | b"stream-end"
                    | b"interaction.completed"
                    | b"interaction.complete"
                    | b"speech.audio.done"
                    | b"transcript.text.done"
                    | b"image_generation.completed"
                    | b"image_edit.completed"
            );
        // The `….done` events of a stream repeat what their deltas said.
        if !(said.event && kind.ends_with(b".done")) {
            answer.output_chars = answer.output_chars.saturating_add(said.chars);
        }
        answer.content_started |= (said.content || last) && !said.error;
        answer.complete |= last;
        match said.finish {
            Some(Reason::Word(word)) => {
                let word = word.to_str();
                answer.finish = Some(Finish::named(&word));
                answer.finish_reason = Some(word.into());
            }
            Some(Reason::Number(n)) => {
                answer.finish = Some(Finish::numbered(n));
                answer.finish_reason = Some(format!("enum:{n}").into());
            }
            None => {}
        }
        if let Some(status) = said
            .status
            .filter(|_| said.has_state && (last || !said.event))
        {
            let mut word = status.to_str().into_owned();
            if let Some(reason) = said.incomplete.filter(|_| word == "incomplete") {
                word = format!("{word}:{}", reason.to_str());
            }
            answer.finish = Some(Finish::named(&word));
            answer.finish_reason = Some(word.into());
        }
        let failed = failed || kind == b"error";
        if said.error || failed {
            match error::read(data).filter(|document| failed || document.in_band) {
                Some(document) => self.fail(&document),
                None if failed => self.fail(&error::plain(data)),
                None => {}
            }
        }
    }

    /// The first error is the one that counts.
    fn fail(&mut self, document: &error::Document<'_>) {
        if self.answer.error.is_none() {
            self.answer.error = Some(document.judge(Head {
                status: self.status,
                headers: &self.headers,
                now: None,
            }));
        }
    }

    fn settle_usage(&mut self) {
        self.answer.has_usage = self.tally.is_some();
        if self.answer.has_usage {
            self.answer.usage = self.tally.usage();
        }
    }
}

impl ContentType {
    fn of(headers: &HeaderMap) -> Self {
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

/// Bedrock repeats the counts in headers; they stand back behind those of the body.
fn bedrock_counts(headers: &HeaderMap, tally: &mut Tally) {
    let count = |name: &'static str| headers.get(name)?.to_str().ok()?.parse().ok();
    tally.spare_input = count("x-amzn-bedrock-input-token-count");
    tally.spare_output = count("x-amzn-bedrock-output-token-count");
}

impl fmt::Debug for AnswerReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerReader")
            .field("answer", &self.state.answer)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
