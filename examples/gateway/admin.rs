//! The pages for those who run the gateway: is it there, is it ready, how is it.
use std::sync::{Arc, atomic::Ordering};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    routing::get,
};
use http::{HeaderValue, Response, StatusCode, header};

use crate::{gateway::App, guard, status};

/// `/healthz` and `/readyz`.
pub(crate) fn health() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
}

/// `/` and `/metrics`. `local`: they are for this machine, and a page in somebody's browser must not read them under a name
/// of its own. Where an operator shows them beyond this machine, the network is the operator's to guard.
pub(crate) fn pages(local: bool) -> Router<Arc<App>> {
    let pages = Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics));
    match local {
        true => pages.route_layer(middleware::from_fn(only_local)),
        false => pages,
    }
}

async fn only_local(request: Request, next: Next) -> Response<Body> {
    if guard::is_local(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    let said = "These pages are for this machine: ask 127.0.0.1 or localhost.\n";
    plain(StatusCode::FORBIDDEN, "text/plain", said.into())
}

async fn ready(State(app): State<Arc<App>>) -> Response<Body> {
    let (status, word) = if app.draining.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ready\n")
    };
    plain(status, "text/plain", word.into())
}

async fn metrics(State(app): State<Arc<App>>) -> Response<Body> {
    plain(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        app.measures.render(&app),
    )
}

async fn page(State(app): State<Arc<App>>) -> Response<Body> {
    let mut answer = plain(
        StatusCode::OK,
        "text/html; charset=utf-8",
        status::page(&app),
    );
    let headers = answer.headers_mut();
    // Nothing from elsewhere, no script, in nobody's frame.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(policy),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    answer
}

fn plain(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}
