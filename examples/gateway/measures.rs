//! Metrics in Prometheus' text.
use std::{sync::OnceLock, time::Duration};

use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tollgate::Budget;

use crate::gateway::App;

const SECONDS: [f64; 13] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0,
];
const TOKENS: [f64; 10] = [
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0,
];
const DOLLARS: [f64; 9] = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.25, 1.0, 10.0];

/// What was measured. One for the process, as the `metrics` facade is.
#[derive(Clone)]
pub(crate) struct Measures(Option<PrometheusHandle>);

impl Measures {
    /// Installs the recorder, once for the process.
    #[must_use]
    pub(crate) fn install() -> Self {
        static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
        let make = || {
            let full = |name: &str| Matcher::Full(name.to_owned());
            PrometheusBuilder::new()
                .set_buckets_for_metric(full("gen_ai.client.token.usage"), &TOKENS)
                .and_then(|made| {
                    made.set_buckets_for_metric(full("tollgate.client.operation.cost"), &DOLLARS)
                })
                .and_then(|made| made.set_buckets(&SECONDS))
                .and_then(PrometheusBuilder::install_recorder)
                // Somebody else's recorder is in place: the metrics go there.
                .ok()
        };
        Self(HANDLE.get_or_init(make).clone())
    }

    /// Sorts what was measured into its buckets every few seconds, or it would be kept one by one until somebody asks.
    pub(crate) async fn upkeep(self) {
        let Some(handle) = self.0 else { return };
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            handle.run_upkeep();
        }
    }

    /// All of them, with the state of the layers at this moment.
    pub(crate) fn render(&self, app: &App) -> String {
        let Some(handle) = &self.0 else {
            return String::new();
        };
        let handles = &app.stacks.handles;
        for (target, budget) in &handles.targets {
            limits(target, budget);
        }
        if let Some(budget) = &handles.own {
            limits("gateway", budget);
        }
        gauge!("tollgate_gateway_requests_under_way").set(app.under_way() as f64);
        gauge!("tollgate_gateway_targets_left_alone")
            .set(handles.health.snapshot().targets.len() as f64);
        for (of, shared) in &handles.stores {
            let down = if shared.store().down.is_some() {
                1.0
            } else {
                0.0
            };
            gauge!("tollgate_gateway_store_down", "of" => of.clone()).set(down);
        }
        let retries = handles.retries.snapshot();
        metrics::counter!("tollgate_gateway_attempts_total").absolute(retries.attempts);
        metrics::counter!("tollgate_gateway_retries_total").absolute(retries.retries);
        let sinks = [
            (
                "jsonl",
                handles
                    .sinks
                    .jsonl
                    .as_ref()
                    .map(|queue| queue.snapshot().dropped + queue.snapshot().failed),
            ),
            (
                "ledger",
                handles
                    .sinks
                    .ledger
                    .as_ref()
                    .map(|ledger| ledger.snapshot().dropped),
            ),
        ];
        for (sink, lost) in sinks {
            if let Some(lost) = lost {
                metrics::counter!("tollgate_gateway_records_lost_total", "sink" => sink)
                    .absolute(lost);
            }
        }
        handle.run_upkeep();
        handle.render()
    }
}

/// Each limit that is no caller's own: labels must stay few.
fn limits(target: &str, budget: &Budget) {
    let snapshot = budget.snapshot();
    gauge!("tollgate_gateway_queued", "target" => target.to_owned()).set(snapshot.queued as f64);
    for limit in snapshot
        .limits
        .iter()
        .filter(|limit| limit.key.is_none())
        .take(64)
    {
        let labels = [
            ("target", target.to_owned()),
            ("limit", limit.name.to_string()),
        ];
        gauge!("tollgate_gateway_limit", &labels).set(limit.limit as f64);
        gauge!("tollgate_gateway_limit_used", &labels).set(limit.used as f64);
        gauge!("tollgate_gateway_limit_reserved", &labels).set(limit.reserved as f64);
    }
}

impl std::fmt::Debug for Measures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Measures")
    }
}
