//! Caps per calendar period: when they are free again, who may pass them, how they go through a restart.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use support::{chat, stack};
use tokio::time::{Instant, sleep};
use tollgate_budget::{
    Ask, Budget, BudgetBuilder, BudgetStore, Calendar, Cost, Decision, Enforcement, Exhausted,
    Limit, Oversized, Scope, Spent, Weekday,
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
    let money = budget
        .set_money("a day", tollgate_core::price::Pico::new(5))
        .unwrap_err();
    assert_eq!(
        money.to_string(),
        "no such limit is named \"a day\"",
        "it is none of money"
    );
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
