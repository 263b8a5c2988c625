//! Several budgets on one real server.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use support::{Server, born, budget, send};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tollgate_budget::{Ask, BudgetStore, Cost, Enforcement, Limit};
use tollgate_core::extensions::Reason;

fn bucket(requests: u64) -> Limit {
    Limit::requests(requests)
        .per_minute()
        .enforcement(Enforcement::Bucket { burst: None })
        .named("it")
}

/// Sends as much as goes in that time.
async fn sends_in(budget: &tollgate_redis::RedisBudget, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let one = || async {
        let mut sent = 0;
        while let Ok(Ok(())) = timeout_at(end, send(budget, 1)).await {
            sent += 1;
        }
        sent
    };
    let all = futures_util::future::join_all((0..100).map(|_| one())).await;
    all.into_iter().sum()
}

// T34
#[tokio::test]
async fn two_processes_together_send_what_the_limit_allows_and_each_has_its_share() {
    let server = Server::start().await;
    let make = || {
        budget(&server)
            .hold(Duration::from_millis(200))
            .limit(bucket(30_000))
            .build()
    };
    let (one, two) = tokio::join!(make(), make());
    let (one, two) = (one.unwrap(), two.unwrap());
    // What has refilled until then is for whoever comes first.
    let time = Duration::from_millis(500);
    let (early, too) = tokio::join!(sends_in(&one, time), sends_in(&two, time));
    let time = Duration::from_secs(3);
    let (first, second) = tokio::join!(sends_in(&one, time), sends_in(&two, time));
    let all = early + too + first + second;
    // 500 a second; nobody knew the state when it was born, so the burst counts as spent then.
    let most = born(&server).await.elapsed().as_secs_f64() * 500.0;
    let most = most as u64;
    assert!(
        (most * 93 / 100..=most).contains(&all),
        "{first} + {second} of {most}"
    );
    assert!(
        first.min(second) * 100 >= (first + second) * 45,
        "{first} + {second}"
    );
    assert!(one.store().trips < 60, "{}", one.store().trips);
}

#[tokio::test]
async fn the_task_ends_with_the_last_handle() {
    let server = Server::start().await;
    let one = budget(&server).limit(bucket(600)).build().await.unwrap();
    send(&one, 1).await.unwrap();
    let clients = || async { server.run::<String>("CLIENT LIST").await.lines().count() };
    let before = clients().await;
    let other = one.clone();
    drop(one);
    send(&other, 1).await.unwrap();
    drop(other);
    timeout(Duration::from_secs(5), async {
        while clients().await >= before {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn who_may_not_wait_is_admitted_after_one_visit_where_there_is_room() {
    let server = Server::start().await;
    let budget = budget(&server).limit(bucket(6000)).build().await.unwrap();
    sleep(Duration::from_millis(300)).await; // it begins empty, and fills with 100 a second
    let now_or_never = || Ask::new(Cost::request()).max_wait(Duration::ZERO);
    // Without anything in hand, again and again.
    for _ in 0..2 {
        let before = budget.store().trips;
        drop(budget.acquire(now_or_never()).await.unwrap().send());
        let trips = budget.store().trips - before;
        assert!(trips <= 2, "{trips}");
        sleep(Duration::from_millis(300)).await;
        let trips = budget.store().trips - before;
        assert!(trips <= 2, "one request alone cost {trips} trips");
        sleep(Duration::from_millis(1200)).await;
    }
    // Where there is none, it hears so at once.
    let all = futures_util::future::join_all((0..400).map(|_| budget.acquire(now_or_never())));
    let asked = Instant::now();
    let heard = all.await;
    assert!(
        asked.elapsed() < Duration::from_millis(300),
        "{:?}",
        asked.elapsed()
    );
    let refused: Vec<_> = heard
        .iter()
        .filter_map(|heard| heard.as_ref().err())
        .collect();
    assert!((50..395).contains(&refused.len()), "{}", refused.len());
    assert!(
        refused
            .iter()
            .all(|refused| refused.reason == Reason::WaitTooLong)
    );
}

/// How equal they are: 1 if all have the same.
fn jain(each: &[u64]) -> f64 {
    let each: Vec<_> = each.iter().map(|&n| n as f64).collect();
    let sum: f64 = each.iter().sum();
    sum * sum / (each.len() as f64 * each.iter().map(|n| n * n).sum::<f64>())
}

#[tokio::test]
async fn who_asks_first_has_no_more_than_those_who_ask_with_him() {
    let server = Server::start().await;
    let make = |_| budget(&server).limit(bucket(4800)).build();
    let budgets = futures_util::future::join_all((0..8).map(make)).await;
    let budgets: Vec<_> = budgets.into_iter().map(Result::unwrap).collect();
    // What has refilled until then is for whoever comes first, and the others come together.
    let (first, others) = budgets.split_first().unwrap();
    sends_in(first, Duration::from_millis(500)).await;
    let sends = others
        .iter()
        .map(|budget| sends_in(budget, Duration::from_millis(3000)));
    let each = futures_util::future::join_all(sends).await;
    assert!(each.iter().sum::<u64>() >= 150, "{each:?}");
    assert!(jain(&each) >= 0.95, "{each:?}");
}
