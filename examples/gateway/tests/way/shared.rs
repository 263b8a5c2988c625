//! Two gateways that share their limits on a Redis server.
use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tollgate::{
    budget::{Ask, BudgetStore as _, Cost},
    extensions::Reason,
};

use tokio::io::AsyncReadExt as _;
use tollgate_gateway::{Config, Gateway, client::Proxies};

use crate::common::{Pair, WIDE, pair_with, sim};

struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As `tests/needs/redis.sh` installs it.
async fn redis() -> (Redis, u16) {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/.installed/redis/usr");
    let own = installed.join("bin/redis-server");
    let program = if own.exists() {
        own
    } else {
        "redis-server".into()
    };
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|port| port.local_addr())
        .expect("a port")
        .port();
    let child = Command::new(program)
        .env("LD_LIBRARY_PATH", installed.join("lib/x86_64-linux-gnu"))
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            "/tmp",
        ])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server does not start; run: bash tests/install.sh");
    let server = Redis(child);
    let there = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), there)
        .await
        .expect("it listens");
    (server, port)
}

async fn gateway(port: u16) -> Pair {
    pair_with(sim(), |url| {
        format!(
            "listen = \"127.0.0.1:0\"\nredis = \"redis://127.0.0.1:{port}\"\n[[target]]\nname = \"sim\"\norigin = \"{url}\"\n\
             limits = [{{ requests = 1_000_000, per = \"minute\" }}]\n\
             [[limit]]\nrequests = 10\ncalendar = \"day\"\nname = \"ten a day\"\nrefuse = true\n"
        )
    })
    .await
}

#[tokio::test]
async fn two_gateways_on_one_server_allow_no_more_than_one_would() {
    let (_server, port) = redis().await;
    let pairs = [gateway(port).await, gateway(port).await];
    let mut served = Vec::new();
    for call in 0..60 {
        served.push(pairs[call % 2].chat().await.status == 200);
        // While a gateway is buying it refuses, as `refuse` says.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sent: u64 = pairs
        .iter()
        .map(|pair| pair.provider.provider().totals().requests)
        .sum();
    let all = served.iter().filter(|served| **served).count();
    assert_eq!(sent, all as u64);
    assert!(
        (1..=10).contains(&all),
        "{all} were served of the ten a day"
    );
    let page = pairs[0].get("/").await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(
        page.contains("Shared limits") && page.contains("<td>reached</td>"),
        "{page}"
    );
}

#[tokio::test]
async fn the_server_may_be_named_by_the_environment_and_spoken_to_over_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    let first = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut first = [0];
        socket.read_exact(&mut first).await.expect("a byte");
        first[0]
    });
    let text = format!(
        "listen = \"127.0.0.1:0\"\nredis_env = \"REDIS\"\nredis_timeout = \"10s\"\n[[target]]\nname = \"sim\"\norigin = \"http://127.0.0.1:1\"\n{WIDE}"
    );
    let env = |name: &str| (name == "REDIS").then(|| format!("rediss://:word@{addr}"));
    let config = Config::parse(&text, &env).expect("a configuration");
    assert!(!format!("{config:?}").contains("word"));
    let start = tokio::spawn(Gateway::start_behind(config, Proxies::none()));
    let hello = tokio::time::timeout(Duration::from_secs(20), first).await;
    let hello = hello.expect("it comes in time").expect("a byte");
    assert_eq!(hello, 0x16, "as TLS says it");
    start.abort();
}

#[tokio::test]
async fn a_gateway_that_ends_closes_its_share() {
    let (_server, port) = redis().await;
    let pair = gateway(port).await;
    assert_eq!(pair.chat().await.status, 200);
    let stores = pair.gateway.handles().stores.clone();
    assert_eq!(stores.len(), 2, "the target's and ours");
    assert!(pair.gateway.stop().await);
    for (of, store) in stores {
        let refused = store.acquire(Ask::new(Cost::request())).await;
        let Err(refused) = refused else {
            panic!("nothing more is admitted");
        };
        assert_eq!(refused.reason, Reason::StoreDown, "{of}");
    }
}
