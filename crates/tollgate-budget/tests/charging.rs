//! The charging profile against what the provider is seen to charge.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use http_body_util::BodyExt;
use support::{chat, stack};
use tokio::time::sleep;
use tollgate_budget::{Budget, ChargeProfile, Charged, Limit};
use tollgate_sim::{Charging, Enforcement, SimBuilder, SimProvider};
use tower::ServiceExt;

fn provider(charging: Charging, enforcement: Enforcement) -> SimBuilder {
    SimProvider::builder()
        .requests(500)
        .tokens(100_000)
        .enforcement(enforcement)
        .charging(charging)
        .latency(Duration::from_millis(300))
        .output_share(0.3)
}

/// Sends so many requests one after the other.
async fn one_by_one(budget: &Budget, provider: &SimProvider, count: usize) {
    let service = stack(budget, provider);
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..count {
        let request = chat(rng.usize(100..2000), rng.u64(200..2000));
        let answer = service.clone().oneshot(request).await.unwrap();
        answer.into_body().collect().await.unwrap();
        sleep(Duration::from_millis(rng.u64(50..400))).await;
    }
}

fn told(profile: Option<ChargeProfile>) -> Budget {
    let budget = Budget::builder()
        .limit(Limit::requests(500).per_minute())
        .limit(Limit::tokens(100_000).per_minute());
    match profile {
        Some(profile) => budget.charging(profile),
        None => budget,
    }
    .build()
    .unwrap()
}

fn charged(budget: &Budget) -> Option<Charged> {
    let seen = budget.snapshot();
    seen.charging.first().and_then(|seen| seen.charged)
}

const BUCKET: Enforcement = Enforcement::Bucket { burst: None };
const ROLLING: Enforcement = Enforcement::Rolling;

#[tokio::test(start_paused = true)]
async fn a_provider_that_charges_less_than_the_profile_is_found_out_by_lone_requests() {
    for (charging, found) in [
        (Charging::Max, Charged::Larger),
        (Charging::PromptOnly, Charged::Prompt),
        (Charging::Settle, Charged::Settles),
    ] {
        for enforcement in [BUCKET, ROLLING] {
            let provider = provider(charging, enforcement).build();
            let budget = told(None);
            one_by_one(&budget, &provider, 3).await;
            assert_eq!(charged(&budget), None, "three prove nothing");
            one_by_one(&budget, &provider, 20).await;
            assert_eq!(charged(&budget), Some(found), "{enforcement:?}");
            assert_eq!(provider.totals().status_429, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_is_right_stays() {
    for (charging, profile) in [
        (Charging::Sum, ChargeProfile::sum()),
        (Charging::Settle, ChargeProfile::sum().settles(true)),
        (Charging::Max, ChargeProfile::max()),
    ] {
        for enforcement in [BUCKET, ROLLING] {
            let provider = provider(charging, enforcement).build();
            let budget = told(Some(profile));
            one_by_one(&budget, &provider, 40).await;
            assert_eq!(charged(&budget), None, "{charging:?} {enforcement:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_gives_nothing_back_is_believed_after_one_answer() {
    let provider = provider(Charging::Sum, ROLLING).build();
    let budget = told(Some(ChargeProfile::sum().settles(true)));
    one_by_one(&budget, &provider, 3).await;
    assert_eq!(charged(&budget), Some(Charged::Sum));
    let used = budget.snapshot().limits[1].used;
    one_by_one(&budget, &provider, 1).await;
    let more = budget.snapshot().limits[1].used - used;
    assert!(more >= 200, "nothing is given back any more: {more}");
}

#[tokio::test(start_paused = true)]
async fn what_is_found_out_is_what_is_reserved() {
    let provider = provider(Charging::PromptOnly, ROLLING).build();
    let budget = told(None);
    one_by_one(&budget, &provider, 20).await;
    sleep(Duration::from_secs(70)).await;
    let before = budget.snapshot().limits[1].used;
    let service = stack(&budget, &provider);
    let answer = service.oneshot(chat(400, 5000)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let used = budget.snapshot().limits[1].used - before;
    assert!((100..200).contains(&used), "{used}");
}
