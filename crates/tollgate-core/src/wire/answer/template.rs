//! Recognises an event that differs from an earlier one in its text only.
//!
//! Of a thousand events of a stream all but a handful are alike to the byte, except for the piece of text, some padding and a
//! running number. Whatever such an event says, but for the text, the earlier one has said; comparing bytes is several times
//! as fast as reading a document.
use crate::wire::{
    json::{Cursor, Text},
    provider::Said,
};

/// An event that was read, and where later ones may differ.
#[derive(Debug, Default)]
pub(super) struct Template {
    name: Vec<u8>,
    data: Vec<u8>,
    holes: Vec<Hole>,
    /// Nothing but punctuation comes after the last hole, so white space there means nothing.
    loose_tail: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hole {
    start: usize,
    end: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Text,
    Padding,
    Number,
}

impl Template {
    /// Whether the event says nothing but one piece of text.
    pub(super) fn fits(said: &Said<'_>) -> bool {
        said.texts == 1
            && said.finish.is_none()
            && said.status.is_none()
            && !said.last
            && !said.error
            && !said.no_choices
    }

    /// Takes over an event that [`fits`](Self::fits).
    pub(super) fn set(&mut self, name: &[u8], data: &[u8], said: &Said<'_>) {
        self.holes.clear();
        let found = [
            (said.text.map(Text::raw), Kind::Text),
            (said.padding.map(Text::raw), Kind::Padding),
            (said.number, Kind::Number),
        ];
        for (part, kind) in found {
            let Some(part) = part else { continue };
            // Where the part stands in the data that it was read from.
            let start = (part.as_ptr() as usize).wrapping_sub(data.as_ptr() as usize);
            let end = start.saturating_add(part.len());
            if data.get(start..end) == Some(part) {
                self.holes.push(Hole { start, end, kind });
            }
        }
        self.holes.sort_unstable();
        self.name.clear();
        self.name.extend_from_slice(name);
        self.data.clear();
        self.data.extend_from_slice(data);
        let tail = self.holes.last().map_or(0, |hole| hole.end);
        // After a text, its closing quote; then there must be no other string.
        self.loose_tail = !data[tail..].iter().skip(1).any(|b| *b == b'"');
    }

    /// The text of an event that is like this one in everything else.
    pub(super) fn text<'a>(&self, name: &[u8], data: &'a [u8]) -> Option<Text<'a>> {
        if self.holes.is_empty() || name != self.name {
            return None;
        }
        let (mut mine, mut theirs) = (0, 0);
        let mut found = None;
        for hole in &self.holes {
            let same = &self.data[mine..hole.start];
            if data.get(theirs..theirs + same.len())? != same {
                return None;
            }
            theirs += same.len();
            if hole.kind == Kind::Number {
                let digits = data[theirs..].iter().take_while(|b| b.is_ascii_digit());
                theirs += digits.count();
            } else {
                let text = Cursor::new(data).inside_string(theirs).ok()?;
                theirs += text.raw().len();
                if hole.kind == Kind::Text {
                    found = Some(text);
                }
            }
            mine = hole.end;
        }
        let (mine, theirs) = (&self.data[mine..], &data[theirs..]);
        let blank = |b: &&u8| !b.is_ascii_whitespace();
        let same = mine == theirs
            || self.loose_tail && mine.iter().filter(blank).eq(theirs.iter().filter(blank));
        found.filter(|_| same)
    }
}
