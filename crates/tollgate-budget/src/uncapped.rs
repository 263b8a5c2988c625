//! Requests that state no output cap.
use bytes::Bytes;
use http::{HeaderValue, header, request::Parts};
use tollgate_core::{
    body::signed,
    wire::prompt::{Endpoint, Facts, RequestFacts, insert_value},
};

/// What is done with a request that states no output cap.
///
/// Its provider may let it run to the model's maximum, and some reserve as much at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Uncapped {
    /// It goes as it is; the profile's [`unset_cap`](crate::ChargeProfile::unset_cap) is reserved, or what was learned
    /// ([`learned_estimates`](crate::Charging::learned_estimates)).
    #[default]
    Reserve,
    /// The same, and one warning to `tracing` for each budget.
    Warn,
    /// This cap is written into its document, in front of the other members, and every other byte stays as it was.
    ///
    /// In `max_tokens`, `max_completion_tokens` (OpenAI's reasoning models) or `max_output_tokens` (Responses). Dialects
    /// that keep the cap further in (Gemini, Bedrock, Ollama), and requests that are signed, go as they are.
    Write(u64),
}

/// The member that holds the output cap, where it stands at the top.
fn field(facts: &RequestFacts) -> Option<&'static str> {
    let model = facts.model.as_deref().unwrap_or_default();
    let name = model.rsplit('/').next().unwrap_or(model);
    match facts.endpoint {
        Endpoint::Responses => Some("max_output_tokens"),
        // These refuse `max_tokens` (OpenAI's reference of the chat endpoint).
        Endpoint::ChatCompletions
            if ["gpt-5", "o1", "o3", "o4"]
                .iter()
                .any(|reasons| name.starts_with(reasons)) =>
        {
            Some("max_completion_tokens")
        }
        Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::CohereChat => {
            Some("max_tokens")
        }
        _ => None,
    }
}

/// The document with a cap, and what the head says of it; `None` if it has one or cannot be given one.
pub(crate) fn write(
    parts: &mut Parts,
    body: &Bytes,
    facts: &Facts,
    cap: u64,
) -> Option<(Bytes, Facts)> {
    if facts.max_output_tokens.is_some() || signed(&parts.headers, parts.uri.query()) {
        return None;
    }
    let body = insert_value(body, field(facts)?, &cap.to_string())?;
    if parts.headers.contains_key(header::CONTENT_LENGTH) {
        let length = HeaderValue::from(body.len());
        parts.headers.insert(header::CONTENT_LENGTH, length);
    }
    let read = RequestFacts::read(&parts.method, &parts.uri, &parts.headers, &body);
    let facts = Facts::new(read);
    parts.extensions.insert(facts.clone());
    Some((body, facts))
}
