//! Records as lines of JSON: names that do not change, lines that survive a crash.
#![allow(clippy::unwrap_used)]
mod common;

use std::{
    fs,
    io::{self, Write},
    time::Duration,
};

use common::{asked, chat, delta, exchange, stream};
use serde_json::{Value, json};
use tollgate_core::price::{Price, PriceTable};
use tollgate_sim::script::{Reply, Scripted};
use tollgate_usage::{JsonLines, Sink, SinkQueue, UsageRecord, UsageRecorderLayer};

const LONG: Duration = Duration::from_secs(60);

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| serde_json::from_str(line).unwrap_or(Value::from(line));
    text.lines().map(line).collect()
}

#[tokio::test]
async fn a_record_is_a_flat_line_in_the_names_of_the_conventions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("usage.jsonl");
    let queue = SinkQueue::new(JsonLines::append(&path).unwrap()).unwrap();
    let price = Price::per_million("1", "2").unwrap();
    let layer =
        UsageRecorderLayer::new(queue.clone()).prices(PriceTable::new().with("gpt-test", price));
    let whole = Reply::stream(stream())
        .header("x-ratelimit-limit-requests", "500")
        .header("x-ratelimit-remaining-requests", "499")
        .header("x-ratelimit-reset-requests", "120ms");
    let cut = Reply::stream([delta("abcdefgh")]);
    let upstream = Scripted::new([whole, cut, Reply::rate_limited(7)]);
    let mut request = asked();
    let key = "Bearer sk-1".parse().unwrap();
    request.headers_mut().insert("authorization", key);
    exchange(&layer, &upstream, request).await.1.unwrap();
    exchange(&layer, &upstream, asked()).await.1.unwrap();
    exchange(&layer, &upstream, chat(json!({})))
        .await
        .1
        .unwrap();
    queue.flush(LONG).await.unwrap();

    let mut lines = lines(&path);
    assert_eq!(lines.len(), 3);
    // What differs from run to run is there, and of its type.
    let line = lines[0].as_object_mut().unwrap();
    for name in ["tollgate.call", "tollgate.key"] {
        let digits = line.remove(name).unwrap();
        assert_eq!(digits.as_str().unwrap().len(), 16, "{name}");
    }
    assert!(line.remove("tollgate.started_unix_us").unwrap().is_u64());
    for name in [
        "gen_ai.client.operation.duration",
        "gen_ai.client.operation.time_to_first_chunk",
        "tollgate.time_to_head",
    ] {
        assert!(line.remove(name).unwrap().is_f64(), "{name}");
    }
    let received = stream().concat().len();
    assert_eq!(
        lines[0],
        json!({
            "tollgate.kind": "call",
            "tollgate.attempt": 1,
            "tollgate.endpoint": "chat_completions",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.stream": true,
            "gen_ai.request.model": "gpt-test",
            "gen_ai.response.model": "gpt-test-2025-01-01",
            "http.response.status_code": 200,
            "tollgate.outcome": "ok",
            "tollgate.completion": "complete",
            "tollgate.bytes_received": received,
            "gen_ai.usage.input_tokens": 11,
            "gen_ai.usage.cache_read.input_tokens": 4,
            "gen_ai.usage.output_tokens": 7,
            "gen_ai.usage.reasoning.output_tokens": 2,
            "tollgate.usage.total_tokens": 18,
            "tollgate.usage.known": true,
            "tollgate.cost_usd": "0.000025",
            "tollgate.finish": "stop",
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.response.id": "c-1",
            "tollgate.rate_limits": [
                {"dimension": "requests", "limit": 500.0, "remaining": 499.0, "reset": 0.12},
            ],
        })
    );
    assert_eq!(lines[1]["tollgate.completion"], "partial");
    assert_eq!(lines[1]["tollgate.usage.estimated_output_tokens"], 2);
    assert_eq!(lines[1]["tollgate.cost.lower_bound"], true);
    assert_eq!(lines[2]["error.type"], "rate_limited");
}

#[test]
fn half_a_line_of_a_crash_spoils_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("usage.jsonl");
    let write = |count: usize| {
        let records = vec![UsageRecord::default(); count];
        JsonLines::append(&path).unwrap().write(&records).unwrap();
    };
    write(2);
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(br#"{"tollgate.call":"00"#).unwrap();
    write(1);
    write(1);
    let lines = lines(&path);
    let whole = lines.iter().filter(|line| line.is_object()).count();
    assert_eq!((whole, lines.len()), (4, 5));
}

#[test]
fn a_writer_that_fails_is_reported() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let failed = JsonLines::new(Full).write(&[UsageRecord::default()]);
    assert!(failed.is_err());
}
