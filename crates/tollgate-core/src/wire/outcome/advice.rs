//! The one decision table: who does what after an outcome.
use super::{Outcome, TimeoutKind};

/// What to do about the same model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SameModel {
    /// It was served: nothing.
    Done,
    /// Never again.
    Never,
    /// After the stated wait or, without one, a back-off; through the shared gate. Not if the wait is beyond
    /// cap or deadline.
    AfterWait,
    /// After a back-off.
    Backoff,
    /// After a back-off, if the policy allows a request to be sent twice that may have been served.
    IfResend,
    /// One more try, for the server asked for it.
    Once,
}

/// What to do about the next model of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NextModel {
    /// It was served: nothing.
    Done,
    /// Never.
    Never,
    /// Only if the caller said so.
    IfTold,
    /// At once.
    Now,
    /// When the wait is longer than the policy allows.
    IfWaitTooLong,
    /// When the retries are used up.
    WhenRetriesUsedUp,
    /// Likewise, if the policy allows a request to be sent twice that may have been served.
    IfResend,
    /// Only one under another credential; this credential is dead for a while.
    OtherCredential,
    /// One that the request fits.
    Larger,
}

/// What becomes of the reserved units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Units {
    /// Settled with the real usage.
    Settle,
    /// Tokens are given back, the request is counted.
    TokensBack,
    /// Both are given back.
    AllBack,
    /// Both are kept: the provider may have charged them.
    Keep,
}

/// A row of the decision table: who does what after an outcome. See [`Outcome::advice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Advice {
    /// Retry.
    pub same_model: SameModel,
    /// Fallback.
    pub next_model: NextModel,
    /// Budget.
    pub units: Units,
}

impl Outcome {
    /// The one decision table.
    ///
    /// | outcome | same model | next model | reserved units |
    /// |---|---|---|---|
    /// | served | – | – | settled with the real usage |
    /// | rate limited | after the wait | if the wait is longer than the policy | tokens back |
    /// | rate limited, never fits | never | a larger one | tokens back |
    /// | quota exhausted, unauthorized | never | only under another credential | tokens back |
    /// | overloaded, server error | back-off | when retries are used up | tokens back |
    /// | unreachable or no connection in time, nothing sent | back-off | when retries are used up | both back |
    /// | unreachable after sending, timeout, broken | by the resend policy | likewise | kept |
    /// | too long | never | a larger one | tokens back |
    /// | model gone | never | now | tokens back |
    /// | content refused | never | only if told | kept |
    /// | invalid | never | never | tokens back |
    ///
    /// "Tokens back" keeps the request itself counted, for providers count failed requests.
    #[must_use]
    pub fn advice(&self) -> Advice {
        let row = |same_model, next_model, units| Advice {
            same_model,
            next_model,
            units,
        };
        match self {
            Self::Ok => row(SameModel::Done, NextModel::Done, Units::Settle),
            Self::RateLimited {
                never_fits: true, ..
            }
            | Self::TooLong => row(SameModel::Never, NextModel::Larger, Units::TokensBack),
            Self::RateLimited { .. } => row(
                SameModel::AfterWait,
                NextModel::IfWaitTooLong,
                Units::TokensBack,
            ),
            Self::QuotaExhausted | Self::Unauthorized => row(
                SameModel::Never,
                NextModel::OtherCredential,
                Units::TokensBack,
            ),
            Self::Overloaded | Self::ServerError => row(
                SameModel::Backoff,
                NextModel::WhenRetriesUsedUp,
                Units::TokensBack,
            ),
            Self::Unreachable { sent: false }
            | Self::Timeout {
                what: TimeoutKind::Connect,
            } => row(
                SameModel::Backoff,
                NextModel::WhenRetriesUsedUp,
                Units::AllBack,
            ),
            Self::Unreachable { sent: true } | Self::Timeout { .. } | Self::Broken => {
                row(SameModel::IfResend, NextModel::IfResend, Units::Keep)
            }
            Self::ModelGone => row(SameModel::Never, NextModel::Now, Units::TokensBack),
            Self::ContentRefused => row(SameModel::Never, NextModel::IfTold, Units::Keep),
            Self::Invalid => row(SameModel::Never, NextModel::Never, Units::TokensBack),
        }
    }
}
