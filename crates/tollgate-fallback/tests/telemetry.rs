//! What the operator is told: once for each change, and no secret.
#![allow(clippy::unwrap_used)]
mod common;

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use common::*;
use tokio::time::advance;
use tollgate_core::wire::outcome::Outcome;
use tollgate_fallback::{Candidate, Credential, ModelChain, Target, TargetState};
use tollgate_sim::script::Reply;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Keeps the events of the fallback that are above `debug`, and all texts.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<(Level, String)>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Events {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let level = *event.metadata().level();
        self.0.lock().unwrap().push((level, line.0));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Events {
    fn told(&self) -> Vec<(Level, String)> {
        let events = self.0.lock().unwrap();
        let loud = events.iter().filter(|(level, _)| *level <= Level::INFO);
        loud.cloned().collect()
    }
}

fn gone(what: &str) -> Reply {
    Reply::status(404).json(serde_json::json!({"error": {
        "message": format!("The model `a` {what}"),
        "type": "invalid_request_error", "param": null, "code": "model_not_found",
    }}))
}

// L12
#[tokio::test(start_paused = true)]
async fn a_deprecated_or_removed_model_is_warned_of_once_and_the_next_one_serves() {
    for what in [
        "has been deprecated, learn more here: https://platform.example/deprecations",
        "does not exist or you do not have access to it.",
    ] {
        let events = Events::default();
        let guard = tracing::subscriber::set_default(events.clone());
        let upstream = upstream(move |model, _| (model == "a").then(|| gone(what)));
        let service = wrap(&upstream, chain(["a", "b"]));
        // For longer than it is left alone, and by several keys.
        for n in 0..60 {
            let mut request = chat("a");
            let key = format!("Bearer key-{}", n % 7).parse().unwrap();
            request.headers_mut().insert("authorization", key);
            assert_eq!(served_by(&send(&service, request).await).1, "b");
            advance(Duration::from_secs(10)).await;
        }
        let asked = models(&upstream).iter().filter(|m| *m == "a").count();
        assert!(asked > 10, "{asked}: it was asked again after its time");
        let health = service.health().snapshot();
        assert!(
            health
                .targets
                .iter()
                .all(|target| target.reason == Outcome::ModelGone)
        );
        let state = health.targets[0].state;
        assert!(matches!(state, TargetState::Gone | TargetState::Due));
        drop(guard);
        let told = events.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].0, Level::WARN);
        assert!(told[0].1.contains("model=\"a\"") && told[0].1.contains("does not exist"));
    }
}

// L12
#[tokio::test(start_paused = true)]
async fn a_model_that_still_serves_and_says_that_it_is_deprecated_is_warned_of_once() {
    for (name, value) in [
        ("deprecation", "@1688169599"),
        ("sunset", "Mon, 27 Apr 2026 00:00:00 GMT"),
    ] {
        let events = Events::default();
        let guard = tracing::subscriber::set_default(events.clone());
        let upstream = upstream(move |model, _| {
            let reply = Reply::chat(model, 1, 1);
            (model == "a").then(|| reply.header(name, value))
        });
        let service = wrap(&upstream, chain(["a", "b"]));
        for _ in 0..20 {
            assert_eq!(served_by(&send(&service, chat("a")).await).1, "a");
            send(&service, chat("b")).await;
        }
        drop(guard);
        let told = events.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].1.contains("deprecated") && told[0].1.contains("model=\"a\""));
        assert!(service.health().snapshot().targets.is_empty(), "it serves");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_when_it_begins_and_when_it_ends_and_without_a_secret() {
    let events = Events::default();
    let guard = tracing::subscriber::set_default(events.clone());
    let start = tokio::time::Instant::now();
    let upstream = upstream(move |model, _| {
        let down = model == "a" && start.elapsed() < Duration::from_secs(120);
        down.then(|| error(503, "overloaded"))
    });
    let there = Target::new("backup", "https://b.example/canary").unwrap();
    let there = there.credential(Credential::bearer("canary").unwrap());
    let chain = ModelChain::new([Candidate::model("a"), there.model("b").into()]);
    let service = wrap(&upstream, chain.unwrap());
    for n in 0..100 {
        let mut request = chat("a");
        let cookie = "canary=canary".parse().unwrap();
        request.headers_mut().insert("cookie", cookie);
        assert_eq!(send(&service, request).await.status(), 200);
        if n == 10 {
            let down = &service.health().snapshot().targets[0];
            assert_eq!(down.model.as_deref(), Some("a"));
            assert_eq!(down.reason, Outcome::Overloaded);
            assert_eq!(down.since, start);
            assert!(down.next_probe > tokio::time::Instant::now());
        }
        advance(Duration::from_secs(3)).await;
    }
    drop(guard);
    let told = events.told();
    let levels: Vec<_> = told.iter().map(|(level, _)| *level).collect();
    assert_eq!(levels, [Level::WARN, Level::INFO], "{told:?}");
    assert!(told[0].1.contains("left alone") && told[1].1.contains("well again"));
    let all = format!("{:?} {:?}", events.0.lock().unwrap(), service.health());
    assert!(!all.contains("canary"), "{all}");
}
