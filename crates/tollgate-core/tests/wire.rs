//! Every shape of the wire is read as its fixture says, however its bytes are cut.
#![allow(clippy::unwrap_used)]
use std::{ops::Range, time::SystemTime};

use bytes::Bytes;
use proptest::prelude::*;
use tollgate_core::wire::{
    answer::{Answer, AnswerReader, Caps},
    limits,
    outcome::{self, Outcome},
    retry_after,
    usage::Count,
};

#[path = "support/fixture.rs"]
mod fixture;
use fixture::Fixture;

/// All that can be asked of a reader at its end.
#[derive(Clone, Debug, PartialEq)]
struct Reading {
    answer: String,
    offset: u64,
    boundary: u64,
    usage_only: Vec<Range<u64>>,
}

fn reader(fixture: &Fixture) -> AnswerReader {
    AnswerReader::new(fixture.endpoint, fixture.status, &fixture.headers)
}

fn read(mut reader: AnswerReader, chunks: impl IntoIterator<Item = Bytes>) -> (Reading, Answer) {
    for chunk in chunks {
        reader.feed(&chunk);
        assert!(reader.boundary() <= reader.offset());
    }
    reader.end();
    let reading = Reading {
        answer: format!("{:?}", reader.answer()),
        offset: reader.offset(),
        boundary: reader.boundary(),
        usage_only: reader.usage_only_events().to_vec(),
    };
    (reading, reader.into_answer())
}

/// The reading on one line: `model=… usage=input,cached,written,output,reasoning,total finish=… …`.
fn line(fixture: &Fixture, reading: &Reading, answer: &Answer) -> String {
    let mut out = vec![format!("{:?}", answer.kind)];
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            out.push(format!("{name}={value}"));
        }
    };
    put("model", answer.model.as_deref());
    let count = |count: Count| count.get().map_or("-".to_owned(), |n| n.to_string());
    let u = &answer.usage;
    let usage = [
        u.input,
        u.cached_input,
        u.cache_write,
        u.output,
        u.reasoning,
        u.total,
    ]
    .map(count);
    put(
        "usage",
        answer.has_usage.then(|| usage.join(",")).as_deref(),
    );
    put("finish", answer.finish.map(|f| f.as_str()));
    put("tier", answer.service_tier.as_deref());
    if let Some(error) = &answer.error {
        put("error", Some(error.class.as_str()));
        put("what", error.what.as_ref().map(|what| what.as_str()));
    }
    let stated = retry_after::from_headers(&fixture.headers, SystemTime::UNIX_EPOCH);
    let stated = stated.or_else(|| answer.error.as_ref()?.retry_after);
    put(
        "wait",
        stated
            .map(|s| format!("{}ms", s.wait.as_millis()))
            .as_deref(),
    );
    if answer.output_chars > 0 {
        put("chars", Some(&answer.output_chars.to_string()));
    }
    for (name, flag) in [
        ("content", answer.content_started),
        ("complete", answer.complete),
        ("unreadable", !answer.readable),
    ] {
        if flag {
            out.push(name.to_owned());
        }
    }
    for event in &reading.usage_only {
        out.push(format!("only={}..{}", event.start, event.end));
    }
    out.join(" ")
}

// U01, U02, U03, U04, U08, U13, R11, F09, L11
#[test]
fn fixtures_read_as_they_say() {
    let mut report = String::new();
    for fixture in fixture::all() {
        let (reading, answer) = read(reader(fixture), [fixture.body.clone()]);
        let got = line(fixture, &reading, &answer);
        if got != fixture.expect {
            report += &format!(
                "{}\n  expect: {}\n  got:    {got}\n",
                fixture.name, fixture.expect
            );
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

// U07
#[test]
fn a_cut_at_any_byte_changes_nothing() {
    for fixture in fixture::all() {
        let body = &fixture.body;
        let (whole, _) = read(reader(fixture), [body.clone()]);
        let (bytes, _) = read(reader(fixture), (0..body.len()).map(|i| body.slice(i..=i)));
        assert_eq!(bytes, whole, "{}: byte by byte", fixture.name);
        for cut in 0..body.len() {
            let (two, _) = read(reader(fixture), [body.slice(..cut), body.slice(cut..)]);
            assert_eq!(two, whole, "{}: cut at {cut}", fixture.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // U07
    #[test]
    fn any_number_of_cuts_changes_nothing(
        which: prop::sample::Index,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let fixture = which.get(fixture::all());
        let body = &fixture.body;
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let (whole, _) = read(reader(fixture), [body.clone()]);
        let (cut, _) = read(reader(fixture), cuts.windows(2).map(|w| body.slice(w[0]..w[1])));
        prop_assert_eq!(cut, whole, "{}", fixture.name);
    }

    #[test]
    fn a_body_with_damage_never_panics(
        which: prop::sample::Index,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        size in 1usize..200,
    ) {
        let fixture = which.get(fixture::all());
        let mut body = fixture.body.to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let body = Bytes::from(body);
        let chunks = (0..body.len()).step_by(size).map(|i| body.slice(i..body.len().min(i + size)));
        let (whole, _) = read(reader(fixture), [body.clone()]);
        let (cut, _) = read(reader(fixture), chunks);
        prop_assert_eq!(cut, whole, "{}", fixture.name);
        let judged = judge(fixture, Some(&body));
        let _ = (judged.advice(), judge(fixture, None));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        which: prop::sample::Index,
        start in prop::sample::select(vec!["", "{", "[", "data: ", "data: {", "event: error\ndata: ", "\u{feff}", "\n\n{\"error\":"]),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let fixture = which.get(fixture::all());
        let body = Bytes::from([start.as_bytes(), &noise].concat());
        let (_, answer) = read(reader(fixture), [body.clone()]);
        let _ = judge(fixture, Some(&body));
        prop_assert!(answer.error.is_some() || fixture.status.as_u16() < 400);
    }
}

fn judge(fixture: &Fixture, body: Option<&[u8]>) -> outcome::Verdict {
    let now = SystemTime::UNIX_EPOCH;
    outcome::judge(fixture.status, &fixture.headers, body, now)
}

#[test]
fn the_judge_and_the_reader_agree_on_errors() {
    for fixture in fixture::all() {
        let (_, answer) = read(reader(fixture), [fixture.body.clone()]);
        let Some(error) = &answer.error else { continue };
        let now = SystemTime::UNIX_EPOCH;
        let in_band = outcome::judge_in_band(fixture.status, &fixture.headers, error, now);
        assert_eq!(in_band.class, Some(error.class), "{}", fixture.name);
        assert_ne!(in_band.outcome, Outcome::Ok, "{}", fixture.name);
        if fixture.status.as_u16() >= 400 {
            let judged = judge(fixture, Some(&fixture.body));
            assert_eq!(judged, in_band, "{}", fixture.name);
        }
    }
}

#[test]
fn what_is_over_a_cap_is_unread_and_said_so() {
    let mut caps = Caps::default();
    (caps.line, caps.event, caps.document) = (64, 64, 64);
    for fixture in fixture::all() {
        if fixture.body.len() <= 200 || fixture.status.as_u16() >= 400 {
            continue;
        }
        let (_, answer) = read(reader(fixture).with_caps(caps), [fixture.body.clone()]);
        assert!(!answer.readable, "{}", fixture.name);
        assert!(!answer.has_usage, "{}", fixture.name);
    }
}

#[test]
fn an_event_over_the_cap_hides_no_later_one() {
    let mut caps = Caps::default();
    caps.line = 200;
    let fixtures = fixture::all();
    let fixture = fixtures
        .iter()
        .find(|f| f.name == "openai_chat_stream")
        .unwrap();
    let body = [b"data: \"", &[b'x'; 300][..], b"\"\n\n", &fixture.body].concat();
    let (_, answer) = read(
        reader(fixture).with_caps(Caps::default()),
        [body.clone().into()],
    );
    assert!(answer.readable && answer.has_usage);
    caps.line = 290;
    let (_, answer) = read(reader(fixture).with_caps(caps), [body.into()]);
    assert!(!answer.readable && answer.has_usage && answer.complete);
}

#[test]
fn blanks_in_front_are_neither_kept_nor_looked_at_twice() {
    let fixtures = fixture::all();
    for name in ["openai_chat_stream", "openai_chat_json"] {
        let fixture = fixtures.iter().find(|f| f.name == name).unwrap();
        // Twice the cap of a document; to look at all of it for each piece would take hours.
        let blanks = std::iter::repeat_n(Bytes::from_static(&[b'\n'; 64]), 262_144);
        let (_, answer) = read(reader(fixture), blanks.chain([fixture.body.clone()]));
        assert!(
            answer.readable && answer.has_usage && answer.complete,
            "{name}"
        );
    }
    let stream = fixtures
        .iter()
        .find(|f| f.name == "openai_chat_stream")
        .unwrap();
    let mut reader = reader(stream);
    reader.feed(&Bytes::from_static(b"\n\n\n"));
    reader.feed(&Bytes::from_static(
        b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n",
    ));
    assert_eq!(reader.usage_only_events()[0].start, 3, "offsets count them");
}

#[test]
fn lines_that_stop_between_two_documents_are_not_whole() {
    let fixtures = fixture::all();
    let fixture = fixtures.iter().find(|f| f.name == "ollama_stream").unwrap();
    let first = fixture.body.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let (_, answer) = read(reader(fixture), [fixture.body.slice(..first)]);
    assert!(answer.content_started && !answer.complete);
}

#[test]
fn a_document_of_tiny_frames_is_read_and_a_monstrous_name_is_not_kept() {
    let fixtures = fixture::all();
    let fixture = fixtures
        .iter()
        .find(|f| f.name == "openai_chat_json")
        .unwrap();
    let name = "m".repeat(100_000);
    let body = format!(
        r#"{{"model":"{name}","id":"{name}","choices":[],"usage":{{"prompt_tokens":3,"completion_tokens":4}}}}"#
    );
    let pieces = (0..body.len()).map(|at| Bytes::copy_from_slice(&body.as_bytes()[at..=at]));
    let (_, answer) = read(reader(fixture), pieces);
    assert_eq!(answer.usage.output.get(), Some(4));
    assert!(answer.model.is_none() && answer.response_id.is_none());
}

#[test]
fn a_nesting_bomb_takes_linear_time_and_no_stack() {
    let bomb = |open: &str| Bytes::from(open.repeat(200_000));
    for fixture in fixture::all() {
        if fixture.name != "openai_chat_json" && fixture.name != "gemini_array_stream" {
            continue;
        }
        for open in ["[", "{\"a\":", "[{\"error\":"] {
            let (_, answer) = read(reader(fixture), [bomb(open)]);
            assert!(!answer.complete);
            let _ = judge(fixture, Some(&bomb(open)));
        }
    }
}

// R08: the numbers that the wait is made of
#[test]
fn an_exhausted_bucket_shows_in_the_limits() {
    let headers = [
        ("x-ratelimit-limit-tokens", "30000"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "6m0s"),
        ("x-ratelimit-reset-requests", "120ms"),
    ];
    let headers = headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let limits = limits::from_headers(&headers, SystemTime::UNIX_EPOCH);
    assert_eq!(limits[0].window_inferred().unwrap().as_secs(), 360);
    assert_eq!(
        limits[1]
            .reset
            .as_ref()
            .unwrap()
            .after()
            .unwrap()
            .as_millis(),
        120
    );
    assert_eq!(limits[1].window_inferred(), None);
}

// R21, R22: retry and fallback may act until then
#[test]
fn content_starts_with_the_first_piece_of_it() {
    let before: &[&str] = &[
        ": ping\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "data: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":1}}}\n\n",
        "data: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "data: {\"type\":\"response.created\",\"response\":{\"status\":\"in_progress\",\"output\":[]}}\n\n",
        "data: {\"type\":\"response.in_progress\",\"response\":{\"status\":\"in_progress\"}}\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\n",
        "data: {\"type\":\"message-start\",\"delta\":{\"message\":{\"role\":\"assistant\",\"content\":[],\"tool_plan\":\"\"}}}\n\n",
        "data: {\"error\":{\"message\":\"\",\"type\":\"server_error\"}}\n\n",
    ];
    let content: &[&str] = &[
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"a\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[{\"text\":\"a\"}]}\n\n",
        "data: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"tool_use\",\"name\":\"f\"}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"a\"}}\n\n",
        "data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n",
        "data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\"}}\n\n",
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"f\",\"args\":{}}}]}}]}\n\n",
    ];
    let fixture = fixture::all()
        .iter()
        .find(|f| f.name == "openai_chat_stream")
        .unwrap();
    let started = |event: &str| {
        let mut reader = reader(fixture);
        reader.feed(&Bytes::copy_from_slice(event.as_bytes()));
        reader.answer().content_started
    };
    for event in before {
        assert!(!started(event), "{event}");
    }
    for event in content {
        assert!(started(event), "{event}");
    }
}
