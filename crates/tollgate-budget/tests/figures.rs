//! The job of the published comparison, on paused time: 2,000 calls, 455 requests and 220,000 tokens in 6 seconds.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use support::{W, calls, run};
use tollgate_budget::{Budget, Limit};
use tollgate_sim::{Enforcement, Latency, SimProvider};

fn provider(enforcement: Enforcement, seed: u64) -> tollgate_sim::SimBuilder {
    SimProvider::builder()
        .requests(455)
        .tokens(220_000)
        .window(W)
        .enforcement(enforcement)
        .seed(seed)
        .latency(Latency::LogNormal {
            median: Duration::from_millis(250),
            sigma: 0.4,
        })
        .arrival_skew(Latency::Uniform {
            min: Duration::from_millis(1),
            max: Duration::from_millis(60),
        })
}

fn told() -> Budget {
    Budget::in_memory([Limit::requests(455).per(W), Limit::tokens(220_000).per(W)]).unwrap()
}

async fn hold(enforcement: Enforcement, most: f64) {
    for seed in 1..=3 {
        let provider = provider(enforcement, seed).build();
        let (account, failed) = run(&provider, &told(), calls(seed, 2000), 512).await;
        assert_eq!(account.totals.status_429, 0, "seed {seed}");
        assert_eq!(failed, 0, "seed {seed}");
        let ratio = account.admission_ratio().unwrap();
        assert!(ratio <= most, "seed {seed}: {ratio}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rolling_provider_never_refuses_and_no_window_is_wasted() {
    hold(Enforcement::Rolling, 1.02).await;
}

#[tokio::test(start_paused = true)]
async fn a_fixed_provider_never_refuses_and_no_window_is_wasted() {
    hold(Enforcement::Fixed, 1.02).await;
}

#[tokio::test(start_paused = true)]
async fn a_bucket_is_found_out_and_used_to_the_full() {
    hold(Enforcement::Bucket { burst: None }, 1.03).await;
}
