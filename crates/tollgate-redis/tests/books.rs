//! What one process learns or does, the others see: refusals, refunds, debts, headers, caps, users.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use futures_util::future::join_all;
use http::HeaderMap;
use support::{Server, budget, hold, send, until};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tollgate_budget::{Ask, BudgetStore, Cost, Enforcement, Limit, Observation, Refusal, Scope};
use tollgate_core::{
    extensions::Reason,
    price::{Pico, Price, PriceTable},
    principal::Principal,
    wire::limits,
};
use tollgate_redis::{RedisBudget, RedisBudgetBuilder};

const SOON: Duration = Duration::from_secs(2);

async fn pair(make: impl Fn() -> RedisBudgetBuilder) -> (RedisBudget, RedisBudget) {
    (make().build().await.unwrap(), make().build().await.unwrap())
}

/// Nothing is booked far ahead of what others may give back.
fn near(server: &Server) -> RedisBudgetBuilder {
    let near = Duration::from_millis(150);
    budget(server).hold(near).horizon(near)
}

/// A window of two seconds, so that little is to be waited for.
fn window(units: u64) -> Limit {
    Limit::tokens(units)
        .per(Duration::from_secs(2))
        .enforcement(Enforcement::Rolling)
        .named("it")
}

#[tokio::test]
async fn a_refusal_that_one_process_sees_shuts_the_gate_of_all() {
    let server = Server::start().await;
    let bucket = || {
        let limit = Limit::requests(6000).per_minute();
        budget(&server).limit(limit.enforcement(Enforcement::Bucket { burst: None }))
    };
    let (one, two) = pair(bucket).await;
    send(&two, 1).await.unwrap();
    let charge = hold(&one, 1).await.unwrap().send();
    let refusal = Refusal {
        what: None,
        wait: Some(Duration::from_secs(3)),
    };
    charge.observe(&Observation::new(&[]).refusal(Some(refusal)));
    drop(charge);
    until(SOON, || two.snapshot().gated.is_some()).await;
    let gated = two.snapshot().gated.unwrap();
    assert!(gated > Duration::from_millis(500) && gated <= Duration::from_secs(3));
    // Of no concern to others.
    let other = bucket().name("another").build().await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(other.snapshot().gated, None);
}

#[tokio::test]
async fn what_one_process_does_not_use_after_all_goes_back_to_the_others() {
    let server = Server::start().await;
    let (one, two) = pair(|| near(&server).limit(window(1000))).await;
    sleep(Duration::from_millis(2300)).await; // what nobody remembers has rolled out
    let held = hold(&one, 1000).await.unwrap().send();
    assert!(
        timeout(Duration::from_millis(300), send(&two, 500))
            .await
            .is_err()
    );
    let asked = Instant::now();
    held.settle(Cost::request().tokens(10, 0));
    timeout(SOON, send(&two, 500)).await.unwrap().unwrap();
    assert!(
        asked.elapsed() < Duration::from_millis(1000),
        "{:?}",
        asked.elapsed()
    );
}

/// A bucket of a thousand that fills in two seconds; it begins empty, and 850 of it are shared.
fn filling(server: &Server) -> RedisBudgetBuilder {
    let hold = Duration::from_millis(200);
    let limit = Limit::tokens(1000).per(Duration::from_secs(2)).named("it");
    budget(server)
        .hold(hold)
        .horizon(hold)
        .limit(limit.enforcement(Enforcement::Bucket { burst: None }))
}

#[tokio::test]
async fn what_a_bucket_gets_back_when_it_is_full_is_given_to_nobody() {
    let server = Server::start().await;
    let (one, two) = pair(|| filling(&server)).await;
    sleep(Duration::from_millis(2300)).await;
    let held = hold(&one, 800).await.unwrap().send();
    sleep(Duration::from_millis(2300)).await; // it is full again
    held.settle(Cost::request().tokens(10, 0));
    let at_once = Duration::from_millis(100);
    let both = [&one, &two].map(|budget| timeout(at_once, send(budget, 700)));
    let sent = join_all(both).await;
    let sent = sent.iter().filter(|sent| sent.is_ok()).count();
    assert_eq!(sent, 1, "of 1,000 at most 1,000 go at once");
}

#[tokio::test]
async fn what_a_bucket_gets_back_while_it_lacks_it_is_there_for_all() {
    let server = Server::start().await;
    let (one, two) = pair(|| filling(&server)).await;
    sleep(Duration::from_millis(2300)).await;
    let held = hold(&one, 800).await.unwrap().send();
    sleep(Duration::from_millis(500)).await;
    // By now 300 are there, and what was given back makes it 700.
    held.settle(Cost::request().tokens(10, 0));
    let asked = Instant::now();
    sleep(Duration::from_millis(50)).await;
    send(&two, 600).await.unwrap();
    let took = asked.elapsed();
    assert!(took < Duration::from_millis(300), "{took:?}");
}

#[tokio::test]
async fn what_one_process_uses_beyond_its_reservation_is_missing_to_the_others() {
    let server = Server::start().await;
    let (one, two) = pair(|| near(&server).limit(window(1000))).await;
    sleep(Duration::from_millis(2300)).await; // what nobody remembers has rolled out
    let held = hold(&one, 10).await.unwrap().send();
    held.settle(Cost::request().tokens(990, 0));
    sleep(Duration::from_millis(400)).await; // told by then
    assert!(
        timeout(Duration::from_millis(300), send(&two, 500))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn what_the_headers_show_one_process_is_missing_to_the_others() {
    let server = Server::start().await;
    let (one, two) = pair(|| near(&server).limit(window(1000))).await;
    sleep(Duration::from_millis(2300)).await; // what nobody remembers has rolled out
    let held = hold(&one, 10).await.unwrap().send();
    let mut headers = HeaderMap::new();
    headers.insert("x-ratelimit-limit-tokens", "1000".parse().unwrap());
    headers.insert("x-ratelimit-remaining-tokens", "50".parse().unwrap());
    let stated = limits::from_headers(&headers, tollgate_core::clock::wall());
    assert!(!stated.is_empty());
    held.observe(&Observation::new(&stated).processing(Some(Duration::from_millis(1))));
    drop(held);
    sleep(Duration::from_millis(400)).await; // told by then
    assert!(
        timeout(Duration::from_millis(300), send(&two, 500))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_request_takes_from_all_limits_or_from_none() {
    let server = Server::start().await;
    let make = || {
        let requests = Limit::requests(10_000).per_minute().named("requests");
        budget(&server)
            .limits([
                requests.enforcement(Enforcement::Bucket { burst: None }),
                window(100),
            ])
            .settings(|settings| settings.max_wait(Duration::from_secs(4)))
    };
    let (one, two) = pair(make).await;
    for budget in [&one, &two] {
        let refused = send(budget, 101).await.unwrap_err();
        assert_eq!(refused.reason, Reason::NeverFits);
        assert_eq!(refused.limit.as_deref(), Some("it"));
    }
    let end = Instant::now() + Duration::from_secs(4);
    let work = [&one, &two].map(|budget| async move {
        let mut sent = 0;
        while let Ok(Ok(())) = timeout_at(end, send(budget, 20)).await {
            sent += 20;
        }
        sent
    });
    let sent: u64 = join_all(work).await.into_iter().sum();
    // Four seconds of two: the first half is what nobody remembers.
    assert!((60..=200).contains(&sent), "{sent}");
    let requests = |budget: &RedisBudget| budget.snapshot().limit("requests").unwrap().used;
    let all = requests(&one) + requests(&two);
    assert!(all <= sent / 20, "{all}");
}

fn priced(limit: Limit) -> impl Fn(&Server) -> RedisBudgetBuilder {
    move |server| {
        let prices = PriceTable::new().with("m", Price::per_million("1", "1").unwrap());
        budget(server)
            .limit(limit.clone().refuse().named("money"))
            .settings(|settings| settings.prices(prices))
    }
}

fn costing(cents: u64) -> Ask {
    Ask::new(Cost::request().money(Pico::new(u128::from(cents) * Pico::PER_DOLLAR / 100)))
}

// T34
#[tokio::test]
async fn eight_processes_spend_a_cap_of_money_to_the_last_cent_and_none_beyond() {
    let server = Server::start().await;
    let make = priced(Limit::dollars(10).per_calendar_month("UTC"));
    let budgets = join_all((0..8).map(|_| make(&server).build())).await;
    let budgets: Vec<_> = budgets.into_iter().map(Result::unwrap).collect();
    let end = Instant::now() + Duration::from_secs(8);
    let work = budgets.iter().enumerate().map(|(n, budget)| async move {
        let (mut cents, mut turn) = (0, n as u64);
        while Instant::now() < end {
            turn += 1;
            let cost = 1 + turn % 3;
            match budget.acquire(costing(cost)).await {
                Ok(held) => {
                    let held = held.send();
                    tokio::task::yield_now().await;
                    // Some cost less in the end than was reserved.
                    let real = if turn % 4 == 0 { 1 } else { cost };
                    held.settle(
                        Cost::request().money(Pico::new(u128::from(real) * Pico::PER_DOLLAR / 100)),
                    );
                    cents += real;
                }
                Err(refused) => {
                    assert_eq!(refused.reason, Reason::Exhausted);
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
        cents
    });
    let cents: u64 = join_all(work).await.into_iter().sum();
    assert!(cents <= 1000, "{cents} cents");
    assert!(cents >= 995, "{cents} cents");
}

#[tokio::test]
async fn a_cap_outlives_the_processes_and_a_flush_that_one_of_them_sees() {
    let server = Server::start().await;
    let make = priced(Limit::dollars(10).per_calendar_month("UTC"));
    let one = make(&server).build().await.unwrap();
    for _ in 0..9 {
        drop(one.acquire(costing(100)).await.unwrap().send());
    }
    drop(one);
    sleep(Duration::from_millis(300)).await; // it says good-bye
    let two = make(&server).build().await.unwrap();
    assert!(two.acquire(costing(200)).await.is_err());
    drop(two.acquire(costing(50)).await.unwrap().send());
    server.run::<String>("FLUSHALL").await;
    assert!(two.acquire(costing(100)).await.is_err());
    sleep(Duration::from_millis(3600)).await; // the others have had the time to tell
    drop(two.acquire(costing(50)).await.unwrap().send());
    let three = make(&server).build().await.unwrap();
    assert!(three.acquire(costing(1)).await.is_err(), "all is spent");
}

#[tokio::test]
async fn users_have_limits_of_their_own_and_no_name_is_on_the_server() {
    let server = Server::start().await;
    let limit = || window(1000).scope(Scope::Principal);
    if !Principal::has_set_key() {
        let refused = budget(&server).limit(limit()).build().await.unwrap_err();
        assert!(
            refused.to_string().contains("Principal::set_key"),
            "{refused}"
        );
    }
    Principal::set_key(*b"the same for all").unwrap();
    let (one, two) = pair(|| budget(&server).name("acme canary").limit(limit())).await;
    sleep(Duration::from_millis(2300)).await; // what nobody remembers has rolled out
    let of = |user: &str| {
        Ask::new(Cost::request().tokens(600, 0))
            .principal(Principal::of(user))
            .model("m")
    };
    drop(one.acquire(of("alice canary")).await.unwrap().send());
    assert!(
        timeout(Duration::from_millis(300), two.acquire(of("alice canary")))
            .await
            .is_err()
    );
    drop(
        timeout(SOON, two.acquire(of("bob canary")))
            .await
            .unwrap()
            .unwrap()
            .send(),
    );
    // One model is refused; the other process knows it by name.
    let model = |user: &str| of(user).model("m-canary");
    drop(two.acquire(model("carol canary")).await.unwrap().send());
    let charge = one.acquire(model("dave canary")).await.unwrap().send();
    let refusal = Refusal {
        what: None,
        wait: Some(Duration::from_secs(5)),
    };
    charge.observe(&Observation::new(&[]).refusal(Some(refusal)));
    drop(charge);
    until(SOON, || two.snapshot().gated.is_some()).await;
    let keys: Vec<String> = server.run("KEYS *").await;
    assert!(keys.len() >= 6);
    assert!(keys.iter().any(|key| key.ends_with(":g")));
    for key in &keys {
        let read = match &*server.run::<String>(&format!("TYPE {key}")).await {
            "zset" => format!("ZRANGE {key} 0 -1"),
            _ => format!("HGETALL {key}"),
        };
        let held: redis::Value = server.run(&read).await;
        let text = format!("{key} {held:?}");
        assert!(
            !text.contains("canary") && !text.contains("alice"),
            "{text}"
        );
        assert!(
            server.run::<i64>(&format!("PTTL {key}")).await > 0,
            "{key} lives for ever"
        );
    }
    assert!(!format!("{one:?}").contains("canary"));
}

#[tokio::test]
async fn a_limit_can_change_while_it_is_in_use() {
    let server = Server::start().await;
    let (one, two) = pair(|| near(&server).limit(window(100))).await;
    sleep(Duration::from_millis(2300)).await; // what nobody remembers has rolled out
    send(&one, 100).await.unwrap();
    assert!(
        timeout(Duration::from_millis(200), send(&two, 50))
            .await
            .is_err()
    );
    two.set_limit("it", 1000).unwrap();
    timeout(SOON, send(&two, 800)).await.unwrap().unwrap();
}

#[tokio::test]
async fn another_name_is_another_budget() {
    let server = Server::start().await;
    let one = budget(&server).limit(window(100)).build().await.unwrap();
    let two = budget(&server)
        .name("two")
        .limit(window(100))
        .build()
        .await
        .unwrap();
    sleep(Duration::from_millis(2300)).await; // what nobody remembers has rolled out
    send(&one, 100).await.unwrap();
    timeout(SOON, send(&two, 100)).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_closes_tells_at_once_gives_back_and_admits_nothing_more() {
    let server = Server::start().await;
    let make = || {
        let dollars = Limit::dollars(10).per_calendar_month("UTC").refuse();
        let prices = PriceTable::new().with("m", Price::per_million("1", "1").unwrap());
        // Nothing would be told or given back by itself for long.
        budget(&server)
            .hold(Duration::from_secs(10))
            .horizon(Duration::from_secs(10))
            .limits([window(1000), dollars.named("money")])
            .settings(|settings| settings.prices(prices))
    };
    let (one, two) = pair(make).await;
    sleep(Duration::from_millis(2300)).await; // what nobody remembers has rolled out
    let of = |cents, tokens| {
        let money = Pico::new(u128::from(cents as u64) * Pico::PER_DOLLAR / 100);
        Ask::new(Cost::request().tokens(tokens, 0).money(money))
    };
    // Eighty cents are used of nine dollars that are held, and nothing of the window in the end.
    let held = one.acquire(of(900, 900)).await.unwrap().send();
    held.settle(Cost::request().money(Pico::new(Pico::PER_DOLLAR * 8 / 10)));
    assert!(one.close().await);
    assert!(one.close().await, "once more is no harm");
    let refused = one.acquire(of(1, 1)).await.err().unwrap();
    assert_eq!(refused.reason, Reason::StoreDown);
    let asked = timeout(SOON, two.acquire(of(920, 1))).await.unwrap();
    drop(asked.unwrap().send());
    assert!(
        two.acquire(of(1, 1)).await.is_err(),
        "eighty cents are used"
    );
}

#[tokio::test]
async fn who_waits_is_told_when_the_budget_closes_and_a_server_that_is_away_is_no_reason_to_hang() {
    let mut server = Server::start().await;
    let (one, two) = pair(|| near(&server).limit(window(100))).await;
    let waits = tokio::spawn({
        let one = one.clone();
        async move { send(&one, 100).await }
    });
    sleep(Duration::from_millis(50)).await;
    assert!(one.close().await);
    let refused = timeout(SOON, waits).await.unwrap().unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::StoreDown);
    server.kill();
    assert!(!timeout(SOON, two.close()).await.unwrap());
    server.restart().await;
    // It may have come back by itself, and is asked all the same.
    assert!(timeout(SOON, two.close()).await.unwrap());
}
