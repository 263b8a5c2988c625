//! A call on its way: in, checked, read, put at its target, through the layers, and out.
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::State};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Frame, SizeHint};
use pin_project::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tollgate::{
    call::Attempts,
    clock,
    extensions::Refused,
    wire::prompt::{Dialect, Endpoint, Facts, RequestFacts},
};
use tower::ServiceExt;

use crate::{
    answer, gateway::App, gather::NotRead, guard, headers, keys::Caller, place, refusals::Refusal,
    stack::Placed,
};

/// Serves one call.
pub async fn serve(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let facts = RequestFacts::of_path(request.method(), request.uri());
    let mut note = Note {
        caller: None,
        endpoint: facts.endpoint,
        model: facts.model.clone(),
    };
    let answer = match call(&app, request, &facts, &mut note).await {
        Ok(answer) => answer,
        Err(own) => answer::error(note.endpoint, own.status, own.code, &own.message, own.again),
    };
    metrics::counter!("tollgate_gateway_requests_total", "endpoint" => note.endpoint.as_str(), "status" => class(answer.status()))
        .increment(1);
    if let Some(why) = why(&answer) {
        app.refusals.note(Refusal {
            at: clock::wall(),
            caller: note.caller.and_then(|caller| caller.name),
            endpoint: note.endpoint.as_str(),
            model: note.model,
            status: answer.status(),
            why,
        });
    }
    answer
}

/// What is told of a call that was not served.
struct Note {
    caller: Option<Caller>,
    endpoint: Endpoint,
    model: Option<Arc<str>>,
}

/// An answer of our own.
struct Own {
    status: StatusCode,
    code: &'static str,
    message: String,
    again: Option<Duration>,
}

impl Own {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            code,
            message,
            again: None,
        }
    }

    fn busy(code: &'static str, message: &str) -> Self {
        let again = Some(Duration::from_secs(1));
        Self {
            again,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
        }
    }
}

async fn call(
    app: &App,
    request: Request<Body>,
    asked: &RequestFacts,
    note: &mut Note,
) -> Result<Response<Body>, Own> {
    let (mut parts, body) = request.into_parts();
    if app.keys.is_empty() && !guard::is_local(&parts.uri, &parts.headers) {
        return Err(Own::new(
            StatusCode::FORBIDDEN,
            "not_local",
            "Without keys this gateway serves programs on its own machine only",
        ));
    }
    let Some(caller) = app.keys.caller(&parts.headers) else {
        return Err(Own::new(
            StatusCode::UNAUTHORIZED,
            "invalid_api_key",
            "This gateway does not know the key",
        ));
    };
    note.caller = Some(caller.clone());
    if !place::stays(parts.uri.path()) {
        return Err(Own::new(
            StatusCode::BAD_REQUEST,
            "invalid_path",
            "The path must not lead upwards, nor hide what it is",
        ));
    }
    let coded = parts.headers.get(http::header::CONTENT_ENCODING);
    if coded.is_some_and(|coding| coding != "identity") {
        // Neither limits nor chains could read it.
        return Err(Own::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "This gateway takes requests without a content-encoding",
        ));
    }
    let Ok(permit) = Arc::clone(&app.requests).try_acquire_owned() else {
        return Err(Own::busy(
            "gateway_busy",
            "The gateway serves as many requests as it may",
        ));
    };
    let (body, room) = app
        .room
        .read(body)
        .await
        .map_err(|why| not_read(why, app.room.most()))?;

    let dialect = match asked.endpoint {
        // Its listings and files are told by this header alone.
        Endpoint::Other | Endpoint::Deferred if parts.headers.contains_key("anthropic-version") => {
            Dialect::Anthropic
        }
        _ => asked.dialect(),
    };
    let facts = RequestFacts::read(&parts.method, &parts.uri, &parts.headers, &body);
    note.model = facts.model.clone();
    let chain = (parts.method == Method::POST)
        .then(|| app.chain(facts.endpoint, dialect, facts.model.as_deref()))
        .flatten();
    let Some(at) = chain.map_or_else(
        || app.default_target(dialect),
        |chain| Some(app.chains[chain].first),
    ) else {
        return Err(Own::new(
            StatusCode::NOT_FOUND,
            "no_target",
            "No target of this gateway speaks this dialect",
        ));
    };
    let place = &app.places[at];
    let Some(uri) = place.uri(&parts.uri) else {
        return Err(Own::new(
            StatusCode::BAD_REQUEST,
            "invalid_path",
            "The path is none",
        ));
    };
    let stream = facts.stream;
    let same = uri.path() == parts.uri.path();
    parts.uri = uri;
    parts.version = http::Version::HTTP_11;
    headers::for_provider(&mut parts.headers);
    place.sign(&mut parts.headers);
    parts.extensions = http::Extensions::new();
    parts.extensions.insert(caller.options);
    parts.extensions.insert(Placed(at));
    if same {
        // They describe these very bytes, sent to this very path: no layer reads them again.
        parts.extensions.insert(Facts::new(facts));
    }
    let stack = match chain {
        Some(chain) => &app.stacks.chains[chain],
        None => &app.stacks.plain,
    };
    let request = Request::from_parts(parts, Body::from(body));
    let answered = stack.clone().oneshot(request).await;
    drop(room);
    let unreachable = |what: &str| Own::new(StatusCode::BAD_GATEWAY, "provider_unreachable", what);
    let answered = answered.map_err(|error| {
        tracing::debug!(error = %causes(&error), "no answer");
        unreachable("The provider could not be reached, or went away before it answered")
    })?;
    let mut answered = answer::whole(answered, stream).await.map_err(|error| {
        tracing::debug!(error = %causes(&error), "the answer broke");
        unreachable("The provider's answer broke in its middle")
    })?;
    headers::for_caller(answered.headers_mut());
    let attempts = Attempts::of(&answered);
    answer::tell(
        &mut answered,
        &attempts,
        &app.config.targets[at].name,
        note.model.as_deref(),
    );
    Ok(answered.map(|body| {
        Body::new(Counted {
            body,
            _permit: permit,
        })
    }))
}

fn not_read(why: NotRead, most: u64) -> Own {
    match why {
        NotRead::TooLarge => Own::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            format!("The request is larger than the {most} bytes that this gateway takes"),
        ),
        NotRead::Full => Own::busy(
            "gateway_busy",
            "The gateway holds as much of requests as it may",
        ),
        NotRead::Stalled => Own::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_stalled",
            "The rest of the request did not come",
        ),
        NotRead::Broken => Own::new(
            StatusCode::BAD_REQUEST,
            "request_body_failed",
            "The request's body failed while it was read",
        ),
    }
}

/// Why a call was not served, as far as the status page is concerned; `None`: it was, or the fault is in the request.
fn why(answer: &Response<Body>) -> Option<String> {
    let status = answer.status();
    if let Some(refused) = Refused::of(answer) {
        let limit = refused.limit.as_deref().unwrap_or("no limit in particular");
        return Some(format!("{} ({limit})", refused.reason.code()));
    }
    let ours = !answer.headers().contains_key("x-tollgate-attempts");
    match status {
        status if status.is_server_error() => {
            Some(if ours { "gateway" } else { "provider" }.to_owned())
        }
        StatusCode::TOO_MANY_REQUESTS => Some("provider".to_owned()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Some(if ours { "stranger" } else { "provider" }.to_owned())
        }
        StatusCode::PAYLOAD_TOO_LARGE => Some("too large".to_owned()),
        _ => None,
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "2xx",
        429 => "429",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push_str(": ");
        said.push_str(&error.to_string());
        cause = error.source();
    }
    said
}

/// An answer's body; the request counts as under way until it is done or dropped.
#[pin_project]
struct Counted {
    #[pin]
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
