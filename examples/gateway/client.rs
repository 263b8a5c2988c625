//! The client towards the providers: TLS, HTTP/1.1 and HTTP/2, through a proxy where the environment says so.
use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use http::{HeaderValue, Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::{
            Client,
            connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::Matcher,
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use pin_project::pin_project;
use tokio::net::TcpStream;
use tollgate::BoxError;
use tower::{Service, timeout::Timeout, util::BoxCloneSyncService};

use crate::config::{ConfigError, TargetConfig};

/// The client.
pub type Http = Client<Secured, Body>;

/// Makes connections, TLS included, in time or not at all.
type Secured = BoxCloneSyncService<Uri, MaybeHttpsStream<Stream>, BoxError>;

/// `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, in capitals or not.
#[derive(Clone)]
pub struct Proxies(Arc<Matcher>);

/// A proxy's address may hold a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies")
    }
}

impl Proxies {
    /// Those of the environment.
    #[must_use]
    pub fn from_env() -> Self {
        Self(Arc::new(Matcher::from_env()))
    }

    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new(Matcher::builder().build()))
    }

    /// One for both schemes.
    #[must_use]
    pub fn all(url: &str, except: &str) -> Self {
        Self(Arc::new(Matcher::builder().all(url).no(except).build()))
    }

    /// What requests to a target without TLS show the proxy; those with TLS do so when the tunnel is made.
    ///
    /// # Errors
    ///
    /// If the proxy of this target is of a kind that is not spoken here.
    pub fn authorization(&self, target: &TargetConfig) -> Result<Option<HeaderValue>, ConfigError> {
        let Ok(origin) = target.origin.parse::<Uri>() else {
            return Ok(None);
        };
        let Some(proxy) = self.0.intercept(&origin) else {
            return Ok(None);
        };
        if proxy.uri().scheme() != Some(&Scheme::HTTP) {
            return Err(ConfigError::new(format!(
                "the proxy that the environment names for `{}` must be an http:// one",
                target.name
            )));
        }
        let plain = origin.scheme() == Some(&Scheme::HTTP);
        Ok(proxy.basic_auth().filter(|_| plain).cloned())
    }
}

/// Makes a client: of HTTP/1.1, or of HTTP/2 also without TLS.
#[must_use]
pub fn client(connect: Duration, proxies: &Proxies, http2: bool) -> Http {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let tls = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http();
    let tcp = Connector {
        tcp,
        proxies: proxies.clone(),
    };
    // One connection would carry all calls to a target: callers who do not read could hold up all others, and calls beyond
    // the server's number of streams would wait where nobody sees them. So HTTP/2 is for who asks for it.
    let connector = match http2 {
        true => tls.enable_http2().wrap_connector(tcp),
        false => tls.enable_http1().wrap_connector(tcp),
    };
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(1_024)
        .http2_only(http2)
        // Room for a thousand callers who do not read.
        .http2_initial_stream_window_size(256 << 10)
        .http2_initial_connection_window_size(256 << 20)
        .http2_keep_alive_interval(Duration::from_secs(20))
        // TLS and the proxy's answer count too.
        .build(BoxCloneSyncService::new(Timeout::new(connector, connect)))
}

/// Connects to where a request goes, or to the proxy in front of it.
#[derive(Clone, Debug)]
pub struct Connector {
    tcp: HttpConnector,
    proxies: Proxies,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.0.intercept(&to) else {
            let direct = self.tcp.call(to);
            return Box::pin(async move {
                Ok(Stream {
                    inner: direct.await?,
                    proxied: false,
                })
            });
        };
        if to.scheme() == Some(&Scheme::HTTPS) {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
            if let Some(shown) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(shown.clone());
            }
            let tunnelling = tunnel.call(to);
            return Box::pin(async move {
                Ok(Stream {
                    inner: tunnelling.await?,
                    proxied: false,
                })
            });
        }
        let connecting = self.tcp.call(proxy.uri().clone());
        Box::pin(async move {
            Ok(Stream {
                inner: connecting.await?,
                proxied: true,
            })
        })
    }
}

/// A connection. Through a proxy and without TLS, requests name their whole address.
#[pin_project]
#[derive(Debug)]
pub struct Stream {
    #[pin]
    inner: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().inner.poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write_vectored(cx, bufs)
    }
}
