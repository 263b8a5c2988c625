//! What is looked for in one response, and what was found.
use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header, response::Parts};
use http_body::{Body, Frame};

use super::PeekPolicy;
use crate::{
    clock,
    extensions::{Refused, TimedOut},
    wire::{
        answer::{Answer, AnswerReader},
        outcome::{Verdict, judge, judge_in_band},
        prompt::{Endpoint, RequestFacts},
    },
};

/// Beside a [`Verdict`] in the extensions: the body was looked into, not only the head.
#[derive(Clone, Copy, Debug)]
pub(super) struct LookedInto {
    /// Not only the beginning of a stream, if it is one.
    pub(super) to_its_end: bool,
}

pub(super) enum Goal {
    /// Known already, from a layer further in.
    Known(Verdict),
    /// Known from the head.
    Head,
    /// Read an error's document.
    Document { cap: usize },
    /// Read on until content begins.
    Content {
        reader: Box<AnswerReader>,
        cap: usize,
    },
    /// Read the whole answer.
    Whole {
        reader: Box<AnswerReader>,
        cap: usize,
        validate: bool,
        stream: bool,
    },
}

/// What ended the looking.
pub(super) enum Seen<E> {
    Enough,
    End,
    Error(E),
}

impl Goal {
    pub(super) fn of<B: Body>(
        response: &Response<B>,
        facts: Option<&RequestFacts>,
        policy: &PeekPolicy,
    ) -> Self {
        let status = response.status();
        // Our own word, which is no document of the provider's.
        if let Some(timed_out) = TimedOut::of(response) {
            return Self::Known(Verdict::timeout(timed_out.what));
        }
        let endpoint = facts.map_or(Endpoint::Other, |facts| facts.endpoint);
        let needed = match facts {
            Some(facts) if Refused::of(response).is_none() => {
                Self::needed(response, facts, endpoint, policy)
            }
            _ => Self::Head,
        };
        let looked = response.extensions().get::<LookedInto>();
        // One that was found in the head alone does not tell what the body says, nor one that was
        // found in a stream's beginning how it ends.
        let enough = match &needed {
            Self::Head => true,
            Self::Whole { .. } => looked.is_some_and(|looked| looked.to_its_end),
            _ => looked.is_some(),
        };
        match response.extensions().get::<Verdict>() {
            Some(verdict) if verdict.status == status && enough => Self::Known(verdict.clone()),
            _ => needed,
        }
    }

    fn needed<B: Body>(
        response: &Response<B>,
        facts: &RequestFacts,
        endpoint: Endpoint,
        policy: &PeekPolicy,
    ) -> Self {
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            return Self::Document {
                cap: policy.error_cap,
            };
        }
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
        if !status.is_success() || bodiless || !holdable(endpoint) || facts.background {
            return Self::Head;
        }
        let reader = || Box::new(AnswerReader::new(endpoint, status, response.headers()));
        let stream = facts.stream || is_event_stream(response.headers());
        match policy.hold_answer {
            // One that is larger by its own word is passed as it comes at once.
            Some(cap)
                if (!stream || policy.hold_streams)
                    && response.body().size_hint().lower() <= cap as u64 =>
            {
                Self::Whole {
                    reader: reader(),
                    cap,
                    validate: policy.validate,
                    stream,
                }
            }
            _ if stream => Self::Content {
                reader: reader(),
                cap: policy.stream_cap,
            },
            _ => Self::Head,
        }
    }

    /// Takes a data frame; `held` is the length of all frames with this one. True if enough was seen.
    pub(super) fn take(&mut self, data: &Bytes, held: usize) -> bool {
        match self {
            Self::Known(_) | Self::Head => true,
            Self::Document { cap } => held >= *cap,
            Self::Content { reader, cap } => {
                let before = held - data.len();
                let mut rest = data.slice(..data.len().min(*cap - before));
                while !rest.is_empty() {
                    // A line at a time: what ends the look, content or an error, must not hang on
                    // how the bytes were cut into frames.
                    let line = rest
                        .iter()
                        .position(|byte| matches!(byte, b'\n' | b'\r'))
                        .map_or(rest.len(), |at| at + 1);
                    reader.feed(&rest.split_to(line));
                    if tells(reader.answer()) {
                        return true;
                    }
                }
                held >= *cap
            }
            Self::Whole {
                reader,
                cap,
                stream,
                ..
            } => {
                if held > *cap {
                    return true;
                }
                reader.feed(data);
                let answer = reader.answer();
                // A terminal event ends a stream, whatever the connection does after it.
                *stream && (answer.complete || answer.error.is_some())
            }
        }
    }

    /// What was found. `front` are the frames that were read.
    pub(super) fn verdict<E>(
        &mut self,
        parts: &Parts,
        front: &VecDeque<Frame<Bytes>>,
        seen: &Seen<E>,
    ) -> Verdict {
        let judged =
            |document: Option<&[u8]>| judge(parts.status, &parts.headers, document, clock::wall());
        let (reader, validate) = match self {
            Self::Known(verdict) => return verdict.clone(),
            Self::Head => return judged(None),
            Self::Document { cap } => return judged(Some(&document(front, *cap))),
            Self::Content { reader, .. } => (reader, None),
            Self::Whole {
                reader, validate, ..
            } => (reader, Some(*validate)),
        };
        if matches!(seen, Seen::End) {
            reader.end();
        }
        let answer = reader.answer();
        match (seen, validate) {
            // Passed on for its size or its slowness: whoever reads it will see how it ends.
            (Seen::Enough, _) if answer.error.is_none() => return Verdict::ok(parts.status),
            _ => {}
        }
        if let Some(error) = &answer.error {
            return judge_in_band(parts.status, &parts.headers, error, clock::wall());
        }
        let broken = match (seen, validate) {
            (Seen::Enough, _) => false,
            (Seen::Error(_), _) => true,
            (Seen::End, Some(validate)) => validate && answer.readable && !answer.complete,
            // A stream that ends before its first content and without a terminal event, or without
            // a byte, has delivered nothing.
            (Seen::End, None) => {
                let nothing =
                    !answer.content_started && !answer.complete && answer.finish.is_none();
                (answer.readable && nothing) || !front.iter().any(Frame::is_data)
            }
        };
        if broken {
            Verdict::broken(parts.status)
        } else {
            Verdict::ok(parts.status)
        }
    }

    /// Whether the body is looked into.
    pub(super) fn looks(&self) -> bool {
        !matches!(self, Self::Known(_) | Self::Head)
    }

    /// What is left for a layer further out.
    pub(super) fn looked_into<E>(&self, seen: &Seen<E>) -> LookedInto {
        let to_its_end = match self {
            Self::Content { .. } => false,
            // One that was passed on for its slowness or its size may break yet.
            Self::Whole { reader, .. } if matches!(seen, Seen::Enough) => {
                reader.answer().complete || reader.answer().error.is_some()
            }
            _ => true,
        };
        LookedInto { to_its_end }
    }

    /// Whether content was seen.
    pub(super) fn content_started(&self) -> bool {
        match self {
            Self::Content { reader, .. } | Self::Whole { reader, .. } => {
                reader.answer().content_started
            }
            _ => false,
        }
    }

    /// Whether the timeout counts from one frame to the next.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole { .. })
    }
}

/// Whether the answers are documents or events. Speech is audio, to be heard as it comes.
fn holdable(endpoint: Endpoint) -> bool {
    !endpoint.deferred() && !matches!(endpoint, Endpoint::Other | Endpoint::Speech)
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.as_bytes().get(..KIND.len()))
        .is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
}

/// Whether a stream needs to be held no longer.
fn tells(answer: &Answer) -> bool {
    answer.content_started || answer.complete || answer.error.is_some() || !answer.readable
}

fn document(front: &VecDeque<Frame<Bytes>>, cap: usize) -> Vec<u8> {
    let mut document = Vec::new();
    for data in front.iter().filter_map(Frame::data_ref) {
        let room = cap - document.len();
        document.extend_from_slice(&data[..data.len().min(room)]);
    }
    document
}
