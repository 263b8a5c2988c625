//! The client: hyper-util's, with TLS through rustls, under the four layers.
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error as ClientError, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tollgate::{
    BoxError, Budget, Ledger, Limit, ModelChain, ModelFallbackLayer, RateLimitPolicy,
    RetryOnRateLimitLayer, RetryStats, TokenBudgetLayer, UsageRecorderLayer, UsageTotals,
    classify::HyperUtil, fallback::FallbackPolicy, price::PriceTable, timeouts::Timeouts,
};
use tower::{Service, ServiceBuilder};

use crate::{args::Job, tally::Tally, wire::Wire};

/// A service that is called with a row's request: what the run needs to know of a stack.
macro_rules! client {
    () => {
        impl Service<
            Request<Full<Bytes>>,
            Response = Response<impl Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin>,
            Error = ClientError,
            Future: Future + Send,
        > + Clone
        + Send
        + 'static
    };
}

/// The longest wait that a row may be put to before it is tried again. A longer one, as until a daily limit is
/// free again, makes it an error row, for `--resume` on another day.
const WAIT_CAP: Duration = Duration::from_secs(600);

/// A request's row gives up no sooner than the file is done.
const FOREVER: Duration = Duration::from_secs(366 * 86_400);

/// The limits that hold for the job: those that were told, and for the others what the headers say.
///
/// # Errors
///
/// A sentence about a limit that cannot be.
pub fn budget(job: &Job) -> Result<Budget, String> {
    let requests = job.requests.map(|n| Limit::requests(n).per(job.window));
    let tokens = job.tokens.map(|n| Limit::tokens(n).per(job.window));
    Budget::builder()
        .learn(requests.is_none() || tokens.is_none())
        .learn_period(job.window)
        .limits(requests.into_iter().chain(tokens))
        // The rows under way bound the queue; what waits for its turn is what the job is about.
        .queue_len(usize::MAX)
        .queue_bytes(u64::MAX)
        .max_wait(FOREVER)
        .build()
        .map_err(|error| error.to_string())
}

/// The models of the chain; `None` if there are none.
///
/// # Errors
///
/// A sentence about a chain that cannot be.
pub fn chain(job: &Job) -> Result<Option<ModelChain>, String> {
    if job.fallback.is_empty() {
        return Ok(None);
    }
    let models = job.fallback.iter().map(|model| model.trim());
    match ModelChain::new(models) {
        Ok(chain) => Ok(Some(chain)),
        Err(error) => Err(format!("--fallback: {error}")),
    }
}

/// What the stack is made of.
pub struct Stack {
    /// Admits.
    pub budget: Budget,
    /// Adds up.
    pub usage: UsageTotals,
    /// Counts attempts.
    pub retries: RetryStats,
    /// Keeps.
    pub ledger: Option<Ledger>,
    /// Counts.
    pub tally: Tally,
    /// Requests for one row.
    pub max_attempts: u32,
    /// Rows under way.
    pub concurrency: usize,
    /// Until an answer's headers, and between two pieces of its body.
    pub timeout: Duration,
}

impl Stack {
    /// Recorder, retry, budget, client.
    pub fn plain(self) -> client!() {
        let recorder = self.recorder();
        ServiceBuilder::new()
            .layer(recorder)
            .service(self.patient())
    }

    /// Recorder, fallback, retry, budget, client.
    pub fn with_fallback(self, chain: ModelChain) -> client!() {
        let policy = FallbackPolicy::default()
            .attempts(self.max_attempts)
            // A row that waits for its turn is not served sooner by another model: they share the limits.
            .max_wait(FOREVER);
        ServiceBuilder::new()
            .layer(self.recorder())
            .layer(
                ModelFallbackLayer::new(chain)
                    .policy(policy)
                    .classify(HyperUtil),
            )
            .service(self.patient())
    }

    fn recorder(&self) -> UsageRecorderLayer {
        let totals = UsageRecorderLayer::new(self.usage.clone()).prices(PriceTable::shipped());
        match &self.ledger {
            Some(ledger) => totals.and(ledger.clone()),
            None => totals,
        }
    }

    /// What waits and tries again, down to the socket.
    fn patient(self) -> client!() {
        let retry = RateLimitPolicy::new()
            .attempts(self.max_attempts)
            .wait_cap(WAIT_CAP)
            .timeouts(Timeouts::new().first_byte(self.timeout).idle(self.timeout))
            // The attempts of each row are bounded; a bound on all retries together would lose rows.
            .without_retry_budget();
        let wire = Wire::new(http(self.concurrency), self.tally, self.budget.clone());
        ServiceBuilder::new()
            .layer(
                RetryOnRateLimitLayer::new(retry)
                    .stats(self.retries)
                    .classify(HyperUtil),
            )
            .layer(TokenBudgetLayer::new(self.budget).classify(HyperUtil))
            .service(wire)
    }
}

/// Makes the client itself, with room for a connection for each row under way.
///
/// HTTP/1.1 only: one connection a request, so a connection that breaks costs one answer and not all.
fn http(concurrency: usize) -> Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(Duration::from_secs(10)));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(concurrency)
        .build(connector)
}
