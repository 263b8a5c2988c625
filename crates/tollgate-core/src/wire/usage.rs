//! Tokens used, and how sure we are of them.
pub(crate) mod tally;

/// A count that is exact, a lower bound, or unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Count {
    /// Nobody said. Not zero.
    #[default]
    Unknown,
    /// At least this many: the answer was cut off, or only estimated from what was received.
    AtLeast(u64),
    /// The provider's final word.
    Exact(u64),
}

impl Count {
    /// The number, exact or bound; `None` if unknown.
    #[must_use]
    pub fn get(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::AtLeast(n) | Self::Exact(n) => Some(n),
        }
    }

    /// The number if it is exact.
    #[must_use]
    pub fn exact(self) -> Option<u64> {
        match self {
            Self::Exact(n) => Some(n),
            _ => None,
        }
    }

    /// The same number as a lower bound.
    #[must_use]
    pub fn at_least(self) -> Self {
        match self {
            Self::Exact(n) => Self::AtLeast(n),
            other => other,
        }
    }
}

/// Token counts of one answer, in one meaning for all providers.
///
/// `input` counts all input, cached or not; `cached_input` and `cache_write` are parts of it.
/// `output` counts all output; `reasoning` is part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Usage {
    /// All input tokens.
    pub input: Count,
    /// Input read from a cache; part of `input`.
    pub cached_input: Count,
    /// Input written to a cache; part of `input`.
    pub cache_write: Count,
    /// The part of `cache_write` that is kept for an hour (Anthropic).
    pub cache_write_1h: Count,
    /// All output tokens.
    pub output: Count,
    /// Reasoning; part of `output`.
    pub reasoning: Count,
    /// Audio input; part of `input`.
    pub audio_input: Count,
    /// Audio output; part of `output`.
    pub audio_output: Count,
    /// As sent, or the sum where the provider sends none.
    pub total: Count,
}

impl Usage {
    /// The output that is billed: all of the total that is not input, where that is more than the output.
    ///
    /// Gemini's OpenAI-compatible answers leave reasoning out of the output and have it in the total only, unnamed.
    ///
    /// ```
    /// use tollgate_core::wire::usage::{Count, Usage};
    ///
    /// let mut usage = Usage::default();
    /// (usage.input, usage.output) = (Count::Exact(66), Count::Exact(6));
    /// assert_eq!(usage.billed_output(), Count::Exact(6));
    /// usage.total = Count::Exact(100);
    /// assert_eq!(usage.billed_output(), Count::Exact(34));
    /// ```
    #[must_use]
    pub fn billed_output(&self) -> Count {
        match (self.input, self.output, self.total) {
            (Count::Exact(input), Count::Exact(output), Count::Exact(total)) => {
                Count::Exact(output.max(total.saturating_sub(input)))
            }
            _ => self.output,
        }
    }

    /// Takes over what a later report states, field by field: the last value that is not unknown wins.
    ///
    /// Reports are cumulative at every provider, so nothing is ever added up.
    ///
    /// ```
    /// use tollgate_core::wire::usage::{Count, Usage};
    ///
    /// let mut usage = Usage::default();
    /// usage.input = Count::Exact(28);
    /// let mut later = Usage::default();
    /// later.output = Count::Exact(13);
    /// usage.merge(&later);
    /// assert_eq!((usage.input, usage.output), (Count::Exact(28), Count::Exact(13)));
    /// ```
    pub fn merge(&mut self, later: &Self) {
        let take = |mine: &mut Count, theirs: Count| {
            if theirs != Count::Unknown {
                *mine = theirs;
            }
        };
        take(&mut self.input, later.input);
        take(&mut self.cached_input, later.cached_input);
        take(&mut self.cache_write, later.cache_write);
        take(&mut self.cache_write_1h, later.cache_write_1h);
        take(&mut self.output, later.output);
        take(&mut self.reasoning, later.reasoning);
        take(&mut self.audio_input, later.audio_input);
        take(&mut self.audio_output, later.audio_output);
        take(&mut self.total, later.total);
    }
}

/// Why generation ended, in one vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Finish {
    /// A natural end or a stop sequence.
    Stop,
    /// The output cap or the context window was reached.
    Length,
    /// The model calls a tool.
    ToolCalls,
    /// A filter cut or refused it.
    ContentFilter,
    /// The provider failed while generating.
    Error,
    /// Anything else, or nothing said.
    Other,
}

impl Finish {
    /// The name, lower-case with underscores: `stop`, `tool_calls`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Error => "error",
            Self::Other => "other",
        }
    }

    /// Takes a reason as providers spell it. Anything unknown is [`Other`](Self::Other).
    #[must_use]
    pub fn named(reason: &str) -> Self {
        let mut lower = [0u8; 32];
        let Some(lower) = lower.get_mut(..reason.len()) else {
            return Self::Other;
        };
        lower.copy_from_slice(reason.as_bytes());
        lower.make_ascii_lowercase();
        match &*lower {
            b"stop" | b"end_turn" | b"stop_sequence" | b"complete" | b"completed" | b"eos"
            | b"eos_token" | b"finish" => Self::Stop,
            b"length"
            | b"max_tokens"
            | b"max_output_tokens"
            | b"model_context_window_exceeded"
            | b"incomplete:max_output_tokens" => Self::Length,
            b"tool_calls" | b"tool_call" | b"tool_use" | b"function_call" => Self::ToolCalls,
            b"content_filter"
            | b"content_filtered"
            | b"incomplete:content_filter"
            | b"refusal"
            | b"safety"
            | b"recitation"
            | b"blocklist"
            | b"prohibited_content"
            | b"spii"
            | b"image_safety"
            | b"guardrail_intervened" => Self::ContentFilter,
            b"error" | b"failed" => Self::Error,
            _ => Self::Other,
        }
    }

    /// Takes Gemini's reason when it was asked for numbers in the place of names.
    pub(crate) fn numbered(reason: u64) -> Self {
        match reason {
            1 => Self::Stop,
            2 => Self::Length,
            // 6 and above differ between Gemini and Vertex, except for the two lists of forbidden things.
            3 | 4 | 7 | 8 => Self::ContentFilter,
            _ => Self::Other,
        }
    }
}
