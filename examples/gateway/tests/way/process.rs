//! The program itself: its memory, and its end.
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt;
use serde_json::json;
use tollgate_sim::{Fault, SimBuilder, server::Server};

use crate::common::{Http, WIDE, http1, http2, sim, streamed};

/// The program, with a provider behind it that is this test's own.
struct Program {
    child: Child,
    url: String,
    provider: Server,
    _dir: tempfile::TempDir,
}

impl Program {
    async fn start(sim: SimBuilder, head: &str) -> Self {
        Self::start_with(sim, head, &[]).await
    }

    async fn start_with(sim: SimBuilder, head: &str, more: &[&str]) -> Self {
        let provider = Server::bind("127.0.0.1:0", sim.build())
            .await
            .expect("a provider");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("gateway.toml");
        let text = format!(
            "listen = \"127.0.0.1:0\"\n{head}\n[[target]]\nname = \"sim\"\norigin = \"{}\"\n{WIDE}\n",
            provider.url()
        );
        std::fs::write(&path, text).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate-gateway"))
            .arg("--config")
            .arg(&path)
            .args(more)
            .env("NO_PROXY", "*")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let line = lines.next().expect("a line").expect("of text");
        let url = line
            .strip_prefix("listening on ")
            .expect("where")
            .to_owned();
        // A soft limit of 1,024 open files is common, and a thousand streams are more.
        for pid in [child.id(), std::process::id()] {
            let _ = Command::new("prlimit")
                .args(["--nofile=8192:", "--pid", &pid.to_string()])
                .status();
        }
        Self {
            child,
            url,
            provider,
            _dir: dir,
        }
    }

    fn post(&self) -> Request<Body> {
        let mut document = streamed();
        document["max_tokens"] = json!(1_000_000);
        Request::post(format!("{}/v1/chat/completions", self.url))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(document.to_string()))
            .expect("a request")
    }

    /// Resident memory, in KiB.
    fn memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("a line");
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .expect("a number")
    }

    fn terminate(&self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill").success());
    }

    async fn ended(&mut self) -> std::process::ExitStatus {
        until(|| self.child.try_wait().expect("a child")).await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn until<T>(mut done: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(done) = done() {
                return done;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .expect("in a minute, surely")
}

/// A thousand streams, each of which has got its first frames and then stands still.
async fn thousand(program: &Program, client: &Http) -> u64 {
    let begun = Arc::new(AtomicU64::new(0));
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let (call, begun) = (client.request(program.post()), Arc::clone(&begun));
        streams.spawn(async move {
            let mut body = call.await.expect("a head").into_body();
            body.frame().await.expect("a frame").expect("a good one");
            begun.fetch_add(1, Relaxed);
            while let Some(Ok(_)) = body.frame().await {}
        });
    }
    until(|| (begun.load(Relaxed) == 1_000).then_some(())).await;
    assert_eq!(program.provider.provider().totals().in_flight, 1_000);
    let memory = program.memory();
    // All hang up at once.
    streams.shutdown().await;
    until(|| (program.provider.provider().totals().in_flight == 0).then_some(())).await;
    memory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_take_little_memory_and_a_second_thousand_takes_no_more() {
    let stalled = sim().reply_tokens(100).on(|_| Fault::StallStream {
        events: 20,
        cut_after: None,
    });
    let program = Program::start(stalled.keep_requests(10), "").await;
    let before = program.memory();
    let client = http2();
    let first = thousand(&program, &client).await;
    let second = thousand(&program, &client).await;
    let third = thousand(&program, &client).await;
    println!(
        "resident: {before} KiB at first, {first}, {second} and {third} KiB with a thousand streams"
    );
    assert!(
        first < before + 96 * 1_024,
        "{before} KiB, then {first}: less than 96 KiB a stream"
    );
    assert!(
        third < first + first / 4,
        "{first} KiB, then {second}, then {third}"
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_for() {
    // Some 60 MB, as fast as it can be made.
    let endless = sim().reply_tokens(250_000).output_share(1.0);
    let program = Program::start(endless, "").await;
    let before = program.memory();
    let mut body = http1()
        .request(program.post())
        .await
        .expect("a head")
        .into_body();
    let frame = body.frame().await.expect("a frame").expect("a good one");
    assert!(frame.is_data());
    // Whoever reads ahead does so now.
    let mut most = 0;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        most = most.max(program.memory());
    }
    println!("resident: {before} KiB, then {most} KiB");
    assert!(most < before + 16 * 1_024, "{before} KiB, then {most}");
    assert_eq!(
        program.provider.provider().totals().in_flight,
        1,
        "it is not read to its end"
    );
}

#[tokio::test]
async fn on_sigterm_a_running_stream_ends_whole_and_nobody_new_comes_in() {
    let slow = sim().reply_tokens(40).pace(Duration::from_millis(50));
    let mut program = Program::start(slow, "drain = \"30s\"").await;
    let mut body = http1()
        .request(program.post())
        .await
        .expect("a head")
        .into_body();
    let mut whole = body
        .frame()
        .await
        .expect("a frame")
        .expect("a good one")
        .into_data()
        .expect("data")
        .to_vec();
    program.terminate();
    let addr = program.url.trim_start_matches("http://").to_owned();
    until(|| std::net::TcpStream::connect(&addr).is_err().then_some(())).await;
    whole.extend_from_slice(&body.collect().await.expect("a whole stream").to_bytes());
    assert!(whole.ends_with(b"data: [DONE]\n\n"));
    assert!(program.ended().await.success());
}

#[tokio::test]
async fn draining_is_bounded_and_what_is_cut_does_not_look_whole() {
    let hour = sim().reply_tokens(40).pace(Duration::from_secs(3_600));
    let dir = tempfile::tempdir().expect("a directory");
    let jsonl = dir.path().join("usage.jsonl");
    let head = format!("drain = \"200ms\"\nsinks.jsonl = {jsonl:?}");
    let mut program = Program::start(hour, &head).await;
    let mut body = http1()
        .request(program.post())
        .await
        .expect("a head")
        .into_body();
    body.frame().await.expect("a frame").expect("a good one");
    program.terminate();
    assert!(body.collect().await.is_err(), "it is cut, and says so");
    assert!(program.ended().await.success());
    let lines = std::fs::read_to_string(&jsonl).expect("lines");
    assert_eq!(lines.lines().count(), 1, "and it is recorded: {lines}");
}

#[tokio::test]
async fn a_signal_ends_it_at_once_when_it_is_stopping_for_whatever_reason() {
    let hour = || sim().reply_tokens(40).pace(Duration::from_secs(3_600));
    let args: [&[&str]; 2] = [&["--stop-after", "3"], &[]];
    for args in args {
        let mut program = Program::start_with(hour(), "drain = \"1h\"", args).await;
        let mut body = http1()
            .request(program.post())
            .await
            .expect("a head")
            .into_body();
        body.frame().await.expect("a frame").expect("a good one");
        if args.is_empty() {
            program.terminate();
        }
        let addr = program.url.trim_start_matches("http://").to_owned();
        until(|| std::net::TcpStream::connect(&addr).is_err().then_some(())).await;
        program.terminate();
        assert_eq!(program.ended().await.code(), Some(130), "{args:?}");
    }
}

#[test]
fn what_is_wrong_is_one_sentence_on_standard_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bad.toml");
    std::fs::write(&path, "listen = \"0.0.0.0:80\"\n").expect("written");
    let run = Command::new(env!("CARGO_BIN_EXE_tollgate-gateway"))
        .arg("--config")
        .arg(&path)
        .output()
        .expect("it runs");
    assert_eq!(run.status.code(), Some(2));
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(
        said.contains("bad.toml, line 1: without a [[key]]") && said.lines().count() == 1,
        "{said}"
    );
}
