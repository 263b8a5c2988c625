use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn spans_of_members_are_the_members(value in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let mut cursor = Cursor::new(text.as_bytes());
        let mut seen = Vec::new();
        let is_object = cursor.object(|c, key| {
            let span = c.skip()?;
            let member: Value = serde_json::from_slice(&text.as_bytes()[span]).unwrap();
            seen.push((String::from_utf8(key.to_vec()).unwrap(), member));
            Ok(())
        }).unwrap();
        prop_assert!(cursor.at_end());
        prop_assert_eq!(is_object, value.is_object());
        if let Value::Object(members) = value {
            let members: Vec<_> = members.into_iter().collect();
            prop_assert_eq!(seen, members);
        }
    }

    #[test]
    fn strings_decode_and_count(text: String) {
        let json = serde_json::to_string(&text).unwrap();
        let found = Cursor::new(json.as_bytes()).string().unwrap();
        prop_assert_eq!(found.to_str(), text.as_str());
        prop_assert_eq!(found.chars(), text.chars().count() as u64);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, cut in 0usize..64) {
        let _ = Cursor::new(&bytes).skip();
        let _ = Cursor::new(&bytes).object(|c, _| c.skip().map(drop));
        let _ = Cursor::new(&bytes).strings(|w, _| if let Word::Value(t) = w { t.chars(); t.to_str(); });
        let mut quoted = b"{\"a\":\"".to_vec();
        quoted.extend_from_slice(&bytes[..cut.min(bytes.len())]);
        quoted.push(b'"');
        let _ = Cursor::new(&quoted).object(|c, _| c.text().map(|t| { t.map(|t| (t.chars(), t.to_str().len())); }));
    }

    #[test]
    fn a_cut_document_is_malformed_or_whole(value in any_json(), cut: prop::sample::Index) {
        let text = serde_json::to_string(&Value::from(vec![value])).unwrap();
        let cut = cut.index(text.len());
        prop_assert!(Cursor::new(&text.as_bytes()[..cut]).skip().is_err());
    }
}

#[test]
fn escaped_pairs_are_one_character() {
    let found = Cursor::new(br#""a\ud83d\ude00b\n""#).string().unwrap();
    assert_eq!(found.to_str(), "a\u{1f600}b\n");
    assert_eq!(found.chars(), 4);
    let lone = Cursor::new(br#""\ud83d!""#).string().unwrap();
    assert_eq!(lone.to_str(), "\u{fffd}!");
}

#[test]
fn counts_are_whole_numbers_only() {
    for (raw, n) in [
        ("0", Some(0)),
        ("12", Some(12)),
        ("12.0", Some(12)),
        ("1e3", Some(1000)),
        ("9007199254740992", Some(1 << 53)),
        ("9007199254740993", None),
        ("-1", None),
        ("1.5", None),
        ("1e400", None),
        ("NaN", None),
        ("", None),
    ] {
        assert_eq!(whole(raw.as_bytes()), n, "{raw}");
    }
}

#[test]
fn a_nesting_bomb_costs_no_stack() {
    let bomb = "[".repeat(400_000);
    assert!(Cursor::new(bomb.as_bytes()).skip().is_err());
    let closed = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(Cursor::new(closed.as_bytes()).skip(), Ok(0..closed.len()));
}
