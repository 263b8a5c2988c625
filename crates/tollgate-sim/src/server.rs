//! The simulated provider on a socket: HTTP/1.1 and HTTP/2 without TLS.
//!
//! Beside the provider's own endpoints it serves `GET /sim/account` (the [`Summary`](crate::Summary) as JSON;
//! `?requests=true` adds every request) and `POST /sim/reset`.
//!
//! A fault that breaks a connection closes it; [`Fault::Refused`](crate::Fault::Refused) closes it before the
//! request is read, since it has been accepted by then.
//!
//! ```
//! use tollgate_sim::{SimProvider, server::Server};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let server = Server::bind("127.0.0.1:0", SimProvider::builder().requests(60).build()).await?;
//! println!("{}/v1/chat/completions", server.url());
//! server.stop().await;
//! # Ok(())
//! # }
//! ```
use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, ToSocketAddrs},
    sync::oneshot,
    task::JoinHandle,
};
use tower_service::Service;

use crate::{SimBody, SimError, SimProvider};

/// How long [`Server::stop`] waits for answers under way.
const GRACE: Duration = Duration::from_secs(5);

/// A provider that listens. Dropped, it stops at once.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    provider: SimProvider,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time.
    pub async fn bind(addr: impl ToSocketAddrs, provider: SimProvider) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(listener, provider.clone(), stopped));
        Ok(Self {
            addr,
            provider,
            stop: Some(stop),
            task,
        })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and the address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The provider that is served.
    #[must_use]
    pub fn provider(&self) -> &SimProvider {
        &self.provider
    }

    /// Accepts nothing more, and returns when the answers under way are done, after five seconds at most.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, provider: SimProvider, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let mut connections = tokio::task::JoinSet::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((socket, _)) = accepted else {
            // Out of file descriptors, most likely: others must close first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let provider = provider.clone();
        let service = service_fn(move |request| serve(provider.clone(), request));
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        let connection = graceful.watch(connection.into_owned());
        connections.spawn(async move {
            // A client that goes away, or a fault that cuts the connection, is no news.
            let _ = connection.await;
        });
    }
    drop(listener);
    // The connections that outlast the grace end with the set.
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

async fn serve(
    mut provider: SimProvider,
    request: Request<Incoming>,
) -> Result<Response<SimBody>, SimError> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/sim/account") => {
            let account = provider.account();
            let query = request.uri().query().unwrap_or_default();
            let mut document = serde_json::to_value(account.summary()).unwrap_or_default();
            if query
                .split('&')
                .any(|pair| matches!(pair, "requests" | "requests=true" | "requests=1"))
            {
                document["requests"] = serde_json::to_value(&account.requests).unwrap_or_default();
            }
            Ok(json(document.to_string()))
        }
        (&Method::POST, "/sim/reset") => {
            provider.reset();
            let mut response = Response::new(SimBody::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        // hyper drops what it has buffered when a body fails, the headers among it.
        _ => Ok(provider
            .call(request)
            .await?
            .map(SimBody::flush_before_break)),
    }
}

fn json(document: String) -> Response<SimBody> {
    let mut response = Response::new(SimBody::from(Bytes::from(document)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
