//! The places where the state can be kept beside a plain server: a master that sentinels name, a cluster, a server with TLS.
#![cfg(all(feature = "sentinel", feature = "cluster", feature = "rustls"))]
#![allow(clippy::unwrap_used)]
mod support;

use std::{path::Path, process::Command, time::Duration};

use futures_util::future::join_all;
use support::{Server, free, oracle::Log, send, until};
use tokio::time::{Instant, sleep, timeout_at};
use tollgate_budget::{Enforcement, Limit};
use tollgate_redis::{RedisBudget, RedisBudgetBuilder};

const WINDOW: Duration = Duration::from_secs(2);

fn window(builder: RedisBudgetBuilder) -> RedisBudgetBuilder {
    let limit = Limit::requests(400)
        .per(WINDOW)
        .enforcement(Enforcement::Rolling);
    builder
        .timeout(Duration::from_millis(500))
        .hold(Duration::from_millis(100))
        .limit(limit)
}

/// A cap that two processes share to the last request.
async fn shares_a_cap(make: impl Fn() -> RedisBudgetBuilder) {
    let cap = || Limit::requests(40).per_calendar_month("UTC");
    let make = || {
        let builder = make().timeout(Duration::from_millis(500)).limit(cap());
        builder.settings(|it| it.max_wait(Duration::from_millis(300)))
    };
    let (one, two) = (make().build().await.unwrap(), make().build().await.unwrap());
    for handle in [&one, &two] {
        assert_eq!(handle.store().down, None);
    }
    // What one has in hand and does not use comes back within five holds.
    let end = Instant::now() + Duration::from_secs(10);
    let (mut sent, mut turn) = (0, 0);
    while sent < 40 && Instant::now() < end {
        turn += 1;
        let handle = if turn % 2 == 0 { &one } else { &two };
        match send(handle, 1).await {
            Ok(()) => sent += 1,
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
    assert_eq!(sent, 40);
    assert!(send(&one, 1).await.is_err() && send(&two, 1).await.is_err());
    assert_eq!((one.store().failures, two.store().failures), (0, 0));
}

#[tokio::test]
async fn the_master_that_sentinels_name_is_found_and_after_a_failover_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let secret = ["--requirepass", "secret", "--masterauth", "secret"];
    let mut master = Server::with(&secret).await;
    let of_master = format!("127.0.0.1 {}", master.port);
    let replica = Server::with(&[&secret[..], &["--replicaof", &of_master]].concat()).await;
    let is = |word: &'static str| {
        let replica = &replica;
        async move {
            replica
                .run::<String>("INFO replication")
                .await
                .contains(word)
        }
    };
    while !is("master_link_status:up").await {
        sleep(Duration::from_millis(20)).await;
    }
    let sentinel = master.sentinel(folder.path()).await;
    while !sentinel
        .run::<String>("INFO sentinel")
        .await
        .contains("slaves=1")
    {
        sleep(Duration::from_millis(20)).await;
    }
    let make = || {
        let master = "redis://:secret@acme";
        window(RedisBudget::sentinels([sentinel.url()], master)).build()
    };
    let budgets = [make().await.unwrap(), make().await.unwrap()];
    for budget in &budgets {
        assert_eq!(budget.store().down, None);
    }
    let log = Log::default();
    let end = Instant::now() + Duration::from_secs(14);
    let lines = budgets.iter().flat_map(|budget| vec![budget; 20]);
    let work = join_all(lines.map(|budget| {
        let log = log.clone();
        async move {
            while Instant::now() < end {
                match timeout_at(end, send(budget, 1)).await {
                    Ok(Ok(())) => log.add(1),
                    _ => sleep(Duration::from_millis(10)).await,
                }
            }
        }
    }));
    let failover = async {
        sleep(Duration::from_secs(3)).await;
        master.kill();
        while !is("role:master").await {
            sleep(Duration::from_millis(50)).await;
        }
        for budget in &budgets {
            until(Duration::from_secs(5), || budget.store().down.is_none()).await;
        }
        let trips = budgets[0].store().trips;
        until(Duration::from_secs(3), || budgets[0].store().trips > trips).await;
    };
    tokio::join!(work, failover);
    let most = log.most_in(WINDOW);
    assert!(most <= 400, "{most} in one window");
    assert!(log.sum() >= 1200, "{}", log.sum());
}

#[tokio::test]
async fn a_sentinel_that_does_not_answer_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let master = Server::start().await;
    let sentinel = master.sentinel(folder.path()).await;
    // It is connected to, and says nothing: the machine is cut off, or hangs.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("redis://{}", silent.local_addr().unwrap());
    let brief = Duration::from_millis(150);
    let budget = RedisBudget::sentinels([silent, sentinel.url()], "acme")
        .timeout(brief)
        .limit(Limit::requests(100).per_minute());
    let budget = budget.build().await.unwrap();
    until(Duration::from_secs(10), || budget.store().down.is_none()).await;
}

#[tokio::test]
async fn the_state_of_each_budget_is_in_one_place_of_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = Vec::new();
    for number in 0..3 {
        let file = folder.path().join(format!("nodes-{number}.conf"));
        let (bus, file) = (free().to_string(), file.display().to_string());
        let node = Server::with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-config-file",
            &file,
        ])
        .await;
        nodes.push((node, bus));
    }
    for (number, (node, _)) in nodes.iter().enumerate() {
        let slots = ["0 5460", "5461 10922", "10923 16383"][number];
        node.run::<()>(&format!("CLUSTER ADDSLOTSRANGE {slots}"))
            .await;
        let (first, bus) = &nodes[0];
        let meet = format!("CLUSTER MEET 127.0.0.1 {} {bus}", first.port);
        node.run::<()>(&meet).await;
    }
    for (node, _) in &nodes {
        let knows_all = |info: &str| {
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        };
        while !knows_all(&node.run::<String>("CLUSTER INFO").await) {
            sleep(Duration::from_millis(20)).await;
        }
    }
    // Whichever node is told, and wherever the keys of that name are.
    for (number, (node, _)) in nodes.iter().enumerate() {
        let name = format!("acme {number}");
        shares_a_cap(|| RedisBudget::cluster([node.url()]).name(&*name)).await;
    }
    let mut with_keys = 0;
    for (node, _) in &nodes {
        with_keys += u32::from(node.run::<u64>("DBSIZE").await > 0);
    }
    assert!(with_keys > 1, "the names are to lie on several nodes");
}

/// TLS trusts what this process trusts, and that is set for a process: so a process of its own.
#[test]
fn a_server_with_tls_is_trusted_if_the_machine_trusts_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let certificate = write("certificate.pem", &made.cert.pem());
    write("key.pem", &made.signing_key.serialize_pem());
    let run = |trusted: &Path, inner: &str| {
        let it = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", inner])
            .env("SSL_CERT_FILE", trusted)
            .env("TOLLGATE_TLS", folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&it.stdout).into_owned();
        assert!(text.contains("1 passed"), "{text}");
    };
    run(&certificate, "inner_tls_is_trusted");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = write("other.pem", &other.cert.pem());
    run(&other, "inner_tls_is_not_trusted");
}

async fn with_tls() -> (Server, String) {
    let folder = std::env::var("TOLLGATE_TLS").unwrap();
    let (port, file) = (free(), |name: &str| format!("{folder}/{name}"));
    let server = Server::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("certificate.pem"),
        "--tls-key-file",
        &file("key.pem"),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    (server, format!("rediss://localhost:{port}"))
}

#[tokio::test]
#[ignore = "run by a_server_with_tls_is_trusted_if_the_machine_trusts_its_certificate"]
async fn inner_tls_is_trusted() {
    let (_server, url) = with_tls().await;
    // rustls has no provider of its own choice, and that is said at once.
    let limit = || Limit::requests(1).per_minute();
    let refused = RedisBudget::connect(&*url).limit(limit()).build().await;
    let why = refused.map(drop).unwrap_err().to_string();
    assert!(why.contains("provider of cryptography"), "{why}");
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    shares_a_cap(|| RedisBudget::connect(&*url)).await;
}

#[tokio::test]
#[ignore = "run by a_server_with_tls_is_trusted_if_the_machine_trusts_its_certificate"]
async fn inner_tls_is_not_trusted() {
    let (_server, url) = with_tls().await;
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    let limit = Limit::requests(1).per_minute();
    let budget = RedisBudget::connect(url)
        .limit(limit)
        .build()
        .await
        .unwrap();
    assert!(budget.store().down.is_some());
}
