//! Caps per calendar period: when they are free again, who may pass them, how they go through a restart.
#![allow(clippy::unwrap_used)]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use http_body_util::BodyExt;
use support::{W, chat, stack};
use tokio::time::{Instant, sleep};
use tollgate_budget::{
    Ask, Budget, BudgetBuilder, BudgetStore, Calendar, Cost, Decision, Enforcement, Exhausted,
    Keys, Limit, Oversized, Scope, Spent, Weekday,
};
use tollgate_core::{
    call::CallOptions,
    extensions::{Reason, Refused},
    price::{Price, PriceTable},
    principal::Principal,
};
use tollgate_sim::script::{Reply, Scripted};
use tower::ServiceExt;

const HOUR: Duration = Duration::from_secs(3600);

/// A date in UTC, as seconds since 1970 tell it.
fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// 2026-03-28 12:00 UTC, the day before clocks change in Europe.
const SPRING: u64 = 1_774_699_200;
/// 2026-10-24 12:00 UTC, the day before they change back.
const AUTUMN: u64 = 1_792_843_200;

fn told(limit: Limit) -> BudgetBuilder {
    Budget::builder().limit(limit)
}

fn request() -> Ask {
    Ask::new(Cost::request())
}

async fn one(budget: &Budget) -> Result<(), Refused> {
    budget
        .acquire(request())
        .await
        .map(|held| drop(held.send()))
}

// T38
#[tokio::test(start_paused = true)]
async fn a_day_of_23_or_25_hours_has_one_reset_at_local_midnight() {
    // Local midnights, in hours after noon UTC of the day before the change.
    for (noon, midnights) in [(SPRING, [11, 34, 58]), (AUTUMN, [10, 35, 59])] {
        let limit = Limit::requests(1).per_calendar_day("Europe/Berlin");
        let budget = told(limit.refuse()).wall_clock(at(noon)).build().unwrap();
        let begun = Instant::now();
        let mut served = Vec::new();
        // Each half hour, a minute after it.
        sleep(Duration::from_secs(60)).await;
        while begun.elapsed() < 70 * HOUR {
            if one(&budget).await.is_ok() {
                served.push(begun.elapsed().as_secs() / 3600);
            }
            sleep(HOUR / 2).await;
        }
        assert_eq!(served[0], 0);
        assert_eq!(served[1..], midnights);
    }
}

// T38
#[tokio::test(start_paused = true)]
async fn the_refusal_tells_when_the_local_day_ends() {
    let limit = Limit::requests(1).per_calendar(Calendar::day("Europe/Berlin").start_hour(6));
    let budget = told(limit).wall_clock(at(SPRING)).build().unwrap();
    one(&budget).await.unwrap();
    let refused = one(&budget).await.unwrap_err();
    assert_eq!(refused.reason, Reason::WaitTooLong);
    assert_eq!(refused.limit.as_deref(), Some("requests per calendar day"));
    // 6:00 in Berlin, by summer time: 4:00 UTC.
    assert_eq!(refused.retry_after, Some(16 * HOUR));
    let seen = budget.snapshot();
    let limit = &seen.limits[0];
    assert_eq!(limit.resets_at, Some(at(SPRING) + 16 * HOUR));
    assert_eq!(limit.free_in, 16 * HOUR);
    assert_eq!(limit.enforcement, Enforcement::Fixed);
}

// T38
#[tokio::test(start_paused = true)]
async fn weeks_and_months_begin_where_they_are_told_to() {
    let refuse = |calendar| Limit::requests(1).per_calendar(calendar).refuse();
    // From Saturday, 28 March, noon.
    for (calendar, hours) in [
        (Calendar::week("UTC"), 36),
        (Calendar::week("UTC").first_weekday(Weekday::Sunday), 12),
        (Calendar::month("UTC"), 84),
        (Calendar::month("UTC").first_day(30), 36),
        (Calendar::month("UTC").first_day(31).start_hour(3), 63),
    ] {
        let budget = told(refuse(calendar.clone()))
            .wall_clock(at(SPRING))
            .build()
            .unwrap();
        one(&budget).await.unwrap();
        let wait = one(&budget).await.unwrap_err().retry_after;
        assert_eq!(wait, Some(hours * HOUR), "{calendar:?}");
        sleep(hours * HOUR).await;
        one(&budget).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_midnight_goes_at_midnight() {
    let budget = told(Limit::requests(1).per_calendar_day("UTC"))
        .wall_clock(at(SPRING))
        .max_wait(24 * HOUR)
        .build()
        .unwrap();
    one(&budget).await.unwrap();
    let begun = Instant::now();
    one(&budget).await.unwrap();
    let late = begun.elapsed() - 12 * HOUR;
    assert!(late < Duration::from_millis(2), "{late:?}");
}

// T37 L07
#[tokio::test(start_paused = true)]
async fn of_a_day_a_week_and_a_month_the_tightest_is_named() {
    let limit = |calendar, amount, name: &'static str| {
        let limit = Limit::requests(amount).per_calendar(calendar);
        limit.scope(Scope::Principal).named(name).refuse()
    };
    let budget = Budget::builder()
        .limit(limit(Calendar::day("UTC"), 2, "day"))
        .limit(limit(Calendar::week("UTC"), 3, "week"))
        .limit(limit(Calendar::month("UTC"), 5, "month"))
        // Monday, 2 March.
        .wall_clock(at(1_772_409_600))
        .build()
        .unwrap();
    let upstream = Scripted::new([Reply::chat("gpt-test", 1, 1)]);
    let service = stack(&budget, &upstream);
    let named = |user: &'static str| {
        let mut request = chat(4, 1);
        request
            .extensions_mut()
            .insert(CallOptions::new().principal(user));
        let service = service.clone();
        async move {
            let response = service.oneshot(request).await.unwrap();
            let refused = Refused::of(&response)?;
            Some(refused.limit.as_ref()?.to_string())
        }
    };
    assert_eq!([named("a").await, named("a").await], [None, None]);
    assert_eq!(named("a").await.unwrap(), "day");
    assert_eq!(named("b").await, None, "each user has caps of one's own");
    sleep(24 * HOUR).await;
    assert_eq!(named("a").await, None);
    assert_eq!(named("a").await.unwrap(), "week");
    sleep(6 * 24 * HOUR).await;
    assert_eq!([named("a").await, named("a").await], [None, None]);
    assert_eq!(
        named("a").await.unwrap(),
        "month",
        "of day and month the longer wait"
    );
    let seen = budget.snapshot();
    let month = seen.limits.iter().find(|l| &*l.name == "month").unwrap();
    assert_eq!((month.used, month.limit, month.told), (5, 5, Some(5)));
}

#[tokio::test(start_paused = true)]
async fn a_cap_is_hard_it_reserves_the_worst_case_and_settles_to_what_was_used() {
    let budget = told(Limit::tokens(1000).per_calendar_day("UTC").refuse())
        .oversized(Oversized::RunAlone)
        .wall_clock(at(SPRING))
        .build()
        .unwrap();
    let upstream = Scripted::new([Reply::chat("gpt-test", 90, 10)
        .header("x-ratelimit-limit-tokens", "1000")
        .header("x-ratelimit-remaining-tokens", "1")]);
    let service = stack(&budget, &upstream);
    let status = |chars, cap| {
        let service = service.clone();
        async move {
            let response = service.oneshot(chat(chars, cap)).await.unwrap();
            let status = response.status();
            response.into_body().collect().await.unwrap();
            status
        }
    };
    assert_eq!(
        status(400, 901).await,
        429,
        "larger than the cap, and never alone"
    );
    assert_eq!(status(400, 900).await, 200);
    let seen = budget.snapshot();
    assert_eq!((seen.limits[0].used, seen.limits[0].reserved), (100, 0));
    assert_eq!(
        seen.limits[0].limit, 1000,
        "the provider's limits are not ours"
    );
    assert_eq!(status(400, 801).await, 429);
    assert_eq!(status(400, 800).await, 200);
}

// T13
#[tokio::test(start_paused = true)]
async fn what_is_given_back_after_midnight_is_not_given_to_the_new_day() {
    let limit = Limit::tokens(1000).per_calendar_day("UTC");
    let budget = told(limit).wall_clock(at(SPRING)).build().unwrap();
    let ask = |tokens| budget.acquire(Ask::new(Cost::request().tokens(tokens, 0)));
    let old = ask(900).await.unwrap().send();
    sleep(13 * HOUR).await;
    drop(ask(500).await.unwrap().send());
    old.settle(Cost::request().tokens(10, 0));
    assert_eq!(budget.snapshot().limits[0].used, 500);
}

// L07
#[tokio::test(start_paused = true)]
async fn a_review_decides_instead_of_a_refusal_and_holds_no_lock() {
    let asked = Arc::new(AtomicU64::new(0));
    let (count, slot) = (
        Arc::clone(&asked),
        Arc::new(std::sync::OnceLock::<Budget>::new()),
    );
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
        .wall_clock(at(SPRING))
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
    .wall_clock(at(SPRING))
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

#[tokio::test(start_paused = true)]
async fn what_was_spent_goes_through_a_restart() {
    let limits = || {
        let prices = Price::per_million("1000", "1000").unwrap();
        Budget::builder()
            .limit(Limit::dollars(10).per_calendar_month("UTC").named("money"))
            .limit(
                Limit::tokens(500)
                    .per_calendar_day("UTC")
                    .scope(Scope::Principal)
                    .named("a user"),
            )
            .limit(Limit::requests(100).per_minute())
            .prices(PriceTable::new().with("gpt-test", prices))
    };
    let before = limits().wall_clock(at(SPRING)).build().unwrap();
    let ann = || Principal::from_digest(0xa11);
    let ask = |tokens| {
        let price = u64::to_string(&(tokens * 1_000_000_000));
        let money: tollgate_core::price::Pico = format!("0.{price:0>12}").parse().unwrap();
        Ask::new(Cost::request().tokens(tokens, 0).money(money)).principal(ann())
    };
    drop(before.acquire(ask(400)).await.unwrap().send());
    let spent = before.spent();
    assert_eq!(spent.len(), 2, "{spent:?}");

    // An hour later, and then on the next day.
    for (later, tokens) in [(HOUR, 400), (24 * HOUR, 0)] {
        let after = limits().wall_clock(at(SPRING) + later).build().unwrap();
        after.restore(spent.clone()).unwrap();
        let seen = after.snapshot();
        assert_eq!(seen.limit("money").unwrap().used, 400_000_000_000);
        assert_eq!(seen.limit("a user").map_or(0, |user| user.used), tokens);
        let next = after.acquire(ask(200).max_wait(Duration::ZERO)).await;
        assert_eq!(next.is_err(), tokens > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_put_back_or_set_is_refused_with_a_sentence_and_changes_nothing() {
    let budget = told(Limit::requests(10).per_calendar_day("UTC").named("a day"))
        .limit(
            Limit::requests(10)
                .per_calendar_day("UTC")
                .scope(Scope::Tag)
                .named("a tag"),
        )
        .limit(Limit::requests(10).per_minute().named("twice"))
        .limit(Limit::requests(20).per_hour().named("twice"))
        .build()
        .unwrap();
    let wrong = |spent: Spent| {
        let good = Spent::new("a day", 5);
        budget.restore([good, spent]).unwrap_err().to_string()
    };
    assert_eq!(
        wrong(Spent::new("a year", 5)),
        "no such limit is named \"a year\""
    );
    assert_eq!(
        wrong(Spent::new("twice", 5)),
        "no such limit is named \"twice\""
    );
    assert_eq!(
        wrong(Spent::new("a day", 5).key("ann")),
        "a day: it is one for all, and has no key"
    );
    assert_eq!(
        wrong(Spent::new("a tag", 5).key("ann")),
        "a tag: a key is sixteen hexadecimal digits"
    );
    assert_eq!(budget.snapshot().limit("a day").unwrap().used, 0);
    let set = |name, amount| budget.set_limit(name, amount).unwrap_err().to_string();
    assert_eq!(set("a year", 5), "no such limit is named \"a year\"");
    assert_eq!(
        set("twice", 5),
        "several limits are named \"twice\"; name them apart"
    );
    assert_eq!(set("a day", 0), "a day: a limit must be above zero");
    assert_eq!(
        set("a day", u64::MAX),
        "a day: a limit must be below 2^62 (with weights: in the smallest part of a unit)"
    );
}

#[test]
fn wrong_caps_are_refused_with_a_sentence() {
    let wrong = |limit: Limit| Budget::in_memory([limit]).unwrap_err().to_string();
    let cap = |calendar| Limit::requests(5).per_calendar(calendar).named("it");
    assert_eq!(
        wrong(cap(Calendar::day("Europe/Berln"))),
        "it: there is no time zone \"Europe/Berln\"; names are those of the IANA database, such as \"Europe/Berlin\""
    );
    assert_eq!(
        wrong(cap(Calendar::day("UTC").start_hour(24))),
        "it: a start hour must be from 0 to 23"
    );
    assert_eq!(
        wrong(cap(Calendar::day("UTC").first_weekday(Weekday::Monday))),
        "it: only a week has a first weekday"
    );
    assert_eq!(
        wrong(cap(Calendar::week("UTC").first_day(1))),
        "it: only a month has a first day"
    );
    for day in [0, 32] {
        assert_eq!(
            wrong(cap(Calendar::month("UTC").first_day(day))),
            "it: the first day of a month must be from 1 to 31"
        );
    }
    assert_eq!(
        wrong(cap(Calendar::day("UTC")).enforcement(Enforcement::Rolling)),
        "it: the calendar enforces it, and no other discipline can"
    );
    assert_eq!(
        wrong(
            cap(Calendar::day("UTC"))
                .review(|_| Decision::Allow)
                .refuse()
        ),
        "it: it is to be reviewed and to refuse, and can do one of them only"
    );
    assert_eq!(Exhausted::default(), Exhausted::Wait);
}
