//! Reads the input row by row, no earlier than a row is wanted, and tells what each asks for.
use std::io::{self, BufRead};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tollgate::wire::prompt::{remove_value, replace_value};

use crate::json;

/// The longest line that is read as a row. Longer than what the layers would keep for a retry.
const LINE_MAX: usize = 32 << 20;

/// A row of the file, ready to be sent.
#[derive(Debug)]
pub struct Row {
    /// Where it stands, from 1.
    pub line: u64,
    /// The document to post.
    pub body: Bytes,
    /// The path to post it to, as the row says or as its shape tells.
    pub path: String,
    /// What the output line repeats.
    pub form: Form,
}

/// The two kinds of rows, which are answered in their own forms.
#[derive(Debug)]
pub enum Form {
    /// A request body; its `metadata` comes back.
    Plain {
        /// The value, as JSON; `null` if there was none.
        metadata: Bytes,
        /// The row's document without its metadata, before anything else was changed in it.
        request: Bytes,
    },
    /// A line of OpenAI's Batch file format.
    Batch {
        /// As JSON.
        custom_id: Bytes,
    },
}

/// What stands in a line.
#[derive(Debug)]
pub enum Line {
    /// A row.
    Row(Row),
    /// A line that cannot be sent, and why. It has its place in the output nevertheless.
    Broken {
        /// From 1.
        line: u64,
        /// One sentence.
        why: String,
        /// As JSON, for what can still be read.
        form: Form,
    },
}

/// Identifies a row by what it says, not by where it stands or how it is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowDigest(pub [u8; 16]);

impl RowDigest {
    /// Of a plain row, from its compact parts.
    pub fn plain(metadata: &[u8], request: &[u8]) -> Self {
        Self::of([b"plain", metadata, request])
    }

    /// Of a line in the Batch format, from its compact parts.
    pub fn batch(custom_id: &[u8], path: &[u8], body: &[u8]) -> Self {
        let mut text = Vec::with_capacity(path.len() + body.len() + 1);
        text.extend_from_slice(path);
        text.push(b' ');
        text.extend_from_slice(body);
        Self::of([b"batch", custom_id, &text])
    }

    /// In hexadecimal.
    pub fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`hex`](Self::hex) wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        let number = u128::from_str_radix(text, 16).ok()?;
        (text.len() == 32).then(|| Self(number.to_be_bytes()))
    }

    fn of(parts: [&[u8]; 3]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // The length in front, so that no two lists of parts give the same bytes.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        Self(half)
    }
}

impl Row {
    /// The row's identity.
    pub fn digest(&self) -> RowDigest {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        match &self.form {
            Form::Plain { metadata, request } => {
                json::compact(metadata, &mut one);
                json::compact(request, &mut two);
                RowDigest::plain(&one, &two)
            }
            Form::Batch { custom_id } => {
                json::compact(custom_id, &mut one);
                json::compact(&self.body, &mut two);
                RowDigest::batch(&one, self.path.as_bytes(), &two)
            }
        }
    }
}

/// The rows of a file. Blank lines are skipped.
pub struct Rows<R> {
    input: R,
    line: u64,
    buffer: Vec<u8>,
    endpoint: Option<String>,
}

impl<R: BufRead> Rows<R> {
    /// Reads from here; `endpoint` is the path of every row that does not name its own.
    pub fn new(input: R, endpoint: Option<String>) -> Self {
        Self {
            input,
            line: 0,
            buffer: Vec::new(),
            endpoint,
        }
    }

    /// The next line that says something; `None` at the end of the file.
    pub fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let long = match self.read_line()? {
                None => return Ok(None),
                Some(whole) => !whole,
            };
            let line = self.line;
            if long {
                let why = format!("line {line} is longer than {} MiB", LINE_MAX >> 20);
                return Ok(Some(broken(line, why)));
            }
            let mut text = self.buffer.trim_ascii();
            if line == 1 {
                // Some editors begin a file with a byte order mark.
                text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
            }
            if !text.is_empty() {
                return Ok(Some(read_row(line, text, self.endpoint.as_deref())));
            }
        }
    }

    /// Reads a line into the buffer; `Some(false)` if it was too long and is not all there.
    fn read_line(&mut self) -> io::Result<Option<bool>> {
        self.buffer.clear();
        if self.buffer.capacity() > 1 << 20 {
            // One long row should not be paid for until the end of the file.
            self.buffer = Vec::new();
        }
        let (mut any, mut whole) = (false, true);
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                self.line += u64::from(any);
                return Ok(any.then_some(whole));
            }
            any = true;
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            whole &= self.buffer.len() + part.len() <= LINE_MAX;
            if whole {
                self.buffer.extend_from_slice(part);
            }
            let taken = part.len() + usize::from(end.is_some());
            self.input.consume(taken);
            if end.is_some() {
                self.line += 1;
                return Ok(Some(whole));
            }
        }
    }
}

fn broken(line: u64, why: String) -> Line {
    let null = || Bytes::from_static(b"null");
    let form = Form::Plain {
        metadata: null(),
        request: null(),
    };
    Line::Broken { line, why, form }
}

fn read_row(line: u64, text: &[u8], endpoint: Option<&str>) -> Line {
    const KEYS: [&str; 9] = [
        "metadata",
        "messages",
        "input",
        "prompt",
        "model",
        "stream",
        "custom_id",
        "url",
        "body",
    ];
    let members = match json::object(text, KEYS) {
        Ok(members) => members,
        Err(error) => {
            return broken(line, format!("line {line} is not a JSON object: {error}"));
        }
    };
    let [
        metadata,
        messages,
        input,
        prompt,
        model,
        stream,
        custom_id,
        url,
        body,
    ] = members;
    let has = |member| json::stated(member).is_some();

    if let (Some(custom_id), Some(body)) = (custom_id, body) {
        let custom_id = Bytes::copy_from_slice(custom_id.get().as_bytes());
        let document = Bytes::copy_from_slice(body.get().as_bytes());
        let form = Form::Batch { custom_id };
        let trouble = |form, why| Line::Broken { line, why, form };
        let Ok([stream]) = json::object(&document, ["stream"]) else {
            return trouble(
                form,
                format!("the body in line {line} is not a JSON object"),
            );
        };
        let url = endpoint.map(str::to_owned).or_else(|| json::string(url));
        let Some(path) = url.filter(|url| is_path(url)) else {
            let why =
                format!("line {line} has no url that is a path, such as /v1/chat/completions");
            return trouble(form, why);
        };
        let streams = asks_for_stream(stream.map(|value| value.get()));
        return Line::Row(Row {
            line,
            body: if streams { whole(document) } else { document },
            path,
            form,
        });
    }

    let request = Bytes::copy_from_slice(text);
    let metadata = metadata.map_or(Bytes::from_static(b"null"), |value| {
        Bytes::copy_from_slice(value.get().as_bytes())
    });
    // Every other byte stays as it was.
    let request = remove_value(&request, "metadata").unwrap_or(request);
    let path = match endpoint {
        Some(path) => path,
        None if has(messages) => "/v1/chat/completions",
        None if has(input) && json::string(model).is_some_and(|name| embeds(&name)) => {
            "/v1/embeddings"
        }
        None if has(input) => "/v1/responses",
        None if has(prompt) => "/v1/completions",
        None => {
            let form = Form::Plain { metadata, request };
            let why = format!(
                "line {line} has neither messages nor input, so where to send it is not known"
            );
            return Line::Broken { line, why, form };
        }
    };
    let streams = asks_for_stream(stream.map(|value| value.get()));
    Line::Row(Row {
        line,
        body: if streams {
            whole(request.clone())
        } else {
            request.clone()
        },
        path: path.to_owned(),
        form: Form::Plain { metadata, request },
    })
}

fn asks_for_stream(value: Option<&str>) -> bool {
    value == Some("true")
}

/// The same request for an answer in one piece: a line of a file cannot be streamed to anybody.
fn whole(document: Bytes) -> Bytes {
    let document = replace_value(&document, "stream", "false").unwrap_or(document);
    // Providers refuse these options where there is no stream.
    remove_value(&document, "stream_options").unwrap_or(document)
}

/// Whether a model's name is one of an embeddings model.
fn embeds(model: &str) -> bool {
    let name = model.to_ascii_lowercase();
    // Some are known by their family alone; a provider's prefix (`BAAI/`) may stand in front.
    let family = name.rsplit('/').next().unwrap_or(&name);
    name.contains("embed")
        || ["bge-", "e5-", "gte-", "voyage-"]
            .iter()
            .any(|prefix| family.starts_with(prefix))
}

/// A path, and not a whole URL: rows must not choose whom the key is sent to.
pub fn is_path(url: &str) -> bool {
    !url.is_empty()
        && !url.contains("://")
        && !url.starts_with("//")
        && url.is_ascii()
        && !url.bytes().any(|byte| byte <= b' ' || byte == b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Line> {
        let mut rows = Rows::new(text.as_bytes(), None);
        std::iter::from_fn(|| rows.next().unwrap()).collect()
    }

    fn one(text: &str) -> Row {
        match all(text).pop() {
            Some(Line::Row(row)) => row,
            other => panic!("{text} is a row, not {other:?}"),
        }
    }

    #[test]
    fn the_shape_of_a_row_says_where_it_goes() {
        for (row, path) in [
            (r#"{"model":"gpt-5","messages":[]}"#, "/v1/chat/completions"),
            (
                r#"{"model":"text-embedding-3-small","input":"x"}"#,
                "/v1/embeddings",
            ),
            (r#"{"model":"gpt-5","input":"x"}"#, "/v1/responses"),
            (
                r#"{"model":"gpt-5","input":"x","messages":null}"#,
                "/v1/responses",
            ),
        ] {
            assert_eq!(one(row).path, path);
        }
        let mut forced = Rows::new(&br#"{"x":1}"#[..], Some("/v1/moderations".into()));
        let Some(Line::Row(row)) = forced.next().unwrap() else {
            panic!("a row");
        };
        assert_eq!(row.path, "/v1/moderations");
    }

    #[test]
    fn metadata_is_kept_and_not_sent_and_the_rest_is_untouched() {
        let row = one(r#"{ "model" : "m", "metadata": {"id": 7}, "messages": [ ], "seed": 1e2 }"#);
        assert_eq!(
            row.body,
            r#"{ "model" : "m", "messages": [ ], "seed": 1e2 }"#
        );
        let Form::Plain { metadata, .. } = row.form else {
            panic!("a plain row");
        };
        assert_eq!(metadata, r#"{"id": 7}"#);
    }

    #[test]
    fn a_stream_is_asked_for_whole() {
        let row = one(r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#);
        assert_eq!(row.body, r#"{"messages":[],"stream":false}"#);
        let Form::Plain { request, .. } = row.form else {
            panic!("a plain row");
        };
        assert!(
            request.ends_with(b"{\"include_usage\":true}}"),
            "the output repeats the row"
        );
    }

    #[test]
    fn a_broken_line_has_its_number_and_blank_ones_none() {
        let lines = all("\u{feff}{\"messages\":[]}\n\n  \r\n{\"messages\":\n{}\r\n[1]");
        let broken: Vec<_> = lines
            .iter()
            .filter_map(|line| match line {
                Line::Broken { line, .. } => Some(*line),
                Line::Row(_) => None,
            })
            .collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(broken, [4, 5, 6]);
    }

    #[test]
    fn a_batch_line_keeps_its_id_and_its_path() {
        let row = one(
            r#"{"custom_id":"a-1","method":"POST","url":"/v1/embeddings","body":{"model":"m","input":"x","metadata":{"k":"v"}}}"#,
        );
        assert_eq!(row.path, "/v1/embeddings");
        assert_eq!(
            row.body,
            r#"{"model":"m","input":"x","metadata":{"k":"v"}}"#
        );
        let elsewhere = r#"{"custom_id":"a","url":"https://elsewhere.example/v1","body":{}}"#;
        assert!(matches!(all(elsewhere)[0], Line::Broken { .. }));
    }

    #[test]
    fn layout_and_metadata_order_do_not_change_who_a_row_is() {
        let one_way = one(r#"{"metadata": 1, "model":"m","messages":[ 1, 2 ]}"#);
        let other = one(r#"{"model": "m", "messages":[1,2], "metadata":1}"#);
        assert_eq!(one_way.digest(), other.digest());
        let third = one(r#"{"model": "m", "messages":[1,2], "metadata":2}"#);
        assert_ne!(one_way.digest(), third.digest());
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_to_its_end() {
        let mut text = vec![b' '; LINE_MAX + 1];
        text.extend_from_slice(b"x\n{\"messages\":[]}\n");
        let mut rows = Rows::new(&text[..], None);
        assert!(matches!(
            rows.next().unwrap(),
            Some(Line::Broken { line: 1, .. })
        ));
        assert!(matches!(
            rows.next().unwrap(),
            Some(Line::Row(Row { line: 2, .. }))
        ));
        assert!(rows.next().unwrap().is_none());
    }
}
