//! Connections: accepted, served over HTTP/1.1 or HTTP/2, and drained in the end.
use std::{convert::Infallible, future::Future, io, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tower::ServiceExt;

use crate::patience::{Answer, Calls, Patient};

/// How long callers may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// Before they say anything, and for the head of a request.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Before they take more of an answer.
    pub write: Duration,
}

impl Default for Silence {
    /// 30 s, 75 s and 5 min: a proxy in front keeps connections for 60 s, and must be the one who closes them.
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(300),
        }
    }
}

/// Requests of one HTTP/2 connection at once.
const STREAMS: u32 = 1_024;
/// Connections at once.
const CONNECTIONS: usize = 16_384;

/// Serves until `stop`, then lets answers under way end, for `drain` at most. True if all of them did.
///
/// HTTP/2 is told from HTTP/1.1 by its first bytes (prior knowledge): there is no TLS on this side.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = ()>,
    drain: Duration,
    silence: Silence,
) -> bool {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let (open, closing) = watch::channel(());
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(silence.idle);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(64 << 10)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                refused(&error).await;
                continue;
            }
        };
        // A token a packet is what streaming is about.
        let _ = socket.set_nodelay(true);
        let app = app.clone();
        let calls = Calls::default();
        let begun = calls.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let open = begun.begin();
            let answer = app.clone().oneshot(request.map(Body::new));
            async move { Ok::<_, Infallible>(answer.await?.map(|body| Answer { body, open })) }
        });
        let (builder, watcher, mut closing) =
            (builder.clone(), graceful.watcher(), closing.clone());
        connections.spawn(async move {
            // Who has said nothing by the time it ends is not waited for.
            let spoken = tokio::select! {
                spoken = begins(&socket, silence.head) => spoken,
                _ = closing.changed() => None,
            };
            let head = match spoken {
                None => return,
                Some(Spoken::Http1) => silence.head,
                // It has pings of its own, and heads among frames.
                Some(Spoken::Http2) => Duration::MAX,
            };
            let socket = Patient::new(TokioIo::new(socket), calls, head, silence.write);
            let connection = builder.serve_connection(socket, service);
            let connection = watcher.watch(connection.into_owned());
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection ended");
            }
        });
    }
    drop((listener, open));
    let all = tokio::time::timeout(drain, graceful.shutdown()).await;
    // What outlasts this is cut, and has come to its end when this returns.
    connections.shutdown().await;
    all.is_ok()
}

enum Spoken {
    Http1,
    Http2,
}

/// Which HTTP a caller speaks, if he says enough in time to tell: the builder itself waits for that for ever.
async fn begins(socket: &TcpStream, head: Duration) -> Option<Spoken> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let told = async {
        let mut first = [0; PREFACE.len()];
        loop {
            match socket.peek(&mut first).await {
                Ok(0) | Err(_) => return None,
                Ok(n) if n < PREFACE.len() && PREFACE.starts_with(&first[..n]) => {
                    // There is something to read already, so readiness says nothing.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(_) if first == PREFACE => return Some(Spoken::Http2),
                Ok(_) => return Some(Spoken::Http1),
            }
        }
    };
    tokio::time::timeout(head, told).await.ok().flatten()
}

/// Out of file descriptors, most likely: others must close first.
async fn refused(error: &io::Error) {
    let of_one = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !of_one {
        tracing::warn!(%error, "cannot accept connections");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
