//! A client of one version as a service of `http` requests.
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use pin_project::pin_project;
use tower_service::Service;

use super::reqwest::{self, Body, ResponseBuilderExt, Url};
use tollgate_core::BoxError;

/// A `reqwest::Client`, or anything else that sends `reqwest::Request`s, as a service of [`http::Request`].
///
/// The inner service's error comes out as it is. Its error type can hold one of reqwest's, for that is what a request gets that
/// has no URL to be sent to.
///
/// Cloning it clones the inner service; clones of a `reqwest::Client` share its connections.
///
/// See the [module docs](super).
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpService<S = reqwest::Client> {
    inner: S,
}

impl<S> HttpService<S> {
    /// Around a client.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }

    /// The client.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The client.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The client.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<B>> for HttpService<S>
where
    S: Service<reqwest::Request, Response = reqwest::Response>,
    S::Error: From<reqwest::Error>,
    B: Into<Body>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture(match reqwest::Request::try_from(request) {
            Ok(request) => State::Sending(self.inner.call(request)),
            Err(error) => State::Failed(Some(error.into())),
        })
    }
}

/// The future of [`HttpService`].
///
/// # Cancel safety
///
/// Dropped, it drops the client's own future, which closes or resets what was under way.
#[pin_project]
pub struct ResponseFuture<F, E>(#[pin] State<F, E>);

#[pin_project(project = StateProj)]
enum State<F, E> {
    Sending(#[pin] F),
    Failed(Option<E>),
}

impl<F, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<reqwest::Response, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            StateProj::Sending(future) => {
                let response = ready!(future.poll(cx))?;
                Poll::Ready(Ok(from_response(response)))
            }
            StateProj::Failed(error) => {
                Poll::Ready(Err(error.take().expect("polled again after it was ready")))
            }
        }
    }
}

impl<F, E> fmt::Debug for ResponseFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// reqwest's own conversion drops the URL that has answered, the last one after redirects.
pub(crate) fn from_response(response: reqwest::Response) -> Response<Body> {
    let answered = with_url(response.url().clone());
    let mut response = Response::from(response);
    response.extensions_mut().extend(answered);
    response
}

/// The way back: an answer of the layers as one of reqwest's.
///
/// `asked` is what was asked, and the URL of an answer that a layer has made itself, as a refusal is. One that came from a
/// [`HttpService`] keeps the URL that has answered.
///
/// Errors of the body become reqwest's own, with what they were as their source: `is_timeout` still finds a timeout.
pub fn into_response<B>(asked: &Url, response: Response<B>) -> reqwest::Response
where
    B: HttpBody<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = response.into_parts();
    let mut extensions = with_url(asked.clone());
    extensions.extend(parts.extensions);
    parts.extensions = extensions;
    Response::from_parts(parts, Body::wrap(body)).into()
}

/// The type that carries it is private to reqwest, and only a builder makes one.
fn with_url(url: Url) -> http::Extensions {
    let mut builder = Response::builder().url(url);
    builder
        .extensions_mut()
        .map(std::mem::take)
        .unwrap_or_default()
}
