//! What is under test: the layers of a service, around any transport.
#![forbid(unsafe_code)]
use std::{fmt::Debug, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tollgate::{budget::InvalidLimit, prelude::*, timeouts::Timeouts};
use tower::{Service, ServiceBuilder};

/// The request body of this service.
pub type Prompt = Full<Bytes>;

/// The stack as it runs in production; only the transport is another one in tests.
///
/// # Errors
///
/// If a limit cannot be.
pub fn stack<S, RB>(
    transport: S,
    usage: UsageTotals,
) -> Result<
    impl Service<
        Request<Prompt>,
        Response = Response<impl Body<Data = Bytes, Error: Debug>>,
        Error = S::Error,
    > + Clone,
    InvalidLimit,
>
where
    S: Service<Request<Prompt>, Response = Response<RB>> + Clone,
    RB: Body<Data = Bytes, Error: Debug> + Unpin,
{
    let policy = RateLimitPolicy::default().timeouts(Timeouts::new().idle(Duration::from_secs(30)));
    Ok(ServiceBuilder::new()
        .record_usage(usage)
        .retry_on_rate_limit(policy)
        .token_budget(Budget::in_memory([Limit::requests(60).per_minute()])?)
        .service(transport))
}

/// A chat request.
///
/// # Panics
///
/// Never: the request is a constant.
#[must_use]
pub fn ask(more: &str) -> Request<Prompt> {
    let document = format!(
        r#"{{"model":"gpt-5","max_tokens":16,"messages":[{{"role":"user","content":"Hi"}}]{more}}}"#
    );
    Request::post("https://api.example/v1/chat/completions")
        .body(document.into())
        .expect("a request")
}
