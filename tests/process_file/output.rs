//! One line for each row, in the form that was asked for.
use std::collections::BTreeSet;

use serde_json::{Value, json};
use tollgate_sim::{Fault, SimProvider};

use crate::common::{Job, Provider, chat, id, said};

#[test]
fn every_row_has_one_line_with_its_metadata_its_request_and_its_answer() {
    let provider = Provider::start(SimProvider::builder());
    let embed = r#"{"metadata": "e", "model": "text-embedding-3-small", "input": ["a", "b"]}"#;
    let respond = r#"{"model": "gpt-test", "input": "Say hello.", "metadata": ["r"]}"#;
    let job = Job::of(["{\"model\":\"gpt-test\",\"messages\":[]}", embed, respond]);
    assert!(job.run(&provider, &[]).status.success());
    let lines = job.lines();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        assert!(
            line["error"].is_null() && line["request"]["metadata"].is_null(),
            "{line}"
        );
        let object = match &line["metadata"] {
            Value::String(_) => "list",
            Value::Array(_) => "response",
            _ => "chat.completion",
        };
        assert_eq!(line["response"]["object"], object);
    }
    assert!(
        provider
            .asked()
            .keys()
            .all(|body| !body.windows(8).any(|part| part == b"metadata")),
        "metadata is the caller's and is not sent"
    );
}

#[test]
fn a_base_url_may_have_its_version_and_a_path_may_be_given() {
    let provider = Provider::start(SimProvider::builder());
    for (suffix, args) in [
        ("", &[][..]),
        ("/", &["--endpoint", "chat/completions"]),
        ("/v1", &[]),
        ("/v1/", &["--endpoint", "/v1/chat/completions"]),
    ] {
        let job = Job::of([chat(0)]);
        let url = format!("{}{suffix}", provider.url);
        assert!(
            job.command_to(&url, args)
                .output()
                .unwrap()
                .status
                .success()
        );
        assert!(job.lines()[0]["response"].is_object(), "{url} {args:?}");
    }
}

// F01
#[test]
fn another_model_serves_the_rows_that_theirs_cannot() {
    let provider = Provider::start(SimProvider::builder().model("gpt-test").model("gpt-spare"));
    let gone = |id| chat(id).replace("gpt-test", "gpt-gone");
    let job = Job::of([chat(0), gone(1), gone(2), chat(3)]);
    let result = job.run(&provider, &["--fallback", "gpt-nowhere,gpt-spare"]);
    assert!(result.status.success());
    let lines = job.lines();
    assert_eq!(lines.len(), 4);
    for line in &lines {
        let (asked, served) = match id(line) {
            1 | 2 => ("gpt-gone", "gpt-spare"),
            _ => ("gpt-test", "gpt-test"),
        };
        assert_eq!(
            line["request"]["model"], asked,
            "the row comes back as it was"
        );
        assert_eq!(line["response"]["model"], served);
    }
    assert_eq!(
        (said(&result, "results"), said(&result, "fallbacks")),
        (4, 2)
    );
}

#[test]
fn the_batch_format_is_answered_in_its_own_form() {
    let provider = Provider::with_faults(SimProvider::builder(), |body| {
        match body["model"].as_str() {
            Some("gone") => Fault::Status(404),
            _ => Fault::None,
        }
    });
    let line = |id: &str, url: &str, body: Value| {
        json!({"custom_id": id, "method": "POST", "url": url, "body": body}).to_string()
    };
    let ask =
        |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
    let job = Job::of([
        line("a", "/v1/chat/completions", ask("gpt-test")),
        line("b", "/v1/embeddings", json!({"model": "m", "input": "x"})),
        line("c", "/v1/chat/completions", ask("gone")),
        line(
            "d",
            "https://elsewhere.example/v1/chat/completions",
            ask("gpt-test"),
        ),
    ]);
    assert!(job.run(&provider, &[]).status.success());
    let lines = job.lines();
    assert_eq!(lines.len(), 4);
    let of = |id: &str| lines.iter().find(|line| line["custom_id"] == id).unwrap();
    for (id, object) in [("a", "chat.completion"), ("b", "list")] {
        let line = of(id);
        assert!(line["id"].as_str().unwrap().starts_with("batch_req_"));
        assert_eq!(line["response"]["status_code"], 200);
        assert!(line["response"]["request_id"].is_string());
        assert_eq!(line["response"]["body"]["object"], object);
        assert!(line["error"].is_null() && line.get("error").is_some());
    }
    assert_eq!(of("c")["response"]["status_code"], 404);
    assert!(of("c")["error"]["message"].is_string());
    assert!(of("d")["response"].is_null() && of("d")["error"]["line"] == 4);
    let ids: BTreeSet<_> = lines
        .iter()
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(
        provider.sim.totals().requests,
        3,
        "no row chooses whom the key is sent to"
    );

    assert!(job.run(&provider, &["--resume"]).status.success());
    assert_eq!(
        job.lines().len(),
        4,
        "two answers kept, two errors replaced"
    );
    assert_eq!(
        provider.sim.totals().requests,
        4,
        "and only what can be sent was sent again"
    );
}

#[test]
fn an_answer_that_is_not_whole_is_an_error_and_never_a_result() {
    let provider =
        Provider::with_faults(
            SimProvider::builder(),
            |body| match body["messages"][0]["content"].as_str() {
                Some("row 0") => Fault::CutJson,
                Some("row 1") => Fault::CutBody { bytes: 20 },
                Some("row 2") => Fault::Reset,
                Some("row 3") => Fault::Status(500),
                Some("row 4") => Fault::Status(400),
                Some("row 5") => Fault::Quota,
                _ => Fault::None,
            },
        );
    let job = Job::of((0..7).map(chat));
    let result = job.run(&provider, &["--max-attempts", "2"]);
    assert!(result.status.success(), "the errors are on record");
    let lines = job.lines();
    assert_eq!(lines.len(), 7);
    for line in &lines {
        let attempts = match id(line) {
            0..=3 => 2,
            4 | 5 => 1,
            _ => continue,
        };
        let error = &line["error"];
        assert!(line["response"].is_null());
        assert!(error["type"].is_string() && !error["message"].as_str().unwrap().is_empty());
        assert_eq!(error["attempts"], attempts, "{line}");
    }
    let status =
        |row| lines.iter().find(|line| id(line) == row).unwrap()["error"]["status"].as_u64();
    assert_eq!(
        [3, 4, 5, 2].map(status),
        [Some(500), Some(400), Some(429), None]
    );
    assert_eq!((said(&result, "results"), said(&result, "errors")), (1, 6));
    assert_eq!(said(&result, "requests sent"), 11);
}
