//! A call on its way: in, checked, read, put at its target, through the layers, and out.
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{body::Body, extract::State};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::{Frame, SizeHint};
use pin_project::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tollgate::{
    call::Call,
    clock,
    extensions::Refused,
    wire::prompt::{Dialect, Endpoint, Facts, RequestFacts},
};
use tower::ServiceExt;

use crate::{
    answer, gateway::App, gather::Held, guard, headers, keys::Caller, own::Own, place,
    refusals::Refusal, stack::Placed,
};

/// Serves one call.
pub async fn serve(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let facts = RequestFacts::of_path(request.method(), request.uri());
    let dialect = spoken(&request, &facts);
    let mut note = Note {
        caller: None,
        endpoint: facts.endpoint,
        model: facts.model.clone(),
    };
    let shape = shape(facts.endpoint, dialect);
    let (answer, why) = match call(&app, request, &facts, dialect, &mut note).await {
        Ok(answer) => {
            let why = why(&answer);
            (answer, why)
        }
        Err(own) => {
            let answer = answer::error(shape, own.status, own.code, &own.message, own.again);
            (answer, own.why().map(str::to_owned))
        }
    };
    metrics::counter!("tollgate_gateway_requests_total", "endpoint" => note.endpoint.as_str(), "status" => class(answer.status()))
        .increment(1);
    if let Some(why) = why {
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

/// Whose shapes a request has. Of what is no known endpoint, such as a listing, the version tells it, or this header.
fn spoken(request: &Request<Body>, facts: &RequestFacts) -> Dialect {
    match facts.endpoint {
        Endpoint::Other | Endpoint::Deferred => place::version_of(request.uri().path())
            .or_else(|| {
                let anthropic = request.headers().contains_key("anthropic-version");
                anthropic.then_some(Dialect::Anthropic)
            })
            .unwrap_or_else(|| facts.dialect()),
        _ => facts.dialect(),
    }
}

/// An endpoint whose errors look as those of a dialect do.
fn shape(endpoint: Endpoint, dialect: Dialect) -> Endpoint {
    match (endpoint, dialect) {
        (Endpoint::Other | Endpoint::Deferred, Dialect::Anthropic) => Endpoint::AnthropicMessages,
        (Endpoint::Other | Endpoint::Deferred, Dialect::Gemini) => Endpoint::GenerateContent,
        (Endpoint::Other | Endpoint::Deferred, Dialect::Cohere) => Endpoint::CohereChat,
        (endpoint, _) => endpoint,
    }
}

/// Whether a request may make the provider work in a way that no limit of tokens or money sees: what it costs is told
/// elsewhere, and later, or not at all. To ask, to delete and to cancel costs nothing.
fn unmetered(method: &Method, uri: &Uri, endpoint: Endpoint) -> bool {
    let free = [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE];
    matches!(endpoint, Endpoint::Other | Endpoint::Deferred)
        && !free.contains(method)
        && !uri.path().trim_end_matches('/').ends_with("/cancel")
}

/// Whether limits and chains can read a request of such a type: JSON, or a form where the provider takes one. A provider
/// may take JSON under another name, and then no limit would have seen what it asks for.
fn is_read(endpoint: Endpoint, headers: &HeaderMap) -> bool {
    let has = |kind: &[u8], word: &[u8]| {
        let mut words = kind.windows(word.len());
        words.any(|part| part.eq_ignore_ascii_case(word))
    };
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    kinds.all(|kind| {
        // What stands behind the semicolon is anything, a boundary for one.
        let kind = kind.as_bytes().split(|byte| *byte == b';').next();
        let kind = kind.unwrap_or_default();
        match endpoint {
            Endpoint::Other | Endpoint::Deferred => true,
            Endpoint::Images | Endpoint::Transcriptions if has(kind, b"multipart/") => true,
            _ => has(kind, b"json"),
        }
    })
}

async fn call(
    app: &App,
    request: Request<Body>,
    asked: &RequestFacts,
    dialect: Dialect,
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
    let Some(caller) = app.keys.caller(&parts.headers, &parts.uri) else {
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
    let mut codings = parts.headers.get_all(header::CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        // Neither limits nor chains could read it.
        return Err(Own::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "This gateway takes requests without a content-encoding",
        ));
    }
    if !is_read(asked.endpoint, &parts.headers) {
        return Err(Own::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_type",
            "This gateway reads what such a request asks for: its content-type must be application/json",
        ));
    }
    if !app.config.pass_unmetered && unmetered(&parts.method, &parts.uri, asked.endpoint) {
        return Err(Own::new(
            StatusCode::FORBIDDEN,
            "unmetered_path",
            "This gateway has limits of tokens or money, which cannot count what such a request uses; \
             with `pass_unmetered = true` in its configuration it is passed on",
        ));
    }
    let Ok(permit) = Arc::clone(&app.requests).try_acquire_owned() else {
        return Err(Own::busy("The gateway serves as many requests as it may"));
    };
    let (body, room) = app
        .room
        .read(body)
        .await
        .map_err(|why| Own::not_read(why, app.room.most()))?;

    let facts = RequestFacts::read(&parts.method, &parts.uri, &parts.headers, &body);
    note.model = facts.model.clone();
    if app.by_model && facts.endpoint.generates() && facts.model.is_none() {
        return Err(Own::new(
            StatusCode::BAD_REQUEST,
            "no_model",
            "This gateway has limits of models, and cannot read which model the request names",
        ));
    }
    let chain = (parts.method == Method::POST)
        .then(|| app.chain(facts.endpoint, dialect, facts.model.as_deref()))
        .flatten();
    let path = parts.uri.path();
    let at = match chain {
        Some(chain) => Some(app.chains[chain].first).filter(|at| app.places[*at].takes(path)),
        None => app.default_target(dialect, path),
    };
    let Some(at) = at else {
        return Err(Own::new(
            StatusCode::NOT_FOUND,
            "no_target",
            "No target of this gateway takes such a request",
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
    let made = Call::of(&mut parts.extensions);
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
    let answered = match answered {
        Ok(answered) => answer::whole(answered, stream, &app.room)
            .await
            .map_err(|error| {
                tracing::debug!(error = %causes(&error), "the answer broke");
                "The provider's answer broke in its middle"
            }),
        Err(error) => {
            tracing::debug!(error = %causes(&error), "no answer");
            Err("The provider could not be reached, or went away before it answered")
        }
    };
    let (mut answered, held) = answered.unwrap_or_else(|what| {
        let status = StatusCode::BAD_GATEWAY;
        let shape = shape(asked.endpoint, dialect);
        let answer = answer::error(shape, status, "provider_unreachable", what, None);
        (answer, Held::default())
    });
    headers::for_caller(answered.headers_mut());
    let location = answered.headers().get(header::LOCATION);
    let location = location.and_then(|location| place.back(location.to_str().ok()?));
    if let Some(location) = location.and_then(|location| location.try_into().ok()) {
        answered.headers_mut().insert(header::LOCATION, location);
    }
    let target = &app.config.targets[at].name;
    answer::tell(
        &mut answered,
        &made.attempts(),
        target,
        note.model.as_deref(),
    );
    Ok(answered.map(|body| {
        Body::new(Counted {
            body,
            _permit: permit,
            _held: held,
        })
    }))
}

/// Why the layers or the provider did not serve a call; `None`: they did, or the fault is in the request.
fn why(answer: &Response<Body>) -> Option<String> {
    let status = answer.status();
    if let Some(refused) = Refused::of(answer) {
        let limit = refused.limit.as_deref().unwrap_or("no limit in particular");
        return Some(format!("{} ({limit})", refused.reason.code()));
    }
    let provider = status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::PAYLOAD_TOO_LARGE
        );
    provider.then(|| "provider".to_owned())
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
    /// The room that it takes.
    _held: Held,
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
