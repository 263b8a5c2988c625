//! Records as metrics, through the `metrics` facade.
use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use metrics::{
    Label, SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use tollgate_core::price::{Cost, Pico};

use crate::{Recorder, UsageRecord};

/// Models that have labels of their own.
const MODELS: usize = 100;
/// Windows and dimensions of limits, which the wire names.
const LIMITS: usize = 100;
/// The label of all others.
const OTHER: &str = "other";

/// A [`Recorder`] that feeds the `metrics` facade, in the names of OpenTelemetry's conventions for
/// generative AI.
///
/// | metric | kind | labels beside model and operation |
/// |---|---|---|
/// | `gen_ai.client.token.usage` | histogram, tokens | `gen_ai.token.type`: `input`, `output` |
/// | `gen_ai.client.operation.duration` | histogram, seconds | `error.type` on failures |
/// | `gen_ai.client.operation.time_to_first_chunk` | histogram, seconds, streams only | |
/// | `tollgate.client.operation.cost` | histogram, US dollars | |
/// | `tollgate.client.finishes` | counter | `tollgate.finish`: `stop`, `length`, … |
/// | `tollgate.client.failed_attempts` | counter | |
/// | `tollgate.client.unpriced` | counter | |
/// | `tollgate.client.unknown_usage` | counter | |
/// | `tollgate.client.limit`, `tollgate.client.limit.remaining` | gauges | `tollgate.limit`: `requests`, `tokens per minute`, … |
///
/// All carry `gen_ai.request.model` and `gen_ai.operation.name`. The model is the one under which
/// the record is [counted](UsageRecord::model). The first 100 models and the first 100 limits have labels of
/// their own, all others share `other`; no label holds a key, a user or a text. The sums of two
/// recorders in one stack do not add up twice: nested records feed the limits only.
///
/// ```
/// use tollgate_usage::{MetricsRecorder, UsageRecorderLayer, UsageTotals};
///
/// // Install an exporter for the `metrics` crate first.
/// let layer = UsageRecorderLayer::new(UsageTotals::new()).and(MetricsRecorder::new());
/// # drop(layer);
/// ```
#[derive(Clone, Default)]
pub struct MetricsRecorder(Arc<Mutex<Names>>);

/// The names that have labels of their own.
#[derive(Default)]
struct Names {
    models: HashSet<Arc<str>>,
    limits: HashSet<Arc<str>>,
}

impl MetricsRecorder {
    /// Describes the metrics to the recorder that is installed.
    #[must_use]
    pub fn new() -> Self {
        describe_histogram!("gen_ai.client.token.usage", "Tokens used by an operation.");
        describe_histogram!(
            "gen_ai.client.operation.duration",
            Unit::Seconds,
            "From the request to the end of the answer."
        );
        describe_histogram!(
            "gen_ai.client.operation.time_to_first_chunk",
            Unit::Seconds,
            "From the request to the first generated content of a stream."
        );
        describe_histogram!(
            "tollgate.client.operation.cost",
            "What an operation cost, in US dollars."
        );
        describe_counter!("tollgate.client.finishes", "Why generation ended.");
        describe_counter!(
            "tollgate.client.failed_attempts",
            "Attempts that did not become the answer."
        );
        describe_counter!(
            "tollgate.client.unpriced",
            "Answers of models that have no price."
        );
        describe_counter!(
            "tollgate.client.unknown_usage",
            "Answers that stated no usage."
        );
        describe_gauge!(
            "tollgate.client.limit",
            "A limit as the provider states it."
        );
        describe_gauge!("tollgate.client.limit.remaining", "What is left of it.");
        Self::default()
    }

    fn model(&self, record: &UsageRecord) -> SharedString {
        let Some(model) = record.model() else {
            return SharedString::const_str("");
        };
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        own(&mut names.models, model, MODELS)
    }

    fn limits(&self, record: &UsageRecord, labels: &[Label]) {
        for stated in &record.rate_limits {
            let name: Arc<str> = match stated.window.as_deref() {
                None => stated.dimension.as_str().into(),
                Some(window) => format!("{} per {window}", stated.dimension.as_str()).into(),
            };
            let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let name = own(&mut names.limits, &name, LIMITS);
            drop(names);
            let mut labels = labels.to_vec();
            labels.push(Label::new("tollgate.limit", name));
            if let Some(limit) = stated.limit {
                gauge!("tollgate.client.limit", labels.clone()).set(limit);
            }
            if let Some(remaining) = stated.remaining {
                gauge!("tollgate.client.limit.remaining", labels).set(remaining);
            }
        }
    }
}

/// The name itself for the first ones that come.
fn own(names: &mut HashSet<Arc<str>>, name: &Arc<str>, most: usize) -> SharedString {
    let room = name.len() <= 128 && names.len() < most;
    if names.contains(name) || (room && names.insert(Arc::clone(name))) {
        SharedString::from_shared(Arc::clone(name))
    } else {
        SharedString::const_str(OTHER)
    }
}

fn with(labels: &[Label], name: &'static str, value: &'static str) -> Vec<Label> {
    let mut labels = labels.to_vec();
    labels.push(Label::from_static_parts(name, value));
    labels
}

impl Recorder for MetricsRecorder {
    fn record(&self, record: &UsageRecord) {
        let labels = vec![
            Label::new("gen_ai.request.model", self.model(record)),
            Label::from_static_parts("gen_ai.operation.name", record.operation()),
        ];
        self.limits(record, &labels);
        if record.nested {
            return;
        }
        let usage = &record.usage;
        for (kind, count) in [("input", usage.input), ("output", usage.billed_output())] {
            if let Some(count) = count.get() {
                let labels = with(&labels, "gen_ai.token.type", kind);
                histogram!("gen_ai.client.token.usage", labels).record(count as f64);
            }
        }
        let ended = match record.error_type() {
            Some(error) => with(&labels, "error.type", error),
            None => labels.clone(),
        };
        histogram!("gen_ai.client.operation.duration", ended).record(record.duration.as_secs_f64());
        if let Some(time) = record.time_to_first_token.filter(|_| record.stream) {
            histogram!(
                "gen_ai.client.operation.time_to_first_chunk",
                labels.clone()
            )
            .record(time.as_secs_f64());
        }
        if let Some(cost) = record.cost.get() {
            let dollars = cost.get() as f64 / Pico::PER_DOLLAR as f64;
            histogram!("tollgate.client.operation.cost", labels.clone()).record(dollars);
        }
        if let Some(finish) = record.finish {
            let labels = with(&labels, "tollgate.finish", finish.as_str());
            counter!("tollgate.client.finishes", labels).increment(1);
        }
        if !record.failed_attempts.is_empty() {
            let attempts = record.failed_attempts.len() as u64;
            counter!("tollgate.client.failed_attempts", labels.clone()).increment(attempts);
        }
        if record.has_usage && record.cost == Cost::Unknown {
            counter!("tollgate.client.unpriced", labels.clone()).increment(1);
        }
        if record.served() && record.metered() && !record.has_usage {
            counter!("tollgate.client.unknown_usage", labels).increment(1);
        }
    }
}

impl fmt::Debug for MetricsRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsRecorder").finish_non_exhaustive()
    }
}
