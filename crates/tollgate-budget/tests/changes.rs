//! What a limit that is used up may do beside waiting and refusing: ask somebody, or be changed.
#![allow(clippy::unwrap_used)]
mod support;

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use support::W;
use tokio::time::{Instant, sleep};
use tollgate_budget::{
    Ask, Budget, BudgetBuilder, BudgetStore, Cost, Decision, Enforcement, Keys, Limit, Scope,
};
use tollgate_core::{
    extensions::{Reason, Refused},
    principal::Principal,
};

const HOUR: Duration = Duration::from_secs(3600);

fn told(limit: Limit) -> BudgetBuilder {
    // Saturday, 2026-03-28, noon UTC.
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_774_699_200);
    Budget::builder().limit(limit).wall_clock(noon)
}

fn request() -> Ask {
    Ask::new(Cost::request())
}

async fn one(budget: &Budget) -> Result<(), Refused> {
    let held = budget.acquire(request()).await?;
    drop(held.send());
    Ok(())
}

// L07
#[tokio::test(start_paused = true)]
async fn a_review_decides_instead_of_a_refusal_and_holds_no_lock() {
    let asked = Arc::new(AtomicU64::new(0));
    let (count, slot) = (Arc::clone(&asked), Arc::new(OnceLock::<Budget>::new()));
    let own = Arc::clone(&slot);
    let limit = Limit::requests(2)
        .per_calendar_week("UTC")
        .scope(Scope::Principal)
        .named("a week")
        .review(move |review| {
            count.fetch_add(1, Ordering::Relaxed);
            // It may look at the budget, and change it.
            let budget = own.get().unwrap();
            assert_eq!(budget.snapshot().limits[0].used, review.used);
            assert_eq!(
                (&*review.limit, review.amount, review.asked),
                ("a week", 2, 1)
            );
            assert_eq!(review.wait, Some(36 * HOUR));
            budget.set_limit("others", 50).unwrap();
            if review.used < 4 {
                Decision::Allow
            } else {
                Decision::Refuse
            }
        });
    let budget = told(limit)
        .limit(Limit::requests(100).per_minute().named("others"))
        .build()
        .unwrap();
    slot.set(budget.clone()).unwrap();
    let ask = || request().principal(Principal::of("ann"));
    for n in 0..4 {
        drop(budget.acquire(ask()).await.unwrap().send());
        assert_eq!(asked.load(Ordering::Relaxed), n.max(1) - 1, "{n}");
    }
    let refused = budget.acquire(ask()).await.unwrap_err();
    assert_eq!(
        (refused.reason, refused.limit.as_deref()),
        (Reason::Exhausted, Some("a week"))
    );
    assert_eq!(refused.retry_after, Some(36 * HOUR));
    let seen = budget.snapshot();
    assert_eq!(
        (seen.limits[0].used, seen.limits[0].debt),
        (4, 2),
        "what was allowed counts"
    );
}

// L07: two that are asked about at the same time are not both let past the same limit.
#[tokio::test(start_paused = true)]
async fn whoever_is_asked_about_while_another_is_let_go_is_asked_about_again() {
    let slot: Arc<OnceLock<Budget>> = Arc::default();
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (inside, asked) = (Arc::clone(&slot), Arc::clone(&seen));
    let limit = Limit::requests(1)
        .per_calendar_day("UTC")
        .review(move |review| {
            asked.lock().unwrap().push(review.used);
            if asked.lock().unwrap().len() == 1 {
                // Another one comes while the first waits for this answer.
                let budget = inside.get().unwrap();
                let other = budget.acquire(request()).now_or_never().expect("no wait");
                drop(other.expect("allowed, too").send());
            }
            if review.used < 2 {
                Decision::Allow
            } else {
                Decision::Refuse
            }
        });
    let budget = told(limit).build().unwrap();
    slot.set(budget.clone()).unwrap();
    drop(budget.acquire(request()).await.unwrap().send());
    let refused = budget.acquire(request()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Exhausted);
    assert_eq!(
        *seen.lock().unwrap(),
        [1, 1, 2],
        "asked again, with what is used now"
    );
    assert_eq!(budget.snapshot().limits[0].used, 2);
}

// L07
#[tokio::test(start_paused = true)]
async fn who_waited_for_another_limit_is_reviewed_when_the_cap_is_used_up_meanwhile() {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let cap = Limit::requests(2).per_calendar_day("UTC").named("a day");
    let budget = told(
        cap.review(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Decision::Allow,
            _ => Decision::Refuse,
        }),
    )
    .limit(Limit::requests(1).per(W).enforcement(Enforcement::Rolling))
    .build()
    .unwrap();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let budget = budget.clone();
            tokio::spawn(async move { one(&budget).await })
        })
        .collect();
    let mut results = Vec::new();
    for call in calls {
        results.push(
            call.await
                .unwrap()
                .map_err(|refused| refused.limit.unwrap().to_string()),
        );
    }
    assert_eq!(
        results.iter().filter(|result| result.is_ok()).count(),
        3,
        "{results:?}"
    );
    assert_eq!(
        results
            .iter()
            .filter(|result| **result == Err("a day".into()))
            .count(),
        1
    );
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let seen = budget.snapshot();
    assert_eq!(
        (seen.queued, seen.in_flight, seen.limits[0].reserved),
        (0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_review_is_asked_about_what_can_never_fit_and_what_it_refuses_is_refused_for_good() {
    let limit = |decision| {
        let limit = Limit::tokens(100).per_calendar_day("UTC");
        limit.review(move |review| {
            assert_eq!((review.asked, review.wait), (150, None));
            decision
        })
    };
    let ask = || Ask::new(Cost::request().tokens(100, 50));
    let lax = told(limit(Decision::Allow)).build().unwrap();
    drop(lax.acquire(ask()).await.unwrap().send());
    assert_eq!(lax.snapshot().limits[0].debt, 50);
    let strict = told(limit(Decision::Refuse)).build().unwrap();
    assert!(strict.acquire(ask()).await.unwrap_err().never_fits());
}

// T39
#[tokio::test(start_paused = true)]
async fn a_limit_that_is_raised_lets_go_who_waits_at_once_and_refusals_had_not_counted() {
    for enforcement in [
        Enforcement::Rolling,
        Enforcement::Fixed,
        Enforcement::Bucket { burst: None },
    ] {
        let limit = Limit::requests(2).per_minute().enforcement(enforcement);
        let budget = told(limit)
            .max_wait(Duration::from_secs(70))
            .build()
            .unwrap();
        let begun = Instant::now();
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(budget.acquire(request()).await.unwrap().send());
        }
        let mut refused = 0;
        for _ in 0..5 {
            let waits = budget.acquire(request().max_wait(Duration::from_secs(1)));
            refused += u64::from(waits.await.is_err());
        }
        let waiting = tokio::spawn(budget.acquire(request()));
        sleep(Duration::from_millis(10)).await;
        let queued = budget.snapshot().queued as u64;
        assert!(!waiting.is_finished(), "{enforcement:?} {queued} {refused}");
        budget.set_limit("requests per minute", 10).unwrap();
        drop(waiting.await.unwrap().unwrap());
        assert!(begun.elapsed() < Duration::from_secs(1), "{enforcement:?}");
        let seen = budget.snapshot();
        assert_eq!((seen.limits[0].limit, seen.limits[0].told), (10, Some(10)));
        assert!(seen.limits[0].used <= 3, "{enforcement:?}");
        // Lowered: no more go, and what cannot fit any more is refused at once.
        budget.set_limit("requests per minute", 1).unwrap();
        let last = budget
            .acquire(request().max_wait(Duration::from_secs(5)))
            .await;
        assert_eq!(
            last.unwrap_err().limit.as_deref(),
            Some("requests per minute")
        );
    }
}

// T39
#[tokio::test(start_paused = true)]
async fn a_cap_that_is_raised_lets_go_and_one_that_is_lowered_refuses() {
    let limit = Limit::tokens(100)
        .per_calendar_day("UTC")
        .scope(Scope::Tenant);
    let budget = told(limit.named("a tenant"))
        .max_wait(24 * HOUR)
        .build()
        .unwrap();
    let ask = |tenant: u64, tokens| {
        let mut keys = Keys::default();
        keys.tenant = Some(Principal::from_digest(tenant));
        budget.acquire(Ask::new(Cost::request().tokens(tokens, 0)).keys(keys))
    };
    for tenant in [1, 2] {
        drop(ask(tenant, 100).await.unwrap().send());
    }
    let waiting = [1, 2].map(|tenant| tokio::spawn(ask(tenant, 100)));
    sleep(Duration::from_millis(1)).await;
    budget.set_limit("a tenant", 200).unwrap();
    for waits in waiting {
        drop(waits.await.unwrap().unwrap().send());
    }
    let too_large = tokio::spawn(ask(1, 150));
    sleep(Duration::from_millis(1)).await;
    budget.set_limit("a tenant", 120).unwrap();
    assert!(too_large.await.unwrap().unwrap_err().never_fits());
}
