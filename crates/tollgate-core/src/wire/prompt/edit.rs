//! Changing one value of a document and no other byte.
use std::ops::Range;

use bytes::Bytes;

use crate::wire::json::{Cursor, Kind, Malformed};

/// One top-level member, as spans of the document.
struct Member {
    /// The key with its quotes.
    key: Range<usize>,
    value: Range<usize>,
    /// It has the key that was asked for.
    hit: bool,
}

/// The members of a document that is one object and nothing else; `None` otherwise.
fn members(body: &[u8], wanted: &str) -> Option<Vec<Member>> {
    let mut cursor = Cursor::new(body);
    let mut all = Vec::with_capacity(16);
    if cursor.kind() != Ok(Kind::Object) {
        return None;
    }
    cursor.take(b'{');
    if !cursor.take(b'}') {
        let mut one = || -> Result<bool, Malformed> {
            cursor.skip_blank();
            let start = cursor.at();
            let name = cursor.string()?;
            let key = start..cursor.at();
            cursor.expect(b':')?;
            let value = cursor.skip()?;
            all.push(Member {
                key,
                value,
                hit: name == *wanted,
            });
            if cursor.take(b',') {
                return Ok(true);
            }
            cursor.expect(b'}')?;
            Ok(false)
        };
        while one().ok()? {}
    }
    cursor.at_end().then_some(all)
}

/// Copies `body` with `new` in the place of each span.
fn splice<'n>(body: &[u8], spans: impl Iterator<Item = (Range<usize>, &'n str)>) -> Bytes {
    let mut out = Vec::with_capacity(body.len() + 64);
    let mut at = 0;
    for (span, new) in spans {
        out.extend_from_slice(&body[at..span.start]);
        out.extend_from_slice(new.as_bytes());
        at = span.end;
    }
    out.extend_from_slice(&body[at..]);
    out.into()
}

/// Replaces the value of the top-level `key` by `json`; every other byte stays as it was.
///
/// All of them are replaced if the key is there more than once. `None` if the document is no object or has no such
/// key. `json` is put in as it is: it must be one JSON value.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use tollgate_core::wire::prompt::replace_value;
///
/// let body = Bytes::from_static(b"{ \"model\" : \"gpt-5\", \"seed\": 1e2 }");
/// let other = replace_value(&body, "model", "\"gpt-5-mini\"").unwrap();
/// assert_eq!(other, "{ \"model\" : \"gpt-5-mini\", \"seed\": 1e2 }");
/// ```
#[must_use]
pub fn replace_value(body: &Bytes, key: &str, json: &str) -> Option<Bytes> {
    let all = members(body, key)?;
    let mut hits = all.into_iter().filter(|m| m.hit).peekable();
    hits.peek()?;
    Some(splice(body, hits.map(|m| (m.value, json))))
}

/// Puts a member in front of the others; `None` if the document is no object or has the key.
#[must_use]
pub fn insert_value(body: &Bytes, key: &str, json: &str) -> Option<Bytes> {
    let all = members(body, key)?;
    if all.iter().any(|m| m.hit) {
        return None;
    }
    let open = body.iter().position(|b| *b == b'{')? + 1;
    let name = serde_json::Value::from(key);
    let comma = if all.is_empty() { "" } else { "," };
    let new = format!("{name}:{json}{comma}");
    Some(splice(body, std::iter::once((open..open, new.as_str()))))
}

/// Takes the top-level `key` out, with its comma; `None` if there is none.
#[must_use]
pub fn remove_value(body: &Bytes, key: &str) -> Option<Bytes> {
    let all = members(body, key)?;
    if !all.iter().any(|m| m.hit) {
        return None;
    }
    let first = all.first()?.key.start;
    let last = all.last()?.value.end;
    let mut out = Vec::with_capacity(body.len());
    out.extend_from_slice(&body[..first]);
    let (mut any, mut before) = (false, first);
    for member in &all {
        if !member.hit {
            if any {
                // What stood before this member: its comma and its white space.
                out.extend_from_slice(&body[before..member.key.start]);
            }
            out.extend_from_slice(&body[member.key.start..member.value.end]);
            any = true;
        }
        before = member.value.end;
    }
    out.extend_from_slice(&body[last..]);
    Some(out.into())
}

/// Gives the top-level key `from` the name `to`; `None` if there is no `from`, or if there is a `to`.
#[must_use]
pub fn rename_key(body: &Bytes, from: &str, to: &str) -> Option<Bytes> {
    if members(body, to)?.iter().any(|m| m.hit) {
        return None;
    }
    let mut hits = members(body, from)?
        .into_iter()
        .filter(|m| m.hit)
        .peekable();
    hits.peek()?;
    let name = serde_json::Value::from(to).to_string();
    Some(splice(body, hits.map(|m| (m.key, name.as_str()))))
}

/// Sets `stream_options.include_usage`, and keeps what else stands there.
///
/// `None` when it is already true or the document cannot be read.
#[must_use]
pub fn ask_for_usage(body: &Bytes) -> Option<Bytes> {
    const ASK: &str = "{\"include_usage\":true}";
    let options = members(body, "stream_options")?;
    // The last of several is the one that counts.
    let Some(last) = options.into_iter().rev().find(|m| m.hit) else {
        return insert_value(body, "stream_options", ASK);
    };
    let value = body.slice(last.value.clone());
    let new = match Cursor::new(&value).kind().ok()? {
        Kind::Null => Bytes::from_static(ASK.as_bytes()),
        Kind::Object => {
            let asked = members(&value, "include_usage")?
                .iter()
                .rev()
                .find(|m| m.hit)
                .map(|m| &value[m.value.clone()] == b"true");
            match asked {
                Some(true) => return None,
                Some(false) => replace_value(&value, "include_usage", "true")?,
                None => insert_value(&value, "include_usage", "true")?,
            }
        }
        _ => return None,
    };
    let new = std::str::from_utf8(&new).ok()?;
    Some(splice(body, std::iter::once((last.value, new))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn body(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn replaces_every_duplicate_and_nothing_nested() {
        let old = body(r#" {"model":"a","x":{"model":"b"}, "model" : null }"#);
        let new = replace_value(&old, "model", "\"c\"").unwrap();
        assert_eq!(new, r#" {"model":"c","x":{"model":"b"}, "model" : "c" }"#);
    }

    #[test]
    fn an_escaped_key_is_the_same_key() {
        let old = body(r#"{"m\u006fdel":"a"}"#);
        assert_eq!(
            replace_value(&old, "model", "1").unwrap(),
            r#"{"m\u006fdel":1}"#
        );
    }

    #[test]
    fn what_is_no_object_is_left_alone() {
        for text in [
            "",
            "[]",
            "{",
            "{}x",
            "{\"model\"}",
            "{\"model\":1,}",
            "null",
            "{\"model\":1",
        ] {
            assert_eq!(replace_value(&body(text), "model", "1"), None, "{text}");
            assert_eq!(
                ask_for_usage(&body(text)).filter(|_| text != "{}"),
                None,
                "{text}"
            );
        }
    }

    #[test]
    fn removes_with_the_comma() {
        let gone = |text| remove_value(&body(text), "a").unwrap();
        assert_eq!(gone(r#"{"a":1}"#), "{}");
        assert_eq!(gone(r#"{ "a": 1, "b": 2 }"#), r#"{ "b": 2 }"#);
        assert_eq!(gone(r#"{ "b": 2, "a": 1 }"#), r#"{ "b": 2 }"#);
        assert_eq!(gone(r#"{"b":2, "a":1,"c":3,"a":4}"#), r#"{"b":2,"c":3}"#);
        assert_eq!(remove_value(&body("{}"), "a"), None);
    }

    #[test]
    fn asks_for_usage_and_keeps_the_other_options() {
        let ask = |text| ask_for_usage(&body(text));
        assert_eq!(
            ask("{}").unwrap(),
            r#"{"stream_options":{"include_usage":true}}"#
        );
        assert_eq!(
            ask(r#"{"stream":true}"#).unwrap(),
            r#"{"stream_options":{"include_usage":true},"stream":true}"#
        );
        assert_eq!(
            ask(r#"{"stream_options": {"include_obfuscation":false} }"#).unwrap(),
            r#"{"stream_options": {"include_usage":true,"include_obfuscation":false} }"#
        );
        assert_eq!(
            ask(r#"{"stream_options":{"include_usage":false}}"#).unwrap(),
            r#"{"stream_options":{"include_usage":true}}"#
        );
        assert_eq!(
            ask(r#"{"stream_options":null}"#).unwrap(),
            ask("{}").unwrap()
        );
        assert_eq!(ask(r#"{"stream_options":{"include_usage":true}}"#), None);
        assert_eq!(ask(r#"{"stream_options":7}"#), None);
    }

    fn document() -> impl Strategy<Value = (Map<String, Value>, bool)> {
        let value = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            prop::collection::vec(any::<String>(), 0..4).prop_map(Value::from),
            any::<String>().prop_map(|s| json!({ "model": s })),
        ];
        let key = prop_oneof![Just("model".to_owned()), "[a-c]", any::<String>()];
        (
            prop::collection::btree_map(key, value, 0..8).prop_map(|m| m.into_iter().collect()),
            any::<bool>(),
        )
    }

    proptest! {
        #[test]
        fn replacing_changes_that_value_only((doc, pretty) in document(), new: String) {
            let text = if pretty { serde_json::to_string_pretty(&doc) } else { serde_json::to_string(&doc) }.unwrap();
            let old = body(&text);
            let json = Value::from(new.clone()).to_string();
            match replace_value(&old, "model", &json) {
                None => prop_assert!(!doc.contains_key("model")),
                Some(got) => {
                    let mut want = doc.clone();
                    want.insert("model".to_owned(), new.into());
                    prop_assert_eq!(serde_json::from_slice::<Map<_, _>>(&got).unwrap(), want);
                    // Putting the old value back gives the old bytes: nothing else was touched.
                    let span = members(&old, "model").unwrap().into_iter().find(|m| m.hit).unwrap().value;
                    let back = replace_value(&got, "model", std::str::from_utf8(&old[span]).unwrap()).unwrap();
                    prop_assert_eq!(back, old);
                }
            }
        }

        #[test]
        fn inserting_removing_and_renaming_re_parse((doc, pretty) in document(), new: String, key: String) {
            let text = if pretty { serde_json::to_string_pretty(&doc) } else { serde_json::to_string(&doc) }.unwrap();
            let old = body(&text);
            let parse = |b: &Bytes| serde_json::from_slice::<Map<String, Value>>(b).unwrap();
            if let Some(got) = insert_value(&old, &key, &Value::from(new.clone()).to_string()) {
                let mut want = doc.clone();
                want.insert(key.clone(), new.into());
                prop_assert_eq!(parse(&got), want);
                prop_assert_eq!(parse(&remove_value(&got, &key).unwrap()), doc.clone());
            } else {
                prop_assert!(doc.contains_key(&key));
            }
            if let Some(got) = rename_key(&old, "model", &key) {
                let mut want = doc.clone();
                let value = want.remove("model").unwrap();
                want.insert(key.clone(), value);
                prop_assert_eq!(parse(&got), want);
                prop_assert_eq!(rename_key(&got, &key, "model").unwrap(), old);
            } else {
                prop_assert!(!doc.contains_key("model") || doc.contains_key(&key));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = replace_value(&bytes, "a", "1");
            let _ = remove_value(&bytes, "a");
            let _ = ask_for_usage(&bytes);
        }
    }
}
