//! Where a request goes at another place: the operation is taken over, the rest of the path is not.
use http::{
    Method, Uri,
    uri::{PathAndQuery, Scheme},
};
use tollgate_core::wire::prompt::{Dialect, Endpoint, RequestFacts, model_in_path};

use crate::{Candidate, InvalidChain, target::Place};

const MODEL: &str = "{model}";
const OPERATION: &str = "{operation}";

/// How a path says what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `/v1/chat/completions`
    Plain,
    /// `/v1beta/models/MODEL:generateContent`
    Verb,
    /// `/model/MODEL/converse`
    Model,
}

impl Shape {
    /// The shape of a template; `None` if it names one operation itself.
    fn of(template: &str) -> Option<Self> {
        let (front, _) = template.split_once(OPERATION)?;
        Some(if front.ends_with(':') {
            Self::Verb
        } else if front.ends_with("/model/{model}/") {
            Self::Model
        } else {
            Self::Plain
        })
    }
}

/// What a path asks for, without the model and without what stands in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operation<'p> {
    shape: Shape,
    words: &'p str,
    version: &'p str,
}

impl<'p> Operation<'p> {
    fn of(path: &'p str) -> Self {
        let path = path.trim_end_matches('/');
        if let Some((rest, verb)) = path.rsplit_once(':') {
            if let Some((front, model)) = rest.rsplit_once("/models/") {
                if !verb.contains('/') && !model.contains('/') {
                    return Self {
                        shape: Shape::Verb,
                        words: verb,
                        version: version(front).unwrap_or("v1beta"),
                    };
                }
            }
        }
        let (front, last) = path.rsplit_once('/').unwrap_or(("", path));
        let invokes = matches!(
            last,
            "converse" | "converse-stream" | "invoke" | "invoke-with-response-stream"
        );
        if invokes && path.contains("/model/") {
            return Self {
                shape: Shape::Model,
                words: last,
                version: "",
            };
        }
        let second = front.rsplit_once('/').map_or(front, |(_, second)| second);
        let words = match second {
            "chat" | "images" | "audio" | "messages" => {
                &path[path.len() - last.len() - 1 - second.len()..]
            }
            _ => last,
        };
        let front = path[..path.len() - words.len()].trim_end_matches('/');
        Self {
            shape: Shape::Plain,
            words,
            version: version(front).unwrap_or("v1"),
        }
    }

    /// The provider's usual path.
    fn template(&self, base: &str) -> String {
        let version = if base.is_empty() && !self.version.is_empty() {
            format!("/{}", self.version)
        } else {
            String::new()
        };
        match self.shape {
            Shape::Plain => format!("{version}/{OPERATION}"),
            Shape::Verb => format!("{version}/models/{MODEL}:{OPERATION}"),
            Shape::Model => format!("/model/{MODEL}/{OPERATION}"),
        }
    }
}

/// The last segment of a path, if it is a version (`v1`, `v1beta`) or Ollama's `api`.
///
/// Nothing else, for it is taken over to another origin.
fn version(front: &str) -> Option<&str> {
    let last = front.rsplit('/').next()?;
    let digit = |c: char| c.is_ascii_digit();
    let numbered = last.strip_prefix('v').is_some_and(|rest| {
        let (number, stage) = rest.split_at(rest.find(|c| !digit(c)).unwrap_or(rest.len()));
        let stage = stage.trim_end_matches(digit);
        !number.is_empty() && rest.len() <= 9 && matches!(stage, "" | "alpha" | "beta")
    });
    (numbered || last == "api").then_some(last)
}

/// The URI of the same operation at another place, and whether the model stands in its path.
///
/// Nothing of the old URI is taken over but the operation and `alt=sse`.
pub(crate) fn moved(place: &Place, model: Option<&str>, old: &Uri) -> Option<(Uri, bool)> {
    let operation = Operation::of(old.path());
    let made;
    let template = match &place.template {
        // `:generateContent` is no word of a path that has none, and the other way round.
        Some(template) if Shape::of(template).is_some_and(|shape| shape != operation.shape) => {
            return None;
        }
        Some(template) => template,
        None => {
            made = operation.template(&place.base);
            made.as_str()
        }
    };
    let mut path = format!("{}{template}", place.base);
    let in_path = path.contains(MODEL);
    if in_path {
        path = path.replace(MODEL, &encode(model?));
    }
    path = path.replace(OPERATION, operation.words);
    let streams = old
        .query()
        .is_some_and(|q| q.split('&').any(|p| p == "alt=sse"));
    if streams && !path.contains("alt=") {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str("alt=sse");
    }
    let uri = Uri::builder()
        .scheme(place.scheme.clone())
        .authority(place.authority.clone())
        .path_and_query(path)
        .build()
        .ok()?;
    Some((uri, in_path))
}

/// The same URI for another model that stands in its path.
pub(crate) fn renamed(old: &Uri, model: &str) -> Option<Uri> {
    let span = model_in_path(&Method::POST, old)?;
    let mut path = old.path_and_query()?.as_str().to_owned();
    path.replace_range(span, &encode(model));
    let mut parts = old.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// Percent-codes a model's name for a path. `/` stays where names are paths themselves
/// (`@cf/meta/…`); in an ARN it is coded, as the AWS SDKs do.
fn encode(model: &str) -> String {
    use std::fmt::Write as _;
    let arn = model.starts_with("arn:");
    let mut out = String::with_capacity(model.len());
    for byte in model.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => {
                out.push(char::from(byte));
            }
            b'/' if !arn => out.push('/'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// Operations that a template is tried with.
const SAMPLES: [&str; 6] = [
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/v1beta/models/m:generateContent",
    "/model/m/converse",
];

fn sampled(place: &Place) -> impl Iterator<Item = RequestFacts> {
    SAMPLES.iter().filter_map(move |sample| {
        let (uri, _) = moved(place, Some("m"), &Uri::from_static(sample))?;
        let facts = RequestFacts::of_path(&Method::POST, &uri);
        (facts.endpoint != Endpoint::Other).then_some(facts)
    })
}

/// Whether a candidate's path can be one.
pub(crate) fn check(candidate: &Candidate) -> Result<(), InvalidChain> {
    let Some(place) = &candidate.place else {
        return Ok(());
    };
    let label = candidate.label();
    let wrong = |what: &str| Err(InvalidChain::new(format!("the path of `{label}` {what}")));
    if let Some(template) = &place.template {
        if !template.starts_with('/') {
            return wrong("must begin with a slash");
        }
        if template
            .replace(MODEL, "")
            .replace(OPERATION, "")
            .contains(['{', '}', '#'])
        {
            return wrong("may hold {model} and {operation} and no other braces");
        }
    }
    if sampled(place).next().is_none() {
        return wrong("leads to no endpoint that is known");
    }
    Ok(())
}

/// The dialect that a candidate surely speaks. Azure and OpenAI are one.
pub(crate) fn dialect(candidate: &Candidate) -> Option<Dialect> {
    if let Some(told) = candidate.dialect {
        return Some(family(told));
    }
    let place = candidate.place.as_ref()?;
    if place.headers.contains_key("anthropic-version") {
        return Some(Dialect::Anthropic);
    }
    if place.template.is_some() {
        let mut found = sampled(place).map(|facts| family(facts.dialect()));
        let first = found.next()?;
        return found.all(|next| next == first).then_some(first);
    }
    let key = place.credential.as_ref()?.header_name()?;
    (key == "x-goog-api-key").then_some(Dialect::Gemini)
}

pub(crate) fn family(dialect: Dialect) -> Dialect {
    match dialect {
        Dialect::Azure => Dialect::OpenAi,
        other => other,
    }
}

/// What tells a request's origin: scheme and authority.
pub(crate) fn origin_of<'r>(
    uri: &'r Uri,
    headers: &'r http::HeaderMap,
) -> (Option<&'r Scheme>, &'r str) {
    let host = || headers.get(http::header::HOST)?.to_str().ok();
    let authority = uri.authority().map(http::uri::Authority::as_str);
    (uri.scheme(), authority.or_else(host).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Target;

    fn at(base: &str, template: Option<&str>, model: &str, old: &'static str) -> String {
        let mut target = Target::new("t", base).unwrap();
        if let Some(template) = template {
            target = target.path(template);
        }
        let place = target.candidate.place.unwrap();
        let (uri, _) = moved(&place, Some(model), &Uri::from_static(old)).unwrap();
        uri.to_string()
    }

    // F19
    #[test]
    fn the_operation_is_taken_over_and_nothing_else() {
        for (base, template, model, old, new) in [
            (
                "https://b.example",
                None,
                "m",
                "https://a.example/secret/v1/chat/completions?key=secret",
                "https://b.example/v1/chat/completions",
            ),
            (
                "https://b.example/openai/v1/",
                None,
                "m",
                "/v1/responses",
                "https://b.example/openai/v1/responses",
            ),
            (
                "https://b.example",
                None,
                "m",
                "/v1/messages",
                "https://b.example/v1/messages",
            ),
            (
                "https://b.example",
                None,
                "g-2",
                "/v1beta/models/g-1:streamGenerateContent?alt=sse&key=secret",
                "https://b.example/v1beta/models/g-2:streamGenerateContent?alt=sse",
            ),
            (
                "https://b.example/v1/projects/p/locations/l/publishers/google",
                None,
                "g-2",
                "/v1beta/models/g-1:generateContent",
                "https://b.example/v1/projects/p/locations/l/publishers/google/models/g-2:generateContent",
            ),
            (
                "https://b.example",
                None,
                "us.x-v1:0",
                "/model/eu.x-v1%3A0/converse-stream",
                "https://b.example/model/us.x-v1%3A0/converse-stream",
            ),
            (
                "https://b.example",
                Some("/openai/deployments/{model}/{operation}?api-version=1"),
                "gpt 5",
                "/v1/chat/completions",
                "https://b.example/openai/deployments/gpt%205/chat/completions?api-version=1",
            ),
            (
                "https://b.example",
                None,
                "m",
                "https://a.example/openai/deployments/x/embeddings?api-version=1",
                "https://b.example/v1/embeddings",
            ),
            (
                "https://b.example",
                None,
                "m",
                "/model/secret/v1secret/chat/completions",
                "https://b.example/v1/chat/completions",
            ),
            (
                "https://b.example",
                None,
                "m",
                "/api/chat",
                "https://b.example/api/chat",
            ),
            (
                "https://b.example",
                None,
                "m",
                "/v1/images/generations",
                "https://b.example/v1/images/generations",
            ),
        ] {
            assert_eq!(at(base, template, model, old), new, "{old}");
        }
    }

    #[test]
    fn a_model_in_the_path_is_renamed_there() {
        let old = Uri::from_static("https://a.example/v1beta/models/g-1:generateContent?key=k");
        assert_eq!(
            renamed(&old, "g/2").unwrap(),
            "https://a.example/v1beta/models/g/2:generateContent?key=k"
        );
        let old = Uri::from_static("/openai/deployments/x/embeddings?api-version=1");
        assert_eq!(
            renamed(&old, "y").unwrap(),
            "/openai/deployments/y/embeddings?api-version=1"
        );
        assert!(renamed(&Uri::from_static("/v1/responses"), "y").is_none());
    }
}
