//! Error documents of all shapes, and what they mean.
use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode};

use super::{
    json::{Cursor, Kind},
    limits::Dimension,
    outcome::ErrorClass,
    retry_after::{RetryAfter, Source},
    time,
};

mod classify;
mod document;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use document::Document;

/// An error's code as sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// A JSON number.
    Number(i64),
    /// A JSON string.
    Word(Box<str>),
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Word(word) => word.fmt(f),
        }
    }
}

/// An error as a provider stated it, without its text, which may quote the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WireError {
    /// `type`, as sent.
    pub kind: Option<Box<str>>,
    /// `code`, as sent.
    pub code: Option<Code>,
    /// Google's status word.
    pub status_word: Option<Box<str>>,
    /// What it means.
    pub class: ErrorClass,
    /// Which limit refused, if the text or the type names it.
    pub what: Option<Dimension>,
    /// The wait that the document states.
    pub retry_after: Option<RetryAfter>,
}

/// Longest type, code or word that is kept.
const LONGEST_WORD: usize = 200;
/// As much of the text as is looked at.
const LONGEST_MESSAGE: usize = 4096;

/// What the head of the answer says about an error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'h> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'h HeaderMap,
    /// The time of receipt, for dates when the answer has none of its own.
    pub(crate) now: Option<SystemTime>,
}

/// Reads an error document of any shape; `None` if it is no JSON, or JSON without an error.
pub(crate) fn read(document: &[u8]) -> Option<Document<'_>> {
    let mut cursor = Cursor::new(document);
    let mut out = Document::default();
    let whole = match cursor.kind().ok()? {
        // Gemini wraps the error in an array of one on some paths.
        Kind::Array => cursor.array(|c| out.member_of_root(c)),
        Kind::Object => out.member_of_root(&mut cursor).map(|()| true),
        _ => return None,
    };
    // What was read before a broken or cut place is good enough.
    (whole.is_ok() || out.found)
        .then_some(out)
        .filter(|d| d.found)
}

impl Document<'_> {
    /// The wait that the document states, in the order of belief.
    pub(crate) fn retry_after(
        &self,
        headers: &HeaderMap,
        now: Option<SystemTime>,
    ) -> Option<RetryAfter> {
        let stated = |wait: Duration, source| RetryAfter {
            wait: wait.min(time::LONGEST),
            source,
        };
        if let Some(delay) = self.delay {
            return Some(stated(delay, Source::RetryInfo));
        }
        let from = || time::date(headers).or(now).map(time::since_epoch);
        if let Some((reset, from)) = self.reset.and_then(|reset| Some((reset, from()?))) {
            // Seconds since 1970 are below this number for the next three thousand years.
            let at = if reset < 100_000_000_000 {
                reset.saturating_mul(1_000)
            } else {
                reset
            };
            let ms = at.saturating_sub(from).max(0).unsigned_abs();
            return Some(stated(Duration::from_millis(ms), Source::RateLimitReset));
        }
        text::wait(&self.message).map(|wait| stated(wait, Source::Text))
    }

    /// What the error means.
    pub(crate) fn judge(&self, head: Head<'_>) -> WireError {
        let class = classify::classify(self, head);
        let own = |word: &Option<Cow<'_, str>>| word.as_deref().map(Box::from);
        WireError {
            kind: own(&self.kind),
            code: self.code.clone(),
            status_word: own(&self.status_word),
            class,
            what: match class {
                ErrorClass::RateLimited | ErrorClass::LimitTooSmall => text::dimension(self),
                _ => None,
            },
            retry_after: match class {
                ErrorClass::RateLimited
                | ErrorClass::Overloaded
                | ErrorClass::ServerError
                | ErrorClass::QuotaExhausted
                | ErrorClass::Timeout => self.retry_after(head.headers, head.now),
                _ => None,
            },
        }
    }
}

/// An error whose body is no document: judged by status, headers and plain text.
pub(crate) fn plain(body: &[u8]) -> Document<'static> {
    let mut out = Document::default();
    let text = &body[..body.len().min(LONGEST_MESSAGE)];
    out.message = String::from_utf8_lossy(text).to_ascii_lowercase();
    // A page is written for people: its words ("rate", "model") mean nothing.
    if out.message.trim_start().starts_with('<') {
        out.message.clear();
    }
    out
}
