//! What the layer says of itself, and what it never says.
//!
//! One test alone: whether an event is wanted is remembered for the whole process, and what runs beside it on a thread
//! without a subscriber may say no for all.
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
};
use tollgate_retry::RateLimitPolicy;
use tollgate_sim::{SimError, script::Reply};
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
