//! The service.
use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tollgate_core::body::readable;
use tower_service::Service;

use crate::{
    Recorder, ResponseBody, ResponseFuture, UsageRecorderLayer, entry::Entry, layer::Settings,
};

/// Records what each call uses. See the [module docs](crate).
///
/// # Readiness
///
/// It is ready when the inner service is, and calls the very instance that was made ready. Clones
/// share the settings and never readiness.
#[derive(Clone, Debug)]
pub struct UsageRecorder<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> UsageRecorder<S> {
    /// Records the calls of `inner`, with the defaults of [`UsageRecorderLayer`].
    pub fn new(inner: S, recorder: impl Recorder + 'static) -> Self {
        tower_layer::Layer::layer(&UsageRecorderLayer::new(recorder), inner)
    }

    pub(crate) fn with_settings(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, RB> Service<Request<B>> for UsageRecorder<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    B: Body + From<Bytes>,
    RB: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, S::Future, B, RB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut guard = Entry::begin(&self.settings, &mut request);
        if !readable(&request, self.settings.read_cap) {
            guard.entry().sending();
            return ResponseFuture::passing(self.inner.call(request), guard);
        }
        // The ready one travels with the request; its clone has not been asked yet.
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone);
        ResponseFuture::reading(ready, request, guard)
    }
}
