//! Whose requests share a limit: models, families, API keys, principals, tenants, tags, and keys of one's own.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use support::{W, limits, post, stack};
use tokio::time::{Instant, sleep};
use tollgate_budget::{Ask, Budget, BudgetStore, Cost, Keys, Limit, Scope, TokenBudget};
use tollgate_core::{call::CallOptions, extensions::Refused, principal::Principal};
use tollgate_sim::script::{Reply, Scripted};
use tower::ServiceExt;

type Stack = TokenBudget<Scripted>;

fn upstream() -> Scripted {
    Scripted::new([Reply::chat("m", 1, 1)])
}

fn chat(model: &str) -> Request<Full<Bytes>> {
    let document = json!({"model": model, "max_tokens": 10, "messages": []});
    post("/v1/chat/completions", document)
}

fn with_header(name: &'static str, value: &'static str) -> Request<Full<Bytes>> {
    let mut request = chat("m");
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn with(options: CallOptions) -> Request<Full<Bytes>> {
    let mut request = chat("m");
    request.extensions_mut().insert(options);
    request
}

/// The limit that refused, or none.
async fn refused(service: &Stack, request: Request<Full<Bytes>>) -> Option<String> {
    let response = service.clone().oneshot(request).await.unwrap();
    Some(Refused::of(&response)?.limit.as_ref()?.to_string())
}

#[tokio::test(start_paused = true)]
async fn the_models_of_a_family_share_one_limit_and_others_have_none() {
    let budget = limits([
        Limit::requests(2)
            .per_minute()
            .models(["gpt-4o", "gpt-4o-2024-*"])
            .named("4o")
            .refuse(),
        Limit::requests(100).per_minute(),
    ]);
    let service = stack(&budget, &upstream());
    assert_eq!(refused(&service, chat("gpt-4o")).await, None);
    assert_eq!(refused(&service, chat("gpt-4o-2024-08-06")).await, None);
    for model in ["gpt-4o", "gpt-4o-2024-05-13"] {
        assert_eq!(refused(&service, chat(model)).await.unwrap(), "4o");
    }
    for model in ["gpt-4o-mini", "gpt-5"] {
        assert_eq!(refused(&service, chat(model)).await, None, "{model}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_family_that_waits_holds_up_no_other_model() {
    let budget = limits([Limit::requests(1).per(W).models(["slow*"])]);
    let service = stack(&budget, &upstream());
    let first = service.clone().oneshot(chat("slow")).await.unwrap();
    let waiting = tokio::spawn(service.clone().oneshot(chat("slow-2")));
    sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    assert_eq!(refused(&service, chat("fast")).await, None);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(!waiting.is_finished());
    drop(first);
    waiting.await.unwrap().unwrap();
}

// L13
#[tokio::test(start_paused = true)]
async fn a_rotated_key_begins_its_own_limits_anew_and_those_of_the_account_go_on() {
    let budget = limits([
        Limit::requests(2)
            .per_minute()
            .scope(Scope::ApiKey)
            .named("a key")
            .refuse(),
        Limit::requests(3)
            .per_minute()
            .named("the account")
            .refuse(),
    ]);
    let upstream = upstream();
    let service = stack(&budget, &upstream);
    let old = || with_header("authorization", "Bearer sk-old");
    let new = || with_header("authorization", "Bearer sk-new");
    assert_eq!(refused(&service, old()).await, None);
    assert_eq!(refused(&service, old()).await, None);
    assert_eq!(refused(&service, old()).await.unwrap(), "a key");
    // The same stack, the next request.
    assert_eq!(refused(&service, new()).await, None);
    let sent = upstream.attempts();
    assert_eq!(sent[2].header("authorization"), Some("Bearer sk-new"));
    assert_eq!(refused(&service, new()).await.unwrap(), "the account");
    let seen = format!("{:?}", budget.snapshot());
    assert!(
        !seen.contains("sk-old") && !seen.contains("sk-new"),
        "{seen}"
    );
}

// L13
#[tokio::test(start_paused = true)]
async fn a_refusal_of_one_key_shuts_the_gate_for_that_key_only() {
    let limit = Limit::requests(100).per_minute().scope(Scope::ApiKey);
    let budget = limits([limit]);
    let upstream = Scripted::by(|attempt| match attempt.header("x-api-key") {
        Some("one") => Reply::rate_limited(30),
        _ => Reply::chat("m", 1, 1),
    });
    let service = stack(&budget, &upstream);
    let send = |key| service.clone().oneshot(with_header("x-api-key", key));
    assert_eq!(send("one").await.unwrap().status(), 429);
    let begun = Instant::now();
    assert_eq!(send("two").await.unwrap().status(), 200);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(send("one").await.unwrap().status(), 429);
    assert!(begun.elapsed() >= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn one_request_falls_under_many_limits_at_once() {
    let each = |scope, name: &'static str, amount| {
        let limit = Limit::requests(amount).per_minute().scope(scope);
        limit.named(name).refuse()
    };
    let budget = limits([
        each(Scope::Principal, "a user", 1),
        each(Scope::Tenant, "a tenant", 2),
        each(Scope::Tag, "a tag", 3),
        each(Scope::Model, "a model", 4),
        each(Scope::Global, "all", 5),
    ]);
    let service = stack(&budget, &upstream());
    let call = |user, tenant, tag| with(CallOptions::new().principal(user).tenant(tenant).tag(tag));
    let ask = |user, tenant, tag| refused(&service, call(user, tenant, tag));
    assert_eq!(ask("ann", "acme", "search").await, None);
    assert_eq!(ask("ann", "acme", "search").await.unwrap(), "a user");
    assert_eq!(ask("bob", "acme", "search").await, None);
    assert_eq!(ask("cid", "acme", "search").await.unwrap(), "a tenant");
    assert_eq!(ask("dot", "bell", "search").await, None);
    assert_eq!(ask("eve", "bell", "search").await.unwrap(), "a tag");
    assert_eq!(ask("fay", "corp", "chat").await, None);
    assert_eq!(ask("gus", "corp", "chat").await.unwrap(), "a model");
    let seen = format!("{:?} {budget:?}", budget.snapshot());
    for name in ["ann", "acme", "search"] {
        assert!(!seen.contains(&format!("\"{name}\"")), "{name} in {seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_ones_own_is_found_by_a_function_and_without_one_there_is_no_limit() {
    let by_team = Limit::requests(1)
        .per_minute()
        .keyed_by(|request| request.header("x-team"))
        .named("a team")
        .refuse();
    let by_stream = Limit::requests(2)
        .per_minute()
        .keyed_by(|request| {
            let facts = request.facts?;
            facts.stream.then(|| Principal::of("stream"))
        })
        .named("streams")
        .refuse();
    let budget = limits([by_team, by_stream]);
    let service = stack(&budget, &upstream());
    let red = || with_header("x-team", "red");
    assert_eq!(refused(&service, red()).await, None);
    assert_eq!(refused(&service, red()).await.unwrap(), "a team");
    let blue = with_header("x-team", "blue");
    assert_eq!(refused(&service, blue).await, None);
    for _ in 0..5 {
        assert_eq!(refused(&service, chat("m")).await, None, "of no team");
    }
    let stream = || {
        let document = json!({"model": "m", "max_tokens": 1, "stream": true, "messages": []});
        post("/v1/chat/completions", document)
    };
    assert_eq!(refused(&service, stream()).await, None);
    assert_eq!(refused(&service, stream()).await, None);
    assert_eq!(refused(&service, stream()).await.unwrap(), "streams");
}

// T35
#[tokio::test(start_paused = true)]
async fn a_hundred_first_time_users_at_once_have_one_account_each() {
    let limit = Limit::requests(3).per_minute().scope(Scope::Principal);
    let budget = limits([limit.refuse()]);
    let upstream = upstream();
    let service = stack(&budget, &upstream);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..500 {
        let options = CallOptions::new().principal(&format!("user {}", n % 100));
        calls.spawn(service.clone().oneshot(with(options)));
    }
    let answers = calls.join_all().await;
    let served = answers
        .iter()
        .filter(|answer| answer.as_ref().unwrap().status() == 200);
    assert_eq!((served.count(), upstream.count()), (300, 300));
    assert_eq!(budget.snapshot().limits.len(), 100);
}

// T35
#[tokio::test(start_paused = true)]
async fn keys_are_bounded_as_told_and_one_in_use_is_never_forgotten() {
    let limit = Limit::requests(2).per(W).scope(Scope::Tenant);
    let budget = Budget::builder()
        .limit(limit.refuse())
        .keys(10)
        .build()
        .unwrap();
    let ask = |tenant: u64| {
        let mut keys = Keys::default();
        keys.tenant = Some(Principal::from_digest(tenant));
        budget.acquire(Ask::new(Cost::request()).keys(keys))
    };
    let mut held = Vec::new();
    for tenant in 0..5 {
        held.push(ask(tenant).await.unwrap().send());
    }
    for tenant in 5..200 {
        // Half of the places are free for those whose use has passed.
        if tenant % 5 == 0 {
            sleep(2 * W).await;
        }
        drop(ask(tenant).await.unwrap().send());
    }
    assert!(budget.snapshot().limits.len() <= 11);
    // Those in use are remembered: of each one request has expired, and is held still.
    let reserved: u64 = budget.snapshot().limits.iter().map(|l| l.reserved).sum();
    assert_eq!(reserved, 5);
    // Twenty more at once: those without a place share one count, which is less for each and never more.
    let mut admitted = 0;
    for tenant in 1000..1020 {
        if let Ok(reservation) = ask(tenant).await {
            held.push(reservation.send());
            admitted += 1;
        }
    }
    assert!((2..=12).contains(&admitted), "{admitted}");
    assert!(budget.snapshot().limits.len() <= 11);
}

#[test]
fn wrong_scopes_are_refused_with_a_sentence() {
    let wrong = |limit| Budget::in_memory([limit]).unwrap_err().to_string();
    let limit = || Limit::requests(5).per_minute().named("it");
    assert_eq!(
        wrong(limit().models(Vec::<String>::new())),
        "it: a family of models needs at least one"
    );
    assert_eq!(
        wrong(limit().models(["gpt-*-mini"])),
        "it: a star may stand at the end of a model's name only"
    );
    assert_eq!(
        wrong(limit().models([""])),
        "it: a model's name must not be empty"
    );
    assert_eq!(
        wrong(limit().scope(Scope::Custom)),
        "it: a limit of a custom scope needs a function, and another one has none"
    );
    assert_eq!(
        wrong(limit().keyed_by(|_| None).scope(Scope::Model)),
        "it: a limit of a custom scope needs a function, and another one has none"
    );
    let none = Budget::builder().limit(limit()).keys(0).build();
    assert_eq!(
        none.unwrap_err().to_string(),
        "a budget keeps at least one key"
    );
}
