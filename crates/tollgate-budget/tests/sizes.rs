//! Who waits how long: small requests beside large ones, and priorities, at nine tenths of the limit and above it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tollgate_budget::{Ask, Budget, BudgetStore, Cost, Enforcement, Limit};
use tollgate_core::{call::Priority, principal::Principal};

const SMALL: u64 = 500;
const LARGE: u64 = 60_000;
const LIMIT: u64 = 100_000;

/// Waits in seconds, in ascending order.
struct Waits {
    small: Vec<f64>,
    large: Vec<f64>,
}

impl Waits {
    fn at(waits: &[f64], part: f64) -> f64 {
        waits[((waits.len() - 1) as f64 * part) as usize]
    }
}

/// Poisson arrivals for so many minutes: `load` of the limit, `large` of it in large requests.
async fn run(budget: &Budget, load: f64, large: f64, minutes: u64, seed: u64) -> Waits {
    let mut rng = fastrand::Rng::with_seed(seed);
    let begun = Instant::now();
    let mut calls = Vec::new();
    for (size, part) in [(SMALL, 1.0 - large), (LARGE, large)] {
        let a_minute = load * part * LIMIT as f64 / size as f64;
        let mut at = 0.0;
        loop {
            at += -(1.0 - rng.f64()).ln() / a_minute * 60.0;
            if at > 60.0 * minutes as f64 {
                break;
            }
            let budget = budget.clone();
            calls.push(tokio::spawn(async move {
                let at = begun + Duration::from_secs_f64(at);
                sleep_until(at).await;
                let ask = Ask::new(Cost::request().tokens(size, 0));
                drop(budget.acquire(ask).await.unwrap().send());
                (size, at.elapsed().as_secs_f64())
            }));
        }
    }
    let mut waits = Waits {
        small: Vec::new(),
        large: Vec::new(),
    };
    for call in calls {
        let (size, wait) = call.await.unwrap();
        match size {
            SMALL => waits.small.push(wait),
            _ => waits.large.push(wait),
        }
    }
    waits.small.sort_by(f64::total_cmp);
    waits.large.sort_by(f64::total_cmp);
    waits
}

fn budget(size_classes: bool, enforcement: Enforcement) -> Budget {
    Budget::builder()
        .limit(Limit::requests(600).per_minute().enforcement(enforcement))
        .limit(Limit::tokens(LIMIT).per_minute().enforcement(enforcement))
        .max_wait(Duration::MAX)
        .queue_len(1_000_000)
        .size_classes(size_classes)
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn with_size_classes_small_requests_wait_less_than_a_second_at_nine_tenths_of_the_limit() {
    let bucket = Enforcement::Bucket { burst: None };
    for seed in 1..=2 {
        // Four hours: 216 large ones are few enough for a percentile.
        let mixed = run(&budget(false, bucket), 0.9, 0.5, 60, seed).await;
        let apart = run(&budget(true, bucket), 0.9, 0.5, 240, seed).await;
        let [before, after] = [mixed, apart].map(|waits| Waits::at(&waits.small, 0.99));
        assert!(
            after < 1.0,
            "seed {seed}: {after} s, without classes {before} s"
        );
        assert!(
            before > 10.0,
            "seed {seed}: {before} s is no test of the order"
        );
    }
}

// T20
#[tokio::test(start_paused = true)]
async fn nobody_starves_in_any_order_when_more_comes_than_the_limit_lets_out() {
    for classes in [false, true] {
        let bucket = Enforcement::Bucket { burst: None };
        let waits = run(&budget(classes, bucket), 1.2, 0.2, 60, 1).await;
        let small = Waits::at(&waits.small, 1.0);
        let large = Waits::at(&waits.large, 1.0);
        // More came than the limit lets out in the hour; whoever came last waits for all that is left, and not longer.
        assert!(small < 1800.0, "{classes}: {small} s");
        assert!(large < 1800.0, "{classes}: {large} s");
        if classes {
            assert!(
                large < 600.0,
                "within its share it waits for little: {large} s"
            );
        }
    }
}

// T20
#[tokio::test(start_paused = true)]
async fn one_of_five_thousand_tokens_passes_an_endless_stream_of_tens() {
    for (classes, one_user) in [(false, true), (false, false), (true, true), (true, false)] {
        let budget = Budget::builder()
            .limit(Limit::tokens(6000).per_minute())
            .max_wait(Duration::MAX)
            .queue_len(1_000_000)
            .size_classes(classes)
            .build()
            .unwrap();
        let ask = move |tokens, user| {
            let ask = Ask::new(Cost::request().tokens(tokens, 0));
            let user = if one_user { 0 } else { user };
            ask.principal(Principal::from_digest(user))
        };
        // Twice what the limit lets out, before and after it.
        let stream = tokio::spawn({
            let budget = budget.clone();
            async move {
                for _ in 0..100_000 {
                    sleep_until(Instant::now() + Duration::from_millis(50)).await;
                    let small = budget.acquire(ask(10, 1));
                    tokio::spawn(async move { small.await.map(|held| drop(held.send())) });
                }
            }
        });
        sleep_until(Instant::now() + Duration::from_secs(60)).await;
        let begun = Instant::now();
        drop(budget.acquire(ask(5000, 2)).await.unwrap().send());
        // Half a minute of work is before it, and itself takes a minute to fit.
        let waited = begun.elapsed().as_secs();
        assert!(waited <= 180, "{classes} {one_user}: {waited} s");
        stream.abort();
    }
}

// T24
#[tokio::test(start_paused = true)]
async fn a_low_priority_progresses_at_saturation_and_borrows_below_it() {
    let budget = Budget::builder()
        .limit(Limit::requests(170).per(Duration::from_secs(10)))
        .max_wait(Duration::MAX)
        .build()
        .unwrap();
    let served = |priority: Priority, count: u64| {
        let budget = budget.clone();
        let calls: Vec<_> = (0..count)
            .map(|_| {
                let wait = budget.acquire(Ask::new(Cost::request()).priority(priority));
                tokio::spawn(async move {
                    drop(wait.await.unwrap().send());
                    Instant::now()
                })
            })
            .collect();
        async move {
            let mut at = Vec::new();
            for call in calls {
                at.push(call.await.unwrap());
            }
            at
        }
    };
    // Nobody else is there: all of it, and not a seventeenth.
    let begun = Instant::now();
    let alone = served(Priority::Low, 340).await;
    let alone = alone.iter().max().unwrap().duration_since(begun).as_secs();
    assert!(alone <= 11, "{alone} s for two windows of work");

    let begun = Instant::now() + Duration::from_secs(10);
    sleep_until(begun).await;
    let (high, low) = tokio::join!(served(Priority::High, 1600), served(Priority::Low, 1600));
    let until = begun + Duration::from_secs(95);
    let count = |at: &[Instant]| at.iter().filter(|&&at| at <= until).count();
    let (high, low) = (count(&high), count(&low));
    assert!((1390..=1610).contains(&high), "{high} of sixteen shares");
    assert!((80..=110).contains(&low), "{low} of one share");
}
