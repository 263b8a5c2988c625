//! A gateway that runs: its listeners, its state, its end.
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, body::Body, routing::any};
use http::{Response, StatusCode};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::Instant,
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
    serve,
    sinks::Sinks,
    stack::Stacks,
};

/// What all requests share.
#[derive(Debug)]
pub struct App {
    pub(crate) config: Config,
    pub(crate) keys: Keys,
    pub(crate) places: Vec<Place>,
    pub(crate) chains: Vec<ChainConfig>,
    pub(crate) stacks: Stacks,
    pub(crate) room: Room,
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
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<bool>>,
    upkeep: JoinHandle<()>,
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
            room: Room::new(config.max_body, config.max_buffered, config.request_body),
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
        let (stop, stopped) = watch::channel(false);
        let drain = config.drain;
        let run = |listener, routes: Router<Arc<App>>| {
            let routes = routes.fallback(nothing).with_state(Arc::clone(&app));
            let mut stopped = stopped.clone();
            let stop = async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            tokio::spawn(serve::serve(listener, routes, stop, drain))
        };
        let mut tasks = vec![run(public, routes)];
        if let Some(private) = private {
            tasks.push(run(private, admin::health().merge(admin::pages(local))));
        }
        let upkeep = tokio::spawn(app.measures.clone().upkeep());
        Ok(Self {
            upkeep,
            app,
            addr,
            admin,
            stop,
            tasks,
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

    /// Accepts nothing more, waits for answers under way, then for the sinks. True if all answers came to their end.
    pub async fn stop(mut self) -> bool {
        self.app.draining.store(true, Ordering::Relaxed);
        let _ = self.stop.send(true);
        let mut all = true;
        for task in std::mem::take(&mut self.tasks) {
            all &= task.await.unwrap_or(false);
        }
        self.app
            .stacks
            .handles
            .sinks
            .flush(self.app.config.drain)
            .await;
        all
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.upkeep.abort();
        for task in &self.tasks {
            task.abort();
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
