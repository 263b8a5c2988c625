//! Any layer as a middleware of one version of reqwest-middleware.
use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Extensions, Request, Response, Uri};
use http_body::Body as HttpBody;
use tollgate_core::{
    BoxError,
    classify::{Classify, Fault},
};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    reqwest::{self, Body, Url},
    reqwest_middleware::{ClientWithMiddleware, Error, Middleware, Next, Result},
    service::{from_response, into_response},
};
use crate::Reqwest;

/// A layer, or a stack of them, as a middleware: for whom a `ClientWithMiddleware` is what they have, or what they must pass on.
///
/// The layer is asked for a new service for every request, around the middlewares that come after this one; what is shared between
/// requests lives in the handles that the layers were made with. The service borrows from the client, so the layers must not ask
/// for `'static`. The four do not; for those that do there is [`BridgedMiddleware`](super::BridgedMiddleware).
///
/// What was put into a request by `RequestBuilder::with_extension` is in the extensions that the layers see. Every attempt takes
/// a copy of them along to the middlewares inside.
///
/// See the [module docs](super).
#[derive(Clone, Copy, Debug, Default)]
pub struct TollgateMiddleware<L> {
    layer: L,
}

impl<L> TollgateMiddleware<L> {
    /// Around a layer: one of the four, or `ServiceBuilder::new()` with several of them.
    pub fn new(layer: L) -> Self {
        Self { layer }
    }
}

#[async_trait::async_trait]
impl<L, E, RB> Middleware for TollgateMiddleware<L>
where
    L: for<'a> Layer<NextService<'a>> + Send + Sync + 'static,
    for<'a> <L as Layer<NextService<'a>>>::Service:
        Service<Request<Body>, Response = Response<RB>, Error = E> + Send,
    for<'a> <<L as Layer<NextService<'a>>>::Service as Service<Request<Body>>>::Future: Send,
    E: Into<Error> + Send,
    RB: HttpBody<Data = Bytes> + Send + Sync + 'static,
    RB::Error: Into<BoxError>,
{
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response> {
        let (asked, request) = Asked::of(request, extensions)?;
        let asked = &asked;
        let mut service = self.layer.layer(NextService { next, asked });
        poll_fn(|cx| service.poll_ready(cx))
            .await
            .map_err(Into::into)?;
        let response = service.call(request).await.map_err(Into::into)?;
        Ok(into_response(&asked.url, response))
    }
}

/// The rest of a middleware chain, as the service that [`TollgateMiddleware`]'s layer stands around.
#[derive(Clone)]
pub struct NextService<'a> {
    pub(super) next: Next<'a>,
    pub(super) asked: &'a Asked,
}

/// What a request came with and `http` has no place for.
pub(super) struct Asked {
    /// With its fragment.
    pub(super) url: Url,
    /// As it was made of the URL.
    uri: Uri,
    /// What reqwest itself keeps with a request: its timeout.
    settings: Extensions,
}

impl Asked {
    /// The request as the layers see it, with what the caller and the middlewares outside have left for it.
    pub(super) fn of(
        request: reqwest::Request,
        extensions: &Extensions,
    ) -> Result<(Self, Request<Body>)> {
        let url = request.url().clone();
        let mut request = Request::try_from(request)?;
        let asked = Self {
            url,
            uri: request.uri().clone(),
            settings: request.extensions().clone(),
        };
        request.extensions_mut().extend(extensions.clone());
        Ok((asked, request))
    }
}

impl<'a> Service<Request<Body>> for NextService<'a> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>>> + Send + 'a>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Self { next, asked } = self.clone();
        let mut extensions = std::mem::replace(request.extensions_mut(), asked.settings.clone());
        Box::pin(async move {
            let request = if *request.uri() == asked.uri {
                sent_to(asked.url.clone(), request)?
            } else {
                // A layer has written another one.
                reqwest::Request::try_from(request)?
            };
            let response = next.run(request, &mut extensions).await?;
            Ok(from_response(response))
        })
    }
}

/// A `ClientWithMiddleware` inside of the layers: `HttpService::new(MiddlewareClient::new(client))`.
///
/// A `ClientWithMiddleware` is a service of `reqwest::Request`s itself, and begins with an empty map of extensions. Through this
/// one its middlewares see those of the `http::Request`, a map of its own for every attempt.
#[derive(Clone, Debug)]
pub struct MiddlewareClient {
    inner: ClientWithMiddleware,
}

impl MiddlewareClient {
    /// Around a client.
    pub fn new(inner: ClientWithMiddleware) -> Self {
        Self { inner }
    }
}

impl Service<reqwest::Request> for MiddlewareClient {
    type Response = reqwest::Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<reqwest::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: reqwest::Request) -> Self::Future {
        let client = self.inner.clone();
        Box::pin(async move {
            let asked = request.url().clone();
            let request = Request::try_from(request)?;
            let mut extensions = request.extensions().clone();
            let request = sent_to(asked, request)?;
            client
                .execute_with_extensions(request, &mut extensions)
                .await
        })
    }
}

/// The request, to this URL. Its URI would have to be parsed, and knows no fragment.
fn sent_to(url: Url, mut request: Request<Body>) -> Result<reqwest::Request> {
    *request.uri_mut() = Uri::from_static("http://asked/");
    let mut request = reqwest::Request::try_from(request)?;
    *request.url_mut() = url;
    Ok(request)
}

impl fmt::Debug for NextService<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextService").finish_non_exhaustive()
    }
}

impl Classify<Error> for Reqwest {
    fn classify(&self, error: &Error) -> Fault {
        match error {
            Error::Reqwest(error) => self.classify(error),
            Error::Middleware(error) => Self::of(&**error),
        }
    }
}
