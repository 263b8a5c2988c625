//! The four layers around the client, put together from the configuration.
use std::{
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper_util::client::legacy;
use tollgate::{
    BoxError, Budget, FallbackHealth, ModelFallbackLayer, RateLimitPolicy, RedisBudget,
    RetryOnRateLimitLayer, RetryStats, UsageRecorderLayer, call::Call, classify::HyperUtil,
    fallback::FallbackPolicy,
};
use tower::{
    Layer, Service, ServiceExt,
    util::{BoxCloneSyncService, Oneshot},
};

use crate::{
    books::{Books, Whose},
    client::{self, Proxies},
    config::{Config, ConfigError},
    sinks::Sinks,
};

/// A stack, its type forgotten: there is one for each chain, and they differ.
pub type Stack = BoxCloneSyncService<Request<Body>, Response<Body>, legacy::Error>;

/// Left in a request by who put it at a target: the target's place in the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Placed(pub usize);

/// The state of the layers, to be looked at.
#[derive(Clone, Debug)]
pub struct Handles {
    /// Of each target, by name.
    pub targets: Vec<(Arc<str>, Budget)>,
    /// The gateway's own limits.
    pub own: Option<Budget>,
    /// What of these is shared with other gateways, by name.
    pub stores: Vec<(String, RedisBudget)>,
    /// What was tried again.
    pub retries: RetryStats,
    /// Who is left alone.
    pub health: FallbackHealth,
    /// What was used, and where records go.
    pub sinks: Sinks,
}

/// All stacks.
#[derive(Clone, Debug)]
pub struct Stacks {
    /// For requests that no chain serves.
    pub plain: Stack,
    /// One for each chain.
    pub chains: Vec<Stack>,
    /// Their state.
    pub handles: Handles,
}

impl Stacks {
    /// Builds them.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub async fn new(
        config: &Config,
        proxies: &Proxies,
        sinks: Sinks,
    ) -> Result<Self, ConfigError> {
        let prices = config.prices.as_ref();
        let mut targets = Vec::new();
        let mut ends = Vec::new();
        let mut stores = Vec::new();
        for target in &config.targets {
            let whose = Whose::Target {
                name: &target.name,
                learn: target.learn,
            };
            let books = Books::open(config, whose, &target.limits).await?;
            let http = client::client(config.connect, proxies, target.http2);
            let shown = proxies.authorization(target)?;
            let http = http.map_request(move |request| show(request, shown.as_ref()));
            ends.push(books.around(http, config));
            targets.push((Arc::clone(&target.name), books.shown()));
            stores.extend(books.store(whose));
        }
        let to = ToTarget {
            names: targets.iter().map(|(name, _)| Arc::clone(name)).collect(),
            ends: ends.into(),
        };
        let own = match config.limits.is_empty() {
            true => None,
            false => Some(Books::open(config, Whose::Gateway, &config.limits).await?),
        };
        let inner = match &own {
            Some(books) => books.around(to, config),
            None => boxed(to),
        };
        stores.extend(own.iter().filter_map(|books| books.store(Whose::Gateway)));
        let own = own.map(|books| books.shown());
        let retries = RetryStats::new();
        let policy = RateLimitPolicy::new()
            .attempts(config.attempts)
            .wait_cap(config.wait_cap)
            .replay_cap(config.max_body)
            .timeouts(config.timeouts);
        let retry = RetryOnRateLimitLayer::new(policy)
            .stats(retries.clone())
            .classify(HyperUtil);
        // One service, so that all chains share its gates: a rate limit is a fact about the key.
        let inner = retry.layer(inner);
        let mut recorder = UsageRecorderLayer::new(sinks.totals.clone()).read_cap(config.max_body);
        if let Some(prices) = prices {
            recorder = recorder.prices(prices.clone());
        }
        let recorder = sinks.attach(recorder);
        let health = FallbackHealth::new();
        let policy = FallbackPolicy::default()
            .attempts(config.attempts)
            .replay_cap(config.max_body);
        let chains = config.chains.iter().map(|chain| {
            let fallback = ModelFallbackLayer::new(chain.chain.clone())
                .policy(policy.clone())
                .health(health.clone())
                .classify(HyperUtil);
            boxed(recorder.layer(fallback.layer(inner.clone())))
        });
        Ok(Self {
            chains: chains.collect(),
            plain: boxed(recorder.layer(inner)),
            handles: Handles {
                targets,
                own,
                stores,
                retries,
                health,
                sinks,
            },
        })
    }
}

/// A proxy between here and a target without TLS wants to know who we are.
fn show(mut request: Request<Body>, shown: Option<&HeaderValue>) -> Request<Body> {
    if let Some(shown) = shown {
        request
            .headers_mut()
            .insert(header::PROXY_AUTHORIZATION, shown.clone());
    }
    request
}

pub(crate) fn boxed<S, B>(service: S) -> Stack
where
    S: Service<Request<Body>, Response = Response<B>, Error = legacy::Error>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    BoxCloneSyncService::new(service.map_response(|answer: Response<B>| answer.map(Body::new)))
}

/// Hands a request to the budget and the client of the target that it was put at, or that a chain moved it to.
#[derive(Clone, Debug)]
struct ToTarget {
    names: Arc<[Arc<str>]>,
    ends: Arc<[Stack]>,
}

impl ToTarget {
    fn find(&self, request: &mut Request<Body>) -> usize {
        let steering = Call::of(request.extensions_mut()).steering();
        let moved = steering
            .target
            .and_then(|name| self.names.iter().position(|other| *other == name));
        let placed = || request.extensions().get::<Placed>().map(|placed| placed.0);
        // One that was put nowhere cannot be: the proxy puts every request.
        moved
            .or_else(placed)
            .unwrap_or_default()
            .min(self.ends.len() - 1)
    }
}

impl Service<Request<Body>> for ToTarget {
    type Response = Response<Body>;
    type Error = legacy::Error;
    type Future = Oneshot<Stack, Request<Body>>;

    // Which one is asked is known with the request only, so it is made ready then. Budgets always are.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let end = self.ends[self.find(&mut request)].clone();
        end.oneshot(request)
    }
}
