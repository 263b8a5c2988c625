//! The simulated provider as a tower service.
mod answering;
pub(crate) mod ask;
mod config;
mod desk;
mod errors;
mod future;
mod headers;
mod scopes;
mod ticket;

use std::{
    fmt,
    hash::{DefaultHasher, Hasher},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

pub use self::{ask::Endpoint, config::SimBuilder, future::ResponseFuture};
use self::{config::Config, desk::Desk};
use crate::{
    SimError,
    account::{Account, Totals},
    body::SimBody,
};

/// A metered LLM API that keeps exact books: limits, charges, real headers, error documents, streams, faults.
///
/// It serves OpenAI's `/v1/chat/completions`, `/v1/responses` and `/v1/embeddings` and Anthropic's
/// `/v1/messages`, each in its own dialect. Clones share books and account. It is always ready.
/// A request is charged when its body has arrived.
///
/// ```
/// use std::time::Duration;
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tollgate_sim::SimProvider;
/// use tower::ServiceExt;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tollgate_sim::SimError> {
/// let provider = SimProvider::builder()
///     .requests(2)
///     .tokens(10_000)
///     .window(Duration::from_secs(6))
///     .latency(Duration::from_millis(250))
///     .build();
/// let ask = || {
///     let body = r#"{"model":"gpt-test","max_tokens":50,"messages":[{"role":"user","content":"Hi there"}]}"#;
///     Request::post("/v1/chat/completions").body(Full::<Bytes>::from(body)).expect("a request")
/// };
/// for _ in 0..2 {
///     assert_eq!(provider.clone().oneshot(ask()).await?.status(), 200);
/// }
/// let refused = provider.clone().oneshot(ask()).await?;
/// assert_eq!(refused.status(), 429);
/// assert_eq!(refused.headers()["retry-after"], "6");
///
/// let account = provider.account();
/// assert_eq!((account.totals.admitted, account.totals.refused), (2, 1));
/// assert_eq!(account.max_in_any_window(0), 2);
/// assert_eq!(account.requests[0].cost.tokens, 52, "ceil(8 / 4) + 50");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SimProvider {
    desk: Arc<Desk>,
}

impl SimProvider {
    /// Starts with [the defaults](SimBuilder): no limits, no latency, no faults.
    pub fn builder() -> SimBuilder {
        SimBuilder::new()
    }

    fn of(config: Config) -> Self {
        Self {
            desk: Arc::new(Desk::new(config)),
        }
    }

    /// What was seen and done so far. It is a copy: of a million requests it takes a moment.
    #[must_use]
    pub fn account(&self) -> Account {
        self.desk.account()
    }

    /// Only the sums, which is cheap.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.desk.totals()
    }

    /// Begins anew: empty books and account, the script and the seed from their start, time zero is now.
    ///
    /// Requests under way finish, and are not in the new account.
    pub fn reset(&self) {
        self.desk.reset();
    }
}

impl<B> Service<Request<B>> for SimProvider
where
    B: Body<Data = Bytes>,
{
    type Response = Response<SimBody>;
    type Error = SimError;
    type Future = ResponseFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SimError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture::new(Arc::clone(&self.desk), request)
    }
}

impl fmt::Debug for SimProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimProvider")
            .field("totals", &self.totals())
            .finish_non_exhaustive()
    }
}

/// A digest that is the same in every run.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
