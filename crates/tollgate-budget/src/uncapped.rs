//! Requests that state no output cap, and what answers have shown of how long they become.
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

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
    /// ([`learned_output`](crate::Charging::learned_output)).
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

/// Answers of one model that are remembered.
const LAST: usize = 256;
/// Answers that are enough to go by.
const ENOUGH: usize = 20;
/// Models that are remembered.
const MODELS: usize = 1_000;

/// How many output tokens the last answers of each model had.
#[derive(Default)]
pub(crate) struct Outputs(Mutex<HashMap<Arc<str>, Window>>);

#[derive(Default)]
struct Window {
    last: Vec<u64>,
    at: usize,
    /// What 95 of 100 stay at or below.
    high: Option<u64>,
}

impl Window {
    fn add(&mut self, output: u64) {
        if self.last.len() < LAST {
            self.last.push(output);
        } else {
            self.last[self.at] = output;
            self.at = (self.at + 1) % LAST;
        }
        if self.last.len() >= ENOUGH {
            let mut sorted = self.last.clone();
            let rank = (sorted.len() * 95).div_ceil(100) - 1;
            self.high = Some(*sorted.select_nth_unstable(rank).1);
        }
    }
}

impl Outputs {
    /// One answer of this model had so many output tokens.
    pub(crate) fn add(&self, model: &Arc<str>, output: u64) {
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if models.len() >= MODELS && !models.contains_key(model) {
            // To forget costs a few reservations of the cap each.
            models.clear();
        }
        models.entry(Arc::clone(model)).or_default().add(output);
    }

    /// What 95 of 100 of its answers stayed at or below; `None` before there are enough.
    pub(crate) fn high(&self, model: &str) -> Option<u64> {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        models.get(model)?.high
    }
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outputs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_quantile_is_of_the_last_answers_once_there_are_enough() {
        let outputs = Outputs::default();
        let model: Arc<str> = "m".into();
        for n in 1..20 {
            outputs.add(&model, n);
            assert_eq!(outputs.high("m"), None);
        }
        outputs.add(&model, 1000);
        assert_eq!(outputs.high("m"), Some(19), "one in twenty may be longer");
        for _ in 0..LAST {
            outputs.add(&model, 7);
        }
        assert_eq!(outputs.high("m"), Some(7), "the rest is forgotten");
        assert_eq!(outputs.high("other"), None);
    }

    #[test]
    fn models_are_bounded() {
        let outputs = Outputs::default();
        for n in 0..3 * MODELS {
            outputs.add(&n.to_string().into(), 1);
        }
        assert!(outputs.0.lock().unwrap().len() <= MODELS);
    }
}
