//! Tokens used, and how sure we are of them.

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
    /// Takes over what a later report states, field by field: the last value that is not unknown wins.
    ///
    /// Reports are cumulative at every provider, so nothing is ever added up.
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
