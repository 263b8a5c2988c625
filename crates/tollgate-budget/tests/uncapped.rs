//! Requests without an output cap, what is learned of the output, and answers that never came from the provider.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use bytes::Bytes;
use cpu_time::ThreadTime;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use support::{at_once, chat, limits, post, stack};
use tollgate_budget::{Budget, ChargeProfile, Charging, Limit, Uncapped};
use tollgate_core::extensions::NotSent;
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tower::{ServiceExt, service_fn};

fn budget(charging: impl Into<Charging>) -> Budget {
    Budget::builder()
        .limit(Limit::requests(1000).per_minute())
        .limit(Limit::tokens(1_000_000).per_minute())
        .charging(charging)
        .build()
        .unwrap()
}

/// What goes out for this path and document, with a length and in spaces of its own.
async fn sent(budget: &Budget, path: &str, document: &str) -> (Bytes, Option<String>) {
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let request = Request::post(format!("http://provider.test{path}"))
        .header("content-type", "application/json")
        .header("content-length", document.len())
        .body(Full::<Bytes>::from(document.to_owned()))
        .unwrap();
    stack(budget, &upstream).oneshot(request).await.unwrap();
    let seen = upstream.attempts().remove(0);
    let length = seen.header("content-length").map(str::to_owned);
    (seen.body, length)
}

// L14 X09
#[tokio::test(start_paused = true)]
async fn a_cap_is_written_into_a_request_without_one_and_no_other_byte_changes() {
    let budget = budget(Charging::auto().uncapped(Uncapped::Write(321)));
    let odd = r#""model" : "M","seed":1e2, "x":[1,2 ], "x":null}"#;
    for (path, model, field) in [
        ("/v1/chat/completions", "gpt-4o", "max_tokens"),
        (
            "/v1/chat/completions",
            "gpt-5-mini",
            "max_completion_tokens",
        ),
        ("/v1/chat/completions", "openai/o3", "max_completion_tokens"),
        ("/v1/completions", "davinci", "max_tokens"),
        ("/v1/responses", "gpt-5", "max_output_tokens"),
    ] {
        let rest = odd.replace('M', model);
        let (body, length) = sent(&budget, path, &format!("{{ {rest}")).await;
        assert_eq!(body, format!("{{\"{field}\":321, {rest}"), "{model}");
        assert_eq!(length, Some(body.len().to_string()));
    }
    let untouched = [
        ("/v1/chat/completions", r#"{"model":"m", "max_tokens":5}"#),
        (
            "/v1/chat/completions",
            r#"{"model":"m", "max_completion_tokens":0}"#,
        ),
        (
            "/v1beta/models/gemini:generateContent",
            r#"{"contents":[] }"#,
        ),
        ("/v1/embeddings", r#"{"model":"m","input":"x" }"#),
        ("/v1/chat/completions", r#"not json"#),
    ];
    for (path, document) in untouched {
        assert_eq!(sent(&budget, path, document).await.0, document);
    }
}

// L14 X09
#[tokio::test(start_paused = true)]
async fn a_signed_request_is_given_no_cap() {
    let budget = budget(Charging::auto().uncapped(Uncapped::Write(321)));
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    let mut request = chat(4, None);
    let signature = "AWS4-HMAC-SHA256 Credential=a/b, Signature=c";
    request
        .headers_mut()
        .insert("authorization", signature.parse().unwrap());
    stack(&budget, &upstream).oneshot(request).await.unwrap();
    assert_eq!(upstream.attempts()[0].json().get("max_tokens"), None);
}

// L14
#[tokio::test(start_paused = true)]
async fn a_cap_that_was_written_is_what_is_reserved() {
    let budget = budget(Charging::auto().uncapped(Uncapped::Write(321)));
    let upstream = Scripted::new([Reply::chat("m", 1, 1)]);
    stack(&budget, &upstream)
        .oneshot(chat(400, None))
        .await
        .unwrap();
    assert_eq!(budget.snapshot().limits[1].used, 100 + 321);
}

// L14
#[tokio::test(start_paused = true)]
async fn without_a_cap_what_the_models_answers_needed_is_reserved() {
    let charging = Charging::all(ChargeProfile::sum()).learned_estimates(true);
    let budget = budget(charging);
    let upstream = Scripted::by(|seen| Reply::chat("m", 100, 40 + seen.index as u64 % 2 * 20));
    let service = stack(&budget, &upstream);
    let reserved = async |service| {
        let before = budget.snapshot().limits[1].used;
        at_once(service, 1, || chat(400, None)).await;
        budget.snapshot().limits[1].used - before
    };
    assert_eq!(reserved(service.clone()).await, 100 + 16, "the profile's");
    for _ in 0..30 {
        at_once(service.clone(), 1, || chat(400, None)).await;
    }
    assert_eq!(
        reserved(service.clone()).await,
        100 + 60,
        "what was learned"
    );
    // A cap that the provider charges is reserved whole.
    let before = budget.snapshot().limits[1].used;
    at_once(service, 1, || chat(400, 5000)).await;
    assert_eq!(budget.snapshot().limits[1].used - before, 5100);
}

#[tokio::test(start_paused = true)]
async fn a_cap_that_is_not_charged_holds_up_nobody_once_the_output_is_known_and_a_hard_cap_still_reserves_it()
 {
    let charging = Charging::all(ChargeProfile::sum().settles(true)).learned_estimates(true);
    let budget = Budget::builder()
        .limit(Limit::tokens(1_000_000).per_minute())
        .limit(
            Limit::output_tokens(1_000_000)
                .per_hour()
                .scope(tollgate_budget::Scope::Principal),
        )
        .charging(charging)
        .build()
        .unwrap();
    let upstream = Scripted::by(|seen| match seen.index {
        0..30 => Reply::chat("m", 100, 50),
        _ => Reply::pending(),
    });
    let service = stack(&budget, &upstream);
    for _ in 0..30 {
        at_once(service.clone(), 1, || chat(400, 32_000)).await;
    }
    let call = tokio::spawn(service.oneshot(chat(400, 32_000)));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let seen = budget.snapshot();
    assert_eq!(seen.limits[0].reserved, 100 + 50, "of the provider's limit");
    assert_eq!(seen.limits[1].reserved, 32_000, "of our own");
    call.abort();
}

#[tokio::test(start_paused = true)]
async fn where_the_provider_counts_real_tokens_the_tokens_of_a_character_are_learned_for_each_model()
 {
    for (profile, reserved) in [
        (ChargeProfile::sum().settles(true), 268 + 10),
        (ChargeProfile::sum(), 100 + 10),
    ] {
        let budget = budget(Charging::all(profile).learned_estimates(true));
        let upstream = Scripted::by(|seen| match seen.index {
            // A language of which a token holds a character and a half.
            0..30 => Reply::chat("m", 534, 10),
            _ => Reply::pending(),
        });
        let service = stack(&budget, &upstream);
        for _ in 0..30 {
            at_once(service.clone(), 1, || chat(800, 10)).await;
        }
        let call = tokio::spawn(service.oneshot(chat(400, 10)));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let seen = budget.snapshot();
        assert_eq!(seen.limits[1].reserved, reserved, "{profile:?}");
        call.abort();
    }
}

// T14
#[tokio::test(start_paused = true)]
async fn an_answer_from_a_cache_gives_back_all_that_was_held() {
    let budget = limits([
        Limit::requests(10).per_minute(),
        Limit::tokens(1000).per_minute(),
    ]);
    let cache = service_fn(|_: Request<Full<Bytes>>| async {
        let mut response = Response::new(Full::<Bytes>::from("{}"));
        response.extensions_mut().insert(NotSent);
        // Kept with the answer: they say nothing of now.
        let headers = response.headers_mut();
        headers.insert("x-ratelimit-remaining-requests", "0".parse().unwrap());
        headers.insert("x-ratelimit-limit-requests", "10".parse().unwrap());
        Ok::<_, SimError>(response)
    });
    let service = stack(&budget, &cache);
    for _ in 0..50 {
        let response = service.clone().oneshot(chat(400, 500)).await.unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "{}"
        );
    }
    let seen = budget.snapshot();
    assert_eq!(
        (seen.limits[0].used, seen.limits[1].used, seen.in_flight),
        (0, 0, 0)
    );
}

// T28
#[tokio::test(start_paused = true)]
async fn whatever_a_document_holds_it_is_estimated_and_an_image_has_a_floor() {
    let input = async |document: Value| {
        let budget = budget(Charging::all(ChargeProfile::prompt_only()));
        let upstream = Scripted::new([Reply::status(400)]);
        let call = stack(&budget, &upstream);
        let held = std::cell::Cell::new(0);
        let seen = service_fn(|request: Request<Full<Bytes>>| {
            held.set(budget.snapshot().limits[1].reserved);
            upstream.clone().oneshot(request)
        });
        drop(call);
        stack(&budget, &seen)
            .oneshot(post("/v1/chat/completions", document))
            .await
            .unwrap();
        held.get()
    };
    let user =
        |content: Value| json!({"model": "m", "messages": [{"role": "user", "content": content}]});
    let text = input(user(json!("x".repeat(400)))).await;
    assert_eq!(text, 102);
    let image = json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]);
    assert!(input(user(image)).await >= 85, "an image");
    let strange = json!([{"type": "text", "text": "x".repeat(400)}, {"type": "hologram", "depth": {"a": [1, null, {}]}}]);
    assert!(
        input(user(strange)).await >= 100,
        "text beside a part that is not known"
    );
    let tools = json!({"model": "m", "messages": [], "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]});
    let _ = input(tools).await;
    for odd in [
        json!({"messages": 7}),
        json!({"messages": [[], 1, null]}),
        json!({}),
        json!({"model": [], "messages": {"a": 1}}),
    ] {
        let _ = input(odd).await;
    }
}

// T29
#[tokio::test(start_paused = true)]
async fn a_long_prompt_takes_time_in_proportion_and_no_more() {
    // A ratio, for the machine's speed is nobody's promise: twenty times the prompt, at most sixty times the time.
    let time = async |chars: usize| {
        let mut least = Duration::MAX;
        for _ in 0..8 {
            let budget = budget(Charging::auto());
            let service = stack(&budget, &Scripted::new([Reply::status(400)]));
            let request = chat(chars, 10);
            let begun = ThreadTime::now();
            service.oneshot(request).await.unwrap();
            least = least.min(begun.elapsed());
        }
        least
    };
    let (short, long) = (time(50_000).await, time(1_000_000).await);
    assert!(long < short * 60, "{short:?} and {long:?}");
}
