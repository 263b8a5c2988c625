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

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};
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

pub(crate) fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The program, with its own libraries if it is unpacked.
fn command() -> Command {
    let program = program();
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/.installed/redis/usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(&program);
    if libraries.exists() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn spawn(mut command: Command) -> Child {
    command.spawn().unwrap_or_else(|why| {
        let program = command.get_program();
        panic!("{program:?} does not start ({why}); run `bash tests/install.sh` first")
    })
}

fn start(port: u16, options: &[String]) -> Child {
    let port = port.to_string();
    let mut command = command();
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
        .args(options);
    spawn(command)
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(options: &[&str]) -> Self {
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let port = free();
        let server = Self {
            child: start(port, &options),
            port,
            options,
        };
        server.ready().await;
        server
    }

    /// A sentinel that watches this server under the name `acme`.
    pub(crate) async fn sentinel(&self, folder: &Path) -> Self {
        let port = free();
        let file = folder.join("sentinel.conf");
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor acme 127.0.0.1 {master} 1\n\
             sentinel auth-pass acme secret\nsentinel down-after-milliseconds acme 300\nsentinel failover-timeout acme 3000\n",
            folder = folder.display(),
            master = self.port,
        );
        std::fs::write(&file, settings).unwrap();
        let mut command = command();
        command.arg(file).arg("--sentinel");
        let sentinel = Self {
            child: spawn(command),
            port,
            options: Vec::new(),
        };
        sentinel.ready().await;
        sentinel
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
        let mut secret = self.options.iter().skip_while(|it| *it != "--requirepass");
        let login = secret.nth(1).map(|secret| format!(":{secret}@"));
        format!(
            "redis://{}127.0.0.1:{}",
            login.unwrap_or_default(),
            self.port
        )
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

/// Passes bytes on, each way so much later.
pub(crate) async fn slow_way(port: u16, delay: Duration) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(pass(from_client, to_server, delay));
            tokio::spawn(pass(from_server, to_client, delay));
        }
    });
    near
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
) {
    let mut buffer = vec![0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        sleep(delay).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
}
