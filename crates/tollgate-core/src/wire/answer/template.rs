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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{prompt::Endpoint, usage::tally::Tally};

    fn read(data: &str) -> Option<(Said<'_>, Tally)> {
        let mut said = Said {
            event: true,
            ..Said::default()
        };
        let mut tally = Tally::default();
        said.read(
            Endpoint::ChatCompletions,
            &mut Cursor::new(data.as_bytes()),
            &mut tally,
        )
        .ok()?;
        Some((said, tally))
    }

    /// All that an event says beside its text, padding and number.
    fn rest(said: &Said<'_>, tally: &Tally) -> String {
        let word = |text: Option<Text<'_>>| text.map(|t| t.to_str().into_owned());
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {tally:?}",
            word(said.model),
            word(said.id),
            word(said.tier),
            word(said.kind),
            said.finish.is_some(),
            word(said.status),
            (said.error, said.no_choices, said.last, said.usage),
            said.texts,
        )
    }

    fn event() -> impl Strategy<Value = String> {
        let text = prop_oneof![Just(String::new()), "[a-c]{1,3}", any::<String>()];
        let shape = prop::sample::select(vec![
            "{\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":T},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":P}",
            "{\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":T},\"finish_reason\":P}]}",
            "{\"model\":\"m\",\"choices\":[{\"index\":N,\"delta\":{\"content\":T}}]}",
            "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":T}}]}}],\"usage\":{\"prompt_tokens\":N}}",
            "{\"type\":\"response.output_text.delta\",\"delta\":T,\"sequence_number\":N}",
            "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":T}  }",
            "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":T}}",
            "{\"model\":P,\"choices\":[{\"delta\":{\"content\":T,\"reasoning\":T}}]}",
            "{\"error\":P,\"choices\":[{\"delta\":{\"content\":T}}]}",
            "{\"text\":T,\"is_finished\":false}",
            "{\"text\":T,\"is_finished\":true}",
            "{\"p\":P,\"contentBlockDelta\":{\"delta\":{\"text\":T}}}",
        ]);
        (shape, text.clone(), text, 0u32..12).prop_map(|(shape, text, padding, number)| {
            let json = |text: String| serde_json::Value::from(text).to_string();
            shape
                .replace('N', &number.to_string())
                .replace('P', &json(padding.replace(['T', 'P', 'N'], "_")))
                .replace('T', &json(text))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]
        #[test]
        fn an_event_that_is_recognised_says_what_reading_it_says(first in event(), second in event(), cut: prop::sample::Index) {
            let (said, tally) = read(&first).unwrap();
            let mut template = Template::default();
            prop_assume!(Template::fits(&said));
            prop_assert!(!said.last && said.finish.is_none() && !said.error);
            template.set(b"", first.as_bytes(), &said);
            prop_assert!(template.text(b"other", first.as_bytes()).is_none());
            prop_assert!(template.text(b"", first.as_bytes()).is_some());
            prop_assert!(template.text(b"", &second.as_bytes()[..cut.index(second.len())]).is_none());
            if let Some(text) = template.text(b"", second.as_bytes()) {
                let (full, full_tally) = read(&second).unwrap();
                prop_assert_eq!(rest(&full, &full_tally), rest(&said, &tally));
                prop_assert_eq!(full.text.unwrap().raw(), text.raw());
                prop_assert_eq!(full.chars, text.chars());
            }
        }
    }

    #[test]
    fn most_events_of_a_stream_are_recognised() {
        for (one, other) in [
            (
                r#"{"id":"1","choices":[{"delta":{"content":"a"}}],"obfuscation":"xyz"}"#,
                r#"{"id":"1","choices":[{"delta":{"content":"\"bc"}}],"obfuscation":"k"}"#,
            ),
            (
                r#"{"type":"response.output_text.delta","sequence_number":9,"delta":"a"}"#,
                r#"{"type":"response.output_text.delta","sequence_number":10,"delta":""}"#,
            ),
            (
                r#"{"type":"content_block_delta","delta":{"text":"a"}   }"#,
                r#"{"type":"content_block_delta","delta":{"text":"b"}}"#,
            ),
        ] {
            let (said, _) = read(one).unwrap();
            let mut template = Template::default();
            template.set(b"", one.as_bytes(), &said);
            assert!(template.text(b"", other.as_bytes()).is_some(), "{other}");
        }
    }
}
