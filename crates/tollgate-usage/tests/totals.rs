//! What can be read from the one handle: sums, history, limits, prices that change.
#![allow(clippy::unwrap_used)]
mod common;

use common::{Kept, asked, chat, exchange, post};
use serde_json::json;
use tollgate_core::{
    call::{Call, CallOptions, Skipped},
    extensions::Recorded,
    price::{Cost, Price, PriceTable, Prices},
    principal::Principal,
    wire::usage::Count,
};
use tollgate_sim::script::{Reply, Scripted};
use tollgate_usage::{Totals, UsageRecorderLayer, UsageTotals};

fn price(input: &str, output: &str) -> Price {
    Price::per_million(input, output).unwrap()
}

fn dollars(amount: &str) -> Cost {
    Cost::Exact(amount.parse().unwrap())
}

// L08
#[tokio::test(start_paused = true)]
async fn the_limits_of_the_last_answer_can_be_read_from_the_handle() {
    let totals = UsageTotals::new();
    let layer = UsageRecorderLayer::new(totals.clone());
    let limited = |model: &str, requests: &str, tokens: &str| {
        Reply::chat(model, 1, 1)
            .header("x-ratelimit-limit-requests", "500")
            .header("x-ratelimit-remaining-requests", requests)
            .header("x-ratelimit-reset-requests", "120ms")
            .header("x-ratelimit-limit-tokens", "200000")
            .header("x-ratelimit-remaining-tokens", tokens)
            .header("x-ratelimit-reset-tokens", "6s")
    };
    let upstream = Scripted::new([
        limited("m-1", "499", "199000"),
        limited("m-2", "77", "7000"),
        limited("m-1", "498", "190000"),
        Reply::chat("m-1", 1, 1),
    ]);
    for _ in 0..4 {
        exchange(&layer, &upstream, chat(json!({})))
            .await
            .1
            .unwrap();
    }
    let seen = totals.limits();
    let line = |seen: &tollgate_usage::SeenLimit| {
        let stated = &seen.stated;
        let wait = seen.resets_at().unwrap().duration_since(seen.at).unwrap();
        let dimension = stated.dimension.as_str();
        let (limit, left) = (stated.limit.unwrap(), stated.remaining.unwrap());
        format!("{} {dimension} {left}/{limit} {wait:?}", seen.model)
    };
    let lines: Vec<String> = seen.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "m-1 requests 498/500 120ms",
            "m-1 tokens 190000/200000 6s",
            "m-2 requests 77/500 120ms",
            "m-2 tokens 7000/200000 6s",
        ]
    );
    assert_eq!(seen[3].share_left(), Some(0.035));
}

// L10
#[tokio::test(start_paused = true)]
async fn calls_are_added_up_by_model_key_and_principal() {
    let totals = UsageTotals::new();
    let layer = UsageRecorderLayer::new(totals.clone());
    let upstream = Scripted::new([
        Reply::chat("m-1", 10, 1),
        Reply::chat("m-2", 20, 2),
        Reply::chat("m-2", 40, 4),
        Reply::chat("m-1", 80, 8),
    ]);
    for (key, who) in [
        (Some("sk-a"), Some("alice")),
        (Some("sk-a"), Some("bob")),
        (Some("sk-b"), Some("alice")),
        (None, None),
    ] {
        let mut request = chat(json!({}));
        if let Some(key) = key {
            let value = format!("Bearer {key}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        if let Some(who) = who {
            let options = CallOptions::new().principal(who);
            request.extensions_mut().insert(options);
        }
        exchange(&layer, &upstream, request).await.1.unwrap();
    }
    let used = totals.snapshot();
    let sums = |of: &Totals| (of.calls, of.input, of.output, of.total);
    assert_eq!(sums(&used.all), (4, 150, 15, 165));
    assert_eq!(used.model("m-1").map(sums), Some((2, 90, 9, 99)));
    assert_eq!(used.model("m-2").map(sums), Some((2, 60, 6, 66)));
    let alice = used.principal(Principal::of("alice")).map(sums);
    assert_eq!(alice, Some((2, 50, 5, 55)));
    let keys = used.keys.entries.iter();
    let mut inputs: Vec<u64> = keys.map(|(_, of)| of.input).collect();
    inputs.sort_unstable();
    assert_eq!(inputs, [30, 40], "two keys, and nothing for what had none");
    let history = totals.history();
    let of =
        |periods: &[tollgate_usage::Period]| periods.iter().map(|period| period.total).sum::<u64>();
    assert_eq!((of(&history.minutes), of(&history.hours)), (165, 165));
    let model = totals.model_history("m-1").unwrap();
    assert_eq!(of(&model.hours), 99);
}

// U19
#[tokio::test(start_paused = true)]
async fn principals_beyond_the_bound_are_added_up_together() {
    let totals = UsageTotals::new();
    let record = |who| {
        let mut record = tollgate_usage::UsageRecord::default();
        record.principal = Some(Principal::from_digest(who));
        tollgate_usage::Recorder::record(&totals, &record);
    };
    (0..10_003).for_each(record);
    let principals = totals.snapshot().principals;
    assert_eq!(
        (principals.entries.len(), principals.other.calls),
        (10_000, 3)
    );
}

// L11
#[tokio::test(start_paused = true)]
async fn cut_and_filtered_answers_can_be_counted() {
    let totals = UsageTotals::new();
    let layer = UsageRecorderLayer::new(totals.clone());
    let finished = |reason: &str| {
        Reply::ok_json(json!({
            "model": "m", "choices": [{"index": 0, "finish_reason": reason, "message": {"content": "x"}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        }))
    };
    let reasons = ["stop", "length", "content_filter", "length", "tool_calls"];
    let upstream = Scripted::new(reasons.map(finished));
    for _ in reasons {
        exchange(&layer, &upstream, chat(json!({})))
            .await
            .1
            .unwrap();
    }
    let finish = totals.snapshot().all.finish;
    assert_eq!(
        (
            finish.stop,
            finish.length,
            finish.content_filter,
            finish.tool_calls
        ),
        (1, 2, 1, 1)
    );
    assert_eq!(totals.snapshot().model("m").unwrap().finish, finish);
}

// U14
#[tokio::test(start_paused = true)]
async fn the_served_tier_and_hosted_tools_set_the_cost() {
    let kept = Kept::default();
    let table =
        PriceTable::new()
            .with("m", price("1", "10"))
            .with_tier("m", "flex", price("0.5", "5"));
    let layer = kept.layer().prices(table);
    let answer = |tier: &str, tool: &str| {
        Reply::ok_json(json!({
            "object": "response", "model": "m", "status": "completed", "service_tier": tier,
            "output": [{"type": tool, "id": "1"}],
            "usage": {"input_tokens": 1_000, "output_tokens": 100},
        }))
    };
    let upstream = Scripted::new([
        answer("default", "message"),
        answer("flex", "message"),
        answer("scale", "message"),
        answer("flex", "web_search_call"),
    ]);
    for _ in 0..4 {
        // The caller asked for another tier than it got.
        let request = post(
            "/v1/responses",
            &json!({"model": "m", "input": "Hi", "service_tier": "auto"}),
        );
        exchange(&layer, &upstream, request).await.1.unwrap();
    }
    let costs: Vec<Cost> = kept.all().iter().map(|record| record.cost).collect();
    let flex = dollars("0.001");
    assert_eq!(
        costs,
        [dollars("0.002"), flex, Cost::Unknown, flex.at_least()]
    );
}

// U14
#[tokio::test(start_paused = true)]
async fn prices_change_while_the_stack_stands() {
    let kept = Kept::default();
    let prices = Prices::default();
    let layer = kept.layer().prices(prices.clone());
    let upstream = Scripted::new([Reply::chat("m", 1_000_000, 0)]);
    exchange(&layer, &upstream, chat(json!({})))
        .await
        .1
        .unwrap();
    prices.replace(PriceTable::new().with("m", price("3", "1")));
    exchange(&layer, &upstream, chat(json!({})))
        .await
        .1
        .unwrap();
    let costs: Vec<Cost> = kept.all().iter().map(|record| record.cost).collect();
    assert_eq!(costs, [Cost::Unknown, dollars("3")]);
}

// U15
#[tokio::test(start_paused = true)]
async fn unpriced_calls_are_counted_and_add_nothing_to_the_cost() {
    let totals = UsageTotals::new();
    let table = PriceTable::new().with("m", price("1", "1"));
    let layer = UsageRecorderLayer::new(totals.clone()).prices(table);
    let upstream = Scripted::new([Reply::chat("m", 500, 500), Reply::chat("x", 9, 9)]);
    for request in [chat(json!({})), chat(json!({})), asked()] {
        exchange(&layer, &upstream, request).await.1.unwrap();
    }
    let all = totals.snapshot().all;
    assert_eq!((all.unpriced, all.cost), (2, "0.001".parse().unwrap()));
}

/// Tries again, as a fallback does whose first candidate was refused before it was sent.
async fn refused_first(totals: &UsageTotals, nested: bool) {
    let upstream = Scripted::new([Reply::status(429), Reply::chat("m", 1, 1)]);
    let layer = UsageRecorderLayer::new(totals.clone());
    let mut request = chat(json!({}));
    let call = Call::of(request.extensions_mut());
    if nested {
        request.extensions_mut().insert(Recorded);
    }
    for refused in [true, false] {
        assert_eq!(call.begin_attempt(2), Some(1));
        let _ = exchange(&layer, &upstream, request.clone()).await.1;
        call.end_attempt();
        if refused {
            call.take_back_attempt(Skipped::DeadCredential);
        }
    }
}

// U12
#[tokio::test(start_paused = true)]
async fn a_call_whose_first_attempt_was_taken_back_is_one_call() {
    let totals = UsageTotals::new();
    refused_first(&totals, false).await;
    let all = totals.snapshot().all;
    assert_eq!((all.calls, all.records), (1, 2));
    refused_first(&totals, true).await;
    assert_eq!(totals.snapshot().all, all, "nested records add nothing");
}

// U14
#[tokio::test(start_paused = true)]
async fn what_only_reads_is_priced_by_its_total() {
    let kept = Kept::default();
    let layer = kept
        .layer()
        .prices(PriceTable::new().with("v", price("2", "100")));
    for path in ["/v1/embeddings", "/v1/rerank"] {
        let answer =
            json!({"object": "list", "data": [], "model": "v", "usage": {"total_tokens": 1_000}});
        let upstream = Scripted::new([Reply::ok_json(answer)]);
        let request = post(path, &json!({"model": "v", "input": ["a"], "query": "q"}));
        exchange(&layer, &upstream, request).await.1.unwrap();
        let record = kept.all().pop().unwrap();
        assert_eq!(record.usage.input, Count::Exact(1_000), "{path}");
        assert_eq!(record.cost, dollars("0.002"), "{path}");
    }
    // Of what generates, nobody knows how much was input.
    let answer = json!({"object": "chat.completion", "model": "v", "choices": [], "usage": {"total_tokens": 1_000}});
    let upstream = Scripted::new([Reply::ok_json(answer)]);
    exchange(&layer, &upstream, chat(json!({})))
        .await
        .1
        .unwrap();
    assert_eq!(kept.all().pop().unwrap().cost, Cost::Unknown);
}

// U14
#[tokio::test(start_paused = true)]
async fn a_version_that_was_asked_for_costs_at_least_what_its_alias_does() {
    let kept = Kept::default();
    let layer = kept
        .layer()
        .prices(PriceTable::new().with("m", price("1", "1")));
    for asked in ["m", "m-2024-08-06"] {
        let upstream = Scripted::new([Reply::chat("m-2024-08-06", 1_000, 0)]);
        let request = chat(json!({"model": asked}));
        exchange(&layer, &upstream, request).await.1.unwrap();
    }
    let costs: Vec<Cost> = kept.all().iter().map(|record| record.cost).collect();
    assert_eq!(costs, [dollars("0.001"), dollars("0.001").at_least()]);
}
