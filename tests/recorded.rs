//! Real traffic of many providers reads as an independent program reads it.
//!
//! The corpus is kept beside the repository, not in it: `$TOLLGATE_RECORDED`, or else `../shared/recorded` from the workspace's root.
//! Where it is absent this test says so and passes; the fixtures of `tollgate-core` cover the same ground.
use std::{env, fs, path::PathBuf};

use serde_json::Value;

#[path = "../examples/read_recorded/reading.rs"]
mod reading;

/// Expectations that are wrong, as `id`, key and why.
///
/// In all of them the body states what the expectation leaves out.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "anthropic-anthropic-complete-200-6484416831",
        "finish",
        "null, but the document has \"stop_reason\":\"max_tokens\"",
    ),
    (
        "anthropic-anthropic-complete-200-7c2b214d2d",
        "finish",
        "null, but the last event has \"stop_reason\":\"stop_sequence\"",
    ),
    (
        "bedrock-bedrock-invoke-with-response-stream-200-22b1c0e610",
        "usage",
        "1 output token, the count in the first event; it goes up to 26 in the last, as in Bedrock's own metrics",
    ),
    (
        "vertex-gemini-predict-200-4bf9745dcf",
        "usage",
        "null, but the prediction has \"statistics\":{\"token_count\":4}",
    ),
];

/// Files that a corpus must have at the least, or it is not the corpus.
const LEAST: usize = 400;

fn corpus() -> Option<PathBuf> {
    let dir = env::var_os("TOLLGATE_RECORDED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/recorded"),
        PathBuf::from,
    );
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!(
        "SKIPPED: no recorded traffic at {}; set TOLLGATE_RECORDED to a directory of recordings",
        dir.display()
    );
    None
}

fn exchanges(dir: &PathBuf) -> Vec<(Vec<u8>, Value)> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .expect("the corpus can be listed")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let file = fs::read(path).expect("a readable file");
            let exchange = serde_json::from_slice(&file).expect("a JSON file");
            (file, exchange)
        })
        .collect()
}

/// The differences of all files, each once; those in [`WRONG`] must be there.
fn check(mut differences: impl FnMut(&[u8], &Value) -> Vec<(&'static str, String)>, keys: &[&str]) {
    let Some(dir) = corpus() else { return };
    let exchanges = exchanges(&dir);
    assert!(exchanges.len() >= LEAST, "only {} files", exchanges.len());
    let (mut report, mut excused) = (String::new(), 0);
    for (file, exchange) in &exchanges {
        let id = exchange["id"].as_str().expect("an id");
        for (key, difference) in differences(file, exchange) {
            if WRONG
                .iter()
                .any(|(wrong, of, _)| (*wrong, *of) == (id, key))
            {
                excused += 1;
            } else {
                report += &format!("{id}: {key}: {difference}\n");
            }
        }
    }
    let known = WRONG
        .iter()
        .filter(|(_, key, _)| keys.contains(key))
        .count();
    assert!(report.is_empty(), "{}\n{report}", report.lines().count());
    assert_eq!(
        excused, known,
        "an expectation in the list of wrong ones is right by now"
    );
    eprintln!(
        "{} files, {excused} expectations known to be wrong",
        exchanges.len()
    );
}

#[test]
fn every_recorded_answer_reads_as_expected() {
    const KEYS: [&str; 6] = [
        "model",
        "usage",
        "finish",
        "error",
        "retry_after_ms",
        "rate_limits",
    ];
    check(
        |file, exchange| {
            let read = reading::of_file(file);
            let expect = &exchange["expect"];
            let class = |value: &Value| value["error"]["class"].clone();
            KEYS.into_iter()
                .filter_map(|key| {
                    let (got, want) = match key {
                        "error" => (class(&read), class(expect)),
                        _ => (read[key].clone(), expect[key].clone()),
                    };
                    (got != want).then(|| (key, format!("read {got}, expected {want}")))
                })
                .collect()
        },
        &KEYS,
    );
}

#[test]
fn every_recorded_request_reads_as_expected() {
    const KEYS: [&str; 8] = [
        "model_asked",
        "model_in",
        "stream",
        "include_usage",
        "n",
        "max_output_tokens",
        "max_output_field",
        "inputs",
    ];
    check(
        |_, exchange| {
            let facts = reading::request(exchange);
            let expect = &exchange["expect"]["request"];
            let model_in = facts
                .model_in
                .map(|place| format!("{place:?}").to_lowercase());
            let read = serde_json::json!({
                "model": facts.model.as_deref(),
                "model_in": model_in,
                "stream": facts.stream,
                "include_usage": facts.include_usage,
                "n": facts.answers,
                "max_output_tokens": facts.max_output_tokens,
                "max_output_field": facts.max_output_field,
                "inputs": facts.inputs,
            });
            KEYS.into_iter()
                .filter_map(|name| {
                    let key = if name == "model_asked" { "model" } else { name };
                    // What the expectation leaves out was not sent, and then there is nothing to compare.
                    let want = expect.get(key)?;
                    // A cap below zero is none; the expectation has it as it was sent.
                    if expect["max_output_tokens"]
                        .as_i64()
                        .is_some_and(|cap| cap < 0)
                        && key.starts_with("max_")
                    {
                        return None;
                    }
                    (read[key] != *want)
                        .then(|| (name, format!("read {}, expected {want}", read[key])))
                })
                .collect()
        },
        &KEYS,
    );
}

// U07
#[test]
fn no_recorded_answer_depends_on_how_it_is_cut() {
    check(
        |file, exchange| {
            let whole = reading::of_file(file);
            [1, 7, 1000]
                .into_iter()
                .filter_map(|size| {
                    let cut = reading::of_exchange(exchange, size);
                    (cut != whole)
                        .then(|| ("cut", format!("in pieces of {size}: {cut} is not {whole}")))
                })
                .collect()
        },
        &["cut"],
    );
}
