//! Fallback around retry and budget: what one layer leaves to the next.
#![allow(clippy::unwrap_used)]
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use tokio::time::Instant;
use tollgate::{
    budget::{Enforcement, Scope},
    call::{CallOptions, Skipped},
    extensions::Reason,
    fallback::FallbackPolicy,
    prelude::*,
    retry::RetryBudget,
};
use tollgate_sim::script::{Reply, Scripted};
use tollgate_tests::{chat, send};
use tower::{ServiceBuilder, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn upstream(answer: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static) -> Scripted {
    Scripted::by(move |attempt| {
        let model = attempt.model().unwrap_or_default();
        answer(&model).unwrap_or_else(|| Reply::chat(&model, 3, 2))
    })
}

fn down() -> Reply {
    Reply::status(503).json(serde_json::json!({"error": {
        "message": "The server is overloaded.", "type": "server_error", "code": null}}))
}

fn models(upstream: &Scripted) -> Vec<String> {
    let seen = upstream.attempts();
    seen.iter().map(|a| a.model().unwrap_or_default()).collect()
}

/// One request a minute for each model.
fn one_a_minute() -> Budget {
    let limit = Limit::requests(1).per_minute().scope(Scope::Model);
    let bucket = Enforcement::Bucket { burst: Some(1) };
    Budget::in_memory([limit.enforcement(bucket)]).unwrap()
}

fn used(budget: &Budget, model: &str) -> u64 {
    let snapshot = budget.snapshot();
    let mut limits = snapshot.limits.iter();
    let limit = limits.find(|limit| limit.key.as_deref() == Some(model));
    limit.map_or(0, |limit| limit.used + limit.reserved)
}

// F01
#[tokio::test(start_paused = true)]
async fn the_retries_inside_are_used_up_before_the_next_model_is_asked() {
    let upstream = upstream(|model| (model == "a").then(down));
    let service = ServiceBuilder::new()
        .model_fallback(ModelChain::new(["a", "b"]).unwrap())
        .retry_on_rate_limit(RateLimitPolicy::default().retry_budget(RetryBudget::new(1.0, 1_000)))
        .service(upstream.clone());
    let (head, _) = send(service, chat("a")).await;
    assert_eq!(head.status(), 200);
    assert_eq!(models(&upstream), ["a", "a", "a", "b"]);
    let tried = Attempts::of(&head);
    let asked: Vec<_> = tried.iter().map(|a| a.model.as_deref().unwrap()).collect();
    assert_eq!(asked, ["a", "a", "a", "b"]);
    assert_eq!(ServedBy::of(&head).unwrap().position, 1);
}

// F14
#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_long_leads_to_the_next_model_and_a_short_one_is_waited() {
    for (max_wait, expected, waited) in [(10, "b", 0), (120, "a", 60)] {
        let upstream = upstream(|_| None);
        let budget = one_a_minute();
        let policy = FallbackPolicy::default().max_wait(max_wait * SECOND);
        let chain = ModelChain::new(["a", "b"]).unwrap();
        let service = ServiceBuilder::new()
            .layer(ModelFallbackLayer::new(chain).policy(policy))
            .retry_on_rate_limit(RateLimitPolicy::default())
            .token_budget(budget)
            .service(upstream.clone());
        send(service.clone(), chat("a")).await;
        let start = Instant::now();
        let (head, _) = send(service, chat("a")).await;
        assert_eq!(head.status(), 200);
        assert_eq!(
            ServedBy::of(&head).unwrap().model.as_deref(),
            Some(expected)
        );
        assert_eq!(start.elapsed().as_secs(), waited);
    }
}

// F13
#[tokio::test(start_paused = true)]
async fn a_candidate_over_its_budget_is_passed_over_and_not_charged() {
    let upstream = upstream(|model| (model == "a").then(down));
    let budget = one_a_minute();
    let service = ServiceBuilder::new()
        .model_fallback(ModelChain::new(["a", "b", "c"]).unwrap())
        .token_budget(budget.clone())
        .service(upstream.clone());
    send(service.clone(), chat("b")).await;
    assert_eq!(used(&budget, "b"), 1);
    let (head, _) = send(service, chat("a")).await;
    assert_eq!(ServedBy::of(&head).unwrap().model.as_deref(), Some("c"));
    assert_eq!(models(&upstream), ["b", "a", "c"]);
    assert_eq!(used(&budget, "b"), 1, "nothing more");
    let passed_over = &Attempts::of(&head)[1];
    assert_eq!(passed_over.model.as_deref(), Some("b"));
    assert_eq!(
        passed_over.skipped,
        Some(Skipped::Refused(Reason::WaitTooLong))
    );
}

// F13
#[tokio::test(start_paused = true)]
async fn each_candidate_is_admitted_by_its_own_limit() {
    let upstream = upstream(|model| (model == "a").then(down));
    let budget = one_a_minute();
    let service = ServiceBuilder::new()
        .model_fallback(ModelChain::new(["a", "b"]).unwrap())
        .token_budget(budget.clone())
        .service(upstream);
    send(service, chat("a")).await;
    assert_eq!(
        (used(&budget, "a"), used(&budget, "b")),
        (1, 1),
        "both were sent"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stated_wait_is_waited_by_the_retry_unless_it_is_longer_than_the_fallback_allows() {
    for (stated, expected) in [(5, vec!["a", "a"]), (40, vec!["a", "b"])] {
        let first = std::sync::atomic::AtomicBool::new(true);
        let upstream = upstream(move |_| {
            let first = first.swap(false, std::sync::atomic::Ordering::Relaxed);
            first.then(|| Reply::rate_limited(stated))
        });
        let service = ServiceBuilder::new()
            .model_fallback(ModelChain::new(["a", "b"]).unwrap())
            .retry_on_rate_limit(RateLimitPolicy::default())
            .service(upstream.clone());
        let (head, _) = send(service, chat("a")).await;
        assert_eq!(head.status(), 200);
        assert_eq!(models(&upstream), expected, "{stated} s");
    }
}

// F14
#[tokio::test(start_paused = true)]
async fn the_last_candidate_is_waited_for_as_long_as_the_retry_allows() {
    let first = std::sync::atomic::AtomicU32::new(0);
    let upstream = upstream(move |_| {
        let seen = first.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (seen < 2).then(|| Reply::rate_limited(40))
    });
    let service = ServiceBuilder::new()
        .model_fallback(ModelChain::new(["a", "b"]).unwrap())
        .retry_on_rate_limit(RateLimitPolicy::default())
        .service(upstream.clone());
    let (head, _) = send(service, chat("a")).await;
    assert_eq!(head.status(), 200);
    assert_eq!(models(&upstream), ["a", "b", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_limited_model_does_not_hold_up_the_next_one() {
    let upstream = upstream(|model| (model == "a").then(|| Reply::rate_limited(300)));
    let service = ServiceBuilder::new()
        .model_fallback(ModelChain::new(["a", "b"]).unwrap())
        .retry_on_rate_limit(RateLimitPolicy::default())
        .token_budget(
            Budget::in_memory([Limit::requests(1_000).per_minute().scope(Scope::Model)]).unwrap(),
        )
        .service(upstream.clone());
    let start = Instant::now();
    let (head, _) = send(service, chat("a")).await;
    assert_eq!(head.status(), 200);
    assert_eq!(models(&upstream), ["a", "b"]);
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
}

// U12
#[tokio::test(start_paused = true)]
async fn the_recorder_outside_prices_the_model_that_served_and_lists_those_that_were_sent() {
    let upstream = upstream(|model| (model == "a").then(down));
    let (sender, records) = std::sync::mpsc::channel();
    let service = ServiceBuilder::new()
        .record_usage(move |record: &tollgate::UsageRecord| {
            sender.send(record.clone()).unwrap();
        })
        .model_fallback(ModelChain::new(["a", "b"]).unwrap())
        .service(upstream);
    for failed in [1, 0] {
        send(service.clone(), chat("a")).await;
        let record = records.try_recv().unwrap();
        assert_eq!(record.model_served.as_deref(), Some("b"));
        let listed = record.failed_attempts.len();
        assert_eq!(listed, failed, "one that is passed over is no attempt");
    }
}

#[tokio::test(start_paused = true)]
async fn two_attempts_in_all_are_two_attempts_over_all_layers() {
    let upstream = upstream(|_| Some(down()));
    let service = ServiceBuilder::new()
        .model_fallback(ModelChain::new(["a", "b", "c"]).unwrap())
        .retry_on_rate_limit(RateLimitPolicy::default())
        .service(upstream.clone());
    let mut request: Request<Full<bytes::Bytes>> = chat("a");
    let options = CallOptions::new().max_attempts(2);
    request.extensions_mut().insert(options);
    service.oneshot(request).await.unwrap();
    assert_eq!(models(&upstream), ["a", "b"]);
}
