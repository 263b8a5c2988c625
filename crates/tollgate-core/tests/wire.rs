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
        let (reading, answer) = read(reader(&fixture), [fixture.body.clone()]);
        let got = line(&fixture, &reading, &answer);
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
        let (whole, _) = read(reader(&fixture), [body.clone()]);
        let (bytes, _) = read(reader(&fixture), (0..body.len()).map(|i| body.slice(i..=i)));
        assert_eq!(bytes, whole, "{}: byte by byte", fixture.name);
        for cut in 0..body.len() {
            let (two, _) = read(reader(&fixture), [body.slice(..cut), body.slice(cut..)]);
            assert_eq!(two, whole, "{}: cut at {cut}", fixture.name);
        }
    }
}
