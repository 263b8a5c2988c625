//! A forward cursor over JSON bytes: finds values and their spans without building a tree.
//!
//! Two things rule out a ready-made parser here. A rewritten request must keep every byte outside the one value that
//! changes, so spans are needed; and a tap on a stream sees millions of small documents of which it wants three
//! fields, at more than a gigabyte a second. The cursor is lenient (it does not validate what it skips), never
//! recurses (a nesting bomb costs linear time and no stack) and never copies, unless a string has escapes.
use std::{borrow::Cow, ops::Range};

use memchr::{memchr, memchr2};

/// The bytes are no JSON document, or not a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

pub(crate) type Result<T = ()> = std::result::Result<T, Malformed>;

/// What the next value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// A string met on a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word<'a> {
    Key(Text<'a>),
    Value(Text<'a>),
}

/// A position in a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A string as it stands in the document, without its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Where the cursor stands.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn skip_blank(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// Nothing but white space is left.
    pub(crate) fn at_end(&mut self) -> bool {
        self.skip_blank();
        self.at >= self.bytes.len()
    }

    /// The kind of the next value; the cursor stands on its first byte then.
    pub(crate) fn kind(&mut self) -> Result<Kind> {
        self.skip_blank();
        match self.bytes.get(self.at) {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(Malformed),
        }
    }

    /// Visits the members of an object; skips a value of another kind. `member` must take its value whole.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &[u8]) -> Result,
    ) -> Result<bool> {
        if self.kind()? != Kind::Object {
            self.skip()?;
            return Ok(false);
        }
        self.at += 1;
        if self.take(b'}') {
            return Ok(true);
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            if key.escaped {
                member(self, key.to_str().as_bytes())?;
            } else {
                member(self, key.raw)?;
            }
            if self.take(b',') {
                continue;
            }
            self.expect(b'}')?;
            return Ok(true);
        }
    }

    /// Visits the items of an array; skips a value of another kind. `item` must take its value whole.
    pub(crate) fn array(&mut self, mut item: impl FnMut(&mut Self) -> Result) -> Result<bool> {
        if self.kind()? != Kind::Array {
            self.skip()?;
            return Ok(false);
        }
        self.at += 1;
        if self.take(b']') {
            return Ok(true);
        }
        loop {
            item(self)?;
            if self.take(b',') {
                continue;
            }
            self.expect(b']')?;
            return Ok(true);
        }
    }

    /// Takes a string; `None` (and skips) if the value is of another kind.
    pub(crate) fn text(&mut self) -> Result<Option<Text<'a>>> {
        if self.kind()? == Kind::String {
            self.string().map(Some)
        } else {
            self.skip()?;
            Ok(None)
        }
    }

    /// Takes a value that is a count: a number that is a whole one, not negative and below 2⁵³.
    pub(crate) fn count(&mut self) -> Result<Option<u64>> {
        if self.kind()? != Kind::Number {
            self.skip()?;
            return Ok(None);
        }
        let raw = self.scalar();
        Ok(whole(raw))
    }

    /// Takes a number that may also stand in a string, as a count: rounded up.
    pub(crate) fn loose_count(&mut self) -> Result<Option<u64>> {
        let up = |raw: &[u8]| {
            whole(raw).or_else(|| {
                let (integer, fraction) = raw.split_at(raw.iter().position(|b| *b == b'.')?);
                let digits = fraction[1..].iter().all(u8::is_ascii_digit);
                whole(integer).filter(|_| digits).map(|n| n + 1)
            })
        };
        match self.kind()? {
            Kind::String => Ok(up(self.string()?.to_str().trim().as_bytes())),
            Kind::Number => Ok(up(self.scalar())),
            _ => self.skip().map(|_| None),
        }
    }

    /// Takes a boolean; `None` (and skips) if the value is of another kind.
    pub(crate) fn boolean(&mut self) -> Result<Option<bool>> {
        if self.kind()? != Kind::Bool {
            self.skip()?;
            return Ok(None);
        }
        match self.scalar() {
            b"true" => Ok(Some(true)),
            b"false" => Ok(Some(false)),
            _ => Err(Malformed),
        }
    }

    /// Takes a number, a boolean or null as its bytes.
    pub(crate) fn scalar(&mut self) -> &'a [u8] {
        let start = self.at;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let len = rest
            .iter()
            .position(|byte| {
                matches!(
                    byte,
                    b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t' | b'"' | b'{' | b'[' | b':'
                )
            })
            .unwrap_or(rest.len());
        self.at += len;
        &self.bytes[start..self.at]
    }

    /// Skips a value of any kind and returns its span.
    pub(crate) fn skip(&mut self) -> Result<Range<usize>> {
        let kind = self.kind()?;
        let start = self.at;
        match kind {
            Kind::String => {
                self.string()?;
            }
            Kind::Number | Kind::Bool | Kind::Null => {
                self.scalar();
            }
            Kind::Object | Kind::Array => {
                let mut depth = 0usize;
                loop {
                    self.at = self.punctuation()?;
                    match self.bytes[self.at] {
                        b'"' => {
                            self.string()?;
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        _ => depth -= 1,
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
        Ok(start..self.at)
    }

    /// The next quote, brace or bracket.
    fn punctuation(&self) -> Result<usize> {
        let mut at = self.at;
        while let Some(eight) = self.bytes.get(at..at + 8) {
            // Bit 5 is all that tells a bracket from a brace.
            let found = marks(eight, |x| {
                let lower = x | repeat(0x20);
                is(x, b'"') | is(lower, b'{') | is(lower, b'}')
            });
            if let Some(found) = found {
                return Ok(at + found);
            }
            at += 8;
        }
        let rest = self.bytes.get(at..).unwrap_or_default();
        rest.iter()
            .position(|b| matches!(b, b'"' | b'{' | b'}' | b'[' | b']'))
            .map(|found| at + found)
            .ok_or(Malformed)
    }

    /// Calls `each` with every key and every string value in the next value, in order, at any depth, and
    /// how deep it stands: the members of the value itself at 1.
    pub(crate) fn strings(&mut self, mut each: impl FnMut(Word<'a>, usize)) -> Result {
        let kind = self.kind()?;
        if !matches!(kind, Kind::Object | Kind::Array | Kind::String) {
            self.skip()?;
            return Ok(());
        }
        let mut depth = 0usize;
        loop {
            self.at = self.punctuation()?;
            match self.bytes[self.at] {
                b'"' => {
                    let text = self.string()?;
                    self.skip_blank();
                    // A string before a colon is a key.
                    let word = if self.bytes.get(self.at) == Some(&b':') {
                        Word::Key(text)
                    } else {
                        Word::Value(text)
                    };
                    each(word, depth);
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                _ => {
                    depth -= 1;
                    self.at += 1;
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Takes one byte of punctuation, if it is next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        self.skip_blank();
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    /// Takes one byte of punctuation.
    pub(crate) fn expect(&mut self, byte: u8) -> Result {
        if self.take(byte) {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// Takes a string; the cursor must stand before its quote.
    pub(crate) fn string(&mut self) -> Result<Text<'a>> {
        self.expect(b'"')?;
        self.inside_string(self.at)
    }

    /// Takes a string whose quote stood just before `start`.
    pub(crate) fn inside_string(&mut self, start: usize) -> Result<Text<'a>> {
        let mut at = start;
        let mut escaped = false;
        // Most strings are keys and short words: words of eight beat the set-up of a vector search.
        let near = start + 32;
        loop {
            let found = match self.bytes.get(at..at + 8) {
                Some(eight) if at < near => match marks(eight, |x| is(x, b'"') | is(x, b'\\')) {
                    Some(found) => found,
                    None => {
                        at += 8;
                        continue;
                    }
                },
                _ => {
                    let rest = self.bytes.get(at..).ok_or(Malformed)?;
                    memchr2(b'"', b'\\', rest).ok_or(Malformed)?
                }
            };
            at += found;
            if self.bytes[at] == b'"' {
                self.at = at + 1;
                let raw = &self.bytes[start..at];
                return Ok(Text { raw, escaped });
            }
            escaped = true;
            at += 2;
        }
    }
}

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Marks the high bit of the bytes that are `byte`; a mark above the lowest one may be false.
const fn is(x: u64, byte: u8) -> u64 {
    let x = x ^ repeat(byte);
    x.wrapping_sub(repeat(1)) & !x & repeat(0x80)
}

/// The first marked byte of eight.
fn marks(eight: &[u8], mark: impl Fn(u64) -> u64) -> Option<usize> {
    let x = u64::from_le_bytes(eight.try_into().ok()?);
    let marked = mark(x);
    (marked != 0).then(|| marked.trailing_zeros() as usize / 8)
}

impl<'a> Text<'a> {
    /// The bytes as they stand in the document.
    pub(crate) fn raw(self) -> &'a [u8] {
        self.raw
    }

    pub(crate) fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// The string; what is no UTF-8 or no proper escape becomes U+FFFD.
    pub(crate) fn to_str(self) -> Cow<'a, str> {
        if self.escaped {
            Cow::Owned(unescape(self.raw))
        } else {
            String::from_utf8_lossy(self.raw)
        }
    }

    /// Characters, escapes counted as what they stand for.
    pub(crate) fn chars(self) -> u64 {
        let leading = |bytes: &[u8]| {
            let mut n = 0u64;
            for piece in bytes.chunks(64) {
                // Continuation bytes are 0x80 to 0xbf. Short pieces, so that the compiler counts in bytes.
                n += u64::from(piece.iter().map(|b| u8::from(*b as i8 >= -64)).sum::<u8>());
            }
            n
        };
        if !self.escaped {
            return leading(self.raw);
        }
        let (mut n, mut rest) = (0, self.raw);
        while let Some(i) = memchr(b'\\', rest) {
            n += leading(&rest[..i]);
            let unicode = rest.get(i + 1) == Some(&b'u');
            // The low half of a pair is no character of its own.
            let low = unicode
                && matches!(rest.get(i + 2), Some(b'd' | b'D'))
                && matches!(rest.get(i + 3), Some(b'c'..=b'f' | b'C'..=b'F'));
            n += u64::from(!low);
            rest = rest
                .get(i + if unicode { 6 } else { 2 }..)
                .unwrap_or_default();
        }
        n + leading(rest)
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        if self.escaped {
            self.to_str() == other
        } else {
            self.raw == other.as_bytes()
        }
    }
}

fn unescape(raw: &[u8]) -> String {
    let (mut out, mut rest) = (String::with_capacity(raw.len()), raw);
    while let Some(i) = memchr(b'\\', rest) {
        out.push_str(&String::from_utf8_lossy(&rest[..i]));
        let (mut taken, c) = match rest.get(i + 1) {
            Some(b'"') => (2, '"'),
            Some(b'\\') => (2, '\\'),
            Some(b'/') => (2, '/'),
            Some(b'b') => (2, '\u{8}'),
            Some(b'f') => (2, '\u{c}'),
            Some(b'n') => (2, '\n'),
            Some(b'r') => (2, '\r'),
            Some(b't') => (2, '\t'),
            Some(b'u') => {
                let first = hex4(rest, i + 2);
                match first {
                    Some(high @ 0xd800..=0xdbff) => match hex4(rest, i + 8) {
                        Some(low @ 0xdc00..=0xdfff) if rest.get(i + 6..i + 8) == Some(b"\\u") => {
                            let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                            (
                                12,
                                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
                            )
                        }
                        _ => (6, char::REPLACEMENT_CHARACTER),
                    },
                    Some(code) => (
                        6,
                        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
                    ),
                    None => (2, char::REPLACEMENT_CHARACTER),
                }
            }
            _ => (2, char::REPLACEMENT_CHARACTER),
        };
        out.push(c);
        taken += i;
        rest = rest.get(taken..).unwrap_or_default();
    }
    out.push_str(&String::from_utf8_lossy(rest));
    out
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits
        .iter()
        .try_fold(0, |n, b| Some(n * 16 + char::from(*b).to_digit(16)?))
}

/// A count in the spelling of JSON, or `None`: "12", "12.0", "1e3", but neither "-1" nor "1.5" nor more than 2⁵³.
pub(crate) fn whole(raw: &[u8]) -> Option<u64> {
    const MOST: u64 = 1 << 53;
    if !raw.is_empty() && raw.len() <= 16 && raw.iter().all(u8::is_ascii_digit) {
        let n = raw.iter().fold(0, |n, b| n * 10 + u64::from(b - b'0'));
        return (n <= MOST).then_some(n);
    }
    if raw.len() > 32 || !raw.first()?.is_ascii_digit() {
        return None;
    }
    let n: f64 = std::str::from_utf8(raw).ok()?.parse().ok()?;
    (n.fract() == 0.0 && (0.0..=MOST as f64).contains(&n)).then_some(n as u64)
}

#[cfg(test)]
mod tests;
