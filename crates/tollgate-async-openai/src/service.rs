//! async-openai's request factories as requests that the layers know.
use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use async_openai::{error::OpenAIError, middleware::HttpRequestFactory};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use reqwest::Body;
use tollgate_core::BoxError;
use tollgate_reqwest::v0_13::into_response;
use tower_layer::Layer;
use tower_service::Service;

use crate::scope::Scope;

/// Makes of a stack of layers over reqwest what async-openai's `Client::with_http_service` takes. Stands outermost.
///
/// See the [crate docs](crate).
#[derive(Clone, Copy, Debug, Default)]
pub struct AsyncOpenAiLayer;

impl<S> Layer<S> for AsyncOpenAiLayer {
    type Service = AsyncOpenAi<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AsyncOpenAi { inner }
    }
}

/// The service of [`AsyncOpenAiLayer`].
///
/// The inner service's error becomes async-openai's: one of reqwest is `OpenAIError::Reqwest`, untouched. A refusal of the budget
/// is an `OpenAIError::ApiError` with status 429, like every answer that is no success; its code names the reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsyncOpenAi<S> {
    inner: S,
}

impl<S> AsyncOpenAi<S> {
    /// The stack.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The stack.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The stack.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, RB> Service<HttpRequestFactory> for AsyncOpenAi<S>
where
    S: Service<Request<Body>, Response = Response<RB>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<OpenAIError>,
    RB: HttpBody<Data = Bytes> + Send + Sync + 'static,
    RB::Error: Into<BoxError>,
{
    type Response = reqwest::Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<reqwest::Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, factory: HttpRequestFactory) -> Self::Future {
        // The instance that was made ready goes; its clone stays.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let scope = Scope::current();
        Box::pin(async move {
            let request = factory.build().await?;
            let asked = request.url().clone();
            let mut request = Request::try_from(request)?;
            scope.enter(request.extensions_mut());
            let response = inner.call(request).await.map_err(Into::into)?;
            scope.keep(response.extensions());
            Ok(into_response(&asked, response))
        })
    }
}
