//! What the operator is told: once for each change, not for each call.
use http::HeaderMap;
use tokio::time::Instant;
use tollgate_core::wire::outcome::Outcome;

use crate::health::Slot;

/// What changed for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It was well, and is left alone until then.
    LeftAlone(Instant),
    /// It is well again.
    Back,
    /// It does not exist (any more), and nobody was told.
    Gone,
    /// It still serves, and says that it will not for ever; nobody was told.
    Deprecated,
}

/// Whether an answer says that what gave it will be gone: `deprecation` (RFC 9745) or `sunset`
/// (RFC 8594).
pub(crate) fn is_deprecated(headers: &HeaderMap) -> bool {
    headers.contains_key("deprecation") || headers.contains_key("sunset")
}

impl News {
    /// As an event of `tracing`, without a key or a URL.
    pub(crate) fn tell(self, slot: &Slot, outcome: &Outcome, now: Instant) {
        let (model, at) = (slot.model.as_deref(), slot.target.as_deref());
        match self {
            Self::LeftAlone(until) => tracing::warn!(
                target: "tollgate::fallback",
                model,
                at,
                ?outcome,
                seconds = (until - now).as_secs_f64(),
                "a target failed and is left alone",
            ),
            Self::Back => tracing::info!(
                target: "tollgate::fallback", model, at, "a target is well again",
            ),
            Self::Deprecated => tracing::warn!(
                target: "tollgate::fallback", model, at, "the provider says that the model is deprecated",
            ),
            Self::Gone => tracing::warn!(
                target: "tollgate::fallback",
                model,
                at,
                "the model does not exist (any more); the next one of the chain is tried",
            ),
        }
    }
}
