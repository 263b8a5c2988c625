use proptest::prelude::*;

use super::*;

type Seen = Vec<(String, String, Range<u64>)>;

fn scan<'c>(mut scanner: Scanner, chunks: impl IntoIterator<Item = &'c [u8]>) -> (Seen, u64, bool) {
    let mut seen = Seen::new();
    let mut note = |e: Event<'_>| {
        let text = |b| String::from_utf8_lossy(b).into_owned();
        seen.push((text(e.name), text(e.data), e.span));
    };
    for chunk in chunks {
        scanner.feed(chunk, &mut note);
    }
    scanner.end(&mut note);
    (seen, scanner.boundary(), scanner.skipped())
}

fn data(text: &str) -> Vec<String> {
    let (seen, ..) = scan(Scanner::default(), [text.as_bytes()]);
    seen.into_iter().map(|(_, data, _)| data).collect()
}

#[test]
fn the_standards_corners() {
    assert_eq!(
        data("data: a\r\n\r\ndata:b\r\rdata: c\n\n"),
        ["a", "b", "c"]
    );
    assert_eq!(data("data: a\ndata:\ndata: b\n\n"), ["a\n\nb"]);
    assert_eq!(data("\u{feff}data: a\n\n"), ["a"]);
    assert_eq!(data(": c\n\nid: 7\nretry: 1\ndata:  a \n\n\n\n"), [" a "]);
    assert_eq!(data("data\n\nevent: x\n\n"), [""; 0]);
    assert_eq!(data("data: no blank line"), ["no blank line"]);
    assert_eq!(data("data: cr at the end\r"), ["cr at the end"]);
}

#[test]
fn a_field_called_error_is_data() {
    let mut seen = false;
    Scanner::default().feed(b"error: {}\n\n", |e| {
        seen = e.error_field && e.data == b"{}";
    });
    assert!(seen);
}

#[test]
fn what_is_over_a_cap_is_stepped_over() {
    let text = format!("data: {}\n\ndata: b\n\n", "x".repeat(40));
    let (seen, boundary, skipped) = scan(Scanner::new(20, 100), [text.as_bytes()]);
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].1.as_str(), boundary, skipped),
        ("b", text.len() as u64, true)
    );
}

proptest! {
    // U07
    #[test]
    fn any_cut_gives_the_same_events(
        parts in prop::collection::vec(
            prop_oneof![
                Just("data: "), Just("data:"), Just("event: e"), Just(": c"), Just("\n"), Just("\n\n"), Just("\r\n"),
                Just("\r"), Just("\r\n\r\n"), Just("{\"a\":1}"), Just("[DONE]"), Just("error: x"), Just("é"), Just("\u{feff}"),
            ],
            0..40,
        ),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        (line_cap, event_cap) in (4usize..60, 4usize..90),
    ) {
        let text = parts.concat().into_bytes();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let caps = || Scanner::new(line_cap, event_cap);
        let whole = scan(caps(), [&*text]);
        prop_assert_eq!(whole.1, text.len() as u64);
        prop_assert_eq!(&scan(caps(), cuts.windows(2).map(|w| &text[w[0]..w[1]])), &whole);
        prop_assert_eq!(&scan(caps(), text.chunks(1)), &whole);
    }
}
