//! Layers that must own what they stand around, as a middleware.
use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{Extensions, Request, Response};
use http_body::Body as HttpBody;
use tokio::sync::{mpsc, oneshot};
use tollgate_core::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    middleware::{Asked, NextService},
    reqwest::{self, Body},
    reqwest_middleware::{Error, Middleware, Next, Result},
    service::into_response,
};

/// [`TollgateMiddleware`](super::TollgateMiddleware) for layers that ask for `'static`: those that box, spawn or hedge.
///
/// The service that the layer stands around owns nothing of the client: it posts each attempt to the call that is under way, which
/// sends it. So an attempt runs as long as its call is awaited, and one that is made after its call has ended fails. Where the other
/// one will do, take that: this one costs a channel for each attempt.
#[derive(Clone, Copy, Debug, Default)]
pub struct BridgedMiddleware<L> {
    layer: L,
}

impl<L> BridgedMiddleware<L> {
    /// Around a layer, or `ServiceBuilder::new()` with several of them.
    pub fn new(layer: L) -> Self {
        Self { layer }
    }
}

#[async_trait::async_trait]
impl<L, S, RB> Middleware for BridgedMiddleware<L>
where
    L: Layer<PostService, Service = S> + Send + Sync + 'static,
    S: Service<Request<Body>, Response = Response<RB>> + Send,
    S::Future: Send,
    S::Error: Into<Error> + Send,
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
        // As many are posted as the layers have attempts under way.
        let (posts, mut posted) = mpsc::unbounded_channel::<Post>();
        let mut service = self.layer.layer(PostService { posts });
        let mut call = pin!(async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        });
        let mut sending = FuturesUnordered::new();
        loop {
            tokio::select! {
                // In this order: an attempt that the call has dropped is gone before the next one is sent.
                biased;
                response = &mut call => {
                    return Ok(into_response(&asked.url, response.map_err(Into::into)?));
                }
                Some(()) = sending.next() => {}
                Some(post) = posted.recv() => {
                    let next = NextService { next: next.clone(), asked };
                    sending.push(send(next, post));
                }
            }
        }
    }
}

/// One attempt, and where its answer is waited for.
struct Post {
    request: Request<Body>,
    answer: oneshot::Sender<Result<Response<Body>>>,
}

/// Sends an attempt for as long as somebody waits for it.
async fn send(mut next: NextService<'_>, post: Post) {
    let Post {
        request,
        mut answer,
    } = post;
    tokio::select! {
        response = next.call(request) => {
            // Nobody waits any more: the response is dropped, as the attempt would have been.
            let _left = answer.send(response);
        }
        () = answer.closed() => {}
    }
}

/// The service that [`BridgedMiddleware`]'s layer stands around.
#[derive(Clone)]
pub struct PostService {
    posts: mpsc::UnboundedSender<Post>,
}

impl Service<Request<Body>> for PostService {
    type Response = Response<Body>;
    type Error = Error;
    type Future = PostFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> PostFuture {
        let (answer, response) = oneshot::channel();
        // A call that has ended drops it, and the future says so.
        let _ended = self.posts.send(Post { request, answer });
        PostFuture { response }
    }
}

/// The future of [`PostService`]. Dropped, it drops the attempt.
pub struct PostFuture {
    response: oneshot::Receiver<Result<Response<Body>>>,
}

impl Future for PostFuture {
    type Output = Result<Response<Body>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(Pin::new(&mut self.response).poll(cx)).map_err(Error::middleware)?)
    }
}

impl fmt::Debug for PostService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostService").finish_non_exhaustive()
    }
}

impl fmt::Debug for PostFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostFuture").finish_non_exhaustive()
    }
}
