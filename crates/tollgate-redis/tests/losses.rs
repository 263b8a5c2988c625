//! State that is lost, older than it was, or only looks so.
#![allow(clippy::unwrap_used)]
mod support;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::join_all;
use support::{Server, budget, oracle::Log, send, slow_way};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tollgate_budget::{Ask, BudgetStore, Cost, Enforcement, Limit, Scope};
use tollgate_core::{
    price::{Pico, Price, PriceTable},
    principal::Principal,
};
use tollgate_redis::{Outage, RedisBudget, RedisBudgetBuilder};

const WINDOW: Duration = Duration::from_secs(10);

/// 500 in any ten seconds.
fn window(server: &Server) -> RedisBudgetBuilder {
    let limit = Limit::requests(500)
        .per(WINDOW)
        .enforcement(Enforcement::Rolling);
    budget(server)
        .hold(Duration::from_millis(200))
        .limit(limit)
        .on_outage(Outage::FailClosed)
}

async fn meta(server: &Server) -> String {
    let keys: Vec<String> = server.run("KEYS *}:m").await;
    keys[0].clone()
}

/// As if the budget had been there for an hour, and nobody had used it.
async fn unused(server: &Server) {
    let key = meta(server).await;
    server
        .run::<i64>(&format!("HINCRBY {key} born -3600000000"))
        .await;
}

/// Sends as much as goes in that time, from many tasks.
async fn sends(budget: &RedisBudget, log: &Log, time: Duration) {
    let end = Instant::now() + time;
    let one = || async {
        while let Ok(sent) = timeout_at(end, send(budget, 1)).await {
            match sent {
                Ok(()) => log.add(1),
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    join_all((0..20).map(|_| one())).await;
}

async fn sends_so_many(budget: &RedisBudget, log: &Log, many: u64) {
    let left = AtomicU64::new(many);
    let (log, left) = (&log, &left);
    let one = || async move {
        while left
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .is_ok()
        {
            send(budget, 1).await.unwrap();
            log.add(1);
        }
    };
    join_all((0..50).map(|_| one())).await;
}

fn holds(log: &Log) {
    let most = log.most_in(WINDOW);
    assert!(most <= 500, "{most} in one window");
}

#[tokio::test]
async fn what_a_process_sent_seconds_ago_outlives_a_flush_that_another_one_sees_first() {
    let server = Server::start().await;
    let (one, two) = (window(&server).build().await, window(&server).build().await);
    let (one, two) = (one.unwrap(), two.unwrap());
    unused(&server).await;
    let log = Log::default();
    sends_so_many(&one, &log, 480).await;
    // It has bought nothing for so long, and is needed all the same.
    sleep(Duration::from_millis(5300)).await;
    server.run::<String>("FLUSHALL").await;
    sends(&two, &log, Duration::from_millis(3500)).await;
    holds(&log);
}

#[tokio::test]
async fn a_new_process_that_sees_a_flush_first_waits_for_the_others() {
    let server = Server::start().await;
    let one = window(&server).build().await.unwrap();
    unused(&server).await;
    let log = Log::default();
    sends_so_many(&one, &log, 492).await;
    server.run::<String>("FLUSHALL").await;
    let two = window(&server).build().await.unwrap();
    sends(&two, &log, Duration::from_millis(2500)).await;
    holds(&log);
}

#[tokio::test]
async fn what_was_used_of_a_limit_whose_state_alone_is_evicted_is_told_again() {
    let server = Server::start().await;
    let (one, two) = (window(&server).build().await, window(&server).build().await);
    let (one, two) = (one.unwrap(), two.unwrap());
    unused(&server).await;
    let log = Log::default();
    sends_so_many(&one, &log, 470).await;
    sends_so_many(&two, &log, 10).await;
    let keys: Vec<String> = server.run("KEYS *}:a:*").await;
    assert_eq!(keys.len(), 1);
    server.run::<i64>(&format!("DEL {}", keys[0])).await;
    // By an even fading more than a third would be free again by then.
    sends(&two, &log, Duration::from_millis(6500)).await;
    holds(&log);
}

/// A server that keeps its data in a file, which can be older than what it has in memory.
async fn with_a_file() -> (Server, std::path::PathBuf) {
    let directory = std::env::temp_dir().join(format!("tollgate-{:x}", fastrand::u64(..)));
    std::fs::create_dir(&directory).unwrap();
    let server = Server::with(&["--dir", directory.to_str().unwrap()]).await;
    (server, directory)
}

#[tokio::test]
async fn a_new_process_that_finds_an_older_state_first_waits_for_the_others() {
    let (mut server, directory) = with_a_file().await;
    let one = window(&server).build().await.unwrap();
    unused(&server).await;
    // The state of the limit is there, and nothing is used of it.
    send(&one, 1).await.unwrap();
    server.run::<String>("SAVE").await;
    let log = Log::default();
    sends_so_many(&one, &log, 480).await;
    server.kill();
    server.restart().await;
    let two = window(&server).build().await.unwrap();
    sends(&two, &log, Duration::from_millis(2500)).await;
    std::fs::remove_dir_all(directory).unwrap();
    holds(&log);
}

#[tokio::test]
async fn a_new_process_does_not_believe_another_servers_clock() {
    let (mut server, directory) = with_a_file().await;
    let one = window(&server).build().await.unwrap();
    unused(&server).await;
    let log = Log::default();
    sends_so_many(&one, &log, 480).await;
    drop(one);
    sleep(Duration::from_millis(300)).await; // it says good-bye
    // A minute ahead of the one before.
    let key = meta(&server).await;
    server
        .run::<i64>(&format!("HINCRBY {key} off 60000000"))
        .await;
    server.run::<String>("SAVE").await;
    server.kill();
    server.restart().await;
    let two = window(&server).build().await.unwrap();
    sends(&two, &log, Duration::from_millis(2500)).await;
    std::fs::remove_dir_all(directory).unwrap();
    holds(&log);
}

#[tokio::test]
async fn hundreds_of_limits_are_told_again_in_parts_over_a_slow_way() {
    let _ = Principal::set_key(*b"the same for all");
    let server = Server::start().await;
    let near = slow_way(server.port, Duration::from_millis(30)).await;
    let limit = Limit::tokens(1000)
        .per_minute()
        .scope(Scope::Principal)
        .enforcement(Enforcement::Rolling);
    let one = RedisBudget::connect(format!("redis://127.0.0.1:{near}"))
        .timeout(Duration::from_millis(250))
        .limit(limit)
        .on_outage(Outage::FailClosed)
        .build()
        .await
        .unwrap();
    unused(&server).await;
    let of = |user: u32, tokens: u64| {
        let ask = Ask::new(Cost::request().tokens(tokens, 0));
        one.acquire(ask.principal(Principal::of(&format!("user {user}"))))
    };
    let all = (0..400).map(|user| timeout(Duration::from_secs(5), of(user, 900)));
    for held in join_all(all).await {
        drop(held.unwrap().unwrap().send());
    }
    server.run::<String>("FLUSHALL").await;
    let began = Instant::now();
    // Nobody can have his thousand anew, and a new user is served soon.
    let mut served = false;
    while !served && began.elapsed() < Duration::from_secs(8) {
        let asked = timeout(Duration::from_secs(2), of(1000, 10)).await;
        served = matches!(asked, Ok(Ok(_)));
    }
    assert!(served, "{:?}", one.store());
    for user in [0, 199, 399] {
        let again = timeout(Duration::from_millis(300), of(user, 200)).await;
        assert!(!matches!(again, Ok(Ok(_))), "{user}");
    }
}

#[tokio::test]
async fn the_loss_of_one_users_state_is_no_loss_of_the_others() {
    let _ = Principal::set_key(*b"the same for all");
    let server = Server::start().await;
    let limit = Limit::tokens(1000)
        .per(WINDOW)
        .scope(Scope::Principal)
        .enforcement(Enforcement::Rolling);
    let make = || budget(&server).hold(Duration::from_millis(200));
    let one = make().limit(limit).build().await.unwrap();
    unused(&server).await;
    let of = |user: &str, tokens: u64| {
        let ask = Ask::new(Cost::request().tokens(tokens, 0));
        one.acquire(ask.principal(Principal::of(user)))
    };
    drop(of("alice", 900).await.unwrap().send());
    let keys: Vec<String> = server.run("KEYS *}:a:*").await;
    server.run::<i64>(&format!("DEL {}", keys[0])).await;
    sleep(Duration::from_millis(300)).await;
    // It is seen, and she is not given another thousand.
    let again = timeout(Duration::from_millis(3000), of("alice", 900)).await;
    assert!(again.is_err());
    // Who is new has all of his, and not what fades of a loss that was none of his.
    let bob = timeout(Duration::from_millis(1500), of("bob", 1000)).await;
    assert!(matches!(bob, Ok(Ok(_))));
}

fn money(server: &Server, dollars: u32) -> RedisBudgetBuilder {
    let prices = PriceTable::new().with("m", Price::per_million("1", "1").unwrap());
    let limit = Limit::dollars(dollars).per_calendar_month("UTC").refuse();
    budget(server)
        .hold(Duration::from_millis(50))
        .limit(limit.named("money"))
        .settings(|settings| settings.prices(prices))
}

async fn spends(budget: &RedisBudget, dollars: u64) -> bool {
    let cost = Cost::request().money(Pico::new(u128::from(dollars) * Pico::PER_DOLLAR));
    let held = budget.acquire(Ask::new(cost)).await;
    held.map(|held| drop(held.send())).is_ok()
}

#[tokio::test]
async fn what_a_process_claims_of_a_cap_counts_once_however_long_it_is_silent() {
    let server = Server::start().await;
    let one = money(&server, 10).build().await.unwrap();
    let keys: Vec<String> = server.run("KEYS *}:p").await;
    let there = format!("ZRANGE {} 0 -1", keys[0]);
    let first = server.run::<Vec<String>>(&there).await.remove(0);
    let two = money(&server, 10).build().await.unwrap();
    assert!(spends(&one, 4).await);
    sleep(Duration::from_millis(400)).await;
    // It was not here for a day, as far as the server knows.
    server
        .run::<i64>(&format!("ZREM {} {first}", keys[0]))
        .await;
    assert!(spends(&two, 1).await);
    sleep(Duration::from_millis(3500)).await; // it is back
    assert!(spends(&one, 1).await);
    sleep(Duration::from_millis(1500)).await; // what it has in hand goes back
    // What was in hand when it was told may count as lost.
    assert!(spends(&two, 3).await, "six of ten are spent");
    assert!(!spends(&one, 2).await, "nine of ten are spent");
}

#[tokio::test]
async fn what_is_spent_of_a_cap_is_the_same_when_the_cap_is_changed() {
    let server = Server::start().await;
    let one = money(&server, 5000).build().await.unwrap();
    assert!(spends(&one, 3000).await);
    drop(one);
    sleep(Duration::from_millis(300)).await; // it says good-bye
    let two = money(&server, 4000).build().await.unwrap();
    assert!(
        !spends(&two, 1001).await,
        "three of four thousand are spent"
    );
    two.set_money("money", Pico::new(5000 * Pico::PER_DOLLAR))
        .unwrap();
    sleep(Duration::from_millis(1100)).await; // it asks again
    assert!(spends(&two, 2000).await);
    assert!(!spends(&two, 1).await);
}

#[tokio::test]
async fn a_use_beyond_all_measure_is_a_debt_for_a_while_and_not_for_good() {
    let server = Server::start().await;
    let limit = Limit::tokens(100)
        .per(Duration::from_secs(1))
        .enforcement(Enforcement::Bucket { burst: None });
    let brief = Duration::from_millis(50);
    let make = || budget(&server).hold(brief).limit(limit.clone()).build();
    let one = make().await.unwrap();
    let held = support::hold(&one, 1).await.unwrap().send();
    held.settle(Cost::request().tokens(1 << 53, 0));
    sleep(Duration::from_millis(300)).await; // told by then
    assert_eq!(one.store().failures, 0);
    let two = make().await.unwrap();
    timeout(Duration::from_secs(9), send(&two, 1))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_window_empties_while_processes_that_hold_for_different_times_use_it() {
    let server = Server::start().await;
    let make = |hold| {
        let limit = Limit::requests(400)
            .per(Duration::from_secs(2))
            .enforcement(Enforcement::Rolling);
        let hold = Duration::from_millis(hold);
        budget(&server).hold(hold).limit(limit).build()
    };
    let (one, two) = tokio::join!(make(20), make(60));
    let (one, two) = (one.unwrap(), two.unwrap());
    let (log, time) = (Log::default(), Duration::from_secs(8));
    tokio::join!(sends(&one, &log, time), sends(&two, &log, time));
    let most = log.most_in(Duration::from_secs(2));
    assert!(most <= 400, "{most} in one window");
    // Four windows, of which the first may have been used.
    assert!(log.sum() >= 1000, "{}", log.sum());
}

#[tokio::test]
async fn limits_of_one_name_that_count_other_requests_are_kept_apart() {
    let _ = Principal::set_key(*b"the same for all");
    let server = Server::start().await;
    let limit = |tokens| {
        Limit::tokens(tokens)
            .per(WINDOW)
            .enforcement(Enforcement::Rolling)
    };
    let all = limit(1000);
    let each = limit(100).scope(Scope::Principal);
    let near = budget(&server).hold(Duration::from_millis(50));
    let one = near.limits([all, each]).build().await.unwrap();
    unused(&server).await;
    // Who gives no name is counted among those without one, and among all.
    let ask = |tokens| one.acquire(Ask::new(Cost::request().tokens(tokens, 0)));
    drop(ask(90).await.unwrap().send());
    let named = |user: u32| {
        let ask = Ask::new(Cost::request().tokens(100, 0));
        one.acquire(ask.principal(Principal::of(&format!("user {user}"))))
    };
    for user in 0..9 {
        let held = timeout(Duration::from_secs(2), named(user)).await;
        drop(held.unwrap().unwrap().send());
    }
    assert!(timeout(Duration::from_millis(500), named(9)).await.is_err());
}
