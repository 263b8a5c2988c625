//! Documents and streams of every endpoint.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::{ask, chat, chat_stream, messages, post, responses, send};
use tokio::time::Instant;
use tollgate_sim::SimProvider;

fn provider() -> SimProvider {
    SimProvider::builder()
        .reply_tokens(20)
        .dated("2025-08-07")
        .build()
}

/// The text of a stream, joined from its deltas.
fn joined(documents: &[Value], pointer: &str) -> String {
    let deltas = documents
        .iter()
        .filter_map(|document| document.pointer(pointer)?.as_str());
    deltas.collect()
}

#[tokio::test(start_paused = true)]
async fn a_chat_completion_states_its_usage_and_served_model() {
    let answer = ask(&provider(), chat(401, 50)).await.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "gpt-test-2025-08-07");
    assert_eq!(answer["usage"]["prompt_tokens"], 101);
    assert_eq!(answer["usage"]["completion_tokens"], 20);
    assert_eq!(answer["usage"]["total_tokens"], 121);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        answer["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .len(),
        80
    );
}

#[tokio::test(start_paused = true)]
async fn a_cap_cuts_the_answer_and_says_so() {
    let answer = ask(&provider(), chat(1, 7)).await.json();
    assert_eq!(answer["usage"]["completion_tokens"], 7);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let answer = ask(&provider(), messages(1, 7, false)).await.json();
    assert_eq!(answer["stop_reason"], "max_tokens");
    let answer = ask(&provider(), responses(7, false)).await.json();
    assert_eq!(answer["status"], "incomplete");
    assert_eq!(answer["incomplete_details"]["reason"], "max_output_tokens");
}

#[tokio::test(start_paused = true)]
async fn n_answers_are_made_and_billed() {
    for stream in [false, true] {
        let provider = provider();
        let body = json!({"model": "gpt-test", "n": 3, "max_completion_tokens": 30, "stream": stream,
            "messages": [{"role": "user", "content": "Hi"}]});
        let answer = ask(&provider, post("/v1/chat/completions", &body)).await;
        if stream {
            for index in 0..3 {
                let documents = answer.documents();
                let of = |document: &&Value| document["choices"][0]["index"] == index;
                let mine: Vec<_> = documents.iter().filter(of).cloned().collect();
                assert_eq!(joined(&mine, "/choices/0/delta/content").len(), 80);
            }
        } else {
            assert_eq!(answer.json()["choices"].as_array().unwrap().len(), 3);
        }
        let account = provider.account();
        assert_eq!(account.requests[0].billed.output, 60);
        assert_eq!(account.requests[0].cost.tokens, 1 + 90);
    }
}

#[tokio::test(start_paused = true)]
async fn a_chat_stream_ends_with_usage_only_if_asked_for() {
    let with = ask(&provider(), chat_stream(50, true)).await;
    assert_eq!(
        with.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    let events = with.events();
    assert_eq!(events.last().unwrap().1, "[DONE]");
    let documents = with.documents();
    assert_eq!(joined(&documents, "/choices/0/delta/content").len(), 80);
    let (last, rest) = documents.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 20);
    assert!(
        rest.iter()
            .all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some())
    );
    assert_eq!(rest.last().unwrap()["choices"][0]["finish_reason"], "stop");

    let without = ask(&provider(), chat_stream(50, false)).await.documents();
    assert!(without.iter().all(|chunk| chunk.get("usage").is_none()));
    assert_eq!(without.len(), rest.len());
}

#[tokio::test(start_paused = true)]
async fn an_anthropic_stream_has_its_events_in_order() {
    let answer = ask(&provider(), messages(40, 50, true)).await;
    let names: Vec<_> = answer.events().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..3], ["message_start", "content_block_start", "ping"]);
    assert!(
        names[3..23]
            .iter()
            .all(|name| name == "content_block_delta")
    );
    assert_eq!(
        names[23..],
        ["content_block_stop", "message_delta", "message_stop"]
    );
    let documents = answer.documents();
    assert_eq!(documents[0]["message"]["usage"]["input_tokens"], 10);
    assert_eq!(documents[24]["usage"]["output_tokens"], 20);
    assert_eq!(joined(&documents, "/delta/text").len(), 80);
    for (name, document) in names.iter().zip(&documents) {
        assert_eq!(document["type"], **name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_responses_stream_ends_with_the_whole_response() {
    let answer = ask(&provider(), responses(50, true)).await;
    let names: Vec<_> = answer.events().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[0], "response.created");
    assert_eq!(names.last().unwrap(), "response.completed");
    let documents = answer.documents();
    assert_eq!(joined(&documents, "/delta").len(), 80);
    assert_eq!(documents[0]["response"]["usage"], Value::Null);
    let last = &documents.last().unwrap()["response"];
    assert_eq!(last["usage"]["total_tokens"], 2 + 20);
    assert_eq!(
        last["output"][0]["content"][0]["text"]
            .as_str()
            .unwrap()
            .len(),
        80
    );
    let numbers: Vec<_> = documents
        .iter()
        .map(|event| event["sequence_number"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "{numbers:?}"
    );

    let document = ask(&provider(), responses(50, false)).await.json();
    assert_eq!(document["status"], "completed");
    assert_eq!(
        document["output"][0]["content"],
        last["output"][0]["content"]
    );
}

#[tokio::test(start_paused = true)]
async fn embeddings_answer_each_input_in_both_encodings() {
    let provider = provider();
    let body = json!({"model": "embed-test", "input": ["12345", "1"]});
    let answer = ask(&provider, post("/v1/embeddings", &body)).await.json();
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert_eq!(answer["data"][1]["embedding"].as_array().unwrap().len(), 8);
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 2, "total_tokens": 2})
    );
    let body = json!({"model": "embed-test", "input": [1, 2, 3], "encoding_format": "base64"});
    let answer = ask(&provider, post("/v1/embeddings", &body)).await.json();
    assert_eq!(answer["data"].as_array().unwrap().len(), 1);
    assert_eq!(answer["data"][0]["embedding"].as_str().unwrap().len(), 44);
    assert_eq!(provider.account().requests[0].cost.tokens, 2 + 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_answers_and_times() {
    let run = async |seed| {
        let provider = SimProvider::builder()
            .seed(seed)
            .latency(tollgate_sim::Latency::LogNormal {
                median: Duration::from_millis(250),
                sigma: 0.4,
            })
            .build();
        let mut seen = Vec::new();
        for chars in 0..20 {
            let before = Instant::now();
            let answer = ask(&provider, chat(chars, 500)).await;
            seen.push((before.elapsed(), answer.body));
        }
        seen
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}

#[tokio::test(start_paused = true)]
async fn answers_use_the_share_of_their_cap_that_was_set() {
    let provider = SimProvider::builder().output_share(0.3).build();
    for chars in 0..500 {
        ask(&provider, chat(chars, 1_000)).await;
    }
    let mean = provider.totals().billed_output / 500;
    assert!((270..330).contains(&mean), "{mean}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_keeps_its_pace_and_a_document_takes_as_long() {
    let provider = SimProvider::builder()
        .reply_tokens(11)
        .latency(Duration::from_millis(200))
        .pace(Duration::from_millis(10))
        .build();
    let start = Instant::now();
    let mut body = send(&provider, chat_stream(50, false))
        .await
        .unwrap()
        .into_body();
    assert_eq!(start.elapsed(), Duration::from_millis(200));
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
    }
    assert_eq!(
        start.elapsed(),
        Duration::from_millis(200),
        "the role and the first token"
    );
    body.collect().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(300));
    let start = Instant::now();
    ask(&provider, chat(0, 50)).await;
    assert_eq!(start.elapsed(), Duration::from_millis(310));
}

#[tokio::test(start_paused = true)]
async fn requests_arrive_later_than_they_are_sent_when_told() {
    let provider = SimProvider::builder()
        .arrival_skew(Duration::from_millis(70))
        .build();
    let start = Instant::now();
    ask(&provider, chat(0, 1)).await;
    assert_eq!(start.elapsed(), Duration::from_millis(70));
    let account = provider.account();
    assert_eq!(account.requests[0].at, Duration::from_millis(70));
}
