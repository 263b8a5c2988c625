//! Secrets that pass through everything and come out nowhere: keys, prompts, answers and names of
//! users are searched for in all that the workspace says.
//!
//! What else keeps records is to be searched here, too: its file as the lines are, its handle as the others.
#![allow(clippy::unwrap_used, clippy::type_complexity)]
use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use serde_json::{Value, json};
use tollgate::{
    BoxError, Candidate, Target,
    body::Tap,
    call::Call,
    classify::Causes,
    extensions::{GaveUp, Recorded},
    fallback::Credential,
    prelude::*,
    price::{Price, PriceTable, Prices},
    retry::RetryBudget,
    timeouts::TimedOut,
    usage::{JsonLines, MetricsRecorder, SinkQueue, SpendPeriod, UsageRecord, Watermarks},
    wire::{outcome::Verdict, prompt::Facts},
};
use tollgate_ledger::Ledger;
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tollgate_usage_report::{figures::Report, page, text};
use tower::{Service, ServiceBuilder, ServiceExt};
use tracing::{Event, Metadata, Subscriber, field, span};

const KEY: &str = "sk-canary0one0aaaa";
const OTHER_KEY: &str = "sk-canary0two0bbbb";
const PROMPT: &str = "canary0prompt0cccc";
const ANSWER: &str = "canary0answer0dddd";
const USER: &str = "canary0user0eeee";
const TENANT: &str = "canary0tenant0ffff";
const SECRETS: [&str; 6] = [KEY, OTHER_KEY, PROMPT, ANSWER, USER, TENANT];

/// All that was said, each with where.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<(String, String)>>>);

impl Said {
    fn text(&self, place: &str, text: impl Into<String>) {
        self.0.lock().unwrap().push((place.into(), text.into()));
    }

    /// In one line and in many, for types may differ in that.
    fn debug(&self, place: &str, value: &dyn Debug) {
        self.text(place, format!("{value:?}\n{value:#?}"));
    }

    fn extensions(&self, place: &str, extensions: &Extensions) {
        fn each<T: Clone + Send + Sync + Debug + 'static>(
            said: &Said,
            place: &str,
            extensions: &Extensions,
        ) {
            if let Some(value) = extensions.get::<T>() {
                said.debug(&format!("{place}: {}", std::any::type_name::<T>()), value);
            }
        }
        each::<Call>(self, place, extensions);
        each::<CallOptions>(self, place, extensions);
        each::<Facts>(self, place, extensions);
        each::<GaveUp>(self, place, extensions);
        each::<Recorded>(self, place, extensions);
        each::<Refused>(self, place, extensions);
        each::<ServedBy>(self, place, extensions);
        each::<Tap>(self, place, extensions);
        each::<TimedOut>(self, place, extensions);
        each::<Verdict>(self, place, extensions);
    }

    fn all(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap().clone()
    }
}

/// Every event and span of ours, at every level, with all fields.
struct Logs(Said);

impl Logs {
    fn keep(&self, metadata: &Metadata<'_>, record: impl FnOnce(&mut dyn field::Visit)) {
        struct Fields(String);
        impl field::Visit for Fields {
            fn record_debug(&mut self, field: &field::Field, value: &dyn Debug) {
                write!(self.0, " {}={value:?}", field.name()).unwrap();
            }
        }
        let mut fields = Fields(String::new());
        record(&mut fields);
        if metadata.target().starts_with("tollgate") {
            self.0
                .text(&format!("log of {}", metadata.target()), fields.0);
        }
    }
}

impl Subscriber for Logs {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        self.keep(event.metadata(), |visit| event.record(visit));
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        self.keep(span.metadata(), |visit| span.record(visit));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        struct Fields(String);
        impl field::Visit for Fields {
            fn record_debug(&mut self, field: &field::Field, value: &dyn Debug) {
                write!(self.0, " {}={value:?}", field.name()).unwrap();
            }
        }
        let mut fields = Fields(String::new());
        values.record(&mut fields);
        self.0.text("log of a span", fields.0);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn post(path: &str, document: &Value) -> Request<Full<Bytes>> {
    let document = document.to_string();
    let mut request = Request::post(format!("https://one.example{path}"))
        .header("content-type", "application/json")
        .header("content-length", document.len())
        .header("authorization", format!("Bearer {KEY}"))
        .header("x-api-key", KEY)
        .body(Full::from(document))
        .unwrap();
    let options = CallOptions::new().principal(TENANT);
    request.extensions_mut().insert(options);
    request
}

fn chat(stream: bool) -> Request<Full<Bytes>> {
    post(
        "/v1/chat/completions",
        &json!({
            "model": "model-a", "stream": stream, "user": USER, "safety_identifier": USER,
            "metadata": {"user_id": USER}, "prompt_cache_key": PROMPT,
            "messages": [
                {"role": "system", "content": PROMPT},
                {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "description": PROMPT}}],
        }),
    )
}

/// An error that repeats what it was asked, as providers do.
fn error(status: u16, kind: &str, code: &str) -> Reply {
    Reply::status(status).json(json!({"error": {
        "message": format!("{KEY} {OTHER_KEY} of {USER} may not say {PROMPT}, please try again in 1s"),
        "type": kind, "code": code, "param": PROMPT,
    }}))
}

fn answer() -> Reply {
    Reply::ok_json(json!({
        "id": "c-1", "model": "model-a",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {
            "role": "assistant", "content": ANSWER,
            "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": ANSWER}}],
        }}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    }))
    .header("x-ratelimit-limit-requests", "100")
    .header("x-ratelimit-remaining-requests", "1")
}

fn event(content: &str, more: &str) -> String {
    format!(
        "data: {{\"id\":\"c-1\",\"model\":\"model-a\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}]{more}}}\n\n"
    )
}

fn stream() -> Reply {
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n";
    Reply::stream([
        event(ANSWER, ""),
        event(ANSWER, ""),
        usage.to_owned(),
        "data: [DONE]\n\n".to_owned(),
    ])
}

/// What a caller sends, and what comes of it.
fn scenarios() -> Vec<(&'static str, Request<Full<Bytes>>, Vec<Reply>)> {
    let in_band = format!(
        "data: {{\"error\":{{\"message\":\"{PROMPT} {KEY}\",\"type\":\"server_error\",\"code\":\"overloaded\"}}}}\n\n"
    );
    let broken = || Reply::stream([event(ANSWER, "")]).breaks(SimError::Reset);
    let garbled = Reply::stream([
        format!("data: {{\"choices\": {PROMPT} {KEY}\n\n"),
        format!(": {ANSWER}\n\n"),
    ]);
    let late = Reply::stream([event(ANSWER, ""), in_band.clone()]);
    let huge = post(
        "/v1/chat/completions",
        &json!({"model": "model-a", "messages": [{"role": "user", "content": PROMPT.repeat(40_000)}]}),
    );
    let mut get = chat(false);
    *get.method_mut() = http::Method::GET;
    *get.uri_mut() = format!("https://one.example/v1/models?key={KEY}")
        .parse()
        .unwrap();
    let gemini = post(
        &format!("/v1beta/models/model-a:generateContent?key={KEY}"),
        &json!({"contents": [{"parts": [{"text": PROMPT}]}]}),
    );
    let gemini_answer = Reply::ok_json(json!({
        "candidates": [{"content": {"parts": [{"text": ANSWER}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2},
    }));
    let messages = post(
        "/v1/messages",
        &json!({"model": "model-a", "max_tokens": 9, "system": PROMPT, "metadata": {"user_id": USER},
            "messages": [{"role": "user", "content": PROMPT}]}),
    );
    let messages_answer = Reply::ok_json(json!({
        "type": "message", "model": "model-a", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": ANSWER}], "usage": {"input_tokens": 3, "output_tokens": 2},
    }));
    vec![
        ("an answer", chat(false), vec![answer()]),
        ("a stream", chat(true), vec![stream()]),
        (
            "refused, then answered",
            chat(false),
            vec![
                error(429, "rate_limit_error", "rate_limit_exceeded"),
                answer(),
            ],
        ),
        (
            "the other origin",
            chat(false),
            vec![
                error(503, "server_error", "overloaded"),
                error(503, "server_error", "overloaded"),
                error(503, "server_error", "overloaded"),
                answer(),
            ],
        ),
        (
            "a bad key",
            chat(false),
            vec![error(401, "invalid_request_error", "invalid_api_key")],
        ),
        (
            "no money",
            chat(true),
            vec![error(429, "insufficient_quota", "insufficient_quota")],
        ),
        (
            "a bad request",
            chat(false),
            vec![error(400, "invalid_request_error", "invalid_value")],
        ),
        (
            "a filter",
            chat(false),
            vec![error(400, "invalid_request_error", "content_filter")],
        ),
        (
            "a model that is gone",
            chat(false),
            vec![error(404, "invalid_request_error", "model_not_found")],
        ),
        (
            "an error as the first event",
            chat(true),
            vec![Reply::stream([in_band])],
        ),
        ("an error within a stream", chat(true), vec![late]),
        ("a stream that breaks", chat(true), vec![broken()]),
        (
            "a document that breaks",
            chat(false),
            vec![Reply::body_breaks_after(format!(
                "{{\"choices\":\"{ANSWER}"
            ))],
        ),
        ("a garbled stream", chat(true), vec![garbled]),
        (
            "no answer at all",
            chat(false),
            vec![Reply::transport_error(SimError::Reset)],
        ),
        ("too large for every limit", huge, vec![answer()]),
        (
            "no JSON",
            post("/v1/chat/completions", &json!(PROMPT)),
            vec![answer()],
        ),
        (
            "a path that is not known",
            post(&format!("/v1/{PROMPT}"), &json!({"x": PROMPT})),
            vec![answer()],
        ),
        ("a GET with a key in its query", get, vec![answer()]),
        (
            "Gemini with a key in its query",
            gemini,
            vec![gemini_answer],
        ),
        ("Anthropic", messages, vec![messages_answer]),
        (
            "embeddings",
            post(
                "/v1/embeddings",
                &json!({"model": "model-a", "input": [PROMPT]}),
            ),
            vec![Reply::ok_json(
                json!({"model": "model-a", "data": [], "usage": {"prompt_tokens": 1, "total_tokens": 1}}),
            )],
        ),
    ]
}

/// Sends every request, reads a part or all of the answer, and keeps what is said meanwhile.
async fn run<S, RB>(said: &Said, stack: &str, make: impl Fn(Scripted) -> S)
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>, Error = BoxError> + Clone + Debug,
    S::Future: Debug,
    RB: Body<Data = Bytes> + Debug,
{
    for frames in [usize::MAX, 1, 0] {
        for (name, request, replies) in scenarios() {
            let place = |what: &str| format!("{stack}, {name}: {what}");
            let upstream = Scripted::new(replies);
            let mut service = make(upstream.clone());
            said.debug(&place("service"), &service);
            let future = service.ready().await.unwrap().call(request);
            said.debug(&place("future"), &future);
            if frames == 0 {
                drop(future);
                continue;
            }
            // What the transport says is the caller's to log, not ours.
            let Ok(response) = future.await else { continue };
            said.extensions(&place("response"), response.extensions());
            said.debug(&place("attempts"), &Attempts::of(&response));
            said.debug(&place("body"), response.body());
            if let Some(refused) = Refused::of(&response) {
                said.debug(&place("refusal"), refused);
                let body = response.into_body().collect().await;
                let document = body.map(|body| body.to_bytes()).unwrap_or_default();
                said.text(&place("refusal"), String::from_utf8_lossy(&document));
                continue;
            }
            let mut body = std::pin::pin!(response.into_body());
            for _ in 0..frames {
                match body.frame().await {
                    Some(Ok(_)) => said.debug(&place("body"), &body),
                    _ => break,
                }
            }
            for attempt in upstream.attempts() {
                assert!(
                    attempt.header("authorization") != Some(&format!("Bearer {OTHER_KEY}"))
                        || attempt.header("x-api-key") != Some(KEY),
                    "{stack}, {name}: a key went to an origin that is not its own"
                );
            }
        }
    }
}

// U19, F19
#[test]
fn no_key_no_prompt_and_no_name_comes_out_of_anything() {
    let said = Said::default();
    tracing::subscriber::set_global_default(Logs(said.clone())).unwrap();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let dir = tempfile::tempdir().unwrap();
    let lines = dir.path().join("usage.jsonl");

    let usage = UsageTotals::new();
    let prices =
        Prices::new(PriceTable::new().with("model-a", Price::per_million("1", "2").unwrap()));
    let budget = Budget::in_memory([
        Limit::requests(100_000).per_minute(),
        Limit::tokens(100_000).per_minute(),
    ])
    .unwrap();
    let stats = tollgate::RetryStats::new();
    let health = tollgate::FallbackHealth::new();
    let queue = SinkQueue::new(JsonLines::append(&lines).unwrap()).unwrap();
    let ledger = Ledger::open(dir.path().join("usage.sqlite")).unwrap();

    metrics::with_local_recorder(&recorder, || {
        let keep = said.clone();
        let records = move |record: &UsageRecord| keep.debug("record", record);
        let keep = said.clone();
        let watermarks = Watermarks::new(move |crossing| {
            keep.debug("watermark", crossing);
            keep.text("watermark", crossing.watermark.to_string());
        })
        .prices(prices.clone())
        .spend_above(SpendPeriod::Total, "0.00001".parse().unwrap());
        said.debug("watermarks", &watermarks);
        let recording = UsageRecorderLayer::new(usage.clone())
            .and(records)
            .and(watermarks)
            .and(MetricsRecorder::new())
            .and(queue.clone())
            .and(ledger.clone())
            .prices(prices.clone());
        let other = Target::new("other", "https://two.example/v1")
            .unwrap()
            .model("model-b")
            .credential(Credential::bearer(OTHER_KEY).unwrap());
        let chain = ModelChain::new([Candidate::from("model-a"), other.into()]).unwrap();
        let fallback = ModelFallbackLayer::new(chain.clone())
            .health(health.clone())
            .classify(Causes);
        let policy = RateLimitPolicy::default().retry_budget(RetryBudget::new(1.0, 1_000));
        let retry = RetryOnRateLimitLayer::new(policy.clone())
            .stats(stats.clone())
            .classify(Causes);
        let admission = TokenBudgetLayer::new(budget.clone()).classify(Causes);
        let layers: [(&str, &dyn Debug); 7] = [
            ("recording", &recording),
            ("chain", &chain),
            ("policy", &policy),
            ("fallback", &fallback),
            ("retry", &retry),
            ("admission", &admission),
            ("prices", &prices),
        ];
        for (name, layer) in layers {
            said.debug(name, layer);
        }
        let keep = said.clone();
        let upstream = move |scripted: Scripted| {
            let keep = keep.clone();
            tower::util::MapErr::new(
                tower::util::MapRequest::new(scripted, move |request: Request<Full<Bytes>>| {
                    keep.extensions("request", request.extensions());
                    request
                }),
                // The transport's errors are as indiscreet as the provider's.
                |error: SimError| BoxError::from(format!("{error}: {KEY} {PROMPT} {USER}")),
            )
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            run(&said, "usual", |scripted| {
                ServiceBuilder::new()
                    .layer(recording.clone())
                    .layer(fallback.clone())
                    .layer(retry.clone())
                    .layer(admission.clone())
                    .layer(recording.clone())
                    .service(upstream(scripted))
            })
            .await;
            run(&said, "inside out", |scripted| {
                ServiceBuilder::new()
                    .layer(admission.clone())
                    .layer(retry.clone())
                    .layer(fallback.clone())
                    .layer(recording.clone())
                    .service(upstream(scripted))
            })
            .await;
        });
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime
        .block_on(queue.flush(Duration::from_secs(60)))
        .unwrap();
    runtime
        .block_on(ledger.flush(Duration::from_secs(60)))
        .unwrap();
    let reader = ledger.reader().unwrap();
    let report = Report::read(&reader, None, None).unwrap();

    let handles: [(&str, &dyn Debug); 18] = [
        ("totals", &usage),
        ("totals", &usage.snapshot()),
        ("totals: history", &usage.history()),
        ("totals: limits", &usage.limits()),
        (
            "totals: history of a model",
            &usage.model_history("model-a"),
        ),
        ("budget", &budget),
        ("budget", &budget.snapshot()),
        ("retries", &stats),
        ("retries", &stats.snapshot()),
        ("health", &health),
        ("health", &health.snapshot()),
        ("queue", &queue),
        ("queue", &queue.snapshot()),
        ("prices", &prices.table()),
        ("ledger", &ledger),
        ("ledger", &ledger.snapshot()),
        ("ledger: reader", &reader),
        ("ledger: report", &report),
    ];
    for (name, handle) in handles {
        said.debug(name, handle);
    }
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        said.text("metric", format!("{key:?}"));
        assert!(!matches!(value, DebugValue::Histogram(values) if values.is_empty()));
    }
    let records = std::fs::read_to_string(&lines).unwrap();
    said.text("lines", records.clone());
    // The file as it lies there, with what is still in its log.
    let mut kept = 0;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.to_string_lossy().contains(".sqlite") {
            let bytes = std::fs::read(&path).unwrap();
            kept += bytes.len();
            said.text("ledger: file", String::from_utf8_lossy(&bytes));
        }
    }
    assert!(kept > 10_000);
    said.text("ledger: tables", text::tables(&report));
    said.text("ledger: page", page::html(&report).unwrap());

    // First that there is something to search, of every kind.
    let all = said.all();
    let count = |place: &str| all.iter().filter(|(name, _)| name.contains(place)).count();
    for place in [
        "log of",
        "record",
        "metric",
        "refusal",
        "Verdict",
        "Facts",
        "Call",
        "Tap",
        "ServedBy",
        "watermark",
        "ledger",
        "body",
        "future",
    ] {
        assert!(count(place) > 0, "nothing was said by {place}");
    }
    assert!(records.lines().count() > 100);
    for (place, text) in &all {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{place} says {secret}: {text}");
        }
    }
}
