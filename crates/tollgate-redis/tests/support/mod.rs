//! A real server for each test, on a free port of the loopback, ended with the test also when that panics.
#![allow(dead_code)] // each test uses its part of it
pub(crate) mod events;
pub(crate) mod oracle;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tollgate_budget::{Ask, BudgetStore, Cost, Reservation};
use tollgate_core::extensions::Refused;
use tollgate_redis::{RedisBudget, RedisBudgetBuilder};

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    options: Vec<String>,
}

/// `TOLLGATE_REDIS_SERVER` names another program, such as a `valkey-server`.
fn program() -> PathBuf {
    if let Some(told) = std::env::var_os("TOLLGATE_REDIS_SERVER") {
        return told.into();
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/.installed/redis/usr/bin/redis-server");
    if own.exists() {
        return own;
    }
    "redis-server".into()
}

fn start(port: u16, options: &[String]) -> Child {
    let program = program();
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/.installed/redis/usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(&program);
    if libraries.exists() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let port = port.to_string();
    command
        .args([
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .args(["--enable-debug-command", "local", "--dir", "/tmp"])
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|why| {
            panic!(
                "{} does not start ({why}); run `bash tests/install.sh` first",
                program.display()
            )
        })
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(options: &[&str]) -> Self {
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Self {
            child: start(port, &options),
            port,
            options,
        };
        server.ready().await;
        server
    }

    async fn ready(&self) {
        for _ in 0..2000 {
            if let Ok(mut connection) = self.client().get_multiplexed_async_connection().await {
                if redis::cmd("PING")
                    .query_async::<String>(&mut connection)
                    .await
                    .is_ok()
                {
                    return;
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("the server does not answer");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).unwrap()
    }

    /// Runs a command of words.
    pub(crate) async fn run<T: redis::FromRedisValue>(&self, words: &str) -> T {
        self.try_run(words).await.unwrap()
    }

    pub(crate) async fn try_run<T: redis::FromRedisValue>(
        &self,
        words: &str,
    ) -> redis::RedisResult<T> {
        let mut connection = self.client().get_multiplexed_async_connection().await?;
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query_async(&mut connection).await
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(done.unwrap().success());
    }

    /// It hangs: accepts, and never answers.
    pub(crate) fn stop(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        self.child = start(self.port, &self.options);
    }

    pub(crate) async fn restart(&mut self) {
        self.start_again();
        self.ready().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn budget(server: &Server) -> RedisBudgetBuilder {
    // A machine that builds at the same time is slow.
    RedisBudget::connect(server.url()).timeout(Duration::from_millis(500))
}

/// When the budget's state on the server was born.
pub(crate) async fn born(server: &Server) -> Instant {
    let keys: Vec<String> = server.run("KEYS *}:m").await;
    let now: (u64, u64) = server.run("TIME").await;
    let born: u64 = server.run(&format!("HGET {} born", keys[0])).await;
    let age = (now.0 * 1_000_000 + now.1).saturating_sub(born);
    Instant::now() - Duration::from_micros(age)
}

/// One request of so many tokens, sent at once and kept.
pub(crate) async fn send(budget: &impl BudgetStore, tokens: u64) -> Result<(), Refused> {
    let reservation = hold(budget, tokens).await?;
    drop(reservation.send());
    Ok(())
}

pub(crate) async fn hold(budget: &impl BudgetStore, tokens: u64) -> Result<Reservation, Refused> {
    budget
        .acquire(Ask::new(Cost::request().tokens(tokens, 0)))
        .await
}

/// Waits until it is so; at most so long.
pub(crate) async fn until(most: Duration, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < most, "it is not so after {most:?}");
        sleep(Duration::from_millis(5)).await;
    }
}
