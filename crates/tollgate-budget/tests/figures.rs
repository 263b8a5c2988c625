//! The job of the published comparison, on paused time: 2,000 calls against 455 requests and 220,000 tokens in each
//! 6 seconds, 512 callers, latency lognormal with a median of 250 ms, ways of 1 to 60 ms. Ratios are of the time from
//! the first arrival to the last admission over the least possible.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use support::{W, calls, run};
use tollgate_budget::{Budget, BudgetBuilder, ChargeProfile, Limit};
use tollgate_sim::{Charging, Enforcement, Latency, SimBuilder, SimProvider};

const ROLLING: Enforcement = Enforcement::Rolling;
const BUCKET: Enforcement = Enforcement::Bucket { burst: None };

fn provider(enforcement: Enforcement, seed: u64) -> SimBuilder {
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

fn told(times: u64) -> BudgetBuilder {
    Budget::builder()
        .limit(Limit::requests(455 * times).per(W))
        .limit(Limit::tokens(220_000 * times).per(W))
}

struct Bounds {
    ratio: f64,
    refusals: u64,
}

async fn hold(provider: SimBuilder, budget: BudgetBuilder, seed: u64, bounds: Bounds) {
    hold_with(provider, budget, seed, 512, bounds).await;
}

async fn hold_with(
    provider: SimBuilder,
    budget: BudgetBuilder,
    seed: u64,
    concurrency: usize,
    bounds: Bounds,
) {
    let provider = provider.build();
    let budget = budget.max_wait(Duration::from_secs(3600)).build().unwrap();
    let (account, failed) = run(&provider, &budget, calls(seed, 2000), concurrency).await;
    let ratio = account.admission_ratio().unwrap();
    let refusals = account.totals.status_429;
    assert_eq!(failed, 0, "seed {seed}: lost");
    assert!(
        refusals <= bounds.refusals,
        "seed {seed}: {refusals} refusals"
    );
    assert!(ratio <= bounds.ratio, "seed {seed}: {ratio:.4}");
    let seen = budget.snapshot();
    assert_eq!((seen.in_flight, seen.queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_rolling_provider_never_refuses_and_no_window_is_wasted() {
    for seed in 1..=3 {
        let (ratio, refusals) = (1.02, 0);
        hold(
            provider(ROLLING, seed),
            told(1),
            seed,
            Bounds { ratio, refusals },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fixed_provider_never_refuses_and_no_window_is_wasted() {
    for seed in 1..=3 {
        let (ratio, refusals) = (1.02, 0);
        let provider = provider(Enforcement::Fixed, seed);
        hold(provider, told(1), seed, Bounds { ratio, refusals }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_is_found_out_and_used_to_the_full() {
    for seed in 1..=3 {
        let (ratio, refusals) = (1.01, 0);
        hold(
            provider(BUCKET, seed),
            told(1),
            seed,
            Bounds { ratio, refusals },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_processing_times_there_is_still_no_refusal() {
    for enforcement in [ROLLING, BUCKET] {
        let (ratio, refusals) = (1.07, 0);
        let provider = provider(enforcement, 1).state_processing(false);
        hold(provider, told(1), 1, Bounds { ratio, refusals }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn long_ways_cost_time_and_no_refusal() {
    let skew = Latency::Uniform {
        min: Duration::from_millis(1),
        max: Duration::from_millis(200),
    };
    for enforcement in [ROLLING, BUCKET] {
        let (ratio, refusals) = (1.05, 0);
        let provider = provider(enforcement, 1).arrival_skew(skew);
        hold(provider, told(1), 1, Bounds { ratio, refusals }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_take_three_windows_cost_no_refusal_and_little_time() {
    // Before the first answers, nothing is known of ways but that they take a second at most.
    for enforcement in [ROLLING, BUCKET] {
        let (ratio, refusals) = (1.08, 0);
        let provider = provider(enforcement, 1).latency(Latency::LogNormal {
            median: 3 * W,
            sigma: 0.4,
        });
        hold_with(provider, told(1), 1, 2000, Bounds { ratio, refusals }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_provider_settles_its_reservations_come_back() {
    let (ratio, refusals) = (1.05, 0);
    let provider = provider(ROLLING, 1).charging(Charging::Settle);
    let budget = told(1).charging(ChargeProfile::sum().settles(true));
    hold(provider, budget, 1, Bounds { ratio, refusals }).await;
}

#[tokio::test(start_paused = true)]
async fn limits_told_twice_too_high_are_put_right_by_the_first_answer() {
    for enforcement in [ROLLING, BUCKET] {
        let (ratio, refusals) = (1.05, 5);
        hold(
            provider(enforcement, 1),
            told(2),
            1,
            Bounds { ratio, refusals },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn limits_that_nobody_told_are_learned() {
    for enforcement in [ROLLING, BUCKET] {
        let (ratio, refusals) = (1.05, 5);
        let budget = Budget::builder().learn(true).learn_period(W);
        hold(
            provider(enforcement, 1),
            budget,
            1,
            Bounds { ratio, refusals },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_holds_a_sixtieth_of_the_limit_is_found_out_too() {
    let burst = Some(220_000 / 60);
    let (ratio, refusals) = (1.05, 20);
    let provider = provider(Enforcement::Bucket { burst }, 1);
    hold(provider, told(1), 1, Bounds { ratio, refusals }).await;
}
