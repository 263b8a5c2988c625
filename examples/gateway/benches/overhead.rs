//! The gateway beside a bare reverse proxy of the same shape (axum, hyper-util, one buffered request), in one run: requests a
//! second and CPU time a request, 64 at once. Client, proxy and provider are processes of their own.
//!
//! ```sh
//! cargo bench -p tollgate-gateway --bench overhead
//! ```
#![allow(clippy::print_stdout)]
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    routing::any,
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, time::Instant};
use tollgate_gateway::serve;

type Http = Client<HttpConnector, Body>;

const AT_ONCE: usize = 64;
const ROUNDS: usize = 5;
const EVENTS: usize = 100;
const DOCUMENT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hello, and how are you today?"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17}}"#;
const EVENT: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello \"},\"finish_reason\":null}]}\n\n";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["provider"] => listen(Router::new().fallback(any(provide))).await,
        ["bare", origin] => listen(bare(origin)).await,
        ref rest => measure(rest.contains(&"--test")).await,
    }
}

async fn listen(app: Router) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!(
        "listening on http://{}",
        listener.local_addr().expect("an address")
    );
    let silence = serve::Silence::default();
    serve::serve(
        listener,
        app,
        std::future::pending(),
        Duration::ZERO,
        silence,
    )
    .await;
}

/// The same answer for everybody: a document, or a stream of a hundred events in one packet each.
async fn provide(request: Request<Body>) -> Response<Body> {
    let body = to_bytes(request.into_body(), 1 << 20)
        .await
        .expect("a request");
    if !body.windows(8).any(|part| part == b"\"stream\"") {
        let mut answer = Response::new(Body::from(DOCUMENT));
        answer.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        return answer;
    }
    let events = futures_util::stream::unfold(0, |at| async move {
        if at > EVENTS {
            return None;
        }
        tokio::task::yield_now().await;
        let event = if at == EVENTS {
            "data: [DONE]\n\n"
        } else {
            EVENT
        };
        Some((
            Ok::<_, std::io::Error>(Bytes::from_static(event.as_bytes())),
            at + 1,
        ))
    });
    let mut answer = Response::new(Body::from_stream(events));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    answer
}

/// What one writes without the layers.
fn bare(origin: &str) -> Router {
    let origin: Arc<str> = origin.into();
    let client: Http = Client::builder(TokioExecutor::new()).build_http();
    let proxy = async |State((client, origin)): State<(Http, Arc<str>)>, request: Request<Body>| {
        let (mut parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, 32 << 20).await else {
            return Err(StatusCode::BAD_REQUEST);
        };
        parts.uri = format!("{origin}{}", parts.uri.path())
            .parse()
            .map_err(|_| StatusCode::BAD_REQUEST)?;
        for name in [
            header::HOST,
            header::CONNECTION,
            header::TRANSFER_ENCODING,
            header::CONTENT_LENGTH,
        ] {
            parts.headers.remove(name);
        }
        let answer = client
            .request(Request::from_parts(parts, Body::from(body)))
            .await;
        answer
            .map(|answer| answer.map(Body::new))
            .map_err(|_| StatusCode::BAD_GATEWAY)
    };
    Router::new()
        .route("/v1/{*rest}", any(proxy))
        .with_state((client, origin))
}

/// A process that says where it listens.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .env("NO_PROXY", "*")
            .env("RUST_LOG", "warn")
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let url = line
            .trim()
            .strip_prefix("listening on ")
            .expect("where")
            .to_owned();
        Self { child, url }
    }

    /// User and system time, in microseconds. A tick is 10 ms on Linux.
    fn cpu(&self) -> f64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        let ticks = after
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<f64>().ok());
        ticks.sum::<f64>() * 10_000.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy)]
struct Figures {
    /// Requests a second.
    rate: f64,
    /// Microseconds of CPU in the proxy for a request.
    cpu: f64,
}

async fn measure(test: bool) {
    let own = std::env::current_exe().expect("a program");
    let provider = Process::start(Command::new(&own).arg("provider"));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("gateway.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[[target]]\nname = \"p\"\norigin = \"{}\"\n\
         limits = [{{ requests = 100_000_000, per = \"minute\" }}, {{ tokens = 100_000_000_000, per = \"minute\" }}]\n\
         [[limit]]\nrequests = 100_000_000\nper = \"minute\"\nscope = \"principal\"\n\
         [[chain]]\ncandidates = [{{ model = \"gpt-5-mini\" }}, {{ model = \"gpt-5-nano\" }}]\n[prices]\nshipped = true\n",
        provider.url
    );
    std::fs::write(&path, text).expect("written");
    let bare = Process::start(Command::new(&own).args(["bare", &provider.url]));
    let gateway = Process::start(
        Command::new(env!("CARGO_BIN_EXE_tollgate-gateway"))
            .arg("--config")
            .arg(&path),
    );
    println!(
        "| calls, 64 at once | bare: calls/s | gateway: calls/s | ratio | bare: CPU µs a call | gateway: CPU µs a call | added |"
    );
    println!("|---|---|---|---|---|---|---|");
    for stream in [false, true] {
        let calls = match (test, stream) {
            (true, _) => 200,
            (false, false) => 20_000,
            (false, true) => 1_000,
        };
        for process in [&bare, &gateway] {
            load(process, stream, calls / 4).await;
        }
        let (mut without, mut with) = (Vec::new(), Vec::new());
        // In turn, so that whatever else the machine does meets both.
        for _ in 0..if test { 1 } else { ROUNDS } {
            without.push(load(&bare, stream, calls).await);
            with.push(load(&gateway, stream, calls).await);
        }
        let (without, with) = (median(&without), median(&with));
        println!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} |",
            if stream {
                "streams of 100 events"
            } else {
                "documents"
            },
            without.rate,
            with.rate,
            with.rate / without.rate,
            without.cpu,
            with.cpu,
            with.cpu - without.cpu,
        );
    }
}

async fn load(process: &Process, stream: bool, calls: u64) -> Figures {
    let client: Http = Client::builder(TokioExecutor::new()).build_http();
    let left = Arc::new(AtomicU64::new(calls));
    let (cpu, begun) = (process.cpu(), Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, left) = (client.clone(), Arc::clone(&left));
        let url = format!("{}/v1/chat/completions", process.url);
        let streaming = if stream { "\"stream\":true," } else { "" };
        let body = format!(
            "{{\"model\":\"gpt-5-mini\",{streaming}\"max_tokens\":64,\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}",
            "Say hello. ".repeat(40)
        );
        tasks.spawn(async move {
            while left
                .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                let request = Request::post(&url)
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(Body::from(body.clone()));
                let answer = client
                    .request(request.expect("a request"))
                    .await
                    .expect("an answer");
                assert_eq!(answer.status(), 200);
                let mut body = answer.into_body();
                while let Some(frame) = body.frame().await {
                    frame.expect("a frame");
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no call fails");
    }
    let (time, cpu) = (begun.elapsed().as_secs_f64(), process.cpu() - cpu);
    Figures {
        rate: calls as f64 / time,
        cpu: cpu / calls as f64,
    }
}

fn median(all: &[Figures]) -> Figures {
    let middle = |value: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = all.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        rate: middle(|one| one.rate),
        cpu: middle(|one| one.cpu),
    }
}
