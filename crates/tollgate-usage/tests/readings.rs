//! What is read of answers of every shape.
#![allow(clippy::unwrap_used)]
mod common;

use common::*;
use proptest::prelude::*;
use serde_json::json;
use tollgate_core::{
    price::{Cost, Pico, Price, PriceTable},
    wire::{
        outcome::Outcome,
        prompt::Endpoint,
        usage::{Count, Finish},
    },
};
use tollgate_sim::script::{Reply, Scripted};
use tollgate_usage::{Completion, UsageRecord};

async fn record(reply: Reply, request: Req) -> UsageRecord {
    let kept = Kept::default();
    let prices = PriceTable::new().with("gpt-test", Price::per_million("1", "2").unwrap());
    let layer = kept.layer().prices(prices);
    exchange(&layer, &Scripted::new([reply]), request)
        .await
        .1
        .unwrap();
    kept.one()
}

#[tokio::test(start_paused = true)]
async fn a_document_is_read() {
    let record = record(
        Reply::chat("gpt-test-2025-01-01", 10, 20),
        chat(json!({"user": "u1"})),
    )
    .await;
    assert_eq!(record.endpoint, Endpoint::ChatCompletions);
    assert_eq!(record.model_asked.as_deref(), Some("gpt-test"));
    assert_eq!(record.model_served.as_deref(), Some("gpt-test-2025-01-01"));
    assert_eq!(
        (record.usage.input, record.usage.output),
        (Count::Exact(10), Count::Exact(20))
    );
    assert_eq!(record.cost, Cost::Exact("0.00005".parse().unwrap()));
    assert_eq!(record.finish, Some(Finish::Stop));
    assert_eq!(record.completion, Completion::Complete);
    assert!(
        record.principal.is_some(),
        "the user of the request, as a digest"
    );
    assert!(record.time_to_first_token.is_some());
    assert!(!record.stream);
}

// U01
#[tokio::test(start_paused = true)]
async fn usage_on_a_last_chunk_without_choices_is_recorded_once() {
    let record = record(Reply::stream(stream()), asked()).await;
    assert_eq!(record.usage.input, Count::Exact(11));
    assert_eq!(record.usage.cached_input, Count::Exact(4));
    assert_eq!(record.usage.output, Count::Exact(7));
    assert_eq!(record.usage.reasoning, Count::Exact(2));
    assert_eq!(record.finish, Some(Finish::Stop));
    assert!(record.stream && record.has_usage);
}

// U02
#[tokio::test(start_paused = true)]
async fn usage_beside_choices_is_recorded_with_its_cached_tokens() {
    let last = json!({"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 8}}});
    let record = record(
        Reply::stream([delta("x"), event(&last), DONE.into()]),
        asked(),
    )
    .await;
    assert_eq!(record.usage.cached_input, Count::Exact(8));
    assert_eq!(record.usage.total, Count::Exact(14));
}

// U03
#[tokio::test(start_paused = true)]
async fn cumulative_usage_is_the_last_and_not_the_sum() {
    let chunk = |output: u64| {
        event(
            &json!({"model": "m", "choices": [{"index": 0, "delta": {"content": "x"}}],
            "usage": {"prompt_tokens": 9, "completion_tokens": output, "total_tokens": 9 + output}}),
        )
    };
    let record = record(
        Reply::stream([chunk(1), chunk(2), chunk(3), DONE.into()]),
        asked(),
    )
    .await;
    assert_eq!(record.usage.output, Count::Exact(3));
    assert_eq!(record.usage.input, Count::Exact(9));
}

// U04
#[tokio::test(start_paused = true)]
async fn cache_tokens_in_the_first_and_the_last_event_are_not_doubled() {
    let start = json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
        "role": "assistant", "model": "claude-test", "content": [], "stop_reason": null,
        "usage": {"input_tokens": 3, "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 50, "output_tokens": 1}}})
    .to_string();
    let text = json!({"type": "content_block_delta", "index": 0,
        "delta": {"type": "text_delta", "text": "Hello"}})
    .to_string();
    let delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
        "usage": {"input_tokens": 3, "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 50, "output_tokens": 12}})
    .to_string();
    let stop = json!({"type": "message_stop"}).to_string();
    let reply = Reply::sse_named([
        ("message_start", &*start),
        ("content_block_delta", &*text),
        ("message_delta", &*delta),
        ("message_stop", &*stop),
    ]);
    let body = json!({"model": "claude-test", "max_tokens": 99, "stream": true, "messages": []});
    let record = record(reply, post("/v1/messages", &body)).await;
    assert_eq!(record.usage.cached_input, Count::Exact(50));
    assert_eq!(record.usage.cache_write, Count::Exact(100));
    assert_eq!(
        record.usage.input,
        Count::Exact(153),
        "all input, cached or not"
    );
    assert_eq!(record.usage.output, Count::Exact(12));
}

/// Streams that say the same in different ways.
fn spellings() -> Vec<(&'static str, String)> {
    let events = stream();
    let whole = events.concat();
    let usage = usage_chunk(11, 7);
    let (head, tail) = usage.split_once(",\"usage\"").unwrap();
    let mut two_lines = events.clone();
    two_lines[3] = format!("{head}\ndata: ,\"usage\"{tail}");
    vec![
        ("as it is", whole.clone()),
        ("CRLF", whole.replace('\n', "\r\n")),
        (
            "comments",
            format!(": hi\n\n{}", whole.replace("\n\n", "\n\n: ping\n\n")),
        ),
        ("data on two lines", two_lines.concat()),
        ("no final blank line", whole.trim_end().to_owned()),
        ("no [DONE]", events[..4].concat()),
        (
            "no [DONE] and no blank line",
            events[..4].concat().trim_end().to_owned(),
        ),
        ("no space after the colon", whole.replace("data: ", "data:")),
    ]
}

// U07
#[tokio::test(start_paused = true)]
async fn a_stream_reads_the_same_however_it_is_spelt_and_cut() {
    for (name, text) in spellings() {
        let whole = record(Reply::stream([text.clone()]), asked()).await;
        assert_eq!(whole.usage.output, Count::Exact(7), "{name}");
        assert_eq!(whole.completion, Completion::Complete, "{name}");
        assert_eq!(whole.finish, Some(Finish::Stop), "{name}");
        for size in [1, 2, 3, 7, 64] {
            let cut = Reply::stream([text.clone()]).rechunk(size);
            assert_eq!(
                gist(&whole),
                gist(&record(cut, asked()).await),
                "{name} by {size}"
            );
        }
        for at in 1..text.len() {
            let (a, b) = text.as_bytes().split_at(at);
            let cut = Reply::stream([a.to_vec(), b.to_vec()]);
            assert_eq!(
                gist(&whole),
                gist(&record(cut, asked()).await),
                "{name} at {at}"
            );
        }
    }
}

// U08
#[tokio::test(start_paused = true)]
async fn a_malformed_event_passes_and_the_record_is_made() {
    let mut events = stream();
    events.insert(1, "data: {\"choices\":[{\"delta\n\n".to_owned());
    let kept = Kept::default();
    let upstream = Scripted::new([Reply::stream(events.clone())]);
    let (_, body) = exchange(&kept.layer(), &upstream, asked()).await;
    assert_eq!(body.unwrap(), events.concat());
    assert_eq!(kept.one().usage.output, Count::Exact(7));
}

// U13
#[tokio::test(start_paused = true)]
async fn reasoning_inside_or_beside_the_output_is_paid_once() {
    // OpenAI: inside. Gemini: beside.
    let openai = Reply::ok_json(json!({"model": "gpt-test", "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "x"}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 100, "total_tokens": 110,
            "completion_tokens_details": {"reasoning_tokens": 80}}}));
    let openai = record(openai, chat(json!({}))).await;
    let gemini = Reply::ok_json(json!({"modelVersion": "gpt-test",
        "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 20,
            "thoughtsTokenCount": 80, "totalTokenCount": 110}}));
    let path = "/v1beta/models/gpt-test:generateContent";
    let gemini = record(gemini, post(path, &json!({"contents": []}))).await;
    for record in [openai, gemini] {
        assert_eq!(record.usage.output, Count::Exact(100));
        assert_eq!(record.usage.reasoning, Count::Exact(80));
        assert_eq!(record.cost, Cost::Exact("0.00021".parse().unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_embedding_has_input_and_a_picture_may_have_nothing() {
    let reply = Reply::ok_json(json!({"object": "list", "model": "gpt-test",
        "data": [{"index": 0, "embedding": [0.1]}],
        "usage": {"prompt_tokens": 8, "total_tokens": 8}}));
    let request = post(
        "/v1/embeddings",
        &json!({"model": "gpt-test", "input": "x"}),
    );
    let embedding = record(reply, request).await;
    assert_eq!(embedding.usage.input, Count::Exact(8));
    assert_eq!(embedding.cost, Cost::Exact("0.000008".parse().unwrap()));

    let reply = Reply::ok_json(json!({"created": 1, "data": [{"url": "https://x"}]}));
    let request = post(
        "/v1/images/generations",
        &json!({"model": "gpt-test", "prompt": "x"}),
    );
    let image = record(reply, request).await;
    assert!(!image.has_usage && image.metered());
    assert_eq!(
        (image.usage.input, image.cost),
        (Count::Unknown, Cost::Unknown)
    );
}

#[tokio::test(start_paused = true)]
async fn a_queued_background_response_is_not_usage() {
    let reply = Reply::ok_json(
        json!({"id": "resp_1", "object": "response", "status": "queued",
        "model": "gpt-test", "output": [], "usage": null}),
    );
    let body = json!({"model": "gpt-test", "input": "x", "background": true});
    let record = record(reply, post("/v1/responses", &body)).await;
    assert!(record.background && !record.metered() && !record.has_usage);
    assert_eq!(record.response_id.as_deref(), Some("resp_1"));
}

#[tokio::test(start_paused = true)]
async fn a_background_response_is_usage_once_however_often_it_is_fetched() {
    let kept = Kept::default();
    let layer = kept.layer();
    let response = |status: &str, usage: serde_json::Value| {
        Reply::ok_json(
            json!({"id": "resp_1", "object": "response", "status": status,
            "model": "gpt-test", "background": true, "output": [], "usage": usage}),
        )
    };
    let used = json!({"input_tokens": 9, "output_tokens": 4, "total_tokens": 13});
    let upstream = Scripted::new([
        response("queued", json!(null)),
        response("in_progress", json!(null)),
        response("completed", used.clone()),
        response("completed", used),
    ]);
    let body = json!({"model": "gpt-test", "input": "x", "background": true});
    exchange(&layer, &upstream, post("/v1/responses", &body))
        .await
        .1
        .unwrap();
    for _ in 0..3 {
        let uri = "https://api.example/v1/responses/resp_1?include=x";
        let fetch = http::Request::get(uri)
            .body(http_body_util::Full::default())
            .unwrap();
        exchange(&layer, &upstream, fetch).await.1.unwrap();
    }
    let records = kept.all();
    let outputs: Vec<_> = records
        .iter()
        .map(|record| record.usage.output.get())
        .collect();
    assert_eq!(outputs, [None, None, Some(4), None]);
    assert!(
        records
            .iter()
            .all(|record| record.background && !record.metered())
    );
}

#[tokio::test(start_paused = true)]
async fn another_tier_has_no_price_yet() {
    let reply = Reply::ok_json(json!({"model": "gpt-test", "object": "chat.completion",
        "choices": [], "service_tier": "priority",
        "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}}));
    let record = record(reply, chat(json!({}))).await;
    assert_eq!(record.service_tier.as_deref(), Some("priority"));
    assert_eq!(
        record.cost,
        Cost::Unknown,
        "unknown, and not the price of another tier"
    );
}

#[tokio::test(start_paused = true)]
async fn limits_and_refusals_are_read() {
    let reply = Reply::rate_limited(7)
        .header("x-ratelimit-limit-requests", "500")
        .header("x-ratelimit-remaining-requests", "0");
    let record = record(reply, chat(json!({}))).await;
    assert!(matches!(record.outcome, Some(Outcome::RateLimited { .. })));
    assert_eq!(record.rate_limits.len(), 1);
    assert_eq!(
        record.cost,
        Cost::Exact("0".parse().unwrap()),
        "refused requests are free"
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_in_a_stream_of_status_200_is_an_error() {
    let error = json!({"error": {"message": "The server had an error", "type": "server_error"}});
    let broken = record(Reply::stream([delta("x"), event(&error)]), asked()).await;
    assert_eq!(broken.outcome, Some(Outcome::ServerError));
    assert!(
        !matches!(broken.cost, Cost::Exact(_)),
        "some of it was generated"
    );
    let refused = record(Reply::stream([event(&error)]), asked()).await;
    assert_eq!(refused.cost, Cost::Exact(Pico::ZERO), "none of it was");

    let begun = json!({"type": "message_start", "message": {"model": "m", "content": [],
        "usage": {"input_tokens": 10, "output_tokens": 1}}});
    let text = json!({"type": "content_block_delta", "index": 0,
        "delta": {"type": "text_delta", "text": "twelve letters or more"}});
    let error =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let anthropic = record(
        Reply::stream([event(&begun), event(&text), event(&error)]),
        asked(),
    )
    .await;
    assert_eq!(
        anthropic.usage.output,
        Count::AtLeast(1),
        "the first count is no last word"
    );
    assert_eq!(anthropic.estimated_output, Count::AtLeast(5));
}

/// Arbitrary bytes, often almost a stream.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        any::<Vec<u8>>(),
        Just(b"data: ".to_vec()),
        Just(b"\n\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"{\"usage\":{\"prompt_tokens\":-1e308,\"completion_tokens\":1e999}}".to_vec()),
        Just(usage_chunk(1, 2).into_bytes()),
        Just(DONE.as_bytes().to_vec()),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_break_a_stream_or_change(bytes in garbage(), size in 1usize..9) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let kept = Kept::default();
            let upstream = Scripted::new([Reply::stream([bytes.clone()]).rechunk(size)]);
            let (_, body) = exchange(&kept.layer(), &upstream, asked()).await;
            assert_eq!(body.unwrap(), bytes);
            kept.one();
        });
    }
}
