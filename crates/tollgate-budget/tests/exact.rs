//! Exact counts of a prompt's tokens.
#![allow(clippy::unwrap_used)]
mod support;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use cpu_time::ThreadTime;
use http::{Request, Response};
use http_body_util::Full;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{post, stack};
use tokio_test::{assert_pending, assert_ready};
use tollgate_budget::{Budget, ChargeProfile, Charging, Limit, Scope, Tokenizer};
use tollgate_core::call::CallOptions;
use tower::{Service, ServiceExt, service_fn};

const CHAT: &str = "/v1/chat/completions";
const EMBED: &str = "/v1/embeddings";

fn budget(charging: Charging) -> Budget {
    Budget::builder()
        .limit(Limit::input_tokens(1 << 40).per_minute().named("theirs"))
        .limit(
            Limit::input_tokens(1 << 40)
                .per_minute()
                .scope(Scope::Principal)
                .named("ours"),
        )
        .charging(charging)
        .build()
        .unwrap()
}

fn exact() -> Charging {
    Charging::auto().exact(Tokenizer::ByModel)
}

/// A provider that says nothing of usage, so that what was reserved stands.
fn silent()
-> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    service_fn(|_: Request<Full<Bytes>>| {
        std::future::ready(Ok(Response::new(Full::<Bytes>::default())))
    })
}

fn of_alice(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let options = CallOptions::new().principal("alice");
    request.extensions_mut().insert(options);
    request
}

fn used(budget: &Budget) -> (u64, u64) {
    let seen = budget.snapshot();
    // Of a limit for each principal nothing is to be seen before one is charged.
    let used = |name| seen.limit(name).map_or(0, |limit| limit.used);
    (used("ours"), used("theirs"))
}

/// Input tokens that our limit and the provider's hold for one request.
async fn reserved(charging: Charging, request: Request<Full<Bytes>>) -> (u64, u64) {
    let budget = budget(charging);
    let service = stack(&budget, &silent());
    let response = service.oneshot(of_alice(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response);
    used(&budget)
}

async fn embedded(model: &str, input: impl Into<Value>) -> u64 {
    let document = json!({"model": model, "input": input.into()});
    reserved(exact(), post(EMBED, document)).await.0
}

/// Loads both tables.
async fn warm() {
    for model in ["gpt-4", "gpt-4o"] {
        embedded(model, "x").await;
    }
}

// Counts of "How to count tokens with tiktoken" in OpenAI's cookbook.
#[tokio::test(start_paused = true)]
async fn known_texts_have_the_counts_of_the_cookbook() {
    for (text, cl100k, o200k) in [
        ("tiktoken is great!", 6, 6),
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 9, 8),
    ] {
        assert_eq!(embedded("text-embedding-3-small", text).await, cl100k);
        assert_eq!(embedded("openai/gpt-4o", text).await, o200k);
    }
    let two = embedded("text-embedding-3-small", json!(["hello", "hello"])).await;
    assert_eq!(two, 2, "nothing is rounded");
}

// `usage.prompt_tokens` of the example in OpenAI's reference of the chat endpoint.
#[tokio::test(start_paused = true)]
async fn a_chat_counts_what_the_provider_puts_around_it() {
    let document = json!({"model": "gpt-4o", "max_tokens": 5, "messages": [
        {"role": "developer", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello!"},
    ]});
    assert_eq!(reserved(exact(), post(CHAT, document)).await.0, 19);
}

#[tokio::test(start_paused = true)]
async fn text_is_counted_as_it_reads_not_as_it_is_written() {
    let written = |input: &str| {
        let document = format!(r#"{{"model":"gpt-4","input":"{input}"}}"#);
        let request = Request::post(format!("http://provider.test{EMBED}"));
        request.body(Full::from(document)).unwrap()
    };
    for (plain, escaped) in [
        ("hello", r"\u0068\u0065\u006c\u006c\u006f"),
        ("お誕生日", r"\u304a\u8a95\u751f\u65e5"),
        ("😀", r"\ud83d\ude00"),
    ] {
        let (plain, escaped) = (written(plain), written(escaped));
        let plain = reserved(exact(), plain).await.0;
        assert_eq!(reserved(exact(), escaped).await.0, plain);
        assert!(plain > 0);
    }
    // A line end is one character and one token, a half of a pair is one replacement.
    assert_eq!(reserved(exact(), written(r"\n")).await.0, 1);
    assert!(reserved(exact(), written(r"\ud83d")).await.0 > 0);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_gives_nothing_back_is_still_asked_by_its_own_estimate() {
    // A thousand letters of one word: 250 by characters, and far fewer tokens.
    let request = || {
        let text = "tokens ".repeat(150);
        let message = json!({"role": "user", "content": text});
        post(CHAT, json!({"model": "gpt-4o", "messages": [message]}))
    };
    let by_characters = (150u64 * 7).div_ceil(4);
    let (ours, theirs) = reserved(exact(), request()).await;
    assert_eq!(theirs, by_characters);
    // " tokens" is one token; the first has no space before it, and the last space stands alone.
    assert_eq!(ours, 150 + 1 + 4 + 3);
    let settles = Charging::all(ChargeProfile::sum().settles(true)).exact(Tokenizer::ByModel);
    assert_eq!(reserved(settles, request()).await, (ours, ours));
    let plain = reserved(Charging::auto(), request()).await;
    assert_eq!(plain, (by_characters, by_characters), "not asked for");
}

#[tokio::test(start_paused = true)]
async fn what_has_no_public_tokenizer_is_estimated_by_characters() {
    let request = |model| post(EMBED, json!({"model": model, "input": "hello hello"}));
    assert_eq!(reserved(exact(), request("mistral-embed")).await, (3, 3));
    assert_eq!(reserved(exact(), request("gpt-4")).await, (2, 3));
    let told = Charging::auto().exact(Tokenizer::O200k);
    assert_eq!(reserved(told, request("my-deployment")).await, (2, 3));
}

fn long() -> Request<Full<Bytes>> {
    of_alice(post(
        EMBED,
        json!({"model": "gpt-4", "input": "hello ".repeat(20_000)}),
    ))
}

// T29
#[tokio::test(start_paused = true)]
async fn a_long_prompt_is_counted_on_another_thread_and_admitted_the_same() {
    warm().await;
    let budget = budget(exact());
    let mut service = stack(&budget, &silent());
    let mut call = tokio_test::task::spawn(service.call(long()));
    assert_pending!(call.poll(), "it is counted elsewhere");
    assert_eq!(budget.snapshot().in_flight, 0);
    call.await.unwrap();
    // "hello", " hello" for each of the others, and the last space.
    assert_eq!(used(&budget).0, 20_001);

    let short = of_alice(post(EMBED, json!({"model": "gpt-4", "input": "hello"})));
    let mut call = tokio_test::task::spawn(service.call(short));
    assert!(assert_ready!(call.poll(), "counted here").is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_while_it_is_counted_leaves_nothing() {
    warm().await;
    let budget = budget(exact());
    let mut service = stack(&budget, &silent());
    let mut call = tokio_test::task::spawn(service.call(long()));
    assert_pending!(call.poll());
    drop(call);
    let seen = budget.snapshot();
    assert_eq!((seen.in_flight, seen.queued), (0, 0));
    assert_eq!(used(&budget), (0, 0));
}

#[test]
fn without_a_runtime_what_is_long_is_estimated_by_characters() {
    let budget = budget(exact());
    let mut service = stack(&budget, &silent());
    let mut call = tokio_test::task::spawn(service.call(long()));
    assert!(assert_ready!(call.poll()).is_ok());
    assert_eq!(used(&budget), (30_000, 30_000));
    let short = of_alice(post(EMBED, json!({"model": "gpt-4", "input": "hello"})));
    let mut call = tokio_test::task::spawn(service.call(short));
    assert!(assert_ready!(call.poll()).is_ok());
    assert_eq!(used(&budget).0, 30_001, "what is short is counted here");
}

/// One call without a runtime, so that a panic of the count would be the test's.
fn held(body: impl Into<Bytes>) -> u64 {
    let budget = budget(exact());
    let mut service = stack(&budget, &silent());
    let request = Request::post(format!("http://provider.test{CHAT}"));
    let request = of_alice(request.body(Full::new(body.into())).unwrap());
    let mut call = tokio_test::task::spawn(service.call(request));
    assert!(assert_ready!(call.poll()).is_ok());
    used(&budget).0
}

#[test]
fn ten_times_the_text_takes_ten_times_as_long_also_where_it_is_one_word() {
    // The least of several rounds, of the thread's own time. A quadratic count would take a hundred times as long.
    let time = |letter: &str, length: usize| -> Duration {
        let text = letter.repeat(length / letter.len());
        let body = format!(r#"{{"model":"gpt-4o","messages":[{{"content":"{text}"}}]}}"#);
        let rounds = (0..3).map(|_| {
            let start = ThreadTime::now();
            assert!(held(body.clone()) > 7);
            start.elapsed()
        });
        rounds.min().unwrap()
    };
    time("a", 1);
    for letter in ["a", " ", "\\n", "1", "\\u0301", "@"] {
        let (short, long) = (time(letter, 1_500), time(letter, 15_000));
        assert!(long < 40 * short, "{letter}: {short:?} and {long:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn hostile_documents_never_panic(
        noise: Vec<u8>,
        text: String,
        start in prop::sample::select(vec![
            "", "{\"model\":\"gpt-4o\",", "{\"model\":\"gpt-4o\",\"messages\":[{\"content\":\"",
            "{\"model\":\"gpt-4\",\"input\":[\"\\ud83d", "{\"model\":\"gpt-4o\",\"prompt\":\"\\",
        ]),
    ) {
        held([start.as_bytes(), &noise, b"\"}]}"].concat());
        let content = [text.clone(), text.escape_unicode().to_string()];
        held(json!({"model": "gpt-4o", "messages": [{"content": content}]}).to_string());
    }
}
