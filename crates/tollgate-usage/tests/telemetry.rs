//! The event of each record.
#![allow(clippy::unwrap_used)]
mod common;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};

use common::*;
use serde_json::json;
use tollgate_core::call::CallOptions;
use tollgate_sim::script::{Reply, Scripted};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Keeps the fields of every event.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<BTreeMap<String, String>>>>);

struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Subscriber for Events {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let target = event.metadata().target().to_owned();
        let mut fields = Fields(BTreeMap::from([("target".to_owned(), target)]));
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

// U19
#[tokio::test(start_paused = true)]
async fn one_event_a_record_in_the_names_of_opentelemetry_and_without_content() {
    let events = Events::default();
    let guard = tracing::subscriber::set_default(events.clone());
    let kept = Kept::default();
    let mut request = chat(json!({"user": "canary-user", "stream": true,
        "messages": [{"role": "user", "content": "canary-prompt"}]}));
    request
        .headers_mut()
        .insert("authorization", "Bearer canary-key".parse().unwrap());
    request
        .extensions_mut()
        .insert(CallOptions::new().principal("canary-tenant"));
    let mut answer = stream();
    answer.insert(1, delta("canary-answer"));
    let upstream = Scripted::new([Reply::stream(answer), Reply::rate_limited(3)]);
    exchange(&kept.layer(), &upstream, request).await.1.unwrap();
    exchange(&kept.layer(), &upstream, chat(json!({})))
        .await
        .1
        .unwrap();
    drop(guard);

    let events = events.0.lock().unwrap();
    let events: Vec<_> = events
        .iter()
        .filter(|event| event["target"] == "tollgate::usage")
        .collect();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["gen_ai.request.model"], "\"gpt-test\"");
    assert_eq!(
        events[0]["gen_ai.response.model"],
        "\"gpt-test-2025-01-01\""
    );
    assert_eq!(events[0]["gen_ai.usage.input_tokens"], "11");
    assert_eq!(events[0]["gen_ai.usage.output_tokens"], "7");
    assert_eq!(events[0]["gen_ai.usage.cache_read.input_tokens"], "4");
    assert_eq!(events[0]["gen_ai.usage.reasoning.output_tokens"], "2");
    assert!(!events[0].contains_key("gen_ai.usage.cache_creation.input_tokens"));
    assert_eq!(events[0]["gen_ai.response.finish_reasons"], "\"stop\"");
    assert_eq!(events[1]["http.response.status_code"], "429");
    assert_eq!(events[1]["error.type"], "\"rate_limited\"");
    assert!(!events[0].contains_key("error.type"));
    let shown = format!("{events:?} {:?}", kept.all());
    assert!(!shown.contains("canary"), "{shown}");
}
