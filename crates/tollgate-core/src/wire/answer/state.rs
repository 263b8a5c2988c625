//! What a reader knows, and what each event or document adds to it.
use std::ops::Range;

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{Answer, BodyKind, content_type::ContentType, template::Template};
use crate::wire::{
    error::{self, Head},
    json::{Cursor, Kind, Result, Text},
    prompt::Endpoint,
    provider::{
        self, Reason, Said,
        frames::{self, Frame},
    },
    sse::Event,
    usage::{Finish, tally::Tally},
};

/// The longest name of a model, an id, a tier or a reason that is kept.
const LONGEST_NAME: usize = 512;
/// Most usage-only events that are told.
const MOST_USAGE_ONLY: usize = 16;

/// All but the bytes.
pub(super) struct State {
    pub(super) answer: Answer,
    pub(super) endpoint: Endpoint,
    pub(super) status: StatusCode,
    /// The few headers that an error is judged by.
    pub(super) headers: HeaderMap,
    pub(super) tally: Tally,
    pub(super) usage_only: Vec<Range<u64>>,
    pub(super) template: Template,
}

impl State {
    pub(super) fn new(endpoint: Endpoint, status: StatusCode, headers: &HeaderMap) -> Self {
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
        let mut state = Self {
            answer: Answer {
                readable: true,
                only_reads: endpoint.only_reads(),
                ..Answer::default()
            },
            endpoint,
            status,
            headers: kept,
            tally: Tally::default(),
            usage_only: Vec::new(),
            template: Template::default(),
        };
        if endpoint == Endpoint::Invoke {
            bedrock_counts(headers, &mut state.tally);
            state.settle_usage();
        }
        state
    }

    /// One server-sent event.
    pub(super) fn event(&mut self, event: &Event<'_>) {
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
    pub(super) fn item(&mut self, document: &[u8]) {
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
    pub(super) fn frames<'c>(&mut self, mut bytes: &'c [u8], cap: usize) -> &'c [u8] {
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
    pub(super) fn document(&mut self, body: &[u8], content_type: ContentType) {
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
            answer.model = said
                .model
                .and_then(short)
                .map(|model| model.to_str().into());
        }
        if answer.response_id.is_none() {
            answer.response_id = said.id.and_then(short).map(|id| id.to_str().into());
        }
        if let Some(tier) = said.tier.and_then(short) {
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
        answer.hosted_tools |= said.hosted || provider::hosted(kind);
        match said.finish {
            Some(Reason::Word(word)) => {
                let word = short(word).map_or("other".into(), |word| word.to_str());
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
            let mut word = short(status)
                .map_or("other".into(), |word| word.to_str())
                .into_owned();
            let incomplete = said.incomplete.and_then(short);
            if let Some(reason) = incomplete.filter(|_| word == "incomplete") {
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
    pub(super) fn fail(&mut self, document: &error::Document<'_>) {
        if self.answer.error.is_none() {
            self.answer.error = Some(document.judge(Head {
                status: self.status,
                headers: &self.headers,
                now: None,
            }));
        }
    }

    pub(super) fn settle_usage(&mut self) {
        self.answer.has_usage = self.tally.is_some();
        if self.answer.has_usage {
            self.answer.usage = self.tally.usage();
        }
    }
}

/// A name that is worth keeping: every record holds it.
fn short(text: Text<'_>) -> Option<Text<'_>> {
    (text.raw().len() <= LONGEST_NAME).then_some(text)
}

/// Bedrock repeats the counts in headers; they stand back behind those of the body.
fn bedrock_counts(headers: &HeaderMap, tally: &mut Tally) {
    let count = |name: &'static str| headers.get(name)?.to_str().ok()?.parse().ok();
    tally.spare_input = count("x-amzn-bedrock-input-token-count");
    tally.spare_output = count("x-amzn-bedrock-output-token-count");
}
