//! Sixteen ways in which a provider fails, each seen from the caller and from the provider's account.
//!
//! The catalogue is that of an independent benchmark of gateways and clients (see `docs/failover.md`, whose table this file checks);
//! the faults, the checks and the words are our own. Each scenario is run for a caller that reads its stream as
//! it comes, and for one that buffers it. One stack serves all: a recorder, a chain of two models, retries, a budget.
#![allow(clippy::unwrap_used)]
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tollgate::{
    call::Skipped,
    fallback::{Candidate, Capability, FallbackHealth, FallbackPolicy},
    prelude::*,
    retry::RetryBudget,
    usage::UsageRecord,
};
use tollgate_core::{timeouts::Timeouts, wire::outcome::Outcome};
use tollgate_sim::{
    BodyFate, Fault, Incoming, Seen, SimClassify, SimProvider, Unit, script::Reply,
};
use tollgate_tests::chat_with;
use tower::{ServiceBuilder, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);
const WORDS: usize = 60;

/// What the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All sixty words, of this model.
    Whole(&'static str),
    /// The words of the primary so far, and then an error.
    Broken(usize),
    /// An error of the provider's, with this status.
    Error(u16),
}

use End::{Broken, Error, Whole};

/// One row.
struct Scenario {
    id: &'static str,
    what: &'static str,
    /// What happens to the nth request, from 0, for the model `primary`.
    fault: fn(usize, &Incoming<'_>) -> Fault,
    /// For who reads a stream as it comes.
    streaming: End,
    /// For who buffers it.
    buffered: End,
    /// Requests that the provider sees for `primary` and for `backup`.
    attempts: (usize, usize),
    /// The longest that a call may take, in seconds.
    within: u64,
}

fn never() -> Option<Duration> {
    None
}

const SCENARIOS: [Scenario; 15] = [
    Scenario {
        id: "S01",
        what: "429 with `retry-after: 2`, once",
        fault: |nth, _| match nth {
            0 => Fault::RateLimited {
                unit: Unit::Requests,
                retry_after: Some(2 * SECOND),
            },
            _ => Fault::None,
        },
        streaming: Whole("primary"),
        buffered: Whole("primary"),
        attempts: (2, 0),
        within: 4,
    },
    Scenario {
        id: "S02",
        what: "429 without a wait, always",
        fault: |_, _| Fault::RateLimited {
            unit: Unit::Requests,
            retry_after: None,
        },
        streaming: Whole("backup"),
        buffered: Whole("backup"),
        attempts: (3, 1),
        within: 5,
    },
    Scenario {
        id: "S03",
        what: "500, once",
        fault: |nth, _| match nth {
            0 => Fault::Status(500),
            _ => Fault::None,
        },
        streaming: Whole("primary"),
        buffered: Whole("primary"),
        attempts: (2, 0),
        within: 3,
    },
    Scenario {
        id: "S04",
        what: "503, always",
        fault: |_, _| Fault::Status(503),
        streaming: Whole("backup"),
        buffered: Whole("backup"),
        attempts: (3, 1),
        within: 5,
    },
    Scenario {
        id: "S05",
        what: "connection reset before the answer, once",
        fault: |nth, _| match nth {
            0 => Fault::Reset,
            _ => Fault::None,
        },
        streaming: Whole("primary"),
        buffered: Whole("primary"),
        attempts: (2, 0),
        within: 3,
    },
    Scenario {
        id: "S06",
        what: "no answer at all",
        fault: |_, _| Fault::Hang,
        streaming: Whole("backup"),
        buffered: Whole("backup"),
        attempts: (1, 1),
        within: 12,
    },
    Scenario {
        id: "S07",
        what: "first token after 20 s",
        fault: |_, _| Fault::SlowFirstToken(20 * SECOND),
        streaming: Whole("backup"),
        buffered: Whole("backup"),
        attempts: (1, 1),
        within: 12,
    },
    Scenario {
        id: "S08",
        what: "stream cut after 40 of 60 tokens",
        // The first event is the role.
        fault: |_, _| Fault::CutStream { events: 41 },
        streaming: Broken(40),
        buffered: Whole("backup"),
        attempts: (1, 1),
        within: 3,
    },
    Scenario {
        id: "S09",
        what: "stream silent after 20 tokens",
        fault: |_, _| Fault::StallStream {
            events: 21,
            cut_after: never(),
        },
        streaming: Broken(20),
        buffered: Whole("backup"),
        attempts: (1, 1),
        within: 12,
    },
    Scenario {
        id: "S10",
        what: "one event that is no JSON",
        fault: |_, _| Fault::BadEvent { events: 10 },
        streaming: Whole("primary"),
        buffered: Whole("primary"),
        attempts: (1, 0),
        within: 2,
    },
    Scenario {
        id: "S11",
        what: "stream without `[DONE]`",
        fault: |_, _| Fault::NoDone,
        streaming: Whole("primary"),
        buffered: Whole("primary"),
        attempts: (1, 0),
        within: 2,
    },
    Scenario {
        id: "S12",
        what: "prompt longer than the context",
        fault: |_, _| {
            refusal(
                "context_length_exceeded",
                "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 \
                 tokens. Please reduce the length of the messages.",
            )
        },
        streaming: Whole("backup"),
        buffered: Whole("backup"),
        attempts: (1, 1),
        within: 2,
    },
    Scenario {
        id: "S13",
        what: "refused by a content filter",
        fault: |_, _| {
            refusal(
                "content_policy_violation",
                "Your request was rejected as a result of our safety system.",
            )
        },
        streaming: Error(400),
        buffered: Error(400),
        attempts: (1, 0),
        within: 1,
    },
    Scenario {
        id: "S14",
        what: "stream cut, and a next model that takes no prefill",
        fault: |_, _| Fault::CutStream { events: 41 },
        streaming: Broken(40),
        buffered: Whole("backup"),
        attempts: (1, 1),
        within: 3,
    },
    Scenario {
        id: "S16",
        what: "accounting after a failover",
        fault: |_, _| Fault::Status(503),
        streaming: Whole("backup"),
        buffered: Whole("backup"),
        attempts: (3, 1),
        within: 5,
    },
];

fn refusal(code: &str, message: &str) -> Fault {
    let error = json!({"error": {
        "message": message, "type": "invalid_request_error", "param": null, "code": code}});
    Fault::from(Reply::status(400).json(error))
}

/// A provider with two models, of which `backup` takes no prefill.
fn provider(fault: impl Fn(usize, &Incoming<'_>) -> Fault + Send + Sync + 'static) -> SimProvider {
    let seen = AtomicUsize::new(0);
    SimProvider::builder()
        .reply_tokens(WORDS as u64)
        .pace(SECOND / 64)
        .on(move |incoming| {
            if incoming.model == "primary" {
                return fault(seen.fetch_add(1, Ordering::Relaxed), incoming);
            }
            let document: Value = serde_json::from_slice(incoming.body).unwrap();
            let last = document["messages"].as_array().and_then(|all| all.last());
            match last {
                Some(last) if last["role"] == "assistant" => refusal(
                    "unsupported_value",
                    "This model does not support assistant message prefill. The conversation must end with a \
                     user message.",
                ),
                _ => Fault::None,
            }
        })
        .build()
}

/// The stack, and what stands behind it.
struct Stack {
    provider: SimProvider,
    budget: Budget,
    records: std::sync::mpsc::Receiver<UsageRecord>,
    send: Box<dyn Fn(Request<Full<Bytes>>) -> Sent>,
}

type Sent = std::pin::Pin<Box<dyn Future<Output = Got>>>;

/// What the caller saw of one call.
#[derive(Debug)]
struct Got {
    end: End,
    head: Response<()>,
    /// The models that the chunks name, without repetitions.
    models: Vec<String>,
    usage: Option<u64>,
    took: Duration,
}

fn stack(provider: SimProvider) -> Stack {
    let budget = Budget::in_memory([
        Limit::requests(10_000).per_minute(),
        Limit::tokens(10_000_000).per_minute(),
    ]);
    let budget = budget.unwrap();
    let (sender, records) = std::sync::mpsc::channel();
    let chain = ModelChain::new([
        Candidate::model("primary").context_window(8_192),
        Candidate::model("backup")
            .context_window(128_000)
            .cannot([Capability::Prefill]),
    ]);
    let ten = 10 * SECOND;
    let timeouts = Timeouts::new().first_byte(ten).first_token(ten).idle(ten);
    let service = ServiceBuilder::new()
        .record_usage(move |record: &UsageRecord| {
            let _ = sender.send(record.clone());
        })
        .layer(
            ModelFallbackLayer::new(chain.unwrap())
                // By default the pauses between probes double up to five minutes.
                .health(FallbackHealth::new().cool_down(5 * SECOND, 20 * SECOND))
                .policy(FallbackPolicy::default().timeouts(timeouts))
                .classify(SimClassify),
        )
        .retry_on_rate_limit(RateLimitPolicy::default().retry_budget(RetryBudget::new(1.0, 1_000)))
        .token_budget(budget.clone())
        .service(provider.clone());
    let send = Box::new(move |request| -> Sent {
        let service = service.clone();
        Box::pin(async move {
            let start = Instant::now();
            let answer = service.oneshot(request).await.unwrap();
            let (parts, body) = answer.into_parts();
            let mut text = String::new();
            let mut body = std::pin::pin!(body);
            let broken = loop {
                match body.frame().await {
                    None => break false,
                    Some(Err(_)) => break true,
                    Some(Ok(frame)) => {
                        let data = frame.into_data().unwrap_or_default();
                        text.push_str(std::str::from_utf8(&data).unwrap());
                    }
                }
            };
            read(
                Response::from_parts(parts, ()),
                &text,
                broken,
                start.elapsed(),
            )
        })
    });
    Stack {
        provider,
        budget,
        records,
        send,
    }
}

/// Reads a stream as a client would that steps over what it cannot read.
fn read(head: Response<()>, text: &str, broken: bool, took: Duration) -> Got {
    let mut words = 0;
    let mut models: Vec<String> = Vec::new();
    let mut finished = false;
    let mut usage = None;
    for event in text
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
    {
        let Ok(chunk) = serde_json::from_str::<Value>(event) else {
            continue;
        };
        let model = chunk["model"].as_str().unwrap().to_owned();
        if models.last() != Some(&model) {
            models.push(model);
        }
        words += usize::from(
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .is_some_and(|w| !w.is_empty()),
        );
        finished |= chunk["choices"][0]["finish_reason"].is_string();
        usage = chunk["usage"]["completion_tokens"].as_u64().or(usage);
    }
    let end = match (head.status().as_u16(), broken) {
        (200, true) => Broken(words),
        (200, false) if words == WORDS && finished => match &*models {
            [one] if one == "primary" => Whole("primary"),
            [one] if one == "backup" => Whole("backup"),
            _ => panic!("an answer of several models: {models:?}"),
        },
        (200, false) => panic!("a truncated answer that looks like a whole one: {words} words"),
        (status, _) => Error(status),
    };
    Got {
        end,
        head,
        models,
        usage,
        took,
    }
}

fn ask(buffered: bool) -> Request<Full<Bytes>> {
    let mut request = chat_with(
        "primary",
        r#","stream":true,"stream_options":{"include_usage":true}"#,
    );
    let mut options = CallOptions::new();
    if buffered {
        options = options.buffered();
    }
    request.extensions_mut().insert(options);
    request
}

/// The requests that arrived for a model.
fn seen(provider: &SimProvider, model: &str) -> Vec<Seen> {
    let account = provider.account();
    let of = |seen: &Seen| *seen.model == *model;
    account.requests.into_iter().filter(of).collect()
}

fn nothing_is_left(stack: &Stack) {
    assert_eq!(stack.provider.totals().in_flight, 0);
    let snapshot = stack.budget.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.queued), (0, 0));
    assert!(
        snapshot.limits.iter().all(|limit| limit.reserved == 0),
        "{snapshot:?}"
    );
}

/// One scenario for one caller, as the caller and as the provider see it.
async fn run(scenario: &Scenario, buffered: bool) {
    let id = scenario.id;
    let stack = stack(provider(scenario.fault));
    let got = (stack.send)(ask(buffered)).await;
    let end = if buffered {
        scenario.buffered
    } else {
        scenario.streaming
    };

    // ===== the caller =====
    assert_eq!(got.end, end, "{id}");
    let within = Duration::from_secs(scenario.within);
    assert!(got.took <= within, "{id}: {:?}", got.took);
    if let Whole(model) = end {
        assert_eq!(got.models, [model], "{id}: no word of another");
        assert_eq!(got.usage, Some(WORDS as u64), "{id}");
        let served = ServedBy::of(&got.head).unwrap();
        assert_eq!(served.model.as_deref(), Some(model), "{id}");
    }
    let (primary, backup) = attempts(scenario, end);
    let told = Attempts::of(&got.head);
    let told: Vec<_> = told.iter().map(|a| a.model.as_deref().unwrap()).collect();
    assert_eq!(told.iter().filter(|m| **m == "primary").count(), primary);
    assert_eq!(told.iter().filter(|m| **m == "backup").count(), backup);

    // ===== the provider =====
    let first = seen(&stack.provider, "primary");
    let second = seen(&stack.provider, "backup");
    assert_eq!((first.len(), second.len()), (primary, backup), "{id}");
    nothing_is_left(&stack);
    for lost in &first[..primary - usize::from(end == Whole("primary"))] {
        // What was billed in vain is no more than what was generated before we hung up.
        let most = if matches!(id, "S08" | "S09" | "S14") {
            40
        } else {
            0
        };
        assert!(lost.billed.output <= most, "{id}: {:?}", lost.billed);
        let ended = lost.ended_at.expect("closed");
        let next = second.first().map_or(ended, |next| next.at);
        assert!(
            ended <= next,
            "{id}: the first connection goes before the next is made"
        );
    }
    if let [one, two, ..] = &*first {
        let gap = two.at - one.at;
        let least = if id == "S01" {
            2 * SECOND
        } else {
            Duration::ZERO
        };
        assert!(gap >= least && gap < 3 * SECOND, "{id}: {gap:?}");
    }
    if end == Whole("backup") {
        assert_eq!(second[0].billed.output, WORDS as u64, "{id}");
        assert_eq!(second[0].body_fate, BodyFate::Complete, "{id}");
    }

    // ===== the books =====
    let record = stack.records.try_recv().unwrap();
    assert!(stack.records.try_recv().is_err(), "{id}: one record a call");
    assert_eq!(record.failed_attempts.len(), primary + backup - 1, "{id}");
    match end {
        Whole(model) => {
            assert_eq!(record.model_served.as_deref(), Some(model), "{id}");
            assert_eq!(record.usage.output.exact(), Some(WORDS as u64), "{id}");
            assert_eq!(record.outcome, Some(Outcome::Ok), "{id}");
        }
        Broken(words) => {
            assert_eq!(record.usage.output.exact(), None, "{id}: not known");
            assert!(record.bytes_received > 100 * words as u64, "{id}");
        }
        Error(status) => {
            assert_eq!(record.status.map(|s| s.as_u16()), Some(status), "{id}");
        }
    }
}

fn attempts(scenario: &Scenario, end: End) -> (usize, usize) {
    match end {
        // What was handed on is not asked for again.
        Broken(_) => (scenario.attempts.0, 0),
        _ => scenario.attempts,
    }
}

// F01, F04, F05, F07, F08, F09, F11, R01, R02, R13, U01, U08, U12
#[tokio::test(start_paused = true)]
async fn every_scenario_ends_as_the_table_says_for_both_callers() {
    for scenario in &SCENARIOS {
        for buffered in [false, true] {
            run(scenario, buffered).await;
        }
    }
}

// F15, S15
#[tokio::test(start_paused = true)]
async fn a_primary_that_is_down_for_a_minute_is_probed_sparsely_and_used_again() {
    let start = Instant::now();
    let outage = 60 * SECOND;
    let stack = stack(provider(move |_, _| {
        if start.elapsed() < outage {
            Fault::Status(503)
        } else {
            Fault::None
        }
    }));
    let mut back = None;
    for nth in 0..20 {
        let sent = start.elapsed();
        let got = (stack.send)(ask(false)).await;
        match got.end {
            Whole("primary") => {
                assert!(sent >= outage, "it was down");
                back.get_or_insert(sent - outage);
            }
            end => assert_eq!(end, Whole("backup"), "request {nth}"),
        }
        assert!(got.took < 6 * SECOND, "{:?}", got.took);
        sleep(((nth + 1) * 4 * SECOND).saturating_sub(start.elapsed())).await;
    }
    let back = back.expect("used again");
    assert!(back <= 30 * SECOND, "{back:?} after its recovery");
    let in_outage = seen(&stack.provider, "primary");
    let in_outage = in_outage.iter().filter(|seen| seen.at < outage).count();
    assert!((3..=6).contains(&in_outage), "{in_outage} for 15 requests");
    nothing_is_left(&stack);
}

// F06
#[tokio::test(start_paused = true)]
async fn who_goes_on_with_a_broken_answer_is_not_sent_to_a_model_that_takes_no_prefill() {
    let stack = stack(provider(|_, _| Fault::Status(503)));
    let document = json!({
        "model": "primary",
        "stream": true,
        "messages": [
            {"role": "user", "content": "Say hello"},
            {"role": "assistant", "content": "the fox ran far"},
        ],
    });
    let request = Request::post("https://api.example/v1/chat/completions")
        .body(Full::from(document.to_string()))
        .unwrap();
    let got = (stack.send)(request).await;
    assert_eq!(
        got.end,
        Error(503),
        "the original error, not one about prefill"
    );
    let told = Attempts::of(&got.head);
    let passed_over = told.last().unwrap();
    assert_eq!(passed_over.model.as_deref(), Some("backup"));
    assert_eq!(
        passed_over.skipped,
        Some(Skipped::Incapable(Capability::Prefill))
    );
    assert!(seen(&stack.provider, "backup").is_empty());
    nothing_is_left(&stack);
}

/// The rows that the chapter on failover must have.
fn rows() -> Vec<String> {
    let cell = |scenario: &Scenario, end: End| {
        let (primary, backup) = attempts(scenario, end);
        let end = match end {
            Whole(_) => "whole answer".to_owned(),
            Broken(words) => format!("{words} tokens, then an error"),
            Error(status) => format!("the provider's {status}"),
        };
        format!("{end}, {primary} + {backup}")
    };
    let row = |scenario: &Scenario| {
        format!(
            "| {} {} | {} | {} |",
            scenario.id,
            scenario.what,
            cell(scenario, scenario.streaming),
            cell(scenario, scenario.buffered)
        )
    };
    SCENARIOS.iter().map(row).collect()
}

#[test]
fn the_book_has_the_table_that_is_tested_here() {
    let chapter = include_str!("../docs/failover.md");
    for row in rows() {
        assert!(chapter.contains(&row), "docs/failover.md lacks: {row}");
    }
}
