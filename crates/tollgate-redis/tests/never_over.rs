//! Whatever happens to the server and the processes, the provider never sees more than its limit.
#![allow(clippy::unwrap_used)]
mod support;

use std::{future::Future, time::Duration};

use futures_util::future::join_all;
use support::{Server, born, budget, oracle::Log, send};
use tokio::time::{Instant, sleep, timeout_at};
use tollgate_budget::{Enforcement, Limit};
use tollgate_redis::{RedisBudget, RedisBudgetBuilder};

/// What the provider keeps: a bucket of 1,000 that refills with 500 a second.
fn bucket(server: &Server) -> RedisBudgetBuilder {
    let limit = Limit::requests(1000)
        .per(Duration::from_secs(2))
        .enforcement(Enforcement::Bucket { burst: None });
    budget(server).hold(Duration::from_millis(200)).limit(limit)
}

const BURST: f64 = 1000.0;
const RATE: f64 = 500.0;
/// The burst counts as spent when nobody knows: but for what is set apart, a hold and a spread of the rate.
const FIRST: f64 = 0.3 * RATE;

/// What the provider keeps: 500 in any two seconds.
fn window(server: &Server) -> RedisBudgetBuilder {
    let limit = Limit::requests(500)
        .per(WINDOW)
        .enforcement(Enforcement::Rolling);
    budget(server).hold(Duration::from_millis(100)).limit(limit)
}

const WINDOW: Duration = Duration::from_secs(2);

async fn all(
    server: &Server,
    make: fn(&Server) -> RedisBudgetBuilder,
    many: usize,
) -> Vec<RedisBudget> {
    let built = join_all((0..many).map(|_| make(server).build())).await;
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

/// Four processes send as much as they can for a while, and something happens after two seconds.
async fn through<F: Future<Output = ()>>(
    server: &Server,
    make: fn(&Server) -> RedisBudgetBuilder,
    happens: impl FnOnce(Vec<RedisBudget>) -> F,
) -> (Instant, Log) {
    let budgets = all(server, make, 4).await;
    let born = born(server).await;
    let log = Log::default();
    let end = Instant::now() + Duration::from_millis(4500);
    let work = join_all(budgets.iter().map(|budget| sends(budget, &log, end)));
    let others = async {
        sleep(Duration::from_millis(2000)).await;
        happens(budgets.clone()).await;
    };
    tokio::join!(work, others);
    (born, log)
}

fn bucket_holds((born, log): (Instant, Log)) {
    let over = log.overdraws((born, FIRST), BURST, RATE);
    assert!(over <= 0.0, "overdrawn by {over}");
    // All that time at the rate, less what is in the air at the end and what a loss takes.
    assert!(log.sum() >= 1500, "{}", log.sum());
}

fn window_holds((_, log): (Instant, Log), least: u64) {
    let most = log.most_in(WINDOW);
    assert!(most <= 500, "{most} in one window");
    assert!(log.sum() >= least, "{}", log.sum());
}

// T34
#[tokio::test]
async fn a_process_that_dies_with_units_in_hand_wastes_them_and_no_more() {
    let server = Server::start().await;
    let log = Log::default();
    let end = Instant::now() + Duration::from_secs(5);
    let dies = Instant::now() + Duration::from_millis(2500);
    let url = server.url();
    // In a runtime of its own, which ends at once: no good-bye is said.
    let (port, mine) = (server.port, log.clone());
    let dying = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let budgets = runtime.block_on(async {
            let limit = Limit::requests(1000)
                .per(Duration::from_secs(2))
                .enforcement(Enforcement::Bucket { burst: None });
            let make = || {
                RedisBudget::connect(&*url)
                    .hold(Duration::from_millis(200))
                    .timeout(Duration::from_millis(500))
                    .limit(limit.clone())
                    .build()
            };
            let budgets = vec![make().await.unwrap(), make().await.unwrap()];
            join_all(budgets.iter().map(|budget| sends(budget, &mine, dies))).await;
            budgets
        });
        runtime.shutdown_background();
        drop(budgets);
        port
    });
    let budgets = all(&server, bucket, 2).await;
    let born = born(&server).await;
    join_all(budgets.iter().map(|budget| sends(budget, &log, end))).await;
    dying.join().unwrap();
    let over = log.overdraws((born, FIRST), BURST, RATE);
    assert!(over <= 0.0, "overdrawn by {over}");
    assert!(log.sum() >= 1900, "{}", log.sum());
}

#[tokio::test]
async fn a_bucket_lives_through_a_flush() {
    let server = Server::start().await;
    let log = through(&server, bucket, |_| async {
        server.run::<String>("FLUSHALL").await;
    })
    .await;
    bucket_holds(log);
}

#[tokio::test]
async fn a_window_lives_through_a_flush() {
    let server = Server::start().await;
    let log = through(&server, window, |_| async {
        server.run::<String>("FLUSHALL").await;
    })
    .await;
    window_holds(log, 300);
}

/// All keys, as a replica holds them that is a second behind and takes over.
async fn falls_back(server: &Server) {
    let mut link = server
        .client()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let keys: Vec<String> = server.run("KEYS *").await;
    let mut kept = Vec::new();
    for key in keys {
        let dump: Vec<u8> = redis::cmd("DUMP")
            .arg(&key)
            .query_async(&mut link)
            .await
            .unwrap();
        kept.push((key, dump));
    }
    sleep(Duration::from_secs(1)).await;
    let mut all = redis::pipe();
    all.atomic().cmd("FLUSHALL").ignore();
    for (key, dump) in &kept {
        all.cmd("RESTORE").arg(key).arg(0).arg(dump).ignore();
    }
    all.exec_async(&mut link).await.unwrap();
}

#[tokio::test]
async fn a_bucket_lives_through_a_replica_that_is_behind() {
    let server = Server::start().await;
    let log = through(&server, bucket, |_| falls_back(&server)).await;
    bucket_holds(log);
}

#[tokio::test]
async fn a_window_lives_through_a_replica_that_is_behind() {
    let server = Server::start().await;
    let log = through(&server, window, |_| falls_back(&server)).await;
    window_holds(log, 300);
}

#[tokio::test]
async fn a_window_lives_through_the_eviction_of_its_state_alone() {
    let server = Server::start().await;
    let log = through(&server, window, |_| async {
        let keys: Vec<String> = server.run("KEYS *}:a:*").await;
        assert_eq!(keys.len(), 1);
        server.run::<i64>(&format!("DEL {}", keys[0])).await;
    })
    .await;
    window_holds(log, 300);
}

#[tokio::test]
async fn a_clock_that_leaps_an_hour_either_way_gives_no_burst() {
    let leaps = [3_600_000_000_i64, -3_600_000_000];
    join_all(leaps.map(|leap| async move {
        let server = Server::start().await;
        let log = through(&server, window, |_| async {
            let keys: Vec<String> = server.run("KEYS *}:m").await;
            let _: i64 = server.run(&format!("HINCRBY {} off {leap}", keys[0])).await;
        })
        .await;
        window_holds(log, 300);
    }))
    .await;
}

#[tokio::test]
async fn a_server_that_hangs_for_a_second_costs_no_more_than_that() {
    let server = Server::start().await;
    let log = through(&server, bucket, |_| async {
        server.stop();
        sleep(Duration::from_secs(1)).await;
        server.go_on();
    })
    .await;
    bucket_holds(log);
}
