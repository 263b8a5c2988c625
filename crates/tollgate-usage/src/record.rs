//! What is recorded of a call.
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::StatusCode;
use tollgate_core::{
    call::{Attempt, WaitReason},
    extensions::{Reason, ServedBy},
    price::Cost,
    principal::Principal,
    wire::{
        limits::RateLimit,
        outcome::Outcome,
        prompt::Endpoint,
        usage::{Count, Finish, Usage},
    },
};

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordKind {
    /// The whole call, with the answer that the caller got in the end.
    Call,
    /// One attempt: the recorder sits inside a layer that tries again, or inside another recorder.
    Attempt,
}

/// How far the answer came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Completion {
    /// Whole, or up to its terminal event (`[DONE]`, `message_stop`, …).
    Complete,
    /// The caller left before the end, or before there was an answer at all; or the answer just
    /// stopped, without its terminal event or in the middle of a document.
    #[default]
    Partial,
    /// The connection failed, before the answer or within it.
    Failed,
}

/// One call, or one attempt of a call.
///
/// It holds no text of prompt or answer, no key and no user's name.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UsageRecord {
    /// Identifies the call; the records of its attempts have the same.
    pub call: u64,
    /// What this is a record of.
    pub kind: RecordKind,
    /// Another recorder further out records the same call, so a sum must leave this one out.
    pub nested: bool,
    /// The first record of its call, of those that are not [nested](Self::nested): it stands for the
    /// call in a count of calls.
    pub first: bool,
    /// The number of the attempt, from 1: the one that was recorded or, for a call, the last one.
    pub attempt: u32,
    /// The attempts of the call before [`attempt`](Self::attempt); none for a record of an attempt.
    pub failed_attempts: Vec<AttemptRecord>,
    /// When the recorder saw the request.
    pub started: SystemTime,
    /// From then until the answer's end, or until it was given up.
    pub duration: Duration,
    /// From the same moment to the answer's head.
    pub time_to_head: Option<Duration>,
    /// From the same moment to the first generated content.
    pub time_to_first_token: Option<Duration>,
    /// Whom the call was made for: by [`CallOptions`](tollgate_core::call::CallOptions), or else
    /// the user that the request names.
    pub principal: Option<Principal>,
    /// The digest of the credential that the request had when the recorder saw it. A fallback
    /// further in may have put another in its place.
    pub key: Option<Principal>,
    /// What was asked of the provider.
    pub endpoint: Endpoint,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// A background job was asked for: the answer is only an acknowledgement, without usage.
    pub background: bool,
    /// The model that was asked for.
    pub model_asked: Option<Arc<str>>,
    /// The model that answered, by its own account.
    pub model_served: Option<Arc<str>>,
    /// The candidate that a fallback layer chose.
    pub served_by: Option<ServedBy>,
    /// The answer's status; `None`: there was no answer.
    pub status: Option<StatusCode>,
    /// What the answer meant; `None`: the caller left before there was one.
    pub outcome: Option<Outcome>,
    /// A layer of ours refused, and nothing was sent.
    pub refused: Option<Reason>,
    /// How far the answer came.
    pub completion: Completion,
    /// Bytes of the answer's body that were received.
    pub bytes_received: u64,
    /// Token counts as the provider stated them; lower bounds if it did not come to its last word.
    pub usage: Usage,
    /// Whether the answer stated any usage.
    pub has_usage: bool,
    /// For an answer that was cut off: tokens of the text that was received, at four characters
    /// each.
    pub estimated_output: Count,
    /// A tool of the provider's own ran that is charged beside the tokens, so that the cost is a
    /// lower bound.
    pub hosted_tools: bool,
    /// What it cost, by the price of the model that answered at the tier that served.
    pub cost: Cost,
    /// Why generation ended.
    pub finish: Option<Finish>,
    /// The same as sent.
    pub finish_reason: Option<Box<str>>,
    /// The tier that served, as sent.
    pub service_tier: Option<Box<str>>,
    /// The provider's id of the answer.
    pub response_id: Option<Box<str>>,
    /// The limits that the answer's headers stated.
    pub rate_limits: Vec<RateLimit>,
}

/// A record of nothing: for tests of sinks, which cannot write the struct out.
impl Default for UsageRecord {
    fn default() -> Self {
        Self {
            call: 0,
            kind: RecordKind::Call,
            nested: false,
            first: true,
            attempt: 1,
            failed_attempts: Vec::new(),
            started: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            time_to_head: None,
            time_to_first_token: None,
            principal: None,
            key: None,
            endpoint: Endpoint::Other,
            stream: false,
            background: false,
            model_asked: None,
            model_served: None,
            served_by: None,
            status: None,
            outcome: None,
            refused: None,
            completion: Completion::Partial,
            bytes_received: 0,
            usage: Usage::default(),
            has_usage: false,
            estimated_output: Count::Unknown,
            hosted_tools: false,
            cost: Cost::Unknown,
            finish: None,
            finish_reason: None,
            service_tier: None,
            response_id: None,
            rate_limits: Vec::new(),
        }
    }
}

impl UsageRecord {
    /// The model under which it is counted: the one that answered, else the one that was asked in
    /// the end.
    #[must_use]
    pub fn model(&self) -> Option<&Arc<str>> {
        self.model_served.as_ref().or_else(|| self.asked())
    }

    /// The model that was asked in the end.
    pub(crate) fn asked(&self) -> Option<&Arc<str>> {
        let candidate = self.served_by.as_ref().and_then(|by| by.model.as_ref());
        candidate.or(self.model_asked.as_ref())
    }

    /// When the answer had ended, or was given up.
    #[must_use]
    pub fn ended(&self) -> SystemTime {
        self.started
            .checked_add(self.duration)
            .unwrap_or(self.started)
    }

    /// What was done, in the words of OpenTelemetry's `gen_ai.operation.name`: `chat`,
    /// `text_completion`, `generate_content`, `embeddings`; else the endpoint's own name.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self.endpoint {
            Endpoint::ChatCompletions
            | Endpoint::Responses
            | Endpoint::AnthropicMessages
            | Endpoint::CohereChat
            | Endpoint::Converse
            | Endpoint::Ollama => "chat",
            Endpoint::Completions | Endpoint::AnthropicComplete => "text_completion",
            Endpoint::GenerateContent | Endpoint::Interactions => "generate_content",
            Endpoint::Embeddings
            | Endpoint::EmbedContent
            | Endpoint::CohereEmbed
            | Endpoint::OllamaEmbed => "embeddings",
            other => other.as_str(),
        }
    }

    /// A word for each failure, from a short fixed list, fit for a label; `None` for what was
    /// served, and for what the caller left before it was answered.
    #[must_use]
    pub fn error_type(&self) -> Option<&'static str> {
        self.outcome
            .as_ref()
            .filter(|outcome| **outcome != Outcome::Ok)
            .map(Outcome::as_str)
    }

    /// Whether the provider served it, as far as is known.
    #[must_use]
    pub fn served(&self) -> bool {
        self.outcome == Some(Outcome::Ok)
    }

    /// Whether an answer was expected to state what it used.
    #[must_use]
    pub fn metered(&self) -> bool {
        let silent = matches!(
            self.endpoint,
            Endpoint::Other | Endpoint::CountTokens | Endpoint::Moderations
        );
        !silent && !self.endpoint.deferred() && !self.background
    }
}

/// An attempt that did not become the call's answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AttemptRecord {
    /// From 1.
    pub number: u32,
    /// The model asked for.
    pub model: Option<Arc<str>>,
    /// The name of the target, where it is not only another model.
    pub target: Option<Arc<str>>,
    /// The answer's status; `None`: there was none.
    pub status: Option<StatusCode>,
    /// What the answer meant, if a layer judged it.
    pub outcome: Option<Outcome>,
    /// How long a layer waited before it, and why.
    pub waited: Option<(Duration, WaitReason)>,
    /// From its begin to the answer's head, or to the failure.
    pub took: Option<Duration>,
}

impl From<Attempt> for AttemptRecord {
    fn from(attempt: Attempt) -> Self {
        Self {
            number: attempt.number,
            model: attempt.model,
            target: attempt.target,
            status: attempt.status,
            outcome: attempt.outcome,
            waited: attempt.waited,
            took: attempt.took,
        }
    }
}
