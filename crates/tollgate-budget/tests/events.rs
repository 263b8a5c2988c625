//! What the budget tells `tracing`: each thing once, in stable names, and nothing that is nobody's business.
#![allow(clippy::unwrap_used)]
mod support;

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use support::{at_once, chat, stack};
use tokio::time::sleep;
use tollgate_budget::{Budget, Enforcement, Limit};
use tollgate_core::call::CallOptions;
use tollgate_sim::{
    Charging, SimProvider,
    script::{Reply, Scripted},
};
use tower::ServiceExt;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Keeps the budget's events as lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn with(&self, text: &str) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter()
            .filter(|line| line.contains(text))
            .cloned()
            .collect()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.target() == "tollgate_budget"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn listen() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let guard = tracing::subscriber::set_default(lines.clone());
    (lines, guard)
}

#[tokio::test(start_paused = true)]
async fn waits_and_refusals_are_told_with_the_limit_and_the_wait() {
    let (lines, _guard) = listen();
    let budget = Budget::builder()
        .limit(Limit::requests(1).per(Duration::from_secs(1)))
        .max_wait(Duration::from_millis(1900))
        .build()
        .unwrap();
    let service = stack(&budget, &Scripted::by(|_| Reply::chat("m", 1, 1)));
    let secret = || {
        let mut request = chat(40, 1);
        let headers = request.headers_mut();
        headers.insert("authorization", "Bearer sk-canary".parse().unwrap());
        request
            .extensions_mut()
            .insert(CallOptions::new().principal("alice-canary"));
        request
    };
    at_once(service, 4, secret).await;
    assert_eq!(lines.with("").len(), 3, "{lines:?}", lines = lines.with(""));
    let waited = lines.with("admitted after a wait");
    assert_eq!(waited.len(), 1);
    assert!(
        waited[0].starts_with("DEBUG ") && waited[0].contains("tollgate.wait_ms="),
        "{waited:?}"
    );
    let refused = lines.with("tollgate.reason=\"wait_too_long\"");
    assert_eq!(refused.len(), 2);
    assert!(
        refused[0].contains("tollgate.limit=\"requests per 1s\"")
            || refused[0].contains("tollgate.limit=\"requests per second\""),
        "{refused:?}"
    );
    for canary in ["canary", "xxxx"] {
        assert_eq!(lines.with(canary), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_providers_shuts_the_gate_once_and_it_opens_once() {
    let (lines, _guard) = listen();
    let budget = Budget::builder()
        .limit(
            Limit::requests(1000)
                .per_minute()
                .enforcement(Enforcement::Rolling),
        )
        .build()
        .unwrap();
    let upstream = Scripted::by(|seen| match seen.index {
        0..5 => Reply::rate_limited(7).after(Duration::from_millis(10)),
        _ => Reply::chat("m", 1, 1)
            .header("x-ratelimit-limit-requests", "1000")
            .header("x-ratelimit-remaining-requests", "900")
            .header("x-ratelimit-reset-requests", "6s"),
    });
    let service = stack(&budget, &upstream);
    at_once(service.clone(), 5, || chat(4, 1)).await;
    assert_eq!(
        lines.with("the gate is shut").len(),
        1,
        "{:?}",
        lines.with("")
    );
    assert!(
        lines.with("the gate is shut")[0].contains("WARN")
            && lines.with("the gate is shut")[0].contains("tollgate.wait_ms=7000")
    );
    assert_eq!(lines.with("open again").len(), 0);
    at_once(service, 5, || chat(4, 1)).await;
    assert_eq!(lines.with("open again").len(), 1, "{:?}", lines.with(""));
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_learned_or_changed_by_the_provider_are_told() {
    let (lines, _guard) = listen();
    let upstream = Scripted::by(|seen| {
        let limit = if seen.index < 3 { "500" } else { "300" };
        Reply::chat("gpt-test", 1, 1)
            .header("x-ratelimit-limit-requests", limit)
            .header("x-ratelimit-remaining-requests", "200")
            .header("x-ratelimit-reset-requests", "120ms")
    });
    let service = stack(&Budget::learned(), &upstream);
    for _ in 0..6 {
        service.clone().oneshot(chat(4, 1)).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let learned = lines.with("a limit was learned");
    assert_eq!(learned.len(), 1, "{:?}", lines.with(""));
    assert!(
        learned[0].contains("gen_ai.request.model=\"gpt-test\"")
            && learned[0].contains("tollgate.amount=500"),
        "{learned:?}"
    );
    let changed = lines.with("states another limit");
    assert_eq!(changed.len(), 1, "{:?}", lines.with(""));
    assert!(
        changed[0].contains("tollgate.amount_before=500")
            && changed[0].contains("tollgate.amount=300"),
        "{changed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn shadow_decisions_are_told() {
    let (lines, _guard) = listen();
    let budget = Budget::builder()
        .limit(Limit::requests(1).per_minute())
        .limit(Limit::tokens(100).per_minute())
        .shadow(true)
        .build()
        .unwrap();
    let service = stack(&budget, &Scripted::by(|_| Reply::chat("m", 1, 1)));
    at_once(service.clone(), 2, || chat(4, 1)).await;
    at_once(service, 1, || chat(4000, 1)).await;
    assert_eq!(
        lines.with("would have waited").len(),
        1,
        "{:?}",
        lines.with("")
    );
    assert_eq!(lines.with("would have been refused").len(), 1);
    assert_eq!(lines.with("request_never_fits").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_charges_otherwise_is_told_under_the_budgets_target() {
    let (lines, _guard) = listen();
    let provider = SimProvider::builder()
        .requests(500)
        .tokens(100_000)
        .charging(Charging::PromptOnly)
        .latency(Duration::from_millis(300))
        .build();
    let tokens = Limit::tokens(100_000).per_minute();
    let budget = Budget::in_memory([Limit::requests(500).per_minute(), tokens]).unwrap();
    for n in 0..20 {
        at_once(stack(&budget, &provider), 1, || chat(400, 200 + 50 * n)).await;
        sleep(Duration::from_millis(200)).await;
    }
    let told = lines.with("charges otherwise than its profile says");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("WARN"), "{told:?}");
}
