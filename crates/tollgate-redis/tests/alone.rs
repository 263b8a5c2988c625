//! Without the server for long, and back: together the processes send what the limit allows.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use futures_util::future::join_all;
use support::{Server, born, budget, oracle::Log, send, until};
use tokio::time::{Instant, sleep, timeout_at};
use tollgate_budget::{Ask, BudgetStore, Cost, Enforcement, Limit, Scope};
use tollgate_core::principal::Principal;
use tollgate_redis::{RedisBudget, RedisBudgetBuilder};

const BURST: f64 = 1000.0;
const RATE: f64 = 500.0;
const WINDOW: Duration = Duration::from_secs(2);

/// 500 a second, and a bucket of twice that.
fn bucket(server: &Server) -> RedisBudgetBuilder {
    let limit = Limit::requests(1000)
        .per(WINDOW)
        .enforcement(Enforcement::Bucket { burst: None });
    let brief = Duration::from_millis(200);
    budget(server).timeout(brief).hold(brief).limit(limit)
}

fn window(server: &Server) -> RedisBudgetBuilder {
    let limit = Limit::requests(500)
        .per(WINDOW)
        .enforcement(Enforcement::Rolling);
    let brief = Duration::from_millis(100);
    budget(server).timeout(2 * brief).hold(brief).limit(limit)
}

async fn all(make: impl Fn() -> RedisBudgetBuilder, many: usize) -> Vec<RedisBudget> {
    let built = join_all((0..many).map(|_| make().build())).await;
    built.into_iter().map(Result::unwrap).collect()
}

/// Sends as much as goes until then.
async fn sends(budget: &RedisBudget, log: &Log, end: Instant) {
    let one = || async {
        while let Ok(Ok(())) = timeout_at(end, send(budget, 1)).await {
            log.add(1);
        }
    };
    join_all((0..40).map(|_| one())).await;
}

/// Four processes send all they can, with the server, four seconds without it, and with it again.
async fn without_it_for_long(make: fn(&Server) -> RedisBudgetBuilder) -> (Instant, Log, u64) {
    let server = Server::start().await;
    let budgets = all(|| make(&server), 4).await;
    let born = born(&server).await;
    let log = Log::default();
    let begin = Instant::now();
    let end = begin + Duration::from_millis(10_500);
    let work = join_all(budgets.iter().map(|budget| sends(budget, &log, end)));
    let happens = async {
        sleep(Duration::from_millis(2500)).await;
        server.stop();
        sleep(Duration::from_millis(4000)).await;
        server.go_on();
        log.sum()
    };
    let (_, meanwhile) = tokio::join!(work, happens);
    let after = log.sum() - meanwhile;
    (born, log, after)
}

#[tokio::test]
async fn a_bucket_holds_when_all_come_back_after_a_long_outage() {
    let (born, log, after) = without_it_for_long(bucket).await;
    // The burst counts as spent when nobody knows: but for what is set apart, a hold and a spread of the rate.
    let over = log.overdraws((born, 0.3 * RATE), BURST, RATE);
    assert!(over <= 0.0, "overdrawn by {over}");
    // Four seconds, less those in which all tell what they have sent.
    assert!(after >= 700, "{after}");
}

#[tokio::test]
async fn a_window_holds_when_all_come_back_after_a_long_outage() {
    let (_, log, after) = without_it_for_long(window).await;
    let most = log.most_in(WINDOW);
    // Who had a little less than a fourth before sends a fourth at once, while what another had beyond his is still in the window.
    assert!(most <= 510, "{most} in one window");
    assert!(after >= 250, "{after}");
}

#[tokio::test]
async fn who_is_new_when_the_server_is_back_waits_for_those_who_sent_without_it() {
    let server = Server::start().await;
    let long = || {
        let limit = Limit::requests(500)
            .per(Duration::from_secs(10))
            .enforcement(Enforcement::Rolling);
        let brief = Duration::from_millis(200);
        budget(&server).timeout(brief).hold(brief).limit(limit)
    };
    let two = all(long, 2).await;
    until(Duration::from_secs(4), || {
        two.iter().all(|budget| budget.store().processes == 2)
    })
    .await;
    // As if the budget had been there for an hour.
    let keys: Vec<String> = server.run("KEYS *}:m").await;
    server
        .run::<i64>(&format!("HINCRBY {} born -3600000000", keys[0]))
        .await;
    let log = Log::default();
    server.stop();
    let end = Instant::now() + Duration::from_secs(4);
    join_all(two.iter().map(|budget| sends(budget, &log, end))).await;
    assert!(log.sum() > 100, "{}", log.sum());
    server.go_on();
    let new = long().build().await.unwrap();
    sends(&new, &log, Instant::now() + Duration::from_secs(3)).await;
    let most = log.most_in(Duration::from_secs(10));
    assert!(most <= 500, "{most} in one window");
    assert!(most >= 400, "{most} in one window");
}

/// Three seconds of all they can send; the server is away, and the limit allows 500 a second.
async fn all_alone(budgets: &[RedisBudget]) -> u64 {
    let (log, end) = (Log::default(), Instant::now() + Duration::from_secs(3));
    join_all(budgets.iter().map(|budget| sends(budget, &log, end))).await;
    log.sum()
}

#[tokio::test]
async fn the_limit_is_divided_by_all_that_live_and_not_by_those_that_ask() {
    let mut server = Server::start().await;
    let budgets = all(|| bucket(&server), 4).await;
    // One of them has asked for it, the others never have.
    send(&budgets[0], 1).await.unwrap();
    until(Duration::from_secs(4), || {
        budgets.iter().all(|budget| budget.store().processes == 4)
    })
    .await;
    server.kill();
    sleep(Duration::from_millis(1200)).await;
    let sent = all_alone(&budgets).await;
    assert!((1000..=1600).contains(&sent), "{sent}");
}

#[tokio::test]
async fn the_limit_is_divided_by_so_many_as_are_told_where_the_server_was_never_there() {
    let mut server = Server::start().await;
    server.kill();
    let budgets = all(|| bucket(&server).processes(4), 4).await;
    let sent = all_alone(&budgets).await;
    assert!((1000..=1600).contains(&sent), "{sent}");
}

#[tokio::test]
async fn a_user_who_comes_first_while_the_server_is_away_has_his_share_and_no_burst() {
    let _ = Principal::set_key(*b"the same for all");
    let mut server = Server::start().await;
    let users = || {
        let brief = Duration::from_millis(200);
        let limit = Limit::tokens(1000)
            .per(Duration::from_secs(10))
            .scope(Scope::Principal);
        budget(&server).timeout(brief).hold(brief).limit(limit)
    };
    let budgets = all(users, 4).await;
    until(Duration::from_secs(4), || {
        budgets.iter().all(|budget| budget.store().processes == 4)
    })
    .await;
    server.kill();
    sleep(Duration::from_millis(1200)).await;
    let (log, end) = (Log::default(), Instant::now() + Duration::from_millis(1500));
    let log = &log;
    join_all(budgets.iter().map(|budget| async move {
        for tokens in [400, 100, 1].into_iter().cycle() {
            let ask = Ask::new(Cost::request().tokens(tokens, 0));
            let ask = ask.principal(Principal::of("alice"));
            let soon = Instant::now() + Duration::from_millis(100);
            if let Ok(Ok(held)) = timeout_at(soon.min(end), budget.acquire(ask)).await {
                drop(held.send());
                log.add(tokens);
            }
            if Instant::now() >= end {
                break;
            }
        }
    }))
    .await;
    // A hundred a second.
    assert!(log.sum() <= 170, "{}", log.sum());
}
