//! Back-offs and budgets that others have written.
#![allow(clippy::unwrap_used)]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use support::*;
use tollgate_retry::{
    Backoff, BackoffPolicy, GaveUp, GaveUpReason, RateLimitPolicy, RetryBudget, TowerBackoff,
};
use tollgate_sim::script::Reply;
use tower::{
    retry::{backoff::ExponentialBackoffMaker, budget::Budget},
    util::rng::HasherRng,
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn a_back_off_of_towers_paces_the_retries() {
    let maker = ExponentialBackoffMaker::new(millis(100), millis(400), 0.0, HasherRng::default());
    let backoff = TowerBackoff::new(maker.unwrap());
    let policy = RateLimitPolicy::new().attempts(5).backoff(backoff);
    let seen = send(policy, chat(), [Reply::status(500)]).await;
    let times = seen.provider.times();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps.len(), 4);
    assert!(gaps.windows(2).all(|pair| pair[0] <= pair[1]), "{gaps:?}");
    assert!(gaps[1] >= 2 * gaps[0] - millis(2), "it doubles: {gaps:?}");
    assert!(gaps[3] <= millis(401), "to its maximum: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_the_backoff_crate_paces_the_retries() {
    let theirs = backoff::ExponentialBackoffBuilder::new()
        .with_initial_interval(millis(100))
        .with_randomization_factor(0.0)
        .with_multiplier(3.0)
        .build();
    let policy = RateLimitPolicy::new()
        .attempts(4)
        .backoff(BackoffPolicy::new(theirs));
    let seen = send(policy, chat(), [Reply::status(500)]).await;
    let times: Vec<_> = seen
        .provider
        .times()
        .iter()
        .map(Duration::as_millis)
        .collect();
    assert_eq!(times, [0, 100, 400, 1_300]);

    let over = BackoffPolicy::new(backoff::backoff::Stop {});
    assert_eq!(over.pause(1), Duration::MAX, "to be cut to the wait cap");
}

/// Pays for two retries.
#[derive(Clone, Default)]
struct Two {
    deposits: Arc<AtomicUsize>,
    paid: Arc<AtomicUsize>,
}

impl Budget for Two {
    fn deposit(&self) {
        self.deposits.fetch_add(1, Relaxed);
    }

    fn withdraw(&self) -> bool {
        self.paid.fetch_add(1, Relaxed) < 2
    }
}

// R24
#[tokio::test(start_paused = true)]
async fn a_budget_of_towers_pays_for_the_retries() {
    let two = Two::default();
    let budget = RetryBudget::tower(two.clone());
    let policy = RateLimitPolicy::new().attempts(9).retry_budget(budget);
    let seen = send(policy, chat(), [Reply::status(500)]).await;
    assert_eq!(seen.attempts(), 3);
    assert_eq!(two.deposits.load(Relaxed), 1);
    assert_eq!(seen.stats.snapshot().retry_budget, None, "it does not tell");
    let gave_up = *GaveUp::of(&seen.response()).unwrap();
    assert_eq!(gave_up.reason, GaveUpReason::RetryBudgetEmpty);
}
