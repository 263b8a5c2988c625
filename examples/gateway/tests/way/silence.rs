//! Connections that say nothing, or too little.
use std::{future::pending, time::Duration};

use axum::{Router, body::Body, routing::post};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout},
};
use tollgate_gateway::serve::{Silence, serve};

const HOUR: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(40);

async fn connect(head: Duration, idle: Duration) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    // What it is sent comes back.
    let app = Router::new().route("/", post(|body: Body| async { body }));
    served(
        listener,
        app,
        Silence {
            head,
            idle,
            write: HOUR,
        },
    );
    TcpStream::connect(addr).await.expect("a connection")
}

fn served(listener: TcpListener, app: Router, silence: Silence) {
    tokio::spawn(serve(listener, app, pending(), HOUR, silence));
}

async fn ends(socket: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let end = socket.read_to_end(&mut rest);
    timeout(Duration::from_secs(20), end).await.is_ok()
}

async fn say(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).await.expect("written");
}

/// Until an answer's body has come.
async fn hear(socket: &mut TcpStream, text: &str) {
    let mut heard = Vec::new();
    while !heard.ends_with(text.as_bytes()) {
        let mut part = [0; 1_024];
        let read = socket.read(&mut part).await.expect("an answer");
        assert!(read > 0, "closed: {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&part[..read]);
    }
}

#[tokio::test]
async fn a_head_that_stalls_breaks_the_connection_the_first_one_and_a_later_one() {
    for first in [
        "",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none",
    ] {
        let mut socket = connect(SHORT, HOUR).await;
        if !first.is_empty() {
            say(&mut socket, first).await;
            hear(&mut socket, "one").await;
        }
        say(&mut socket, "POST / HTTP/1.1\r\nhost:").await;
        assert!(ends(&mut socket).await, "after {first:?}");
    }
    let mut socket = connect(SHORT, HOUR).await;
    assert!(ends(&mut socket).await, "it said nothing at all");
}

#[tokio::test]
async fn between_two_requests_and_within_a_body_there_is_more_time_than_for_a_head() {
    let mut socket = connect(SHORT, HOUR).await;
    for _ in 0..2 {
        say(
            &mut socket,
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\none",
        )
        .await;
        tokio::time::sleep(SHORT * 3).await;
        say(&mut socket, "two").await;
        hear(&mut socket, "onetwo").await;
        tokio::time::sleep(SHORT * 3).await;
    }
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_more_ends_at_last() {
    let mut socket = connect(HOUR, SHORT * 5).await;
    let begun = Instant::now();
    say(
        &mut socket,
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none",
    )
    .await;
    hear(&mut socket, "one").await;
    assert!(ends(&mut socket).await);
    assert!(begun.elapsed() >= SHORT, "not at once");
}

/// Says so when it is dropped.
struct Told(mpsc::Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (sender, mut gone) = mpsc::channel(1);
    let endless = move || {
        let told = Told(sender.clone());
        let parts = futures_util::stream::repeat_with(move || {
            let _ = &told;
            Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 64 << 10]))
        });
        async { Body::from_stream(parts) }
    };
    let app = Router::new().route("/", post(endless));
    let (head, idle, write) = (HOUR, HOUR, SHORT);
    served(listener, app, Silence { head, idle, write });
    let mut socket = TcpStream::connect(addr).await.expect("a connection");
    say(&mut socket, "POST / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // Not a byte is read.
    let gone = timeout(Duration::from_secs(20), gone.recv()).await;
    assert!(gone.is_ok());
    drop(socket);
}

#[test]
fn a_proxy_in_front_closes_first() {
    let usual = Silence::default();
    assert!(usual.idle > Duration::from_secs(60), "nginx and ALB");
    assert!(usual.head <= Duration::from_secs(30));
}
