//! Server-sent events: an incremental scanner with bounded state.
//!
//! It accepts what providers send and what the standard allows: lines that end in LF, CRLF or CR, comments, several
//! `data` lines in one event, `data:` with and without a space, a byte-order mark, and a last event without its blank
//! line. Older llama.cpp servers send errors in a field of their own, `error: {…}`; it is taken for data.
//!
//! ```
//! use tollgate_core::wire::sse::Scanner;
//!
//! let mut scanner = Scanner::default();
//! let mut seen = Vec::new();
//! for chunk in ["event: a\nda", "ta: {}\n", "\n: ping\n\ndata: [DONE]"] {
//!     scanner.feed(chunk.as_bytes(), |event| seen.push((event.name.to_vec(), event.data.to_vec(), event.span)));
//! }
//! scanner.end(|event| seen.push((event.name.to_vec(), event.data.to_vec(), event.span)));
//! assert_eq!(seen[0], (b"a".to_vec(), b"{}".to_vec(), 0..19));
//! assert_eq!(seen[1], (b"".to_vec(), b"[DONE]".to_vec(), 27..39));
//! ```
use std::ops::Range;

use memchr::memchr2;

/// One event with data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The `event` field; empty if there is none.
    pub name: &'a [u8],
    /// The `data` lines, joined by LF.
    pub data: &'a [u8],
    /// The data came in a field called `error`.
    pub error_field: bool,
    /// Where the whole event stands in the stream, its blank line included.
    pub span: Range<u64>,
}

/// Cuts a stream into events.
///
/// An event that lies whole inside one chunk is handed out in place; only the parts of one that does not are copied. State is at
/// most one event. One that is over a cap is stepped over, and [`skipped`](Self::skipped) says so.
#[derive(Clone, Debug)]
pub struct Scanner {
    line_cap: usize,
    event_cap: usize,
    /// The bytes of the event under way, unless it is being stepped over.
    pending: Vec<u8>,
    fields: Fields,
    /// Offset of the event under way.
    start: u64,
    /// Bytes of it that have come.
    len: u64,
    /// Bytes of its current line that have come, terminator not counted.
    line_len: usize,
    /// The last byte was a CR: whether an LF belongs to it is not known yet.
    cr: bool,
    over: bool,
    skipped: bool,
}

/// Where the fields of an event stand, relative to its start.
#[derive(Clone, Debug, Default)]
struct Fields {
    name: Option<Range<usize>>,
    data: Option<Range<usize>>,
    /// There is more than one data line.
    more: bool,
    error: bool,
}

impl Default for Scanner {
    /// A scanner with caps of 8 MiB a line and an event.
    fn default() -> Self {
        Self::new(8 << 20, 8 << 20)
    }
}

impl Scanner {
    /// A scanner with these caps in bytes.
    #[must_use]
    pub fn new(line_cap: usize, event_cap: usize) -> Self {
        Self {
            line_cap,
            event_cap,
            pending: Vec::new(),
            fields: Fields::default(),
            start: 0,
            len: 0,
            line_len: 0,
            cr: false,
            over: false,
            skipped: false,
        }
    }

    /// The same for a stream whose first bytes, up to this offset, were blank and are not fed.
    pub(crate) fn starting_at(mut self, offset: u64) -> Self {
        self.start = offset;
        self
    }

    /// Offset of the end of the last whole event, that is, of the start of the one under way.
    #[must_use]
    pub fn boundary(&self) -> u64 {
        self.start
    }

    /// Whether an event was over a cap and stepped over.
    #[must_use]
    pub fn skipped(&self) -> bool {
        self.skipped
    }

    /// Scans the next bytes and calls `each` with every event that ends in them.
    pub fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(Event<'_>)) {
        let mut at = if self.len > 0 {
            self.resume(chunk, &mut each)
        } else {
            0
        };
        // The event begins in this chunk: it is read in place, as long as it ends here too.
        while at < chunk.len() {
            let event = &chunk[at..];
            let mut fields = Fields::default();
            let (mut line, mut over) = (0, false);
            let whole = loop {
                let Some(found) = memchr2(b'\n', b'\r', &event[line..]) else {
                    break None;
                };
                let end = line + found;
                let next = match (event[end], event.get(end + 1)) {
                    (b'\n', _) => end + 1,
                    (_, Some(b'\n')) => end + 2,
                    (_, Some(_)) => end + 1,
                    (_, None) => break None,
                };
                if end == line {
                    break Some(next);
                }
                over |= found > self.line_cap;
                if !over {
                    fields.line(event, line..end, self.start == 0);
                }
                line = next;
            };
            let Some(len) = whole else {
                self.keep(event, fields, line, over);
                return;
            };
            if over || len > self.event_cap {
                self.skipped = true;
            } else {
                fields.emit(&event[..len], self.start, &mut each);
            }
            self.start += len as u64;
            at += len;
        }
    }

    /// The stream has ended: a last event without its blank line counts.
    pub fn end(&mut self, mut each: impl FnMut(Event<'_>)) {
        if self.cr {
            self.cr = false;
            self.close_line(&mut each);
        }
        if self.len > 0 {
            if self.line_len > 0 && !self.over {
                let end = self.pending.len();
                self.fields
                    .line(&self.pending, end - self.line_len..end, self.start == 0);
            }
            self.close_event(&mut each);
        }
    }

    /// Puts the beginning of an event aside; `line` is where its last line begins.
    fn keep(&mut self, event: &[u8], fields: Fields, line: usize, over: bool) {
        self.len = event.len() as u64;
        self.cr = event.ends_with(b"\r");
        self.line_len = event.len() - line - usize::from(self.cr);
        self.fields = fields;
        self.over = over;
        self.check();
        if !self.over {
            self.pending.extend_from_slice(event);
        }
    }

    /// Goes on with an event that began in an earlier chunk; returns where it ends, or the chunk's length.
    fn resume(&mut self, chunk: &[u8], each: &mut impl FnMut(Event<'_>)) -> usize {
        let mut at = 0;
        while at < chunk.len() {
            if self.cr {
                self.cr = false;
                if chunk[at] == b'\n' {
                    self.push(&chunk[at..=at]);
                    at += 1;
                }
                if self.close_line(each) {
                    return at;
                }
                continue;
            }
            let rest = &chunk[at..];
            let Some(found) = memchr2(b'\n', b'\r', rest) else {
                self.push(rest);
                self.line_len += rest.len();
                self.check();
                return chunk.len();
            };
            self.push(&rest[..=found]);
            self.line_len += found;
            self.check();
            at += found + 1;
            if rest[found] == b'\r' {
                self.cr = true;
            } else if self.close_line(each) {
                return at;
            }
        }
        at
    }

    fn push(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if !self.over {
            self.pending.extend_from_slice(bytes);
        }
    }

    fn check(&mut self) {
        if self.line_len > self.line_cap || self.len > self.event_cap as u64 {
            self.over = true;
            self.pending = Vec::new();
        }
    }

    /// The line's terminator is whole; true if it was the blank one.
    fn close_line(&mut self, each: &mut impl FnMut(Event<'_>)) -> bool {
        if self.line_len == 0 {
            self.close_event(each);
            return true;
        }
        if !self.over {
            let terminator = if self.pending.ends_with(b"\r\n") {
                2
            } else {
                1
            };
            let end = self.pending.len() - terminator;
            self.fields
                .line(&self.pending, end - self.line_len..end, self.start == 0);
        }
        self.line_len = 0;
        false
    }

    fn close_event(&mut self, each: &mut impl FnMut(Event<'_>)) {
        // One over the cap by its last terminator only is not told apart from others.
        self.check();
        if self.over {
            self.skipped = true;
        } else {
            self.fields.emit(&self.pending, self.start, each);
        }
        self.start += self.len;
        self.len = 0;
        self.line_len = 0;
        self.over = false;
        self.pending.clear();
        self.fields = Fields::default();
    }
}

impl Fields {
    /// Takes note of one line; `first` says that the event is the stream's first.
    fn line(&mut self, event: &[u8], mut line: Range<usize>, first: bool) {
        if first && line.start == 0 && event.starts_with(b"\xef\xbb\xbf") {
            line.start = 3.min(line.end);
        }
        let text = &event[line.clone()];
        let (name, mut value) = match text {
            [b'd', b'a', b't', b'a', b':', ..] => (&text[..4], line.start + 5),
            _ => match memchr::memchr(b':', &text[..text.len().min(16)]) {
                Some(colon) => (&text[..colon], line.start + colon + 1),
                None => return,
            },
        };
        value += usize::from(event[value..line.end].starts_with(b" "));
        match name {
            b"data" | b"error" => {
                self.error |= name == b"error";
                if self.data.is_some() {
                    self.more = true;
                } else {
                    self.data = Some(value..line.end);
                }
            }
            b"event" => self.name = Some(value..line.end),
            _ => {}
        }
    }

    fn emit(&self, event: &[u8], start: u64, each: &mut impl FnMut(Event<'_>)) {
        let Some(data) = self.data.clone() else {
            return;
        };
        let name = self.name.clone().map_or(&event[..0], |name| &event[name]);
        let span = start..start + event.len() as u64;
        if !self.more {
            each(Event {
                name,
                data: &event[data],
                error_field: self.error,
                span,
            });
            return;
        }
        // Several data lines: legal, and rare enough to look for them once more.
        let mut joined: Option<Vec<u8>> = None;
        for line in event.split(|b| matches!(b, b'\n' | b'\r')) {
            let value = line
                .strip_prefix(b"data:")
                .or_else(|| line.strip_prefix(b"error:"));
            if let Some(value) = value {
                let value = value.strip_prefix(b" ").unwrap_or(value);
                match &mut joined {
                    None => joined = Some(value.to_vec()),
                    Some(joined) => {
                        joined.push(b'\n');
                        joined.extend_from_slice(value);
                    }
                }
            }
        }
        each(Event {
            name,
            data: joined.as_deref().unwrap_or_default(),
            error_field: self.error,
            span,
        });
    }
}

#[cfg(test)]
mod tests;
