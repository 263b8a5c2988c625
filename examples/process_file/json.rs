//! JSON text handled as text: nothing is turned into a tree and back.
use std::{borrow::Cow, fmt};

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

struct Keys<'k, const N: usize>([&'k str; N]);

impl<'a, const N: usize> Visitor<'a> for Keys<'_, N> {
    type Value = [Option<&'a RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match self.0.iter().position(|wanted| *wanted == key) {
                Some(at) => found[at] = Some(map.next_value::<&RawValue>()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Checks that the bytes are one JSON object, whole and in UTF-8, and picks top-level members of it,
/// each as the text that it is.
///
/// Of a key that is there twice the last one counts, as with most readers.
pub fn object<'a, const N: usize>(
    bytes: &'a [u8],
    keys: [&str; N],
) -> Result<[Option<&'a RawValue>; N], serde_json::Error> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| serde_json::Error::custom("the text is not UTF-8"))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = deserializer.deserialize_map(Keys(keys))?;
    deserializer.end()?;
    Ok(found)
}

/// Whether a member says something: it is there and not `null`.
pub fn stated(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| value.get() != "null")
}

/// The string that a member is.
pub fn string(value: Option<&RawValue>) -> Option<String> {
    value.and_then(|value| serde_json::from_str(value.get()).ok())
}

/// Appends a JSON text without the white space between its tokens.
///
/// What is left is one line, however the text was laid out: a line break inside a string is always
/// escaped. Two layouts of one document become the same bytes.
pub fn compact(json: &[u8], out: &mut Vec<u8>) {
    let mut rest = json;
    while let Some(at) = rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b' ' | b'\t' | b'\r' | b'\n'))
    {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let taken = if rest[0] == b'"' {
            let end = string_end(rest);
            out.extend_from_slice(&rest[..end]);
            end
        } else {
            1
        };
        rest = &rest[taken..];
    }
    out.extend_from_slice(rest);
}

/// Appends a JSON text as one line. Most are that already.
pub fn one_line(json: &[u8], out: &mut Vec<u8>) {
    if json.contains(&b'\n') || json.contains(&b'\r') {
        compact(json, out);
    } else {
        out.extend_from_slice(json);
    }
}

/// Where the string that begins here has ended.
fn string_end(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = text[at..].iter().position(|b| matches!(b, b'"' | b'\\')) {
        at += found + 1;
        if text[at - 1] == b'"' {
            return at;
        }
        at = (at + 1).min(text.len());
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compacted(text: &str) -> String {
        let mut out = Vec::new();
        compact(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn white_space_goes_and_strings_stay() {
        assert_eq!(
            compacted("{\n \"a b\" : [ 1 ,\t\"x \\\" y\\\\\" , \"\\n \" ]\r\n}"),
            "{\"a b\":[1,\"x \\\" y\\\\\",\"\\n \"]}"
        );
        assert_eq!(compacted("\"cut \\"), "\"cut \\");
        assert_eq!(compacted(""), "");
        let mut line = Vec::new();
        one_line(b"{\"a\": [1,\r\n 2]}", &mut line);
        assert_eq!(line, b"{\"a\":[1,2]}");
    }

    #[test]
    fn the_last_of_two_members_counts_and_the_rest_is_checked() {
        let [a] = object(b" {\"a\":1,\"b\":{\"a\":2},\"a\": [3, 4]} ", ["a"]).unwrap();
        assert_eq!(a.unwrap().get(), "[3, 4]");
        for broken in [
            &b"{\"a\":1"[..],
            b"[1]",
            b"\"a\"",
            b"{} {}",
            b"{\"b\":\"\xff\"}",
            b"{\"b\":tru}",
            b"",
        ] {
            assert!(object(broken, ["a"]).is_err());
        }
    }
}
