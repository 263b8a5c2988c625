//! What the layer says of itself, and what it never says.
#![allow(clippy::unwrap_used)]
mod support;

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use support::*;
use tollgate_core::{
    call::{Attempts, CallOptions},
    timeouts::Timeouts,
    wire::outcome::TimeoutKind,
};
use tollgate_retry::{
    GaveUpReason, RateLimitPolicy, RetryBudget, RetryOnRateLimit, RetryOnRateLimitLayer, RetryStats,
};
use tollgate_sim::{
    SimError,
    script::{Reply, Scripted},
};
use tower::{Layer, ServiceExt};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Keeps every event as a line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let head = event.metadata();
        let mut line = Line(format!("{} {}", head.level(), head.target()));
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

const SECRETS: [&str; 5] = [
    "sk-secret",
    "Say hello",
    "alice",
    "the-body-of-an-error",
    "sk-other",
];

#[tokio::test(start_paused = true)]
async fn events_tell_of_every_retry_and_of_every_giving_up_and_never_a_secret() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let error = || {
        let document = serde_json::json!({"error": {"message": "the-body-of-an-error sk-other"}});
        Reply::status(500).json(document)
    };
    let secret = || {
        let mut request = chat();
        let key = http::HeaderValue::from_static("Bearer sk-secret");
        request.headers_mut().insert("authorization", key);
        let options = CallOptions::new()
            .principal("alice")
            .within(Duration::from_secs(600));
        request.extensions_mut().insert(options);
        request
    };
    let timed = RateLimitPolicy::new().timeouts(Timeouts::new().first_byte(Duration::from_secs(5)));
    let mut said = String::new();
    for replies in [
        vec![error(), Reply::rate_limited(2), ok()],
        vec![error()],
        vec![Reply::rate_limited(500)],
        vec![Reply::pending(), ok()],
        vec![Reply::transport_error(SimError::Reset), Reply::status(401)],
    ] {
        let seen = send(timed.clone(), secret(), replies).await;
        let _ = write!(
            said,
            "{:?} {:?}",
            seen.stats,
            seen.result.as_ref().map(|r| r.extensions().clone())
        );
        let response = seen.response();
        let _ = write!(said, "{:?}", Attempts::of(&response));
    }
    let lines = lines.0.lock().unwrap().join("\n");
    for word in SECRETS {
        assert!(!lines.contains(word), "{word} in an event: {lines}");
        assert!(!said.contains(word), "{word} in a handle: {said}");
    }
    let count = |what: &str| lines.lines().filter(|line| line.contains(what)).count();
    assert_eq!(count("trying again after a wait"), 6, "{lines}");
    assert_eq!(
        count("WARN tollgate::retry"),
        1,
        "one call was retried in vain: {lines}"
    );
    assert_eq!(count("reason=\"wait_beyond_cap\""), 1, "{lines}");
    assert_eq!(count("outcome=\"timeout\""), 1, "{lines}");
}

#[tokio::test(start_paused = true)]
async fn the_handle_counts_what_was_wasted_and_why() {
    let stats = RetryStats::new();
    let timeouts = Timeouts::new().first_byte(Duration::from_secs(5));
    let policy = RateLimitPolicy::new().timeouts(timeouts);
    let layer = RetryOnRateLimitLayer::new(policy).stats(stats.clone());
    for replies in [
        vec![Reply::pending(), ok()],
        vec![Reply::status(500), Reply::status(503), ok()],
        vec![Reply::status(401)],
        vec![ok()],
    ] {
        let service = layer.layer(Scripted::new(replies));
        service.oneshot(chat()).await.unwrap();
    }
    let seen = stats.snapshot();
    assert_eq!((seen.requests, seen.attempts, seen.retries), (4, 7, 3));
    assert_eq!(
        seen.failed, 4,
        "of seven attempts three were served: {seen:?}"
    );
    assert_eq!(seen.timed_out(TimeoutKind::FirstByte), 1);
    assert_eq!(seen.timed_out(TimeoutKind::Idle), 0);
    assert_eq!(seen.gave_up(GaveUpReason::Pointless), 1);
    // Only the one that timed out may have been charged: 20 tokens of output and the prompt.
    assert!((20..60).contains(&seen.tokens_at_risk), "{seen:?}");
}

// L18: everything fails for ten minutes, and may have been charged.
#[tokio::test(start_paused = true)]
async fn in_ten_minutes_of_outage_attempts_and_money_at_risk_are_bounded_and_told() {
    let provider = Scripted::new([Reply::transport_error(SimError::Reset)]);
    let policy = RateLimitPolicy::new().retry_budget(RetryBudget::new(0.1, 2));
    let service = RetryOnRateLimit::new(provider.clone(), policy);
    let mut calls = tokio::task::JoinSet::new();
    let requests = 6_000_u32;
    for _ in 0..requests {
        calls.spawn(service.clone().oneshot(chat()));
        // Ten a second.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap().unwrap_err(), SimError::Reset);
    }
    let most = 1.1 * f64::from(requests) + 2.0 * (600.0 + 20.0);
    let sent = provider.count();
    assert!(
        f64::from(u32::try_from(sent).unwrap()) <= most,
        "{sent} attempts of at most {most}"
    );
    let seen = service.stats().snapshot();
    assert_eq!((seen.attempts, seen.failed), (sent as u64, sent as u64));
    let each = seen.tokens_at_risk / seen.failed;
    assert!(
        (20..60).contains(&each),
        "the tokens of every attempt are told: {each}"
    );
    assert_eq!(seen.tokens_at_risk % seen.failed, 0);
    assert!(seen.gave_up(GaveUpReason::RetryBudgetEmpty) > 0);
}
