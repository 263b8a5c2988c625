//! What one request asks for, read once and without keeping its text.
use std::fmt;

use http::{Method, Uri};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// The endpoints that the simulated provider serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Endpoint {
    /// OpenAI `/v1/chat/completions`.
    Chat,
    /// OpenAI `/v1/responses`.
    Responses,
    /// OpenAI `/v1/embeddings`.
    Embeddings,
    /// Anthropic `/v1/messages`.
    Messages,
    /// Any other path.
    Unknown,
}

impl Endpoint {
    /// By the end of the path, so that a prefix does no harm.
    pub(crate) fn of(method: &Method, uri: &Uri) -> Self {
        if method != Method::POST {
            return Self::Unknown;
        }
        let path = uri.path();
        if path.ends_with("/chat/completions") {
            Self::Chat
        } else if path.ends_with("/responses") {
            Self::Responses
        } else if path.ends_with("/embeddings") {
            Self::Embeddings
        } else if path.ends_with("/messages") {
            Self::Messages
        } else {
            Self::Unknown
        }
    }
}

/// The head of a request document and the size of its text.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// Answers asked for, at least 1.
    pub(crate) n: u64,
    pub(crate) cap: Option<u64>,
    pub(crate) base64: bool,
    pub(crate) text: Text,
}

/// The size of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    /// Characters in all.
    pub(crate) chars: u64,
    /// Σ ceil(characters / 4) over the inputs of an embedding.
    pub(crate) quarters: u64,
    /// Tokens given as ids.
    pub(crate) ids: u64,
    /// Messages, or inputs of an embedding.
    pub(crate) items: u64,
}

impl Text {
    fn add(&mut self, other: Self) {
        self.chars += other.chars;
        self.quarters += other.quarters;
        self.ids += other.ids;
        self.items += other.items;
    }
}

#[derive(Deserialize)]
struct Document {
    model: String,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    n: Number,
    #[serde(default)]
    max_tokens: Number,
    #[serde(default)]
    max_completion_tokens: Number,
    #[serde(default)]
    max_output_tokens: Number,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    messages: Prompt,
    #[serde(default)]
    input: Prompt,
    #[serde(default)]
    system: Prompt,
    #[serde(default)]
    instructions: Prompt,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

impl Ask {
    /// Reads a document; `Err` says in a word what is wrong with it, without quoting it.
    pub(crate) fn read(body: &[u8]) -> Result<Self, &'static str> {
        let document: Document = serde_json::from_slice(body).map_err(|error| {
            use serde_json::error::Category;
            match error.classify() {
                Category::Data => "a field is missing or has the wrong type",
                Category::Io | Category::Syntax | Category::Eof => "the body is not JSON",
            }
        })?;
        let mut text = document.messages.0;
        text.add(document.input.0);
        for beside in [document.system.0, document.instructions.0] {
            text.chars += beside.chars;
        }
        let caps = [
            document.max_tokens.0,
            document.max_completion_tokens.0,
            document.max_output_tokens.0,
        ];
        Ok(Self {
            model: document.model,
            stream: document.stream.unwrap_or(false),
            include_usage: document
                .stream_options
                .and_then(|options| options.include_usage)
                .unwrap_or(false),
            n: document.n.0.unwrap_or(1).clamp(1, 128),
            cap: caps.into_iter().flatten().max(),
            base64: document.encoding_format.as_deref() == Some("base64"),
            text,
        })
    }
}

/// A count as clients really send it: an integer, a float, a string, or null.
#[derive(Clone, Copy, Default)]
struct Number(Option<u64>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count")
            }

            fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
                Ok(Number(Some(value)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
                Ok(Number(u64::try_from(value).ok()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
                // A float cast saturates; a negative or a NaN becomes 0.
                Ok(Number(Some(value as u64)))
            }

            fn visit_str<E>(self, value: &str) -> Result<Number, E> {
                Ok(Number(value.trim().parse().ok()))
            }

            fn visit_unit<E>(self) -> Result<Number, E> {
                Ok(Number(None))
            }
        }

        from.deserialize_any(Reader)
    }
}

/// Counts the text of messages, inputs or a system prompt, whatever their form.
#[derive(Clone, Copy, Default)]
struct Prompt(Text);

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader { depth: 0 })
    }
}

/// The same, for what stands inside an array or an object.
struct Inner(Text);

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader { depth: 1 })
            .map(|prompt| Self(prompt.0))
    }
}

struct Reader {
    depth: u8,
}

impl<'de> Visitor<'de> for Reader {
    type Value = Prompt;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, or an array of it")
    }

    fn visit_str<E>(self, text: &str) -> Result<Prompt, E> {
        let chars = text.chars().count() as u64;
        Ok(Prompt(Text {
            chars,
            quarters: chars.div_ceil(4),
            ids: 0,
            items: 1,
        }))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Prompt, E> {
        Ok(Prompt(Text {
            ids: 1,
            ..Text::default()
        }))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Prompt, E> {
        Ok(Prompt::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Prompt, E> {
        Ok(Prompt::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Prompt, E> {
        Ok(Prompt::default())
    }

    fn visit_unit<E>(self) -> Result<Prompt, E> {
        Ok(Prompt::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
        let mut sum = Text::default();
        let mut items = 0;
        while let Some(Inner(text)) = seq.next_element()? {
            // Each element is one message or input, whatever it holds; an array of ids is one input.
            items += u64::from(text.items > 0);
            sum.add(text);
        }
        sum.items = if self.depth > 0 || (items == 0 && sum.ids > 0) {
            1
        } else {
            items
        };
        Ok(Prompt(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Prompt, A::Error> {
        let mut sum = Text::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Text => sum.add(map.next_value::<Inner>()?.0),
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        sum.items = 1;
        Ok(Prompt(sum))
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    #[serde(alias = "content", alias = "output", alias = "arguments")]
    Text,
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Ask {
        Ask::read(body.as_bytes()).unwrap()
    }

    #[test]
    fn counts_characters_of_text_and_not_of_the_rest() {
        let ask = read(
            r#"{"model":"m","messages":[
                {"role":"system","content":"äöü\n"},
                {"role":"user","content":[{"type":"text","text":"1234"},{"type":"image_url","image_url":{"url":"data:xyz"}}]}
            ],"tools":[{"name":"long name"}]}"#,
        );
        assert_eq!((ask.text.chars, ask.text.items), (8, 2));
    }

    #[test]
    fn an_embedding_input_may_be_a_text_texts_ids_or_arrays_of_ids() {
        let input = |json: &str| {
            let text = read(&format!(r#"{{"model":"m","input":{json}}}"#)).text;
            (text.items, text.quarters, text.ids)
        };
        assert_eq!(input(r#""12345""#), (1, 2, 0));
        assert_eq!(input(r#"["12345","1"]"#), (2, 3, 0));
        assert_eq!(input("[1,2,3]"), (1, 0, 3));
        assert_eq!(input("[[1,2],[3]]"), (2, 0, 3));
    }

    #[test]
    fn caps_come_in_many_spellings_and_types() {
        for (json, cap) in [
            (r#""max_tokens":7"#, Some(7)),
            (r#""max_tokens":0"#, Some(0)),
            (r#""max_completion_tokens":7.0"#, Some(7)),
            (r#""max_output_tokens":"7""#, Some(7)),
            (r#""max_tokens":null"#, None),
            (r#""max_tokens":-1"#, None),
            (r#""max_tokens":1,"max_completion_tokens":9"#, Some(9)),
        ] {
            assert_eq!(
                read(&format!(r#"{{"model":"m",{json}}}"#)).cap,
                cap,
                "{json}"
            );
        }
    }

    #[test]
    fn a_broken_document_is_an_error_that_quotes_nothing() {
        assert_eq!(Ask::read(b"{\"model").unwrap_err(), "the body is not JSON");
        assert!(
            Ask::read(b"{\"messages\":[]}")
                .unwrap_err()
                .contains("missing")
        );
    }
}
