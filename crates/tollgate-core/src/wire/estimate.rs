//! What a request will cost, guessed before it is sent.
use super::prompt::RequestFacts;

/// Characters of prompt text that providers take for one token when they guess.
const CHARS_PER_TOKEN: u64 = 4;
/// What a message adds beside its text, in LLM tokens.
pub const PER_MESSAGE: u64 = 2;
/// What OpenAI's limits take an image for, whatever its size, in LLM tokens.
pub const PER_IMAGE: u64 = 765;

/// A guess of what a request costs, in LLM tokens: what providers themselves guess when a request comes in.
///
/// Input is characters / 4 (rounded up), plus token ids, plus 2 a message, plus 765 an image; output is the request's own cap times the number
/// of answers it asks for (for each prompt of a legacy completion). It is a guess made without a tokenizer and without a clock; a
/// layer that has learnt better may use that in its place.
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderMap, Method, Uri};
/// use tollgate_core::wire::{estimate::Estimate, prompt::RequestFacts};
///
/// let body = Bytes::from(r#"{"messages":[{"role":"user","content":"Hello, you!!"}],"max_tokens":50,"n":2}"#);
/// let uri = Uri::from_static("/v1/chat/completions");
/// let facts = RequestFacts::read(&Method::POST, &uri, &HeaderMap::new(), &body);
/// let estimate = Estimate::of(&facts);
/// assert_eq!(estimate.output_cap, Some(100));
/// assert_eq!(estimate.total(), estimate.input + 100);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Estimate {
    /// Tokens of the prompt.
    pub input: u64,
    /// Most tokens that all answers together may have; `None`: the request has no cap.
    pub output_cap: Option<u64>,
    /// Images in the prompt.
    pub images: u64,
}

impl Estimate {
    /// Guesses from what was read of a request. Saturates; never fails.
    #[must_use]
    pub fn of(facts: &RequestFacts) -> Self {
        let images = u64::from(facts.images);
        let input = facts
            .prompt_chars
            .div_ceil(CHARS_PER_TOKEN)
            .saturating_add(facts.prompt_token_ids)
            .saturating_add(u64::from(facts.messages) * PER_MESSAGE)
            .saturating_add(images * PER_IMAGE);
        Self {
            input,
            output_cap: facts
                .max_output_tokens
                .map(|cap| cap.saturating_mul(facts.generated())),
            images,
        }
    }

    /// Input and output cap together; a request without a cap counts its input alone.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output_cap.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::prompt::Endpoint;

    #[test]
    fn characters_messages_ids_images_and_the_cap_are_counted() {
        let mut facts = RequestFacts::unread(Endpoint::ChatCompletions);
        facts.prompt_chars = 9;
        facts.messages = 2;
        facts.prompt_token_ids = 10;
        facts.images = 1;
        facts.max_output_tokens = Some(100);
        facts.answers = 4;
        let estimate = Estimate::of(&facts);
        assert_eq!(estimate.input, 3 + 4 + 10 + 765);
        assert_eq!(estimate.output_cap, Some(400));
        assert_eq!(estimate.total(), 1182);
    }

    #[test]
    fn each_prompt_of_a_legacy_completion_has_answers_of_its_own() {
        let mut facts = RequestFacts::unread(Endpoint::Completions);
        facts.inputs = Some(10);
        facts.max_output_tokens = Some(256);
        assert_eq!(Estimate::of(&facts).output_cap, Some(2_560));
        facts.endpoint = Endpoint::Responses;
        assert_eq!(Estimate::of(&facts).output_cap, Some(256));
    }

    #[test]
    fn hostile_numbers_saturate() {
        let mut facts = RequestFacts::unread(Endpoint::ChatCompletions);
        facts.prompt_chars = u64::MAX;
        facts.prompt_token_ids = u64::MAX;
        facts.messages = u32::MAX;
        facts.images = u32::MAX;
        facts.max_output_tokens = Some(u64::MAX);
        facts.answers = u32::MAX;
        assert_eq!(Estimate::of(&facts).total(), u64::MAX);
    }
}
