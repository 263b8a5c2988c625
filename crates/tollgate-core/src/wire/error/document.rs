//! The fields of an error document, wherever they stand.
use std::{borrow::Cow, time::Duration};

use super::{Code, LONGEST_MESSAGE, LONGEST_WORD};
use crate::wire::{
    json::{Cursor, Kind, Result, Text},
    time,
};

/// The parts of an error document that tell errors apart.
#[derive(Debug, Default)]
pub(crate) struct Document<'a> {
    pub(crate) kind: Option<Cow<'a, str>>,
    pub(crate) code: Option<Code>,
    pub(crate) status_word: Option<Cow<'a, str>>,
    pub(crate) param: Option<Cow<'a, str>>,
    /// Codes deeper inside: reasons, inner errors, upstream types.
    pub(crate) inner: Vec<Cow<'a, str>>,
    /// The text in lower case.
    pub(crate) message: String,
    /// A status that the document repeats.
    pub(crate) status: Option<u16>,
    /// Google's RetryInfo.
    pub(crate) delay: Option<Duration>,
    /// `X-RateLimit-Reset` in the metadata, milliseconds since 1970.
    pub(crate) reset: Option<i64>,
    /// Something in the document was an error at all.
    pub(crate) found: bool,
    /// It calls itself an error, so that it is one under status 200 too.
    pub(crate) in_band: bool,
}

impl<'a> Document<'a> {
    /// A root object: the error inside of it, or the error itself.
    pub(super) fn member_of_root(&mut self, c: &mut Cursor<'a>) -> Result {
        c.object(|c, key| match key {
            b"error" => self.error(c),
            // Responses API: a failed response inside an event.
            b"response" => c
                .object(|c, key| match key {
                    b"error" => self.error(c),
                    _ => c.skip().map(drop),
                })
                .map(drop),
            // Cohere: the last event of a stream that failed.
            b"delta" => c
                .object(|c, key| match key {
                    b"error" => self.error(c),
                    _ => c.skip().map(drop),
                })
                .map(drop),
            b"detail" => self.detail(c),
            b"object" => {
                let is_error = c.text()?.is_some_and(|t| t == *"error");
                self.found |= is_error;
                self.in_band |= is_error;
                Ok(())
            }
            _ => self.field(c, key),
        })?;
        Ok(())
    }

    /// The value of `error`: an object, a sentence or an array of sentences.
    pub(crate) fn error(&mut self, c: &mut Cursor<'a>) -> Result {
        match c.kind()? {
            Kind::Object => {
                // What the root said of itself ("type": "error") gives way.
                self.kind = None;
                c.object(|c, key| {
                    // A job's `"error": {}` is none.
                    self.found = true;
                    self.in_band = true;
                    self.field(c, key)
                })
                .map(drop)
            }
            Kind::String => {
                let text = c.string()?;
                self.found |= !text.is_empty();
                self.in_band |= !text.is_empty();
                self.say(text);
                Ok(())
            }
            Kind::Array => c
                .array(|c| {
                    if let Some(text) = c.text()? {
                        self.found = true;
                        self.in_band = true;
                        self.say(text);
                    }
                    Ok(())
                })
                .map(drop),
            _ => c.skip().map(drop),
        }
    }

    fn field(&mut self, c: &mut Cursor<'a>, key: &[u8]) -> Result {
        match key {
            b"message" | b"Message" | b"error_message" => {
                if let Some(text) = c.text()? {
                    self.found = true;
                    self.say(text);
                }
            }
            b"type" | b"error_type" | b"__type" => {
                let text = c.text()?;
                let is_error = text.is_some_and(|t| t == *"error");
                self.found |= is_error;
                self.in_band |= is_error;
                // The root's "type" comes after "error" in some recordings.
                if self.kind.is_none() {
                    self.kind = word(text).filter(|w| w != "error");
                }
            }
            b"code" => match c.kind()? {
                Kind::Number => {
                    let raw = c.scalar();
                    let number = std::str::from_utf8(raw).ok().and_then(|n| n.parse().ok());
                    if let Some(number) = number {
                        self.code.get_or_insert(Code::Number(number));
                        self.status = self.status.or(u16::try_from(number).ok());
                    }
                }
                _ => {
                    if let Some(text) = word(c.text()?) {
                        self.code.get_or_insert_with(|| Code::Word(text.into()));
                    }
                }
            },
            b"status" => match c.kind()? {
                Kind::String => self.status_word = word(Some(c.string()?)),
                _ => self.repeated_status(c)?,
            },
            b"status_code" | b"raw_status_code" | b"statusCode" => self.repeated_status(c)?,
            b"param" => self.param = word(c.text()?),
            b"details" => self.details(c)?,
            b"metadata" => self.metadata(c)?,
            b"innererror" | b"inner_error" => self.inner_code(c)?,
            // A sentence inside of the error.
            b"error" => {
                if let Some(text) = c.text()? {
                    self.say(text);
                }
            }
            _ => {
                c.skip()?;
            }
        }
        Ok(())
    }

    fn repeated_status(&mut self, c: &mut Cursor<'a>) -> Result {
        if let Some(status) = c.loose_count()? {
            self.status = self.status.or(u16::try_from(status).ok());
        }
        Ok(())
    }

    /// FastAPI's `detail`: a sentence, or an array of complaints.
    fn detail(&mut self, c: &mut Cursor<'a>) -> Result {
        match c.kind()? {
            Kind::String => {
                self.found = true;
                let text = c.string()?;
                self.say(text);
                Ok(())
            }
            Kind::Array => c
                .array(|c| {
                    c.object(|c, key| match key {
                        b"msg" => {
                            if let Some(text) = c.text()? {
                                self.found = true;
                                self.say(text);
                            }
                            Ok(())
                        }
                        _ => c.skip().map(drop),
                    })
                    .map(drop)
                })
                .map(drop),
            _ => c.skip().map(drop),
        }
    }

    /// Google's list of typed details; Anthropic's object with a finer code; Azure's sentence.
    fn details(&mut self, c: &mut Cursor<'a>) -> Result {
        if c.kind()? == Kind::Object {
            return c
                .object(|c, key| match key {
                    b"error_code" | b"reason" => {
                        self.inner.extend(word(c.text()?));
                        Ok(())
                    }
                    _ => c.skip().map(drop),
                })
                .map(drop);
        }
        c.array(|c| {
            c.object(|c, key| match key {
                b"retryDelay" => {
                    if let Some(text) = c.text()? {
                        self.delay = self.delay.or_else(|| time::go_duration(&text.to_str()));
                    }
                    Ok(())
                }
                b"reason" => {
                    self.inner.extend(word(c.text()?));
                    Ok(())
                }
                b"violations" => c
                    .array(|c| {
                        c.object(|c, key| match key {
                            b"quotaId" => {
                                if self.inner.len() < 16 {
                                    self.inner.extend(word(c.text()?));
                                    return Ok(());
                                }
                                c.skip().map(drop)
                            }
                            _ => c.skip().map(drop),
                        })
                        .map(drop)
                    })
                    .map(drop),
                _ => c.skip().map(drop),
            })
            .map(drop)
        })
        .map(drop)
    }

    /// OpenRouter's: what the upstream said, and the headers once more.
    fn metadata(&mut self, c: &mut Cursor<'a>) -> Result {
        c.object(|c, key| match key {
            b"raw" => {
                if let Some(text) = c.text()? {
                    self.say(text);
                }
                Ok(())
            }
            b"error_type" | b"limit_source" => {
                self.inner.extend(word(c.text()?));
                Ok(())
            }
            b"headers" => c
                .object(|c, key| {
                    if key.eq_ignore_ascii_case(b"x-ratelimit-reset") {
                        self.reset = c.loose_count()?.and_then(|n| i64::try_from(n).ok());
                        Ok(())
                    } else {
                        c.skip().map(drop)
                    }
                })
                .map(drop),
            _ => c.skip().map(drop),
        })
        .map(drop)
    }

    fn inner_code(&mut self, c: &mut Cursor<'a>) -> Result {
        c.object(|c, key| match key {
            b"code" => {
                self.inner.extend(word(c.text()?));
                Ok(())
            }
            _ => c.skip().map(drop),
        })
        .map(drop)
    }

    pub(crate) fn say(&mut self, text: Text<'_>) {
        let mut room = LONGEST_MESSAGE.saturating_sub(self.message.len());
        if room == 0 {
            return;
        }
        if !self.message.is_empty() {
            self.message.push('\n');
        }
        for c in text.to_str().chars() {
            room = match room.checked_sub(c.len_utf8()) {
                Some(left) => left,
                None => break,
            };
            self.message.push(c.to_ascii_lowercase());
        }
    }
}

fn word(text: Option<Text<'_>>) -> Option<Cow<'_, str>> {
    let text = text.filter(|t| !t.is_empty())?.to_str();
    if text.len() <= LONGEST_WORD {
        return Some(text);
    }
    Some(Cow::Owned(text.chars().take(LONGEST_WORD / 4).collect()))
}
