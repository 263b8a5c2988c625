//! The words that a limit is made of.
use std::time::Duration;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Requests.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
    /// Images that a request asks for.
    Images,
    /// Money, in 10⁻¹² US dollars.
    Money,
}

impl Unit {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input tokens",
            Self::OutputTokens => "output tokens",
            Self::Images => "images",
            Self::Money => "dollars",
        }
    }

    pub(crate) fn is_tokens(self) -> bool {
        matches!(self, Self::Tokens | Self::InputTokens | Self::OutputTokens)
    }
}

/// How the other side enforces a limit, or how we do where it is our own.
///
/// A wrong choice costs refusals (a bucket where the provider counts a window) or throughput (a window where it
/// has a bucket), so the default finds out by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Enforcement {
    /// As [`Rolling`](Self::Rolling), which is safe under all of them, until the provider's headers prove a
    /// bucket; back again when a refusal disproves it.
    #[default]
    Auto,
    /// A bucket of `burst` units that fills continuously: OpenAI, Groq, Anthropic. `None`: the whole limit.
    Bucket {
        /// Units that may be sent at once when it is full; at least 1, at most the limit.
        burst: Option<u64>,
    },
    /// No more than the limit in any span of one period.
    Rolling,
    /// A counter that starts anew each period.
    ///
    /// The first window begins with the first request, until a `reset` in the headers tells when it ends. A cap per
    /// calendar period is one too, whose windows are the calendar's.
    Fixed,
    /// A limit that is enforced in slices: 60 a minute as 1 a second.
    Quantised {
        /// Length of a slice; shorter than the period.
        slice: Duration,
    },
}

/// Whose requests share one count.
///
/// Orthogonal to [`Limit::models`](super::Limit::models), which says whose requests a limit concerns at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// All of them.
    #[default]
    Global,
    /// Those of one model, as asked for.
    Model,
    /// Those of one principal: the call's, or else the user whom the request names.
    ///
    /// Such a limit is our own: what the provider says of its limits does not change it.
    Principal,
    /// Those of one tenant ([`CallOptions::tenant`](tollgate_core::call::CallOptions::tenant)); our own likewise.
    Tenant,
    /// Those of one tag ([`CallOptions::tag`](tollgate_core::call::CallOptions::tag)); our own likewise.
    Tag,
    /// Those that are sent with one API key: a digest of `authorization`, `x-api-key`, `api-key` or
    /// `x-goog-api-key` as it stands in the request.
    ///
    /// A rotated key has limits of its own from its first request on.
    ApiKey,
    /// Those for which [`Limit::keyed_by`](super::Limit::keyed_by)'s function gives one key; our own likewise.
    Custom,
}

/// What happens to a request that does not fit just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Exhausted {
    /// It waits in the queue.
    #[default]
    Wait,
    /// It is refused, and told when to come back.
    Refuse,
    /// A function decides ([`Limit::review`](super::Limit::review)).
    Review,
}

/// What a limit of money does with a request whose price is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unpriced {
    /// It is refused, and the refusal names the limit.
    ///
    /// The default: an unknown cost is not zero, and a limit that lets it pass is none.
    #[default]
    Refuse,
    /// It passes, counts nothing, and is counted in [`BudgetSnapshot::unpriced`](crate::BudgetSnapshot::unpriced).
    Pass,
}
