//! A gateway that runs: its listeners, its state, its end.
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, routing::any};
use futures_util::future::join_all;
use http::{Response, StatusCode};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tollgate::wire::prompt::{Dialect, Endpoint};

use crate::{
    admin, answer,
    client::Proxies,
    config::{ChainConfig, Config, ConfigError, DigestKey},
    gather::Room,
    keys::Keys,
    measures::Measures,
    place::Place,
    proxy,
    refusals::Refusals,
    serve::{self, Silence},
    sinks::Sinks,
    stack::Stacks,
};

/// How long it may take until what was cut is at its end.
const CUT: Duration = Duration::from_secs(2);
/// How long records may take to be written at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// How long whoever looks at the pages may do so after that.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// What all requests share.
#[derive(Debug)]
pub struct App {
    pub(crate) config: Config,
    pub(crate) keys: Keys,
    pub(crate) places: Vec<Place>,
    pub(crate) chains: Vec<ChainConfig>,
    pub(crate) stacks: Stacks,
    pub(crate) room: Room,
    /// Some limit is one of certain models.
    pub(crate) by_model: bool,
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) refusals: Refusals,
    pub(crate) measures: Measures,
    pub(crate) since: Instant,
    pub(crate) draining: AtomicBool,
}

/// Azure's deployments are OpenAI's shapes.
fn family(dialect: Dialect) -> Dialect {
    match dialect {
        Dialect::Azure => Dialect::OpenAi,
        other => other,
    }
}

impl App {
    /// The chain that serves such a request.
    pub(crate) fn chain(
        &self,
        endpoint: Endpoint,
        dialect: Dialect,
        model: Option<&str>,
    ) -> Option<usize> {
        if matches!(endpoint, Endpoint::Other | Endpoint::Deferred) {
            return None;
        }
        self.chains.iter().position(|chain| {
            let named =
                model.is_some_and(|model| chain.models.iter().any(|other| **other == *model));
            chain.dialect == family(dialect) && (chain.models.is_empty() || named)
        })
    }

    /// The first target that speaks it and has a place for the path.
    pub(crate) fn default_target(&self, dialect: Dialect, path: &str) -> Option<usize> {
        let mut targets = self.config.targets.iter().zip(&self.places);
        targets.position(|(target, place)| {
            target.dialect == family(dialect) && target.path.is_none() && place.takes(path)
        })
    }

    /// Requests under way.
    pub(crate) fn under_way(&self) -> usize {
        self.config.max_requests - self.requests.available_permits()
    }
}

/// A gateway that listens. Dropped, it stops at once.
#[derive(Debug)]
pub struct Gateway {
    app: Arc<App>,
    addr: SocketAddr,
    admin: SocketAddr,
    public: Listening,
    /// The pages, where they have an address of their own: they tell how the end goes, so theirs comes last.
    private: Option<Listening>,
    upkeep: JoinHandle<()>,
}

/// A listener that serves until it is told to stop.
#[derive(Debug)]
struct Listening {
    stop: watch::Sender<bool>,
    task: JoinHandle<bool>,
}

impl Listening {
    fn on(listener: TcpListener, routes: Router, drain: Duration) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let stopped = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let task = serve::serve(listener, routes, stopped, drain, Silence::default());
        let task = tokio::spawn(task);
        Self { stop, task }
    }

    /// True if all answers came to their end.
    async fn stop(&mut self) -> bool {
        let _ = self.stop.send(true);
        (&mut self.task).await.unwrap_or(false)
    }
}

impl Gateway {
    /// Opens its files, builds its layers and listens. Proxies are those of the environment.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub async fn start(config: Config) -> Result<Self, ConfigError> {
        Self::start_behind(config, Proxies::from_env()).await
    }

    /// The same behind other proxies.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub async fn start_behind(config: Config, proxies: Proxies) -> Result<Self, ConfigError> {
        if let Some(DigestKey(key)) = config.digest_key {
            // A second gateway of the same process has the same key, or none.
            let _ = tollgate::principal::Principal::set_key(key);
        }
        // For TLS to a Redis server. A program that has chosen another keeps it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let measures = Measures::install();
        let sinks = Sinks::open(&config)?;
        let stacks = Stacks::new(&config, &proxies, sinks).await?;
        let places = config
            .targets
            .iter()
            .map(Place::new)
            .collect::<Result<_, _>>()?;
        let app = Arc::new(App {
            keys: config.keys.clone(),
            places,
            chains: config.chains.clone(),
            stacks,
            room: Room::new(&config),
            by_model: config.any_by_model(),
            requests: Arc::new(Semaphore::new(config.max_requests)),
            refusals: Refusals::default(),
            measures,
            since: Instant::now(),
            draining: AtomicBool::new(false),
            config,
        });
        let config = &app.config;
        let public = bind(config.listen).await?;
        let private = match config.admin_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let wrong = |error: io::Error| ConfigError::new(error.to_string());
        let addr = public.local_addr().map_err(wrong)?;
        let admin = private
            .as_ref()
            .map_or(Ok(addr), TcpListener::local_addr)
            .map_err(wrong)?;
        let local = admin.ip().is_loopback();
        let mut routes = Router::new()
            .route("/v1", any(proxy::serve))
            .route("/v1/{*rest}", any(proxy::serve))
            .route("/v1beta/{*rest}", any(proxy::serve))
            .route("/v2/{*rest}", any(proxy::serve))
            .merge(admin::health());
        if private.is_none() {
            routes = routes.merge(admin::pages(local));
        }
        let whole =
            |routes: Router<Arc<App>>| routes.fallback(nothing).with_state(Arc::clone(&app));
        let pages = || whole(admin::health().merge(admin::pages(local)));
        let private = private.map(|private| Listening::on(private, pages(), LOOKED_AT));
        let public = Listening::on(public, whole(routes), config.drain);
        let upkeep = tokio::spawn(app.measures.clone().upkeep());
        Ok(Self {
            upkeep,
            app,
            addr,
            admin,
            public,
            private,
        })
    }

    /// Where callers come in.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the status page is.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Its state.
    #[must_use]
    pub fn handles(&self) -> &crate::stack::Handles {
        &self.app.stacks.handles
    }

    /// Requests under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.app.under_way()
    }

    /// Says that it is not ready and serves on for `drain_delay`; then accepts nothing more and waits for answers under
    /// way; then for the sinks and the store. True if all answers came to their end.
    pub async fn stop(mut self) -> bool {
        self.app.draining.store(true, Ordering::Relaxed);
        sleep(self.app.config.drain_delay).await;
        let all = self.public.stop().await;
        // Streams of a cut HTTP/2 connection end a moment after it, and are recorded when they do.
        let ended = async {
            while self.app.under_way() > 0 {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = timeout(CUT, ended).await;
        let handles = &self.app.stacks.handles;
        let closing = handles.stores.iter().map(|(of, store)| async move {
            if !store.close().await {
                tracing::warn!(of, "the server of shared limits did not hear what was used");
            }
        });
        tokio::join!(handles.sinks.flush(FLUSH), join_all(closing));
        if let Some(private) = &mut self.private {
            private.stop().await;
        }
        all
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.upkeep.abort();
        self.public.task.abort();
        if let Some(private) = &self.private {
            private.task.abort();
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ConfigError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| ConfigError::new(format!("cannot listen on {address}: {error}")))
}

async fn nothing() -> Response<Body> {
    let message = "There is nothing here; providers' paths begin with /v1, /v1beta or /v2";
    answer::error(
        Endpoint::Other,
        StatusCode::NOT_FOUND,
        "not_found",
        message,
        None,
    )
}
