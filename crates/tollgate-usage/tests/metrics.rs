//! Records as metrics: names, kinds, labels and their bound.
#![allow(clippy::unwrap_used)]
mod common;

use std::collections::BTreeMap;

use common::{asked, chat, exchange, stream};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use serde_json::json;
use tollgate_core::price::{Price, PriceTable};
use tollgate_sim::script::{Reply, Scripted};
use tollgate_usage::{MetricsRecorder, Recorder, UsageRecord, UsageRecorderLayer};

/// Every metric as `name{label=value …}`, with its value.
fn all(snapshotter: &Snapshotter) -> BTreeMap<String, String> {
    let metrics = snapshotter.snapshot().into_vec();
    let entries = metrics.into_iter().map(|(key, .., value)| {
        let key = key.key();
        let mut labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        labels.sort();
        let value = match value {
            DebugValue::Counter(n) => n.to_string(),
            DebugValue::Gauge(n) => n.to_string(),
            DebugValue::Histogram(values)
                if key.name().contains("duration") || key.name().contains("time_to") =>
            {
                format!("{} times", values.len())
            }
            DebugValue::Histogram(values) => {
                format!(
                    "{:?}",
                    values
                        .iter()
                        .map(|value| value.into_inner())
                        .collect::<Vec<f64>>()
                )
            }
        };
        (format!("{}{{{}}}", key.name(), labels.join(" ")), value)
    });
    entries.collect()
}

#[test]
fn a_record_feeds_the_metrics_of_the_conventions() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let price = Price::per_million("1", "2").unwrap();
            let layer = UsageRecorderLayer::new(MetricsRecorder::new())
                .prices(PriceTable::new().with("gpt-test", price));
            let whole = Reply::stream(stream())
                .header("x-ratelimit-limit-tokens", "2000")
                .header("x-ratelimit-remaining-tokens", "1500");
            let unpriced = Reply::chat("new", 1, 1);
            let upstream = Scripted::new([whole, unpriced, Reply::rate_limited(7)]);
            for request in [asked(), chat(json!({})), chat(json!({}))] {
                exchange(&layer, &upstream, request).await.1.unwrap();
            }
        });
    });
    let of = |model: &str| format!("gen_ai.operation.name=chat gen_ai.request.model={model}");
    let (test, new) = (of("gpt-test-2025-01-01"), of("new"));
    let asked = of("gpt-test");
    let expected: BTreeMap<String, String> = [
        (
            format!("gen_ai.client.token.usage{{{test} gen_ai.token.type=input}}"),
            "[11.0]",
        ),
        (
            format!("gen_ai.client.token.usage{{{test} gen_ai.token.type=output}}"),
            "[7.0]",
        ),
        (
            format!("gen_ai.client.operation.duration{{{test}}}"),
            "1 times",
        ),
        (
            format!("gen_ai.client.operation.time_to_first_chunk{{{test}}}"),
            "1 times",
        ),
        (
            format!("tollgate.client.operation.cost{{{test}}}"),
            "[2.5e-5]",
        ),
        (
            format!("tollgate.client.finishes{{{test} tollgate.finish=stop}}"),
            "1",
        ),
        (
            format!("tollgate.client.limit{{{test} tollgate.limit=tokens}}"),
            "2000",
        ),
        (
            format!("tollgate.client.limit.remaining{{{test} tollgate.limit=tokens}}"),
            "1500",
        ),
        (
            format!("gen_ai.client.token.usage{{{new} gen_ai.token.type=input}}"),
            "[1.0]",
        ),
        (
            format!("gen_ai.client.token.usage{{{new} gen_ai.token.type=output}}"),
            "[1.0]",
        ),
        (
            format!("gen_ai.client.operation.duration{{{new}}}"),
            "1 times",
        ),
        (format!("tollgate.client.unpriced{{{new}}}"), "1"),
        (
            format!("tollgate.client.finishes{{{new} tollgate.finish=stop}}"),
            "1",
        ),
        (
            format!("gen_ai.client.operation.duration{{error.type=rate_limited {asked}}}"),
            "1 times",
        ),
        (
            format!("tollgate.client.operation.cost{{{asked}}}"),
            "[0.0]",
        ),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    assert_eq!(all(&snapshotter), expected);
}

// U19
#[test]
fn models_beyond_the_first_hundred_share_a_label() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let metrics = MetricsRecorder::new();
        for n in 0..1_000 {
            let mut record = UsageRecord::default();
            record.model_served = Some(format!("m-{n}").into());
            metrics.record(&record);
        }
    });
    let all = all(&snapshotter);
    assert_eq!(all.len(), 101);
    let other = all.iter().find(|(name, _)| name.contains("model=other"));
    assert_eq!(other.map(|(_, value)| &**value), Some("900 times"));
}
