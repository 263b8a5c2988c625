//! The server is away, hangs, or answers with an error: each as the policy says, and back without a restart.
#![allow(clippy::unwrap_used)]
mod support;

use std::{future::Future, time::Duration};

use support::{Server, budget, events::Events, send, slow_way, until};
use tokio::time::{Instant, sleep};
use tollgate_budget::{Enforcement, Limit, Observation, Refusal};
use tollgate_core::extensions::Reason;
use tollgate_redis::{Outage, RedisBudget, RedisBudgetBuilder};

fn limit() -> Limit {
    Limit::requests(6000)
        .per_minute()
        .enforcement(Enforcement::Bucket { burst: None })
        .named("it")
}

/// Nothing but a refused connection is there.
async fn nowhere() -> RedisBudgetBuilder {
    let mut server = Server::start().await;
    server.kill();
    budget(&server)
        .timeout(Duration::from_millis(100))
        .limit(limit())
}

async fn reason(budget: &RedisBudget) -> Option<Reason> {
    let asked = Instant::now();
    let sent = send(budget, 1).await;
    let within = Duration::from_millis(400);
    assert!(asked.elapsed() < within, "{:?}", asked.elapsed());
    sent.err().map(|refused| refused.reason)
}

// T32
#[tokio::test]
async fn without_a_server_each_policy_answers_within_the_timeout() {
    let closed = nowhere().await.on_outage(Outage::FailClosed).build();
    assert_eq!(
        reason(&closed.await.unwrap()).await,
        Some(Reason::StoreDown)
    );
    let open = nowhere().await.on_outage(Outage::FailOpen).build();
    let open = open.await.unwrap();
    for _ in 0..200 {
        assert_eq!(reason(&open).await, None);
    }
    // A hundred a second, of which a tenth is its own.
    let share = nowhere().await.on_outage(Outage::LocalShare(0.1)).build();
    let share = share.await.unwrap();
    let (mut sent, end) = (0, Instant::now() + Duration::from_secs(2));
    while let Ok(Ok(())) = tokio::time::timeout_at(end, send(&share, 1)).await {
        sent += 1;
    }
    assert!((12..=21).contains(&sent), "{sent}");
}

/// Without the server nothing goes, then it comes back by itself, and both are told once.
async fn comes_and_goes<F: Future<Output = ()>>(
    server: &mut Server,
    why: &str,
    away: impl AsyncFnOnce(&mut Server),
    back: impl FnOnce(&mut Server) -> F,
) {
    let events = Events::default();
    let _told = tracing::subscriber::set_default(events.clone());
    let budget = budget(server)
        .timeout(Duration::from_millis(150))
        .hold(Duration::from_millis(100))
        .limit(limit())
        .on_outage(Outage::FailClosed)
        .build()
        .await
        .unwrap();
    send(&budget, 1).await.unwrap();
    away(server).await;
    // What is in hand is spent first.
    let began = Instant::now();
    let refused = loop {
        assert!(began.elapsed() < Duration::from_secs(5));
        if let Err(refused) = send(&budget, 1).await {
            break refused;
        }
        sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(refused.reason, Reason::StoreDown);
    assert!(refused.retry_after.is_some());
    until(Duration::from_secs(3), || budget.store().down == Some(why)).await;
    for _ in 0..200 {
        let asked = Instant::now();
        let _ = send(&budget, 1).await;
        assert!(
            asked.elapsed() < Duration::from_millis(50),
            "the breaker is open"
        );
    }
    sleep(Duration::from_millis(400)).await;
    assert_eq!(events.with("is not to be had"), 1, "{why}");
    back(server).await;
    let began = Instant::now();
    while send(&budget, 1).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(15), "it comes back");
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(budget.store().down, None);
    assert_eq!(
        (events.with("is not to be had"), events.with("is back")),
        (1, 1),
        "{why}"
    );
}

#[tokio::test]
async fn a_server_that_dies_and_is_started_again_is_used_again() {
    let mut server = Server::start().await;
    let events = Events::default();
    let _told = tracing::subscriber::set_default(events.clone());
    let budget = budget(&server)
        .hold(Duration::from_millis(100))
        .limit(limit())
        .on_outage(Outage::FailClosed)
        .build()
        .await
        .unwrap();
    send(&budget, 1).await.unwrap();
    server.kill();
    sleep(Duration::from_millis(200)).await;
    let _ = send(&budget, 1).await;
    until(Duration::from_secs(2), || budget.store().down.is_some()).await;
    assert_eq!(
        send(&budget, 1).await.unwrap_err().reason,
        Reason::StoreDown
    );
    server.restart().await;
    until(Duration::from_secs(3), || budget.store().down.is_none()).await;
    send(&budget, 1).await.unwrap();
    assert_eq!(
        (events.with("is not to be had"), events.with("is back")),
        (1, 1)
    );
}

// T33
#[tokio::test]
async fn a_server_that_hangs_opens_the_breaker_and_is_told_once() {
    let mut server = Server::start().await;
    let away = async |server: &mut Server| server.stop();
    let back = |server: &mut Server| {
        server.go_on();
        std::future::ready(())
    };
    comes_and_goes(&mut server, "it does not answer in time", away, back).await;
}

#[tokio::test]
async fn something_else_at_the_key_is_an_outage_until_it_is_gone() {
    let mut server = Server::start().await;
    let away = async |server: &mut Server| {
        let key = meta(server).await;
        let mut link = server
            .client()
            .get_multiplexed_async_connection()
            .await
            .unwrap();
        let mut both = redis::pipe();
        both.atomic().del(&key).lpush(&key, 1);
        both.exec_async(&mut link).await.unwrap();
    };
    let port = server.port;
    let back = move |_: &mut Server| flush(port);
    let why = "something else is stored at a key of ours";
    comes_and_goes(&mut server, why, away, back).await;
}

#[tokio::test]
async fn another_version_at_the_key_is_an_outage_until_it_is_gone() {
    let mut server = Server::start().await;
    let away = async |server: &mut Server| {
        let key = meta(server).await;
        server.run::<i64>(&format!("HSET {key} v 9")).await;
    };
    let port = server.port;
    let back = move |_: &mut Server| flush(port);
    let why = "another version keeps the state at our keys";
    comes_and_goes(&mut server, why, away, back).await;
}

#[tokio::test]
async fn a_replica_that_takes_no_writes_is_an_outage_until_it_is_the_master() {
    let mut server = Server::start().await;
    let away = async |server: &mut Server| {
        server.run::<String>("REPLICAOF 127.0.0.1 1").await;
    };
    let port = server.port;
    let back = move |_: &mut Server| command(port, "REPLICAOF NO ONE");
    let why = "it is a replica, and takes no writes";
    comes_and_goes(&mut server, why, away, back).await;
}

#[tokio::test]
async fn a_server_that_loads_its_data_is_an_outage_until_it_has() {
    let directory = std::env::temp_dir().join(format!("tollgate-{:x}", fastrand::u64(..)));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.to_str().unwrap();
    let slow = [
        "--dir",
        path,
        "--key-load-delay",
        "100",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let mut server = Server::with(&slow).await;
    let away = async |server: &mut Server| {
        server.run::<String>("DEBUG POPULATE 20000").await;
        server.run::<String>("SAVE").await;
        server.kill();
        server.start_again();
    };
    comes_and_goes(&mut server, "it is loading its data", away, |_| {
        std::future::ready(())
    })
    .await;
    std::fs::remove_dir_all(directory).unwrap();
}

async fn meta(server: &Server) -> String {
    let keys: Vec<String> = server.run("KEYS *}:m").await;
    keys[0].clone()
}

async fn flush(port: u16) {
    command(port, "FLUSHALL").await;
}

async fn command(port: u16, words: &'static str) {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command.exec_async(&mut link).await.unwrap();
}

#[tokio::test]
async fn a_forgotten_script_and_a_killed_connection_are_no_outage() {
    let server = Server::start().await;
    let events = Events::default();
    let _told = tracing::subscriber::set_default(events.clone());
    let budget = budget(&server)
        .hold(Duration::from_millis(50))
        .limit(limit())
        .on_outage(Outage::FailClosed)
        .build()
        .await
        .unwrap();
    for _ in 0..3 {
        send(&budget, 1).await.unwrap();
        server.run::<String>("SCRIPT FLUSH").await;
        sleep(Duration::from_millis(100)).await;
        send(&budget, 1).await.unwrap();
        server.run::<i64>("CLIENT KILL TYPE normal").await;
        sleep(Duration::from_millis(100)).await;
        send(&budget, 1).await.unwrap();
    }
    assert_eq!(events.with("is not to be had"), 0);
}

#[tokio::test]
async fn a_policy_that_may_evict_the_state_is_warned_of() {
    let events = Events::default();
    let _told = tracing::subscriber::set_default(events.clone());
    let safe = Server::with(&["--maxmemory-policy", "noeviction"]).await;
    let one = budget(&safe).limit(limit()).build().await.unwrap();
    assert_eq!(one.store().maxmemory_policy.as_deref(), Some("noeviction"));
    assert_eq!(events.with("may evict"), 0);
    let unsafe_ = Server::with(&["--maxmemory-policy", "allkeys-lru"]).await;
    let two = budget(&unsafe_).limit(limit()).build().await.unwrap();
    assert_eq!(two.store().maxmemory_policy.as_deref(), Some("allkeys-lru"));
    assert_eq!(events.with("may evict"), 1);
}

#[tokio::test]
async fn a_slow_server_delays_nobody_while_units_are_in_hand() {
    let server = Server::start().await;
    let near = slow_way(server.port, Duration::from_millis(40)).await;
    let budget = RedisBudget::connect(format!("redis://127.0.0.1:{near}"))
        .timeout(Duration::from_millis(900))
        .limit(limit())
        .on_outage(Outage::FailClosed)
        .build()
        .await
        .unwrap();
    // Half of what the limit allows, evenly.
    let (mut waits, begin) = (Vec::new(), Instant::now());
    for turn in 0..150 {
        tokio::time::sleep_until(begin + turn * Duration::from_millis(20)).await;
        let asked = Instant::now();
        send(&budget, 1).await.unwrap();
        waits.push(asked.elapsed());
    }
    // Later than a trip only at first, when nothing is in hand yet.
    let late = waits[75..]
        .iter()
        .filter(|wait| **wait > Duration::from_millis(20))
        .count();
    assert!(late <= 2, "{late} of 75: {:?}", waits[75..].iter().max());
    assert_eq!(budget.store().failures, 0);
}

#[tokio::test]
async fn a_policy_is_looked_at_also_if_the_server_was_away_at_first() {
    let mut server = Server::with(&["--maxmemory-policy", "allkeys-lru"]).await;
    server.kill();
    let one = budget(&server).limit(limit()).build().await.unwrap();
    assert_eq!(one.store().maxmemory_policy, None);
    server.restart().await;
    until(Duration::from_secs(5), || {
        one.store().maxmemory_policy.as_deref() == Some("allkeys-lru")
    })
    .await;
}

#[tokio::test]
async fn a_prefix_that_would_scatter_the_keys_is_refused() {
    let server = Server::start().await;
    let refused = budget(&server).prefix("a{}b").limit(limit()).build().await;
    assert!(refused.unwrap_err().to_string().contains("braces"));
    let refused = budget(&server).processes(0).limit(limit()).build().await;
    assert!(refused.unwrap_err().to_string().contains("one process"));
}

#[tokio::test]
async fn without_its_task_a_budget_refuses_and_nobody_waits() {
    let server = Server::start().await;
    let url = server.url();
    let budget = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let budget = runtime.block_on(async {
            let made = RedisBudget::connect(url).limit(limit());
            made.on_outage(Outage::FailClosed).build().await.unwrap()
        });
        // The runtime ends, and the task with it.
        drop(runtime);
        budget
    });
    let budget = tokio::task::spawn_blocking(|| budget.join().unwrap())
        .await
        .unwrap();
    let sent = tokio::time::timeout(Duration::from_secs(2), send(&budget, 1));
    assert_eq!(sent.await.unwrap().unwrap_err().reason, Reason::StoreDown);
    assert!(budget.store().down.is_some());
    assert!(!budget.close().await, "there is nobody to tell the server");
}

#[tokio::test]
async fn a_refusal_that_is_over_when_the_server_is_back_shuts_no_gate() {
    let mut server = Server::start().await;
    let make = || budget(&server).limit(limit()).build();
    let (one, two) = tokio::join!(make(), make());
    let (one, two) = (one.unwrap(), two.unwrap());
    send(&one, 1).await.unwrap();
    let charge = support::hold(&one, 1).await.unwrap().send();
    server.kill();
    until(Duration::from_secs(7), || one.store().down.is_some()).await;
    let refusal = Refusal {
        what: None,
        wait: Some(Duration::from_secs(1)),
    };
    charge.observe(&Observation::new(&[]).refusal(Some(refusal)));
    drop(charge);
    sleep(Duration::from_millis(1500)).await;
    server.restart().await;
    let up = || one.store().down.is_none() && two.store().down.is_none();
    until(Duration::from_secs(7), up).await;
    for _ in 0..100 {
        assert_eq!(two.snapshot().gated, None);
        sleep(Duration::from_millis(20)).await;
    }
}
